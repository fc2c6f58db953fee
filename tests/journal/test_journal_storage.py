"""What the file survives: other programs, other versions, damage, a full disk, an abrupt end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from journal_helpers import GUID, Book, FakeClock, make_driver
from patience import PATIENCE_S

from agent.change import Kind, State
from agent.clock import SystemClock
from agent.contact import Key
from agent.errors import (
    Conflict,
    ForbiddenMove,
    JournalFull,
    JournalInUse,
    JournalUnavailable,
    Overloaded,
    SchemaTooNew,
)
from agent.journal import changes, contacts, database, driver, migrating, states, syncing
from agent.journal.journal import Journal


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def opened_by_hand(path: Path):
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


# --- restarts -------------------------------------------------------------------------------------


async def test_everything_is_there_after_a_restart(
    path: Path, clock: FakeClock, driver_name: str
) -> None:
    async with Book(path, clock, driver_name) as book:
        first, second = await book.create(), await book.create()
        await book.deliver(first)

    async with Book(path, clock, driver_name) as book:
        assert book.taken_over == 0
        assert await book.state(first) is State.DELIVERED
        assert await book.now(second) == second


async def test_what_an_older_run_was_sending_may_have_happened(
    path: Path, clock: FakeClock, driver_name: str
) -> None:
    async with Book(path, clock, driver_name) as book:
        change = await book.create()
        await book.claim(change)

    async with Book(path, clock, driver_name) as book:
        after = await book.now(change)
        (attempt,) = await book.attempts(change)
        assert book.taken_over == 1
        assert (after.state, after.unknown) == (State.WAITING, True)
        assert (attempt.outcome, attempt.code) == ("unknown", "Interrupted")


async def test_a_copy_taken_while_it_runs_opens_as_after_a_crash(
    tmp_path: Path, clock: FakeClock
) -> None:
    crashed = tmp_path / "crashed"
    async with Book(tmp_path / "journal.db", clock) as book:
        claimed, waiting = await book.create(), await book.create()
        await book.claim(claimed)
        crashed.mkdir()
        for each in tmp_path.glob("journal.db*"):
            shutil.copy(each, crashed)

    async with Book(crashed / "journal.db", clock) as book:
        assert (await book.now(claimed)).unknown
        assert await book.now(waiting) == waiting


async def test_the_wal_that_a_kill_left_is_written_to_the_disk_again_and_only_that(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    async with Book(tmp_path / "journal.db", clock) as book:
        change = await book.create()
        killed.mkdir()
        for each in tmp_path.glob("journal.db*"):
            shutil.copy(each, killed)
    synced: list[Path] = []
    write = syncing._write_again
    monkeypatch.setattr(syncing, "_write_again", lambda path: (synced.append(path), write(path)))

    async with Book(killed / "journal.db", clock) as book:
        assert await book.now(change) == change
    async with Book(killed / "journal.db", clock):
        pass

    assert synced == [killed / "journal.db-wal"]


async def test_the_lease_of_an_older_run_settles_nothing(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        change = await book.create()
        claim = await book.claim(change)
    async with Book(path, clock) as book:
        await book.claim(change)

        with pytest.raises(ForbiddenMove):
            await book.settle(claim, states.DELIVER, contact_id=GUID)

        assert await book.state(change) is State.SENDING


# --- one agent, one program -----------------------------------------------------------------------


async def test_a_second_agent_on_the_journal_is_refused(book: Book, clock: FakeClock) -> None:
    change = await book.create()

    with pytest.raises(JournalInUse):
        await Book(book.path, clock).open()

    assert await book.now(change) == change


async def test_the_next_agent_gets_the_journal_when_the_first_has_closed_it(
    path: Path, clock: FakeClock
) -> None:
    first = await Book(path, clock).open()
    await first.close()
    await first.close()

    async with Book(path, clock) as second:
        assert await second.create()


async def test_after_closing_nothing_is_taken(path: Path, clock: FakeClock) -> None:
    book = await Book(path, clock).open()
    await book.close()

    with pytest.raises(JournalUnavailable):
        await book.create()


async def test_what_waits_at_the_end_is_stored_before_the_file_is_closed(
    path: Path, clock: FakeClock
) -> None:
    book = await Book(path, clock).open()
    waiting = [asyncio.create_task(book.create()) for _ in range(50)]
    await asyncio.sleep(0)

    await book.close()

    stored = [change.id for change in await asyncio.gather(*waiting)]
    with opened_by_hand(path) as db:
        assert [row[0] for row in db.execute("SELECT id FROM changes ORDER BY seq")] == stored


async def test_two_connections_are_open_and_one_of_them_only_reads(book: Book) -> None:
    def writing(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM changes")

    with pytest.raises(JournalUnavailable):
        await book.journal.read(writing)


async def test_every_commit_is_synced(book: Book) -> None:
    def settings(db: sqlite3.Connection) -> tuple[str, int]:
        mode = db.execute("PRAGMA journal_mode").fetchone()[0]
        return mode, db.execute("PRAGMA synchronous").fetchone()[0]

    assert await book.journal.write(settings) == ("wal", 2)


async def test_only_its_owner_may_read_the_file(book: Book) -> None:
    assert book.path.stat().st_mode & 0o077 == 0


async def test_another_programs_lock_is_a_bounded_wait_and_not_the_end(
    book: Book, clock: FakeClock
) -> None:
    with opened_by_hand(book.path) as stranger:
        stranger.execute("BEGIN IMMEDIATE")

        async with asyncio.timeout(10):
            with pytest.raises(JournalUnavailable):
                await book.create("vera@example.test")
        stranger.execute("ROLLBACK")

    change = await book.create("vera@example.test")
    assert change.seq == 1
    assert book.journal.database.problem is None


async def test_a_read_that_does_not_end_is_ended_and_the_next_one_is_served(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr(database, "_LONGEST_READ_S", 0.01)

    with pytest.raises(JournalUnavailable):
        await book.journal.read(lambda db: db.execute(endless).fetchone())

    monkeypatch.setattr(database, "_LONGEST_READ_S", 10.0)
    assert (await book.journal.totals()).open == 0


async def test_a_log_that_has_grown_is_emptied_once_nothing_is_written(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_WAL_OF_IDLE", 1)
    wal = book.path.with_name("journal.db-wal")
    change = await book.create()

    await book.journal.tidy()
    at_work = wal.stat().st_size
    await book.journal.tidy()
    idle = wal.stat().st_size

    assert (at_work > 0, idle) == (True, 0)
    assert await book.now(change) == change
    assert await book.create()


async def test_a_strangers_long_read_is_told_once_the_log_is_large(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LARGE_WAL", 1024**2)
    with opened_by_hand(book.path) as stranger:
        stranger.execute("BEGIN")
        stranger.execute("SELECT count(*) FROM changes").fetchone()
        large = {"email": "vera@example.test", "note": "x" * 2 * 1024**2}
        await book.record(Kind.CREATE, large, contact_type="Member")
        await book.journal.tidy()
        told = book.journal.problem
        change = await book.create()
        stranger.execute("ROLLBACK")

    await book.journal.tidy()

    assert "its -wal has grown to 2 MB" in (told or "")
    assert book.journal.problem is None
    assert await book.now(change) == change


# --- encryption -----------------------------------------------------------------------------------


async def test_an_encrypted_journal_shows_no_personal_data(tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    async with Book(tmp_path / "journal.db", FakeClock(), "sqlcipher") as book:
        await book.create("vera@example.test")

        found = [each.name for each in tmp_path.iterdir() if b"vera@" in each.read_bytes()]

    assert found == []
    assert b"vera@" not in (tmp_path / "journal.db").read_bytes()
    assert not (tmp_path / "journal.db").read_bytes().startswith(b"SQLite format 3")


async def test_a_plain_journal_would_show_it(tmp_path: Path) -> None:
    async with Book(tmp_path / "journal.db", FakeClock()) as book:
        await book.create("vera@example.test")

    assert b"vera@" in (tmp_path / "journal.db").read_bytes()


async def test_the_wrong_key_opens_nothing_and_changes_nothing(path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    async with Book(path, FakeClock(), "sqlcipher") as book:
        await book.create()
    before = digest(path)

    with pytest.raises(JournalUnavailable):
        await Book(path, FakeClock(), "sqlite").open()

    assert digest(path) == before


async def test_a_password_opens_it_again_and_another_one_does_not(
    path: Path, clock: FakeClock
) -> None:
    pytest.importorskip("sqlcipher3")

    def opened_with(password: str) -> Journal:
        return Journal(database.Database(path, driver.encrypted(lambda: password)), clock)

    right = opened_with("it's long")
    await right.open()
    await right.close()

    with pytest.raises(JournalUnavailable):
        await opened_with("it's wrong").open()

    again = opened_with("it's long")
    await again.open()
    await again.close()


# --- files that cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"This is a letter, not a database. " * 200, b"SQLite format 3\0" + b"\7" * 8000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    path: Path, clock: FakeClock, driver_name: str, content: bytes
) -> None:
    path.write_bytes(content)

    with pytest.raises(JournalUnavailable) as problem:
        await Book(path, clock, driver_name).open()

    assert str(path) in problem.value.message
    assert path.read_bytes() == content


async def test_a_journal_of_a_newer_program_is_refused_and_left_as_it_is(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        await book.create()
    with opened_by_hand(path) as db:
        db.execute("PRAGMA user_version = 9999")
    before = digest(path)

    with pytest.raises(SchemaTooNew, match="9999"):
        await Book(path, clock).open()

    assert digest(path) == before


async def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        for _ in range(50):
            await book.create()
    spoil_pages(path)
    before = digest(path)

    with pytest.raises(JournalUnavailable, match="left as it is"):
        await Book(path, clock).open()

    assert digest(path) == before


def spoil_pages(path: Path) -> None:
    """Overwrite every page but the first ones."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))


