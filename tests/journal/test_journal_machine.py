"""Any order of what intake, dispatcher and people do: counts are true, order holds, nothing goes.

One journal on disk against a small model, driven by hypothesis.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from journal_helpers import Book, FakeClock

from agent.change import State
from agent.journal import changes, states

PEOPLE = tuple(f"person{number}@example.test" for number in range(3))
GUIDS = tuple(f"{number}b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9" for number in range(3))


class JournalMachine(RuleBasedStateMachine):
    """What may happen to a journal, in any order."""

    refs = Bundle("refs")
    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.recorded: list[str] = []
        self.pruned = 0
        self.under_way = 0
        self.reopen()

    def reopen(self) -> None:
        self.book = Book(Path(self.folder.name) / "journal.db", self.clock)
        self.runner.run(self.book.open())

    def teardown(self) -> None:
        self.runner.run(self.book.close())
        self.runner.close()
        self.folder.cleanup()

    # --- what happens -------------------------------------------------------------------------

    @rule(target=refs, email=st.sampled_from(PEOPLE))
    def sign_up(self, email: str) -> str:
        change = self.runner.run(self.book.create(email))
        self.recorded.append(change.id)
        return change.contact.ref

    @rule(ref=refs)
    def update(self, ref: str) -> None:
        self.recorded.append(self.runner.run(self.book.update(ref)).id)

    @rule(ref=refs)
    def upgrade(self, ref: str) -> None:
        self.recorded.append(self.runner.run(self.book.upgrade(ref)).id)

    @rule(target=claims)
    def claim(self):
        due = self.runner.run(self.book.due())
        if not due:
            return multiple()
        claim = self.runner.run(self.book.claim(due[0]))
        assert claim is not None, "a lane that is due gives out its head"
        self.under_way += 1
        return claim

    @rule(
        claim=consumes(claims),
        move=st.sampled_from([states.DELIVER, states.DEFER, states.LOSE, states.REJECT]),
        guid=st.sampled_from(GUIDS),
    )
    def settle(self, claim, move: states.Move, guid: str) -> None:
        contact_id = guid if move is states.DELIVER else None
        unknown = move is states.LOSE
        self.runner.run(self.book.settle(claim, move, contact_id=contact_id, unknown=unknown))
        self.under_way -= 1

    @rule(choice=st.randoms(use_true_random=False), what=st.sampled_from(["retry", "discard"]))
    def a_person_acts(self, choice, what: str) -> None:
        page = self.runner.run(
            self.book.journal.read(
                partial(changes.listing, state=State.REJECTED, limit=50, after=None)
            )
        )
        if page.items:
            self.runner.run(getattr(self.book, what)(choice.choice(page.items)))

    @rule()
    def prune(self) -> None:
        self.pruned += self.runner.run(
            self.book.journal.write(partial(changes.prune, before="2027", limit=3))
        )

    @precondition(lambda self: self.under_way == 0)
    @rule()
    def restart(self) -> None:
        self.runner.run(self.book.close())
        self.reopen()

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def the_kept_counts_are_what_counting_gives(self) -> None:
        kept = Counter(self.runner.run(self.book.counts()))
        counted = Counter(dict(self.rows("SELECT state, count(*) FROM changes GROUP BY state")))

        assert kept - counted == counted - kept == Counter()

    @invariant()
    def nothing_that_was_recorded_is_gone(self) -> None:
        (stored,) = self.rows("SELECT count(*) FROM changes")[0]

        assert stored + self.pruned == len(self.recorded)

    @invariant()
    def at_most_one_claim_of_a_lane_is_under_way(self) -> None:
        leases = self.rows(
            "SELECT lane, count(DISTINCT lease) FROM changes WHERE state = 'sending' GROUP BY lane"
        )

        assert all(count == 1 for _, count in leases)

    @invariant()
    def what_is_final_holds_nothing_and_what_is_open_holds_its_lane(self) -> None:
        wrong = self.rows(
            "SELECT id FROM changes WHERE holds <> (state IN ('waiting', 'sending'))"
            " AND NOT (state = 'rejected' AND kind = 'create')"
        )

        assert wrong == []

    @invariant()
    def the_head_of_a_lane_is_never_marked_as_behind(self) -> None:
        heads = self.rows(
            "SELECT behind FROM changes ch WHERE holds = 1 AND NOT EXISTS"
            " (SELECT 1 FROM changes e WHERE e.lane = ch.lane AND e.holds = 1 AND e.seq < ch.seq)"
        )

        assert all(behind == 0 for (behind,) in heads)

    @invariant()
    def no_guid_belongs_to_two_contacts_and_no_change_to_a_joined_one(self) -> None:
        assert (
            self.rows(
                "SELECT ch.id FROM changes ch JOIN contacts co ON co.lane = ch.lane"
                " WHERE co.joined IS NOT NULL"
            )
            == []
        )

    def rows(self, query: str) -> list:
        return self.runner.run(self.book.rows(query))


JournalMachine.TestCase.settings = settings(
    max_examples=settings.default.max_examples // 5,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWhateverHappensToAJournal = JournalMachine.TestCase
