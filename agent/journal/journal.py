"""The journal as the rest of the agent sees it: open, record, claim, settle, and units of work."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent import events
from agent.change import Change
from agent.clock import Clock, to_text
from agent.contact import new_id
from agent.errors import IntakeError, JournalError, JournalFull, JournalUnavailable
from agent.journal import batches, changes, marker, meta
from agent.journal.ballast import Ballast
from agent.journal.database import Database
from agent.journal.driver import Connection
from agent.journal.news import News, Settled

T = TypeVar("T")

# For so long the disk is not asked again; much less than min_free_mb can be filled meanwhile.
_ROOM_LASTS_S = 0.1
# Outcomes first grow the -wal to 4 MB, before SQLite begins it anew; then they fit into the file.
_LEAST_BALLAST, _LARGEST_BALLAST = 6 * 1024 * 1024, 16 * 1024 * 1024
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Journal:
    """What the agent has promised. Everything awaited here is durable when it returns."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        verify: str = "all",
        min_free_mb: int = 64,
        on_taken: Callable[[str], None] = lambda kind: None,
    ) -> None:
        """`on_taken` gets the kind of each change that is durable now."""
        self.database = database
        self.news = News()
        self.verify = verify  # fallback.verify: all, creates, none
        self._clock = clock
        self._on_taken = on_taken
        self._min_free = min_free_mb * 1024 * 1024
        reserve = max(_LEAST_BALLAST, min(_LARGEST_BALLAST, self._min_free // 4))
        self._ballast = Ballast(database.path, reserve)
        database.make_room = self._ballast.throw_off
        self._room_until = 0.0  # monotonic: until then there is room enough without asking again
        self._mark: marker.Mark | None = None
        self._mark_path = marker.path_of(database.path)
        self._boot = new_id()  # this run of the agent, in every lease it gives

    @property
    def verifies(self) -> bool:
        """Say whether `imported` is not yet an end."""
        return self.verify != "none"

    async def open(self) -> int:
        """Open the file and take over what an older run left in `sending`.

        Gives how many changes may have happened without our knowing. Raises JournalInUse,
        SchemaTooNew, JournalUnavailable.
        """
        marker.refuse_lost(self._mark_path, self.database.path)
        await self.database.open()
        try:
            taken_over = await self.write(self._start)
            await self.leave_mark()
            with contextlib.suppress(JournalError):  # it is tried again; nothing else depends on it
                await self.finish_removing()
        except BaseException:
            await self.database.close()
            raise
        return taken_over

    def _start(self, db: Connection) -> int:
        machine = _machine_boot()
        known = db.execute("SELECT value FROM meta WHERE name = 'machine_boot'").fetchone()
        if machine is None or known is None or known["value"] != machine:
            changes.forget_waits(db)
            batches.forget_waits(db)
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('machine_boot', ?)", (machine or "unknown",)
            )
        doubted = 0
        if marker.is_restored(marker.read(self._mark_path), marker.of(db)):
            doubted = marker.doubt_everything(db)
            events.log().warning("journal_restored", changes=doubted)
        if aside := meta.take_rescue(db):
            events.log().warning("journal_rescued", file=aside)
        return changes.take_over(db, to_text(self._clock.now())) + doubted

    async def leave_mark(self) -> None:
        """Note beside the journal how far it has come, so that a restored backup is noticed."""
        mark = await self.write(marker.of)
        if mark == self._mark:
            return
        try:
            await asyncio.to_thread(marker.write, self._mark_path, mark)
            self._mark = mark
        except OSError as error:
            events.log().warning("mark_not_written", error=error.strerror)

    async def close(self) -> None:
        """Finish what was begun and close the file."""
        with contextlib.suppress(JournalError, IntakeError):
            await self.leave_mark()
        await self.database.close()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run one of this folder's functions as a unit of work; durable when it returns."""
        return await self.database.write(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run one of this folder's reading functions."""
        return await self.database.read(work)

    async def tidy(self) -> None:
        """Keep the -wal small and some room in reserve; for now and then.

        Waits for nobody and raises nothing.
        """
        await self.database.tidy()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._ballast.balance, self.room_bytes(), self._min_free)

    @property
    def problem(self) -> str | None:
        """Say what a person should see to, apart from why nothing can be stored."""
        held_back = self.database.held_back_bytes
        if not held_back:
            return None
        return (
            "Another program reads the journal and does not end, so that its -wal has grown to "
            f"{held_back // 1024**2:,} MB. What was accepted is safe. End that program: a backup, "
            "a virus scanner or a database tool may read for so long."
        )

    async def scrub(self) -> bool:
        """Write what was erased through to the file; False while a foreign reader prevents it."""
        return await self.database.scrub()

    async def remove_traces(self, traces: Sequence[bytes]) -> bool:
        """See to it that what was erased stands in the journal's files no more.

        Looks for these bytes in the file, and writes it anew if they are still there. Gives False
        where something may be left, and finish_removing() is to try again: a foreign program reads
        the journal, or it is too large to be written anew.
        """
        is_clean = await self.database.scrub()
        if await self.database.holds(traces):
            is_clean = await self.database.rewrite() and await self.database.scrub()
        if is_clean:
            await self.write(meta.forget_traces)
        return is_clean

    async def finish_removing(self) -> None:
        """Bring to its end what remove_traces() did not; whose they are, nobody knows any more."""
        if not await self.read(meta.has_traces):
            return
        if await self.database.rewrite() and await self.database.scrub():
            await self.write(meta.forget_traces)

    async def record(self, request: changes.Request) -> changes.Recorded:
        """Store what the POS asked for, before it is answered.

        Raises IdempotencyKeyReused, NotFound, Overloaded, JournalFull, JournalUnavailable; nothing
        was stored then.
        """
        self.check_room()
        recorded = await self.write(partial(changes.record, request=request))
        if recorded.is_new:
            self._on_taken(recorded.change.kind)
            self.news.tell_recorded(recorded.change.contact.lane)
        return recorded

    def check_room(self) -> None:
        """Raise JournalFull while the disk has less room than journal.min_free_mb.

        Refused early, so that what is stored already can still be delivered and recorded.
        """
        now = self._clock.monotonic()
        if now < self._room_until:
            return
        try:
            disk = os.statvfs(self.database.path.parent)
        except OSError as error:
            raise JournalUnavailable(
                f"The journal's folder cannot be read: {error.strerror}. Nothing was stored."
            ) from error
        least = self._min_free + self._ballast.spent_bytes
        if disk.f_bavail * disk.f_frsize < least or (disk.f_files and not disk.f_favail):
            raise JournalFull
        self._room_until = now + _ROOM_LASTS_S

    def room_bytes(self) -> int:
        """Give how many bytes are free on the journal's disk."""
        disk = os.statvfs(self.database.path.parent)
        return disk.f_bavail * disk.f_frsize

    async def due_lanes(self, limit: int) -> tuple[int, ...]:
        """Give lanes whose head may be sent now."""
        now = self._clock.monotonic()
        return await self.read(partial(changes.due_lanes, now=now, limit=limit))

    async def claim(self, lane: int) -> changes.Claim | None:
        """Take the head of a lane for sending; None when it is not due or a change is under way."""
        now, lease = self._clock.monotonic(), f"{self._boot}:{new_id()}"
        return await self.write(partial(changes.claim, lane=lane, now=now, lease=lease))

    async def settle(
        self, claim: changes.Claim, settlement: changes.Settlement, body: Any = None
    ) -> tuple[Change, ...]:
        """Store an attempt's outcome and tell who waits for it. Raises ForbiddenMove.

        It was sent, so its outcome must be written even if the task that sent it is cancelled.
        """
        work = partial(changes.settle, claim=claim, settlement=settlement, verifies=self.verifies)
        settled = await asyncio.shield(self.write(work))
        self.tell(settled, body)
        if settlement.due:
            for change in settled:
                self.news.tell_deferred(Settled(change), settlement.due - self._clock.monotonic())
        return settled

    def tell(self, moved: tuple[Change, ...], body: Any = None) -> None:
        """Wake the handlers that wait for these changes, where their state is an answer."""
        for change in moved:
            if change.settled_at is not None:
                self.news.tell_settled(Settled(change, body))

    async def totals(self) -> changes.Totals:
        """Give how many changes are in which state, and the age of the oldest open one."""
        return await self.read(partial(changes.totals, verifies=self.verifies))


def _machine_boot() -> str | None:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None  # then every start counts as one of the machine: waits are only shortened
