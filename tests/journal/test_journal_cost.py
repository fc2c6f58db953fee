"""What a question to the journal costs: it may not grow with what else stands in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from journal_helpers import GUID, Book, FakeClock

from agent.change import State
from agent.contact import Key
from agent.journal import batches, changes, contacts
from agent.journal.batches import Member
from agent.journal.driver import Connection

Question = Callable[[Connection], Any]
NOW = "2026-11-21T11:00:00.000Z"
FEW, MANY = 10, 80
# A deeper index costs a few steps more; reading every row would cost eight times as many.
TOLERANCE = 1.3

# What each loop asks at every tick, a look at the page, or the writing of a file for every contact.
QUESTIONS: dict[str, Question] = {
    "due lanes": partial(changes.due_lanes, now=1e9, limit=4),
    "oldest free change": changes.oldest_free,
    "totals": partial(changes.totals, verifies=True),
    "changes of a lane": partial(changes.open_of_lane, lane=1),
    "contact by key": partial(contacts.find_by_key, key=Key("email", "vera@example.test")),
    "lanes for a file": partial(batches.idle_lanes, after=0, used_up=0, limit=5),
    "lanes with attempts used up": partial(batches.idle_lanes, after=0, used_up=4, limit=5),
    "enough for a file": partial(batches.count_idle, used_up=0, limit=5),
    "enough with attempts used up": partial(batches.count_idle, used_up=4, limit=5),
    "open batches": partial(batches.in_state, states=("sealed", "written", "uploaded")),
    "page of a file": partial(batches.entries, number=1, start=0, limit=5),
    "contacts to be verified": partial(batches.unverified, now=1e9, limit=5),
}


async def steps(book: Book, question: Question) -> int:
    """Count what SQLite does for an answer: the same on every machine, unlike time."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    def ask(db: Connection) -> None:
        db.set_progress_handler(tick, 1)
        question(db)
        db.set_progress_handler(None, 1)

    await book.journal.write(ask)
    return count


async def sign_ups(book: Book, count: int) -> None:
    """Let so many customers wait, each with an update behind the sign-up."""
    made = await asyncio.gather(*(book.create() for _ in range(count)))
    await asyncio.gather(*(book.update(create.contact.ref) for create in made))


async def file_with(book: Book, number: int, count: int) -> str:
    """Put so many customers into a file that is written."""
    await sign_ups(book, count)
    lanes = await book.journal.read(partial(batches.idle_lanes, after=0, used_up=0, limit=count))
    members = [Member(lane.head.contact.lane, None, "Member", None, lane.changes) for lane in lanes]
    name = f"20261121110000_0042-1-{number:06d}_contacts.xml"
    await book.journal.write(
        partial(batches.seal, number=number, name=name, with_id=False, members=members, now=NOW)
    )
    await book.journal.write(partial(batches.note_written, number=number))
    return name


async def behind_files(book: Book, count: int) -> None:
    """Let so many changes wait behind changes that are in a file."""
    batched = await book.journal.read(lambda db: changes.listing(db, State.BATCHED, count, None))
    await asyncio.gather(*(book.update(change.contact.ref) for change in batched.items))


async def fill(book: Book, count: int) -> None:
    """Let so many be in each place: in an imported file, in one to be sent, behind it, waiting."""
    name = await file_with(book, 1, count)
    await book.journal.write(partial(batches.note_uploaded, name=name, now=NOW))
    await book.journal.write(partial(batches.note_imported, name=name, now=NOW, verify="all"))
    await file_with(book, 2, count)
    await behind_files(book, count)
    await sign_ups(book, count)


def settle_next(db: Connection, *, numbers: Iterable[int] = (0,)) -> None:
    for number in numbers:
        (item,) = batches.unverified(db, 1e9, 1)
        batches.settle(
            db,
            item,
            fault=None,
            contact_id=f"{number:08d}{GUID[8:]}",
            contact_type=None,
            now=NOW,
            verifies=True,
        )


@pytest.fixture
async def little(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Book]:
    async with Book(tmp_path / "little.db", clock) as opened:
        await fill(opened, FEW)
        yield opened


@pytest.fixture
async def much(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Book]:
    async with Book(tmp_path / "much.db", clock) as opened:
        await fill(opened, MANY)
        yield opened


async def test_no_question_costs_more_with_more_in_the_journal(little: Book, much: Book) -> None:
    costs = {
        name: (await steps(little, question), await steps(much, question))
        for name, question in QUESTIONS.items()
    }

    grown = {name: pair for name, pair in costs.items() if pair[1] > pair[0] * TOLERANCE}
    assert grown == {}


async def test_settling_a_contact_costs_the_same_in_a_large_file_to_its_end(
    little: Book, much: Book
) -> None:
    of_few = await steps(little, settle_next)
    await much.journal.write(partial(settle_next, numbers=range(1, MANY - 1)))

    of_many = await steps(much, settle_next)

    assert of_many <= of_few * TOLERANCE
