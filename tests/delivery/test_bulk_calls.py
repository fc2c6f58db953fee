"""Bulk calls one by one: what goes in which call, what is repeated, and when a lane may go on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from journal_helpers import GUID, Book, FakeClock

from agent import config
from agent.change import Change
from agent.contact import Key
from agent.delivery.batch import bulk
from agent.delivery.batch.bulk import BulkUploader
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.spool import Spool
from agent.delivery.batch.verify import Engage
from agent.delivery.link import Link
from agent.errors import (
    EngageFailed,
    LineLost,
    NotWithdrawn,
    Refused,
    RouteError,
    SeveralMatch,
    Throttled,
    Unreachable,
)
from agent.journal import batches, marker
from agent.journal.batches import Batch, Member

POLL_S, GRACE_S = 60, 3600
TOML = f"""
[store]
id = "0042"
till = "1"
[engage]
base_url = "https://acme.voyado.com"
[journal]
path = "journal.db"
[fallback]
transport = "bulk"
spool = "spool"
import_grace_s = {GRACE_S}
[sftp]
poll_s = {POLL_S}
"""
NAME = "20261121110000_0042-1-000001_contacts.xml"


class FakeQueue:
    """Engage's bulk calls with a queue that moves only when a test says so."""

    def __init__(self) -> None:
        self.contacts: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, list[dict[str, Any]]]] = []
        self.queued: list[tuple[str, dict[str, Any]]] = []
        self.trouble: list[RouteError | None] = []  # how the next calls end
        self.loses = False  # the trouble comes after the call was queued
        self.several: set[str] = set()
        self.looked_up: list[str] = []
        self.on_look_up: Callable[[], Awaitable[None]] | None = None

    async def send(self, method: str, kind: str, contacts: Sequence[Mapping[str, Any]]) -> str:
        self.calls.append((method, kind, [dict(each) for each in contacts]))
        self.looked_up.append("queued")
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is None or self.loses:
            self.queued += [(method, dict(each)) for each in contacts]
        if trouble is not None:
            raise trouble
        return f'"receipt {len(self.calls)}"'

    def work(self) -> None:
        """Do what is queued. A create makes a contact, whoever is there already."""
        for method, body in self.queued:
            contact_id = body.pop("contactId", None)
            found = contact_id or self._id_of(body.get("email"))
            if method == "POST" or found is None:
                found = str(uuid.uuid4())
            self.contacts.setdefault(found, {}).update(body)
        self.queued.clear()

    def _id_of(self, email: Any) -> str | None:
        found = (guid for guid, each in self.contacts.items() if each.get("email") == email)
        return next(found, None)

    async def look_up(self, keys: Sequence[Key], _: str | None) -> str | None:
        (email,) = [key.value for key in keys if key.name == "email"]
        self.looked_up.append(email)
        if self.on_look_up is not None:
            await self.on_look_up()
        if email in self.several:
            raise SeveralMatch
        return self._id_of(email)

    async def fetch(self, contact_id: str) -> dict[str, Any]:
        return {"id": contact_id, "attributes": self.contacts[contact_id], "meta": {}}

    async def patch(self, contact_id: str, body: dict[str, Any]) -> None:
        self.contacts[contact_id].update(body)

    async def make_member(self, contact_id: str) -> None:
        raise AssertionError("what a bulk call brought is for the verifier to look up")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def book(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Book]:
    async with Book(tmp_path / "journal.db", clock) as opened:
        yield opened


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def start(
    tmp_path: Path, book: Book, queue: FakeQueue, clock: FakeClock
) -> Callable[[], BulkUploader]:
    """Make an uploader on the journal, as an agent's start does."""
    (tmp_path / "agent.toml").write_text(TOML)
    settings = config.load(tmp_path / "agent.toml")

    def started() -> BulkUploader:
        link = Link(clock, offline_after=3)
        sealer = Sealer(settings, book.journal, Spool(tmp_path / "spool"), link, clock)
        engage = Engage(
            queue.look_up, queue.fetch, queue.patch, queue.make_member, is_open=lambda: True
        )
        return BulkUploader(settings, book.journal, sealer, queue.send, engage, lambda: True, clock)

    return started


@pytest.fixture
def uploader(start: Callable[[], BulkUploader]) -> BulkUploader:
    return start()