async def test_a_folder_that_cannot_be_used_is_named(clock: FakeClock, tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="missing"):
        await Book(tmp_path / "missing" / "journal.db", clock).open()


# --- while it runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_journal_that_was_deleted_takes_nothing_and_none_is_made_in_its_place(
    book: Book, suffix: str
) -> None:
    await book.create()
    Path(f"{book.path}{suffix}").unlink()

    for _ in range(3):
        with pytest.raises(JournalUnavailable):
            await book.create()

    assert not Path(f"{book.path}{suffix}").exists()
    assert book.journal.database.problem is not None


async def test_a_journal_that_was_put_back_is_used_again(book: Book, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    await book.create()
    book.path.rename(aside)
    with pytest.raises(JournalUnavailable):
        await book.create()

    aside.rename(book.path)

    assert (await book.create()).seq == 2


async def test_a_journal_that_gets_damaged_stays_closed_until_it_is_mended(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        for _ in range(50):
            await book.create()
    good = path.read_bytes()

    async with Book(path, clock) as book:
        spoil_pages(path)
        await book.journal.write(lambda db: db.execute("PRAGMA cache_size = 1").fetchall())
        await book.journal.write(lambda db: db.execute("PRAGMA shrink_memory").fetchall())
        for _ in range(4):
            with pytest.raises(JournalUnavailable):
                await book.create()

        path.write_bytes(good)

        assert (await book.create()).seq == 51


async def test_too_little_disk_is_refused_before_anything_is_stored(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock, min_free_mb=10**9) as book:
        with pytest.raises(JournalFull):
            await book.create()

        assert sum((await book.counts()).values()) == 0


async def test_what_is_stored_can_be_delivered_on_a_full_disk(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        change = await book.create()

    async with Book(path, clock, min_free_mb=10**9) as book:
        await book.deliver(change)

        assert await book.state(change) is State.DELIVERED


async def test_a_database_that_is_full_stores_nothing_and_recovers(book: Book) -> None:
    pages = await book.journal.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await book.journal.write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    with pytest.raises(JournalFull):
        for number in range(200):
            await book.update(GUID, {"street": "x" * 3000, "city": f"Town{number}"})
    stored = sum((await book.counts()).values())
    await book.journal.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())

    await book.create()
    assert sum((await book.counts()).values()) == stored + 1


# --- a damaged payload ----------------------------------------------------------------------------


async def damage(path: Path, clock: FakeClock, kind: str, sql: str) -> tuple[Book, list]:
    """Flip something in the payload of the first of two changes while the journal is closed."""
    async with Book(path, clock) as book:
        damaged = await (book.create() if kind == "create" else book.update(GUID))
        other = await book.create()
    with opened_by_hand(path) as db:
        db.execute(sql, (damaged.seq,))
    return await Book(path, clock).open(), [damaged, other]


FLIPS = {
    "another letter": "UPDATE changes SET payload = replace(payload, 'a', 'b') WHERE seq = ?",
    "no JSON": "UPDATE changes SET payload = replace(payload, '{', '[') WHERE seq = ?",
    "no UTF-8": "UPDATE changes SET payload = CAST(x'7bff' AS TEXT) WHERE seq = ?",
}


@pytest.mark.parametrize("kind", ["create", "update"])
@pytest.mark.parametrize("sql", FLIPS.values(), ids=FLIPS.keys())
async def test_a_damaged_payload_sets_only_its_change_aside(
    path: Path, clock: FakeClock, kind: str, sql: str
) -> None:
    book, (damaged, other) = await damage(path, clock, kind, sql)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(book.close)

        claim = await book.claim(damaged)

        page = await book.journal.read(partial(changes.listing, state=None, limit=10, after=None))
        assert claim is not None
        assert claim.head.damaged
        assert claim.head.payload.attributes == {}
        assert {change.id for change in page.items} == {damaged.id, other.id}
        assert (await book.now(damaged)).error == changes.DAMAGED
        assert (await book.deliver(other)).head.id == other.id


async def test_a_damaged_update_is_not_folded_with_its_neighbours(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        updates = [await book.update(GUID) for _ in range(3)]
    with opened_by_hand(path) as db:
        db.execute(FLIPS["another letter"], (updates[1].seq,))

    async with Book(path, clock) as book:
        claims = [await book.deliver(updates[0]) for _ in range(3)]

    assert [len(claim.changes) for claim in claims] == [1, 1, 1]
    assert [claim.head.damaged for claim in claims] == [False, True, False]


async def test_a_damaged_change_cannot_be_retried_but_discarded(
    path: Path, clock: FakeClock
) -> None:
    book, (damaged, _) = await damage(path, clock, "create", FLIPS["another letter"])
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(book.close)
        await book.reject(damaged)

        with pytest.raises(Conflict):
            await book.retry(damaged)

        assert (await book.discard(damaged)).state is State.DISCARDED


async def test_a_damaged_later_change_does_not_stop_a_retry(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        refused = await book.update(GUID, {"city": "Lund", "street": "A"})
        await book.reject(refused)
        later = await book.update(GUID, {"city": "Malmö"})
        await book.deliver(later)
        await book.deliver(await book.update(GUID, {"street": "B"}))
    with opened_by_hand(path) as db:
        db.execute(FLIPS["no JSON"], (later.seq,))

    async with Book(path, clock) as book:
        await book.retry(refused)
        claim = await book.claim(refused)

    assert claim is not None
    assert claim.superseded == {"street"}


# --- gathered commits -----------------------------------------------------------------------------


async def test_many_that_wait_together_share_few_commits(book: Book) -> None:
    statements: list[str] = []
    await book.journal.write(lambda db: db.set_trace_callback(statements.append))

    await asyncio.gather(*[book.create() for _ in range(500)])

    await book.journal.write(lambda db: db.set_trace_callback(None))
    assert statements.count("COMMIT") < 20
    assert sum((await book.counts()).values()) == 500


async def test_a_unit_that_fails_does_not_undo_its_neighbours(each_book: Book) -> None:
    def failing(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise ValueError("a bug")

    outcomes = await asyncio.gather(
        each_book.create(),
        each_book.journal.write(failing),
        each_book.create(),
        return_exceptions=True,
    )

    assert isinstance(outcomes[1], ValueError)
    assert sum((await each_book.counts()).values()) == 2
    assert await each_book.rows("SELECT * FROM meta WHERE name = 'half'") == []


async def test_a_constraint_that_fails_is_told_to_its_caller_only(book: Book) -> None:
    def failing(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO counts VALUES ('waiting', 7)")

    outcomes = await asyncio.gather(
        book.create(), book.journal.write(failing), book.create(), return_exceptions=True
    )

    assert isinstance(outcomes[1], JournalUnavailable)
    assert sum((await book.counts()).values()) == 2


async def test_too_many_that_wait_are_refused_at_once_and_nothing_answered_is_lost(
    book: Book,
) -> None:
    outcomes = await asyncio.gather(
        *[book.create() for _ in range(database.WAITING_LIMIT + 100)], return_exceptions=True
    )

    refused = [each for each in outcomes if isinstance(each, Overloaded)]
    assert len(refused) == 100
    assert sum((await book.counts()).values()) == database.WAITING_LIMIT


async def test_a_storm_of_cancels_jams_nothing_and_loses_nothing_that_was_answered(
    each_book: Book,
) -> None:
    chance = random.Random(7)
    answered: set[str] = set()

    async def write() -> None:
        answered.add((await each_book.create()).id)

    tasks = [asyncio.create_task(write()) for _ in range(300)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        await asyncio.sleep(0)
        if len(answered) > 20:
            await asyncio.sleep(0.001)
    await asyncio.gather(*tasks, return_exceptions=True)
    after = await each_book.create()

    stored = {row[0] for row in await each_book.rows("SELECT id FROM changes")}
    assert answered <= stored
    assert after.id in stored
    assert await each_book.counts() == {
        **dict.fromkeys(await each_book.counts(), 0),
        "waiting": len(stored),
    }


async def test_a_cancelled_settle_is_stored_all_the_same(book: Book) -> None:
    change = await book.create()
    claim = await book.claim(change)
    settling = asyncio.create_task(book.settle(claim, states.DELIVER, contact_id=GUID))
    await asyncio.sleep(0)

    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)

    assert (await book.create()).seq == 2
    assert await book.state(change) is State.DELIVERED


# --- migrations -----------------------------------------------------------------------------------


async def test_a_migration_that_was_killed_halfway_is_begun_anew(
    path: Path, clock: FakeClock
) -> None:
    script = f"""
    import os, pathlib, sys
    from agent.journal import database, driver, migrating
    path = pathlib.Path({str(path)!r})
    real = migrating._statements
    def halfway(text):
        statements = real(text)
        yield from statements[: len(statements) // 2]
        os._exit(9)
    migrating._statements = halfway
    migrating.migrate(driver.plain().connect(path), path)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=PATIENCE_S)

    async with Book(path, clock) as book:
        assert ended.returncode == 9
        assert (await book.create()).seq == 1


async def test_a_new_journal_has_the_newest_version(book: Book) -> None:
    newest = migrating.migrations()[-1][0]

    assert await book.rows("PRAGMA user_version") == [(newest,)]


async def test_a_backup_is_whole_and_private(book: Book, tmp_path: Path) -> None:
    change = await book.create()
    target = tmp_path / "copy.db"

    await asyncio.to_thread(back_up, book.path, target)

    with opened_by_hand(target) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT id FROM changes").fetchall() == [(change.id,)]
    assert target.stat().st_mode & 0o077 == 0


async def test_a_backup_gets_its_name_once_it_is_synced(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(migrating, "sync", lambda path: synced.append((path, target.exists())))

    await asyncio.to_thread(back_up, book.path, target)

    assert synced == [(tmp_path / "copy.db.new", False), (tmp_path, True)]


def back_up(path: Path, target: Path) -> None:
    connection = make_driver("sqlite").connect(path)
    try:
        migrating.backup(connection, target)
    finally:
        connection.close()


# --- the process ends -----------------------------------------------------------------------------


ENDS = {
    "a good open and close": "",
    "no database": "path.write_bytes(b'not a database' * 1000)",
    "a newer schema": "db = sqlite3.connect(path); db.execute('PRAGMA user_version = 9999')",
    "a missing folder": "path = path.parent / 'missing' / 'journal.db'",
}


@pytest.mark.parametrize("before", ENDS.values(), ids=ENDS.keys())
def test_the_process_ends_whatever_became_of_opening(tmp_path: Path, before: str) -> None:
    script = f"""
import asyncio, pathlib, sqlite3
from agent.clock import SystemClock
from agent.journal import driver, migrating
from agent.journal.database import Database
from agent.journal.journal import Journal
path = pathlib.Path({str(tmp_path / "journal.db")!r})
{before}
async def main():
    journal = Journal(Database(path, driver.plain()), SystemClock(), min_free_mb=1)
    await journal.open()
    await journal.close()
asyncio.run(main())
"""

    ended = subprocess.run([sys.executable, "-c", script], timeout=PATIENCE_S, capture_output=True)

    assert (ended.returncode == 0) is (before == "")


# --- keeping and pruning --------------------------------------------------------------------------


async def prune(book: Book, before: str = "2027", limit: int = 100) -> int:
    return await book.journal.write(partial(changes.prune, before=before, limit=limit))


async def test_pruning_takes_only_what_is_final(book: Book) -> None:
    delivered, waiting, rejected = [await book.create() for _ in range(3)]
    discarded, sending = await book.create(), await book.create()
    await book.deliver(delivered)
    await book.reject(rejected)
    await book.reject(discarded)
    await book.discard(discarded)
    await book.claim(sending)

    assert await prune(book) == 2

    left = {row[0] for row in await book.rows("SELECT id FROM changes")}
    assert left == {waiting.id, rejected.id, sending.id}


async def test_pruning_takes_only_what_is_old(book: Book) -> None:
    await book.deliver(await book.create())

    assert await prune(book, before="2026-11-21T09:59:59.000Z") == 0
    assert await prune(book, before="2026-11-21T10:00:01.000Z") == 1


async def test_pruning_leaves_what_a_retry_must_not_undo(book: Book) -> None:
    refused = await book.update(GUID, {"city": "Lund"})
    await book.reject(refused)
    await book.deliver(await book.update(GUID, {"city": "Malmö"}))

    assert await prune(book) == 0

    await book.retry(refused)
    claim = await book.claim(refused)
    assert claim is not None
    assert claim.superseded == {"city"}


async def test_pruning_goes_in_pages_and_takes_the_attempts_along(book: Book) -> None:
    for _ in range(5):
        await book.deliver(await book.create(), contact_id=None)

    assert [await prune(book, limit=3) for _ in range(3)] == [3, 2, 0]
    assert await book.rows("SELECT count(*) FROM attempts") == [(0,)]
    assert sum((await book.counts()).values()) == 0


async def test_refs_go_on_working_after_pruning(book: Book) -> None:
    create = await book.create("vera@example.test")
    await book.deliver(create)
    await prune(book)

    assert (await book.update(create.contact.ref)).contact.contact_id == GUID
    assert await book.journal.read(
        partial(contacts.find_by_key, key=Key("email", "vera@example.test"))
    )


# --- journals that are lost or old ----------------------------------------------------------------


async def test_a_journal_that_is_lost_is_not_begun_anew(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        await book.create()
    path.unlink()

    with pytest.raises(JournalUnavailable, match="gone"):
        await Book(path, clock).open()

    assert not path.exists()


async def test_what_waits_in_yesterdays_backup_may_have_been_sent_since(
    path: Path, clock: FakeClock, tmp_path: Path
) -> None:
    async with Book(path, clock) as book:
        change = await book.create()
        await asyncio.to_thread(back_up, path, tmp_path / "yesterday.db")
        await book.deliver(change)
    shutil.copy(tmp_path / "yesterday.db", path)

    async with Book(path, clock) as book:
        after = await book.now(change)

    assert (book.taken_over, after.state, after.unknown) == (1, State.WAITING, True)


async def test_a_journal_that_was_pruned_is_not_taken_for_an_old_one(
    tmp_path: Path, clock: FakeClock
) -> None:
    crashed = tmp_path / "crashed"
    async with Book(tmp_path / "journal.db", clock) as book:
        await book.deliver(await book.create())
        waiting = await book.create()
        await book.journal.leave_mark()
        await prune(book)
        crashed.mkdir()
        for each in tmp_path.glob("journal.db*"):
            shutil.copy(each, crashed)

    async with Book(crashed / "journal.db", clock) as book:
        assert not (await book.now(waiting)).unknown


async def test_nobody_else_can_read_the_journal_or_what_stands_beside_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        journal = Journal(database.Database(tmp_path / "journal.db", driver.plain()), SystemClock())
        await journal.open()
        try:
            modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()}
        finally:
            await journal.close()
    finally:
        os.umask(before)

    assert {"journal.db", "journal.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0}
