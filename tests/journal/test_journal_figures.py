"""What is kept of each quarter of an hour: true after every move, restart, pruning and upgrade."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from journal_helpers import Book, FakeClock

from agent.change import Change
from agent.clock import to_text
from agent.journal import batches, changes, driver, figures, migrating, states

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def kept(book: Book, since: datetime = LONG_AGO) -> list[tuple[Any, ...]]:
    """Give when, accepted, delivered, by file, rejected and net of each quarter."""
    found = await book.journal.read(partial(figures.since, moment=since))
    return [(f"{each.begins_at:%H:%M}", *astuple(each)[1:]) for each in found.quarters]


async def open_now(book: Book) -> int:
    return (await book.journal.read(partial(figures.since, moment=LONG_AGO))).open


async def seal(book: Book, *sealed: Change) -> str:
    name = f"{sealed[0].id}.xml"
    now = to_text(book.clock.now())
    members = [
        batches.Member(change.contact.lane, None, "Member", None, (change,)) for change in sealed
    ]

    def put_in(db: driver.Connection) -> None:
        number = batches.next_number(db)
        batches.seal(db, number, name, with_id=False, members=members, now=now)
        batches.note_written(db, number)

    await book.journal.write(put_in)
    await book.journal.write(partial(batches.note_uploaded, name=name, now=now))
    return name


async def test_a_change_counts_where_it_was_accepted_and_where_it_was_delivered(
    each_book: Book,
) -> None:
    change = await each_book.create()
    each_book.clock.pass_s(16 * 60)
    await each_book.deliver(change)

    assert await kept(each_book) == [("10:00", 1, 0, 0, 0, 1), ("10:15", 0, 1, 0, 0, -1)]
    assert await open_now(each_book) == 0


@pytest.mark.parametrize(
    ("minute", "quarter"),
    [(0, "10:00"), (14, "10:00"), (15, "10:15"), (29, "10:15"), (30, "10:30"), (59, "10:45")],
)
async def test_a_minute_belongs_to_its_quarter(book: Book, minute: int, quarter: str) -> None:
    book.clock.pass_s(minute * 60 + 59.9)

    await book.create()

    assert [row[0] for row in await kept(book)] == [quarter]


async def test_what_is_put_off_is_still_open_and_counts_nowhere_else(book: Book) -> None:
    change = await book.create()
    await book.defer(change, 1)
    await book.settle(await claimed(book, change), states.LOSE, unknown=True)

    assert await kept(book) == [("10:00", 1, 0, 0, 0, 1)]
    assert await open_now(book) == 1


async def claimed(book: Book, change: Change) -> changes.Claim | None:
    book.clock.pass_s(2)
    return await book.claim(change)


async def test_a_refusal_counts_once_and_leaves_nothing_open(book: Book) -> None:
    change = await book.create()
    await book.reject(change)
    await book.discard(change)

    assert await kept(book) == [("10:00", 1, 0, 0, 1, 0)]


async def test_a_refused_change_that_is_sent_again_is_open_again(book: Book) -> None:
    change = await book.create()
    await book.reject(change)
    await book.retry(change)
    again = await open_now(book)
    await book.deliver(change)

    # When a person sent it again only the machine's clock knows, so there may be a row for that.
    rows = await kept(book)
    assert (again, await open_now(book)) == (1, 0)
    assert (sum(row[2] for row in rows), sum(row[4] for row in rows)) == (1, 1)


@pytest.mark.parametrize("verify", ["all", "none"])
async def test_what_went_by_file_is_delivered_when_it_is_settled(
    path: Path, clock: FakeClock, verify: str
) -> None:
    async with Book(path, clock, verify=verify) as book:
        name = await seal(book, await book.create(), await book.create())
        before = await kept(book)
        now = to_text(book.clock.now())
        await book.journal.write(partial(batches.note_imported, name=name, now=now, verify=verify))
        if verify == "all":
            await confirm_all(book)

        assert before == [("10:00", 2, 0, 0, 0, 2)]
        assert await kept(book) == [("10:00", 2, 2, 2, 0, 0)]


async def confirm_all(book: Book) -> None:
    for item in await book.journal.read(partial(batches.unverified, now=2000.0, limit=10)):
        await book.journal.write(
            partial(
                batches.settle,
                item=item,
                fault=None,
                contact_id=None,
                contact_type=None,
                now=to_text(book.clock.now()),
                verifies=True,
            )
        )


async def test_pruning_and_a_restart_take_nothing_away(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        await book.deliver(await book.create())
        await book.create()
        before = await kept(book)
        later = to_text(clock.now() + timedelta(days=60))
        await book.journal.write(partial(changes.prune, before=later, limit=100))

    async with Book(path, clock) as book:
        assert await kept(book) == before == [("10:00", 2, 1, 0, 0, 1)]
        assert await open_now(book) == 1


async def test_an_open_change_that_is_removed_is_not_open_any_more(book: Book) -> None:
    change = await book.create()

    await book.journal.write(partial(changes.delete, seqs=[change.seq]))

    assert await open_now(book) == 0


async def test_figures_are_asked_for_from_a_quarter_on(book: Book) -> None:
    await book.create()
    book.clock.pass_s(3600)
    await book.create()

    assert await kept(book, START + timedelta(minutes=74)) == [("11:00", 1, 0, 0, 0, 1)]


async def test_old_figures_go_and_what_is_open_stays_known(book: Book) -> None:
    for _ in range(805):
        await book.create()
        book.clock.pass_s(15 * 60)

    assert len(await kept(book, START - timedelta(days=1))) == 800
    assert await open_now(book) == 805


async def test_reading_figures_reads_their_table_only(book: Book) -> None:
    statements: list[str] = []
    await book.journal.read(lambda db: db.set_trace_callback(statements.append))
    await kept(book)
    await book.journal.read(lambda db: db.set_trace_callback(None))

    plans = [
        row[3]
        for statement in statements
        if statement.lstrip().startswith("SELECT")
        for row in await book.rows(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert plans == ["SEARCH figures USING PRIMARY KEY (quarter>?)", "SCAN figures"]


async def test_an_older_journal_gets_the_figures_that_it_would_have_kept(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        await book.deliver(await book.create())
        clock.pass_s(20 * 60)
        await book.reject(await book.create())
        name = await seal(book, await book.create())
        await book.journal.write(
            partial(batches.note_imported, name=name, now=to_text(clock.now()), verify="none")
        )
        await book.create()
        expected = await kept(book)

    take_figures_away(path)
    async with Book(path, clock) as book:
        assert await kept(book) == expected
        assert await open_now(book) == 1
        await book.create()
        assert await open_now(book) == 2


def take_figures_away(path: Path) -> None:
    """Make a journal as it was before figures were kept."""
    older = list(takewhile(lambda step: "TABLE figures" not in step[1], migrating.migrations()))
    fresh = sqlite3.connect(":memory:")
    for _, text in older:
        fresh.executescript(text)
    known = {row[0] for row in fresh.execute("SELECT name FROM sqlite_master")}
    columns = columns_of(fresh)
    fresh.close()
    db = sqlite3.connect(path)
    made = db.execute("SELECT type, name FROM sqlite_master").fetchall()
    later = [(kind, name) for kind, name in made if name not in known]
    for kind, name in sorted(later, reverse=True):  # triggers and tables before indexes
        db.execute(f"DROP {kind} IF EXISTS {name}")
    for table, column in columns_of(db) - columns:
        db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    db.execute(f"PRAGMA user_version = {older[-1][0]}")
    db.commit()
    db.close()


def columns_of(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Give table and column of every column there is."""
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        (table, row[1])
        for table in tables
        if not table.startswith("sqlite_")
        for row in db.execute(f"PRAGMA table_info({table})")
    }