async def sealed(
    book: Book, *asked: Change, kinds: Sequence[str] = ("Member",), number: int = 1
) -> None:
    """Put each change into a batch as one contact; contact types take turns."""
    name = NAME.replace("000001", f"{number:06}")

    def work(db: Any) -> None:
        members = [
            Member(
                change.contact.lane,
                change.contact.contact_id,
                kinds[place % len(kinds)],
                None,
                (change,),
            )
            for place, change in enumerate(asked)
        ]
        now = "2026-11-21T11:00:00.000Z"
        batches.seal(db, number, name, with_id=False, members=members, now=now)
        batches.note_written(db, number)

    await book.journal.write(work)


async def batch(book: Book) -> Batch:
    return await book.journal.read(lambda db: batches.get(db, NAME))


async def passes(uploader: BulkUploader, clock: FakeClock, seconds: float) -> None:
    """Let time pass, with the uploader looking around now and then."""
    for _ in range(int(seconds // 30)):
        clock.pass_s(30)
        await uploader.turn()


def sizes(queue: FakeQueue) -> list[tuple[str, str, int]]:
    return [(method, kind, len(contacts)) for method, kind, contacts in queue.calls]


# --- what goes in which call ----------------------------------------------------------------------


async def test_a_call_has_contacts_of_one_type_and_no_more_than_engage_takes(
    book: Book, uploader: BulkUploader, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_CONTACTS", 2)
    await sealed(book, *[await book.create() for _ in range(7)], kinds=("Member", "Contact"))

    await uploader.turn()

    assert sizes(queue) == [
        ("POST", "Member", 2),
        ("POST", "Contact", 2),
        ("POST", "Member", 2),
        ("POST", "Contact", 1),
    ]


def test_engages_own_limit_is_four_thousand() -> None:
    assert bulk.MOST_CONTACTS == 4000


async def test_whom_engage_has_already_is_updated_and_not_created(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    queue.contacts[GUID] = {"email": "known@example.test"}
    await sealed(book, await book.create("known@example.test"), await book.create())

    await uploader.turn()
    queue.work()

    assert sorted(sizes(queue)) == [("PATCH", "Member", 1), ("POST", "Member", 1)]
    assert len(queue.contacts) == 2
    assert queue.contacts[GUID]["firstName"]


async def test_whom_engage_has_already_keeps_country_and_store(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    queue.contacts[GUID] = {"email": "ola@example.test", "countryCode": "NO"}
    filled_in = {"defaults": {"countryCode": "SE"}, "source": "POS", "store_external_id": "0042"}
    known = await book.create("ola@example.test", **filled_in)
    await sealed(book, known, await book.create("vera@example.test", **filled_in))

    await uploader.turn()

    bodies = {body["email"]: body for _, _, contacts in queue.calls for body in contacts}
    assert bodies["ola@example.test"] == {**known.payload.attributes, "contactId": GUID}
    new = bodies["vera@example.test"]
    assert (new["countryCode"], new["createdInStore"]) == ("SE", "0042")


async def test_what_engage_answered_is_kept_with_the_batch(
    book: Book, uploader: BulkUploader
) -> None:
    await sealed(book, await book.create())

    await uploader.turn()

    kept = await batch(book)
    assert (kept.state, kept.receipt) == ("uploaded", '"receipt 1"')


async def test_after_the_import_what_engage_answered_stands_only_where_it_is_forgotten_in_time(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    await uploader.turn()
    queue.work()

    await passes(uploader, clock, 3 * POLL_S)

    kept = await batch(book)
    assert (kept.state, kept.receipt, kept.calls) == ("imported", '"receipt 1"', None)


async def test_whom_engage_does_not_single_out_is_left_out_and_the_others_go(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    queue.several.add("several@example.test")
    await sealed(book, await book.create("several@example.test"), await book.create())

    await uploader.turn()

    assert sizes(queue) == [("POST", "Member", 1)]


# --- on a line on which some calls fail ----------------------------------------------------------


async def test_look_ups_go_on_where_one_failed(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, *[await book.create() for _ in range(10)])

    async def fail_now_and_then() -> None:
        if len(queue.looked_up) % 2:
            raise EngageFailed(status=503)

    queue.on_look_up = fail_now_and_then

    for _ in range(15):
        clock.pass_s(30)
        await uploader.turn()

    assert sizes(queue) == [("POST", "Member", 10)]
    assert uploader.problem is None
    asked_before = queue.looked_up[: queue.looked_up.index("queued")]
    assert len(asked_before) == 20  # each failed once


async def test_a_contact_whose_look_up_always_fails_keeps_no_other_from_engage(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    addresses = [f"{name}@example.test" for name in ("a", "b", "never", "c")]
    await sealed(book, *[await book.create(address) for address in addresses])

    async def fail_for_one() -> None:
        if queue.looked_up[-1] == "never@example.test":
            raise EngageFailed(status=500)

    queue.on_look_up = fail_for_one
    await passes(uploader, clock, 10 * 60)
    soon, told = sizes(queue), set()
    for _ in range(240):
        await passes(uploader, clock, 30)
        told.add(uploader.problem)

    assert soon == [("POST", "Member", 2)]
    assert any("do not get on" in str(problem) for problem in told)
    assert sizes(queue) == [("POST", "Member", 2), ("POST", "Member", 1)]
    assert ((await batch(book)).state, uploader.problem) == ("imported", None)


async def test_who_was_not_there_long_ago_is_looked_up_again_before_the_create(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create("vera@example.test"))
    queue.trouble = [Throttled(status=429)]
    await uploader.turn()
    queue.contacts[GUID] = {"email": "vera@example.test"}  # by the web shop

    clock.pass_s(bulk.KNOWN_FOR_S)
    uploader.hurry()
    await uploader.turn()
    queue.work()

    assert [method for method, _, _ in queue.calls] == ["POST", "PATCH"]
    assert len(queue.contacts) == 1


async def test_a_slow_pace_makes_several_calls_and_lets_other_batches_have_their_turn(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, *[await book.create() for _ in range(20)])
    await sealed(book, await book.update(GUID), number=2)
    queue.contacts[GUID] = {}

    async def take_a_minute() -> None:
        clock.pass_s(60)

    queue.on_look_up = take_a_minute
    await uploader.turn()
    first_turn = sizes(queue)
    await passes(uploader, clock, 25 * 60)

    assert first_turn == [("PATCH", "Member", 1)]
    posted = [contacts for method, _, contacts in queue.calls if method == "POST"]
    assert 1 < len(posted) < 10
    assert len({each["email"] for contacts in posted for each in contacts}) == 20
    assert sum(map(len, posted)) == 20


# --- when a lane may go on ------------------------------------------------------------------------


async def test_lanes_stay_where_they_are_until_the_queue_has_worked_on_the_call(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    create = await book.create()
    await sealed(book, create)
    await uploader.turn()

    await passes(uploader, clock, 10 * POLL_S)
    waiting = (await batch(book)).state
    newer = await book.update(create.contact.ref)
    claimed = await book.claim(newer)
    queue.work()
    await passes(uploader, clock, 3 * POLL_S)

    assert (waiting, claimed) == ("uploaded", None)
    assert (await batch(book)).state == "imported"


async def test_after_the_first_sign_the_rest_of_the_call_gets_some_time_too(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    await uploader.turn()
    queue.work()

    await passes(uploader, clock, 1.5 * POLL_S)

    assert (await batch(book)).state == "uploaded"


async def test_updates_that_change_nothing_wait_for_the_end_of_the_grace(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    queue.contacts[GUID] = {"city": "Lund"}
    await sealed(book, await book.update(GUID, {"city": "Lund"}))
    await uploader.turn()
    queue.work()

    await passes(uploader, clock, GRACE_S - POLL_S)
    before = (await batch(book)).state
    await passes(uploader, clock, 3 * POLL_S)

    assert (before, (await batch(book)).state) == ("uploaded", "imported")


async def test_after_a_restart_the_queue_gets_its_time_again(
    book: Book, start: Callable[[], BulkUploader], queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    await start().turn()
    queue.work()

    again = start()
    await again.turn()
    at_once = (await batch(book)).state
    await passes(again, clock, 3 * POLL_S)

    assert (at_once, (await batch(book)).state) == ("uploaded", "imported")


# --- answers that are lost ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LineLost(), EngageFailed(status=503)])
async def test_a_create_whose_answer_was_lost_is_not_sent_again_once_it_shows(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock, error: RouteError
) -> None:
    await sealed(book, await book.create(), await book.create())
    queue.trouble, queue.loses = [error], True
    await uploader.turn()
    await passes(uploader, clock, 5 * POLL_S)
    nobody_knows = len(queue.calls), (await batch(book)).state

    queue.work()
    await passes(uploader, clock, 5 * POLL_S)

    assert nobody_knows == (1, "written")
    assert (len(queue.calls), (await batch(book)).state) == (1, "imported")
    assert len(queue.contacts) == 2


async def test_a_create_of_which_nothing_shows_is_sent_again_after_the_grace(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create(), await book.create())
    queue.trouble = [LineLost()]
    await uploader.turn()

    await passes(uploader, clock, GRACE_S + 2 * POLL_S)
    queue.work()

    assert sizes(queue) == [("POST", "Member", 2)] * 2
    assert len(queue.contacts) == 2


async def test_a_restart_does_not_forget_that_a_create_may_have_been_queued(
    book: Book, start: Callable[[], BulkUploader], queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    queue.trouble, queue.loses = [LineLost()], True
    await start().turn()

    again = start()
    await passes(again, clock, 5 * POLL_S)

    assert len(queue.calls) == 1


async def test_calls_of_a_restored_backup_are_planned_anew_with_fresh_look_ups(
    book: Book, start: Callable[[], BulkUploader], queue: FakeQueue
) -> None:
    await sealed(book, await book.create("vera@example.test"))
    queue.trouble = [Unreachable()]
    await start().turn()
    queue.contacts[GUID] = {"email": "vera@example.test"}  # made after the backup was taken
    await book.journal.write(marker.doubt_everything)

    await start().turn()

    assert sizes(queue) == [("POST", "Member", 1), ("PATCH", "Member", 1)]


async def test_an_update_whose_answer_was_lost_may_be_queued_though_the_next_try_was_refused(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    queue.contacts[GUID] = {"city": "Lund"}
    await sealed(book, await book.update(GUID, {"city": "Ystad"}))
    queue.trouble = [EngageFailed(), Throttled(status=429)]

    await uploader.turn()
    uploader.hurry()
    await uploader.turn()

    assert (len(queue.calls), (await batch(book)).by_bulk) == (2, True)
    with pytest.raises(NotWithdrawn, match="queued"):
        await uploader.withdraw(NAME)


async def test_an_update_whose_answer_was_lost_is_sent_again_and_says_the_same(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    queue.contacts[GUID] = {"city": "Lund"}
    await sealed(book, await book.update(GUID, {"city": "Ystad"}))
    queue.trouble, queue.loses = [EngageFailed()], True
    await uploader.turn()

    await passes(uploader, clock, POLL_S)
    queue.work()

    assert queue.calls[0] == queue.calls[1]
    assert (await batch(book)).state == "uploaded"
    assert queue.contacts[GUID]["city"] == "Ystad"


async def test_a_call_that_was_queued_is_not_sent_again_because_the_next_one_failed(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, *[await book.create() for _ in range(2)], kinds=("Member", "Contact"))
    queue.trouble = [None, Throttled()]
    await uploader.turn()

    await passes(uploader, clock, POLL_S)

    assert [kind for _, kind, _ in queue.calls] == ["Member", "Contact", "Contact"]


@pytest.mark.parametrize("error", [Unreachable(), Throttled(status=429)])
async def test_a_call_that_was_certainly_not_queued_is_simply_sent_again(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock, error: RouteError
) -> None:
    await sealed(book, await book.create())
    queue.trouble = [error]
    await uploader.turn()

    await passes(uploader, clock, POLL_S)

    assert len(queue.calls) == 2
    assert (await batch(book)).state == "uploaded"


# --- a person -------------------------------------------------------------------------------------


async def test_a_refused_call_is_told_and_its_batch_can_be_taken_back(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    create = await book.create()
    await sealed(book, create)
    queue.trouble = [Refused(status=422)]
    await uploader.turn()

    told = uploader.problem
    withdrawn = await uploader.withdraw(NAME)

    assert told is not None and f"till-agent batches withdraw {NAME}" in told
    assert (withdrawn.state, await book.state(create)) == ("withdrawn", "waiting")
    assert uploader.problem is None


async def test_a_refused_batch_holds_up_no_other(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    await sealed(book, await book.create())
    await sealed(book, await book.create(), number=2)
    queue.trouble = [Refused(status=422)]

    await uploader.turn()

    states = [each.state for each in await book.journal.read(lambda db: batches.listing(db, 2))]
    assert states == ["uploaded", "written"]


async def test_tries_that_bring_nothing_are_told_with_what_to_do(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    queue.trouble = [Throttled()] * 5

    told = []
    for _ in range(5):
        await uploader.turn()
        told.append(uploader.problem)
        clock.pass_s(600)
    await uploader.turn()

    assert told[:4] == [None] * 4
    assert f"till-agent batches withdraw {NAME}" in (told[4] or "")
    assert uploader.problem is None


async def test_a_batch_can_be_taken_back_while_its_contacts_are_looked_up(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    creates = [await book.create() for _ in range(3)]
    await sealed(book, *creates)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await answer.wait()

    queue.on_look_up = wait
    turn = asyncio.create_task(uploader.turn())
    await asked.wait()

    withdrawn = await uploader.withdraw(NAME)
    answer.set()
    await turn
    await uploader.turn()

    assert withdrawn.state == "withdrawn"
    assert [await book.state(create) for create in creates] == ["waiting"] * 3
    assert (queue.calls, len(queue.looked_up)) == ([], 1)


async def test_a_batch_of_which_a_call_is_under_way_is_not_waited_for_without_end(
    book: Book,
    start: Callable[[], BulkUploader],
    queue: FakeQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "_PATIENCE_S", 0.01)
    await sealed(book, await book.create())
    sending, answer, send = asyncio.Event(), asyncio.Event(), queue.send

    async def hang(*call: Any) -> str:
        sending.set()
        await answer.wait()
        return await send(*call)

    monkeypatch.setattr(queue, "send", hang)
    uploader = start()
    turn = asyncio.create_task(uploader.turn())
    await sending.wait()

    with pytest.raises(NotWithdrawn, match="under way"):
        await uploader.withdraw(NAME)

    answer.set()
    await turn
    assert (await batch(book)).state == "uploaded"


async def test_what_engage_has_queued_cannot_be_taken_back(
    book: Book, uploader: BulkUploader
) -> None:
    await sealed(book, await book.create())
    await uploader.turn()

    with pytest.raises(NotWithdrawn, match="queued"):
        await uploader.withdraw(NAME)


async def test_a_file_that_may_have_gone_by_sftp_is_left_to_sftp_and_told(
    book: Book, uploader: BulkUploader, queue: FakeQueue, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    await sealed(book, await book.create(), number=2)

    def try_to_upload(db: Any) -> None:
        batches.note_manifest(db, 1, "0" * 64, 100)
        batches.note_full_size(db, NAME)  # and then the answer to the rename was lost

    await book.journal.write(try_to_upload)

    await passes(uploader, clock, GRACE_S + 2 * POLL_S)

    assert ((await batch(book)).state, len(queue.calls)) == ("written", 1)
    assert uploader.problem is not None and NAME in uploader.problem
    with pytest.raises(NotWithdrawn, match="Set it to sftp again and take the file back then"):
        await uploader.withdraw(NAME)


async def test_a_batch_of_which_engage_took_nothing_is_free_for_the_other_transport(
    book: Book, uploader: BulkUploader, queue: FakeQueue
) -> None:
    await sealed(book, *[await book.create() for _ in range(2)], kinds=("Member", "Contact"))
    queue.trouble = [Throttled(status=429)]
    await uploader.turn()
    free = not (await batch(book)).by_bulk

    queue.trouble = [None, Throttled(status=429)]
    uploader.hurry()
    await uploader.turn()

    assert (free, (await batch(book)).by_bulk) == (True, True)


async def test_a_file_that_went_by_sftp_is_left_to_sftp_and_told(
    book: Book, uploader: BulkUploader, clock: FakeClock
) -> None:
    await sealed(book, await book.create())
    await book.journal.write(lambda db: batches.note_uploaded(db, NAME, "2026-11-21T11:00:00.000Z"))

    await passes(uploader, clock, GRACE_S + 2 * POLL_S)

    assert (await batch(book)).state == "uploaded"
    assert uploader.problem is not None and NAME in uploader.problem
