"""What is erased by itself: keys, what stood in files, and the bytes on the disk."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from journal_helpers import GUID, Book, FakeClock

from agent.journal.driver import Connection
from agent.schedule import Schedule

DAY_S = 86_400.0


async def prune(book: Book) -> int:
    """Run the calendar's job at the time of the tests' clock."""
    job = Schedule(book.journal, book.clock.now, retain_days=30, recognise_days=100)
    return await job.prune()


def bytes_of(book: Book) -> bytes:
    """Give all that the journal's files hold."""
    folder = book.path.parent
    return b"".join(path.read_bytes() for path in folder.glob(f"{book.path.name}*"))


async def keys(book: Book) -> list[str]:
    return [row[0] for row in await book.rows("SELECT value FROM keys ORDER BY value")]


async def test_customer_is_recognised_for_longer_than_the_change_is_kept(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    book.clock.pass_s(31 * DAY_S)

    assert await prune(book) == 1
    assert await keys(book) == ["vera@example.test"]


async def test_customer_who_never_came_again_is_forgotten(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    book.clock.pass_s(101 * DAY_S)

    await prune(book)

    assert await keys(book) == []
    assert await book.rows("SELECT contact_id FROM contacts") == [(GUID,)]  # refs go on working


async def test_customer_who_came_again_is_not_forgotten(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    book.clock.pass_s(60 * DAY_S)
    await prune(book)
    await book.deliver(await book.create("vera@example.test"))
    book.clock.pass_s(60 * DAY_S)

    await prune(book)

    assert await keys(book) == ["vera@example.test"]


@pytest.mark.parametrize("end", ["waiting", "rejected"])
async def test_keys_of_what_is_not_settled_stay_for_as_long_as_it_takes(
    book: Book, end: str
) -> None:
    change = await book.create("vera@example.test")
    if end == "rejected":
        await book.reject(change)
    book.clock.pass_s(1000 * DAY_S)

    await prune(book)

    assert await keys(book) == ["vera@example.test"]


async def test_nothing_of_a_customer_is_left_in_any_file(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    for _ in range(40):  # neighbours on the same pages
        await book.create()
    before = b"vera@example.test" in bytes_of(book)
    book.clock.pass_s(101 * DAY_S)

    await prune(book)

    assert before
    assert b"vera@example.test" not in bytes_of(book)


async def test_what_a_wrong_clock_has_dated_grows_old_from_now(path: Path) -> None:
    clock = FakeClock()
    clock.wall += timedelta(days=3650)
    async with Book(path, clock) as book:
        await book.deliver(await book.create("vera@example.test"))
        clock.wall -= timedelta(days=3650)
        first = await prune(book)
        clock.pass_s(31 * DAY_S)
        second = await prune(book)
        clock.pass_s(70 * DAY_S)
        await prune(book)

        assert (first, second) == (0, 1)
        assert await keys(book) == []


def lay_batches(db: Connection) -> None:
    db.execute("INSERT INTO contacts (ref, created_at) VALUES ('r', 't')")
    for number, name, settled_at, key in (
        (1, "old", "2026-10-01", "vera@example.test"),
        (2, "new", "2026-11-20", "per@example.test"),
    ):
        db.execute(
            """INSERT INTO batches (number, name, state, with_id, contacts, receipt, sealed_at,
                 settled_at) VALUES (?, ?, 'settled', 0, 1, 'Engage said so', 't', ?)""",
            (number, name, settled_at),
        )
        db.execute(
            """INSERT INTO batch_contacts (batch, position, lane, contact_type, key_value, settled)
               VALUES (?, 0, 1, 'Member', ?, 1)""",
            (number, key),
        )


async def test_who_was_in_a_file_is_forgotten_when_the_file_is_long_settled(book: Book) -> None:
    await book.journal.write(lay_batches)

    await prune(book)

    assert await book.rows("SELECT batch, key_value FROM batch_contacts") == [
        (2, "per@example.test")
    ]
    assert await book.rows("SELECT name, receipt FROM batches ORDER BY number") == [
        ("old", None),
        ("new", "Engage said so"),
    ]
