"""The one place through which everything reaches the database file.

One connection writes and checkpoints, a second may only read: that keeps clear of SQLite's
WAL-reset bug (before 3.51.3) and of tasks that undo each other's transactions. A unit of work is a
plain function that gets the connection and runs in the writer's thread; it cannot await, so it
cannot hold a transaction open over the network. Units that wait together are committed together,
with one sync, and each caller is answered after that commit. A caller that is cancelled changes
nothing: its unit runs on, and only its answer is not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from agent.errors import (
    AgentError,
    JournalFull,
    JournalUnavailable,
    Overloaded,
)
from agent.journal.driver import Connection, Driver
from agent.journal.lock import JournalLock
from agent.journal.migrating import migrate
from agent.journal.opening import Opening, Phase
from agent.journal.syncing import sync, sync_wal

T = TypeVar("T")
Work = Callable[[Connection], T]

# As many as one transaction takes: bounds how long the first of them waits for the last.
GROUP_LIMIT = 256
# As many as may wait; beyond it the POS hears "Overloaded" at once instead of a late answer.
WAITING_LIMIT = 2048

# A slow disk writes it anew within seconds; sign-ups wait meanwhile.
_LARGEST_REWRITTEN = 256 * 1024 * 1024
_LOOKED_THROUGH_AT_ONCE = 1024 * 1024

# A read holds the -wal back. Ours take milliseconds; one that does not is ended.
_LONGEST_READ_S = 10.0
# SQLite begins the -wal anew at 4 MB, but does not make the file smaller.
_WAL_OF_IDLE = 5 * 1024 * 1024
LARGE_WAL = 64 * 1024 * 1024

_BUSY, _FULL, _IOERR, _CORRUPT, _NOTADB = 5, 13, 10, 11, 26


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection, with one way more to use its thread: a whole function at a time."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        return await self._execute(work, self._conn)  # type: ignore[no-any-return, no-untyped-call]

    def interrupt_now(self) -> None:
        """End the statement that runs, with an error. From any thread; may come too late."""
        if self._connection is not None:
            self._connection.interrupt()


@dataclass
class _Unit:
    work: Work[Any]
    answer: asyncio.Future[Any]


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class Database:
    """A journal file that is open: `write` and `read` are the only ways in."""

    def __init__(
        self,
        path: Path,
        driver: Driver,
        on_commit: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`on_commit` gets the seconds that a commit took, in the writer's thread."""
        self.path = path
        self.driver = driver
        self._on_commit = on_commit
        # Asked when the disk is full, in some thread; says whether there is more room now.
        self.make_room: Callable[[], bool] = lambda: False
        self.opening = Opening()
        self.problem: str | None = None  # why it cannot be written just now, for the page
        self._files = (str(path), f"{path}-wal")
        self._lock = JournalLock(path)
        self._writer: _Connection | None = None
        self._reader: _Connection | None = None
        self._reading = asyncio.Lock()
        self._waiting: deque[_Unit] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None  # closes what failed
        self._inode: tuple[tuple[int, int], ...] | None = None
        self._closing = False
        self.held_back_bytes = 0  # how large the -wal is, where another program's read keeps it so
        self._rows_written = 0  # by the writer's connection, when it was last asked

    # --- opening and closing ------------------------------------------------------------------

    async def open(self) -> None:
        """Lock, open, check and migrate the file; then start the writer.

        Raises JournalInUse, SchemaTooNew, JournalUnavailable; the data is untouched then.
        """
        self._lock.acquire()
        try:
            await self._connect(first=True)
        except BaseException:
            await self._disconnect()
            self._lock.release()
            raise
        self._task = asyncio.create_task(self._write_groups(), name="journal-writer")

    async def close(self) -> None:
        """Finish what waits, checkpoint and close. Safe to call twice."""
        self._closing = True
        if self._task is not None:
            self._wake.set()
            await self._task
            self._task = None
        if self._leaving is not None:
            await asyncio.wait([self._leaving])
        await self._disconnect()
        self._lock.release()

    async def _connect(self, *, first: bool) -> None:
        existed = self.path.exists() and self.path.stat().st_size > 0
        if not first and not existed:
            raise JournalUnavailable(self._gone())
        if first:
            self._make_private()
        self._writer = _Connection(lambda: self.driver.connect(self.path), 64)
        try:
            await self._writer
            await self._writer.run(lambda db: self._prepare(db, check=existed))
            await self._writer.run(self._migrate)
            if self._reader is None:
                await self._connect_reader()
        except (self.driver.module.Error, OSError) as error:
            raise JournalUnavailable(
                f"The journal {self.path} cannot be opened: {error}. It was left as it is. "
                "Check that the file belongs to the agent's user and is a journal of till-agent, "
                "and that journal.key_file (if set) holds the right key."
            ) from error
        self._inode = self._identity()
        self.problem = None

    def _prepare(self, db: Connection, *, check: bool) -> None:
        _prepare(db, self.opening, check=check)
        sync_wal(db, Path(self._files[1]))

    def _migrate(self, db: Connection) -> None:
        migrate(db, self.path, self.opening)
        # SQLite syncs the folder as well, but does not tell when that fails.
        sync(self.path.parent)

    async def _connect_reader(self) -> None:
        self._reader = _Connection(lambda: self.driver.connect(self.path, read_only=True), 64)
        await self._reader
        await self._reader.run(lambda db: db.execute("PRAGMA query_only = ON"))

    def _make_private(self) -> None:
        """See to it that nobody else can read the file; SQLite gives its -wal the same mode."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(self.path, 0o600)
        except OSError as error:
            raise JournalUnavailable(
                f"The journal {self.path} cannot be opened: {error.strerror}. It was left as "
                "it is. Give the agent's user read and write access to it."
            ) from error

    async def _disconnect(self, *, reader_too: bool = True) -> None:
        await _close_all(*self._let_go(reader_too=reader_too))

    def _let_go(self, *, reader_too: bool) -> list[_Connection]:
        """Give the connections to be closed; whoever comes now hears that it is closed."""
        # The reader first: the last connection to close checkpoints, and that must be the writer.
        connections = [self._reader if reader_too else None, self._writer]
        self._writer = None
        if reader_too:
            self._reader = None
        return [each for each in connections if each is not None]

    def _identity(self) -> tuple[tuple[int, int], ...] | None:
        """Tell the journal and its -wal from files that were put in their place."""
        try:
            facts = [os.stat(path) for path in self._files]
        except OSError:
            return None
        return tuple((fact.st_dev, fact.st_ino) for fact in facts)

    def _gone(self) -> str:
        return (
            f"The journal {self.path} was moved or deleted while the agent ran. Nothing new is "
            "stored. Put the file back, or restart the agent once you are sure that it is lost."
        )

    # --- writing ------------------------------------------------------------------------------

    async def write(self, work: Work[T]) -> T:
        """Run a unit of work and answer after it is durable.

        Raises whatever the unit raised (it alone is rolled back), Overloaded when too many wait,
        JournalFull or JournalUnavailable when the commit failed: then nothing was stored.
        """
        if self._task is None or self._closing:
            raise JournalUnavailable
        if len(self._waiting) >= WAITING_LIMIT:
            raise Overloaded
        unit = _Unit(work, asyncio.get_running_loop().create_future())
        self._waiting.append(unit)
        self._wake.set()
        return await unit.answer  # type: ignore[no-any-return]

    async def _write_groups(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                size = min(len(self._waiting), GROUP_LIMIT)
                group = [self._waiting.popleft() for _ in range(size)]
                await self._write_group(group)

    async def _write_group(self, group: list[_Unit]) -> None:
        try:
            await self._heal()
            answers = await self._commit([unit.work for unit in group])
            self.problem = None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # every caller must hear something, whatever broke
            problem = self._translate(error)
            self.problem = problem.message if isinstance(problem, AgentError) else str(problem)
            answers = [_Failed(problem)] * len(group)
        for unit, answer in zip(group, answers, strict=True):
            if unit.answer.done():
                continue
            if isinstance(answer, _Failed):
                unit.answer.set_exception(answer.error)
            else:
                unit.answer.set_result(answer)

    async def _commit(self, works: list[Work[Any]]) -> list[Any]:
        """Commit a group; on a full disk once more, if room can be made."""
        assert self._writer is not None  # noqa: S101 - the caller has seen to it
        commit = partial(self._commit_together, works=works)
        try:
            return await self._writer.run(commit)
        except self.driver.module.Error as error:
            if _primary_code(error) != _FULL or not await asyncio.to_thread(self.make_room):
                raise
        return await self._writer.run(commit)

    async def _heal(self) -> None:
        """Open the file again where an I/O error closed it; refuse to write to a file that is gone.

        A failed sync is never repeated as if it could succeed: the kernel may have dropped the
        pages. The next commit writes them anew, in the place of those that failed.
        """
        if self._leaving is not None:
            await asyncio.wait([self._leaving])  # never are there two that write
            self._leaving = None
        if self._writer is None:
            if self._identity() != self._inode:
                await self._disconnect()  # what the reader knows is of another file
            try:
                await self._connect(first=False)
            except BaseException as error:
                # Half open is not open: the next unit tries again.
                await self._disconnect(reader_too=not _passes(error))
                raise
        if self._identity() != self._inode:
            raise JournalUnavailable(self._gone())

    def _commit_together(self, db: Connection, works: list[Work[Any]]) -> list[Any]:
        db.execute("BEGIN IMMEDIATE")
        run = self._run_alone if len(works) == 1 else self._run_unit
        try:
            answers = [run(db, work) for work in works]
            if db.in_transaction:
                began = time.monotonic()
                db.execute("COMMIT")
                self._on_commit(time.monotonic() - began)
        except BaseException:
            # After "disk full" SQLite may have rolled back already; a blind one would hide why.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return answers

    def _run_alone(self, db: Connection, work: Work[T]) -> T | _Failed:
        """Run a unit that has no neighbours: it needs no savepoint of its own."""
        try:
            return work(db)
        except Exception as error:
            if not db.in_transaction or self._is_fatal(error):
                raise
            db.execute("ROLLBACK")
            return _Failed(self._translate(error))

    def _run_unit(self, db: Connection, work: Work[T]) -> T | _Failed:
        db.execute("SAVEPOINT unit")
        try:
            answer = work(db)
        except Exception as error:
            if not db.in_transaction or self._is_fatal(error):
                raise
            db.execute("ROLLBACK TO unit")
            db.execute("RELEASE unit")
            return _Failed(self._translate(error))
        db.execute("RELEASE unit")
        return answer

    def _is_fatal(self, error: BaseException) -> bool:
        return _primary_code(error) in (_FULL, _IOERR, _CORRUPT, _NOTADB)

    def _translate(self, error: BaseException) -> BaseException:
        if not isinstance(error, self.driver.module.Error):
            return error
        code = _primary_code(error)
        if code == _FULL:
            return JournalFull()
        if code in (_IOERR, _CORRUPT, _NOTADB):
            self._drop_soon(reader_too=code != _IOERR)
        if code == _BUSY:
            return JournalUnavailable(
                "Another program has locked the journal. This request was not stored; send it "
                "again. What was answered before is safe. End that program: a backup, a virus "
                "scanner or a database tool may hold such a lock."
            )
        return JournalUnavailable(
            f"The journal cannot be written ({error}). This request was not stored; send it again. "
            "What was answered before is safe."
        )

    def _drop_soon(self, *, reader_too: bool) -> None:
        """Close what failed, so that the next unit opens it anew.

        After an I/O error the reader stays: as long as it is there, SQLite knows how far the -wal
        counts. Else the next opening would find the commit that failed, whole in memory and perhaps
        not on the disk, and everything committed after it would hang on that.
        """
        closing = _close_all(*self._let_go(reader_too=reader_too))
        self._leaving = asyncio.get_running_loop().create_task(closing)
        self._leaving.add_done_callback(lambda done: done.exception())

    async def scrub(self) -> bool:
        """Empty the -wal, so that what was erased does not stand there any more.

        Erased bytes are overwritten when the database file is written (secure_delete), but the -wal
        keeps the pages as they were before until it is used again from its start. Gives False while
        a foreign program reads the journal and so holds it back. Raises JournalUnavailable.
        """
        # Our own reader must not hold it back; it reads for milliseconds.
        async with self._reading:
            if self._writer is None:
                raise JournalUnavailable
            try:
                return await self._writer.run(_truncate_wal)
            except self.driver.module.Error as error:
                raise JournalUnavailable(
                    f"The journal's -wal cannot be emptied ({error}). What was erased may still "
                    "stand in it until it is written anew."
                ) from error

    async def tidy(self) -> None:
        """Empty a -wal that has grown, if nothing was written since the last call; for now and
        then. One that is large is emptied at any time, and `held_back_bytes` says if it cannot be.

        Waits for nobody: sign-ups would wait with it. Raises nothing; a broken file is told by
        those who use it.
        """
        async with self._reading:
            if self._writer is None:
                return
            with contextlib.suppress(self.driver.module.Error, OSError):
                written = await self._writer.run(lambda db: db.total_changes)
                is_idle, self._rows_written = written == self._rows_written, written
                size = os.stat(self._files[1]).st_size
                is_emptied = False
                if size > LARGE_WAL or (is_idle and size > _WAL_OF_IDLE):
                    is_emptied = await self._writer.run(_truncate_wal_at_once)
                self.held_back_bytes = size if size > LARGE_WAL and not is_emptied else 0

    async def holds(self, traces: Sequence[bytes]) -> bool:
        """Say whether any of these bytes stand in the database file; reads all of it.

        For after a scrub(). SQLite overwrites what it deletes, but not the copies that it left in
        the unused part of a page when it moved a row to another one. An encrypted file has none
        that could be read.
        """
        if self.driver.key is not None or not traces:
            return False
        try:
            return await asyncio.to_thread(_file_holds, self.path, traces)
        except OSError as error:
            raise JournalUnavailable(
                f"The journal {self.path} cannot be looked through: {error.strerror}."
            ) from error

    async def rewrite(self) -> bool:
        """Write the whole file anew, from what it holds now; everybody who writes waits.

        Gives False where the file is too large for that, or the disk too full.
        """
        size = await asyncio.to_thread(lambda: self.path.stat().st_size)
        disk = os.statvfs(self.path.parent)
        if size > _LARGEST_REWRITTEN or disk.f_bavail * disk.f_frsize < 3 * size:
            return False
        if self._writer is None:
            raise JournalUnavailable
        try:
            await self._writer.run(lambda db: db.execute("VACUUM"))
        except self.driver.module.Error as error:
            raise JournalUnavailable(f"The journal cannot be written anew ({error}).") from error
        return True

    # --- reading ------------------------------------------------------------------------------

    async def read(self, work: Work[T]) -> T:
        """Run a short read on the second connection. Sees what was committed before the call, and
        all of its statements see the same moment.

        Raises JournalUnavailable when the file cannot be read, or not in a reasonable time.
        """
        async with self._reading:
            if self._reader is None:
                raise JournalUnavailable
            loop = asyncio.get_running_loop()
            alarm = loop.call_later(_LONGEST_READ_S, self._reader.interrupt_now)
            try:
                return await self._reader.run(lambda db: _at_one_moment(db, work))
            except self.driver.module.Error as error:
                raise JournalUnavailable(
                    f"The journal cannot be read ({error}). What was answered before is safe."
                ) from error
            finally:
                alarm.cancel()


def _at_one_moment(db: Connection, work: Work[T]) -> T:
    db.execute("BEGIN")
    try:
        return work(db)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


async def _close_all(*connections: _Connection) -> None:
    for connection in connections:
        await connection.close()


def _primary_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _passes(error: BaseException) -> bool:
    """Say whether opening failed for a cause that leaves the file as it is: a lock, the disk."""
    cause = error.__cause__
    return cause is not None and _primary_code(cause) not in (_CORRUPT, _NOTADB)


def _file_holds(path: Path, traces: Sequence[bytes]) -> bool:
    overlap = max(map(len, traces)) - 1
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(_LOOKED_THROUGH_AT_ONCE):
            text = tail + piece
            if any(trace in text for trace in traces):
                return True
            tail = text[-overlap:] if overlap else b""
    return False


def _truncate_wal(db: Connection) -> bool:
    is_busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def _truncate_wal_at_once(db: Connection) -> bool:
    patience_ms = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 0")
    try:
        return _truncate_wal(db)
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms:d}")


def _prepare(db: Connection, opening: Opening, *, check: bool) -> None:
    db.execute("PRAGMA foreign_keys = ON")
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 16777216")
    # What is erased is overwritten; Debian's SQLite does so by itself, others do not.
    db.execute("PRAGMA secure_delete = ON").fetchone()
    level = db.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or level != 2:
        raise JournalUnavailable(
            f"The journal's disk does not allow safe writing (mode {mode}, level {level}). "
            "Nothing was changed. Put journal.path on a local disk."
        )
    if check:
        with opening.doing(db, Phase.CHECKING):
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise JournalUnavailable(
                f"The journal is damaged ({verdict}). It was left as it is. "
                "Stop the agent and run: till-agent journal rescue. It saves what can be read."
            )
