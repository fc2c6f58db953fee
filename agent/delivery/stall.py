"""Notices what grows old although the line is up: a change that waits to be sent, or an imported
one that Engage does not let us look up. Stuck must never be silent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from agent.change import Change
from agent.clock import Clock
from agent.delivery.batch.unanswered import Unanswered
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link, LinkState
from agent.journal import changes
from agent.journal.changes import Attempt
from agent.journal.journal import Journal

# Seen at the latest so long after it began, together with how often it is looked for: 2 minutes.
STALLED_AFTER_S = 100.0


class StallDetector:
    """Looked at now and then; `problem` and `look_up_problem` say what is stuck and why, for the
    page."""

    def __init__(
        self,
        journal: Journal,
        link: Link,
        gate: RouteGate,
        clock: Clock,
        unanswered: Callable[[], Unanswered | None] = lambda: None,
    ) -> None:
        """`unanswered`: whom of an import Engage has not let us look up for the longest time."""
        self._journal = journal
        self._link = link
        self._gate = gate
        self._clock = clock
        self._unanswered = unanswered
        self._head: str | None = None  # the change that was the oldest at the last look
        self._since = clock.monotonic()
        self.problem: str | None = None
        self.look_up_problem: str | None = None

    async def look(self) -> None:
        """Compare the oldest free change with the one of the last look. Raises JournalUnavailable.

        A route that is halted or paused, and a line that is down, say for themselves why nothing
        moves.
        """
        flows = self._gate.is_open and self._link.state is not LinkState.OFFLINE
        self.look_up_problem = self._look_up_words() if flows else None
        found = await self._journal.read(changes.oldest_free)
        if found is None or not flows or found[0].id != self._head:
            self._head = found[0].id if found and flows else None
            self._since = self._clock.monotonic()
            self.problem = None
        elif self._clock.monotonic() - self._since >= STALLED_AFTER_S:
            self.problem = self._words(*found)

    def _words(self, change: Change, last: Attempt | None) -> str:
        age = self._clock.now() - datetime.fromisoformat(change.created_at)
        minutes = max(2, round(age.total_seconds() / 60))
        cause = _cause(last)
        return (
            f"A change has waited for {minutes} minutes although the line is up: "
            f"{_in_the_sentence(cause)} "
            "It is kept and tried again by itself. If this goes on, ask Voyado whether Engage has "
            f"trouble, and look at change {change.id}."
        )

    def _look_up_words(self) -> str | None:
        stuck = self._unanswered()
        if stuck is None or (age_s := self._clock.monotonic() - stuck.since) < STALLED_AFTER_S:
            return None
        return (
            "What an import did with a change could not be looked up for "
            f"{max(2, round(age_s / 60))} minutes although the line is up: "
            f"{_in_the_sentence(stuck.cause)} "
            "It is looked up again by itself, and later changes of this customer wait for it. If "
            "this goes on, ask Voyado whether Engage has trouble, and look at change "
            f"{stuck.change}."
        )


def _in_the_sentence(cause: str) -> str:
    return cause if cause.startswith("Engage") else f"{cause[0].lower()}{cause[1:]}"


def _cause(last: Attempt | None) -> str:
    if last is None:
        return "it was not tried yet."
    if last.outcome == "rejected":
        # Engage's words stay with the change; the page is for everybody's eyes.
        return f"it was refused before ({last.code})."
    return last.message or f"its last try ended as {last.outcome}."
