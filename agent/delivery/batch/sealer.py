"""When changes go by file: sealed by age, by count, on return, by hand, and written at once.

What goes into a batch is for packing.py to say, how it becomes a file for writing.py. The link is
asked, never told.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from agent import events
from agent.change import Change, State
from agent.clock import Clock
from agent.config import Config
from agent.delivery.batch.packing import Limits, Packer
from agent.delivery.batch.ripeness import Ripeness, age_needed_s
from agent.delivery.batch.spool import Spool, SpoolProblem
from agent.delivery.batch.writing import Writer
from agent.delivery.link import Link, LinkState
from agent.errors import AgentError, RouteError
from agent.journal import batches
from agent.journal.batches import Batch
from agent.journal.journal import Journal

_TICK_S = 0.5
_PAGE = 200  # lanes read at once
_AFTER_TROUBLE_S = 10.0
_SWEEP_EVERY_S = 3600.0
# Lanes that come free by themselves are counted again so seldom: it takes a while.
_COUNT_AGAIN_S = 60.0


@dataclass(frozen=True)
class _Count:
    """How many lanes a file could take, when they were counted last."""

    at: float  # monotonic
    waiting: int  # all changes that waited, in any lane
    idle: int  # lanes that could share one file

    def is_outdated(self, now: float, waiting: int, most: int) -> bool:
        """Say whether a file may be full by now.

        Tens of thousands may wait behind what is in files already: so they are counted again only
        when enough were taken meanwhile, and now and then for those that came free.
        """
        return now - self.at >= _COUNT_AGAIN_S or waiting - self.waiting >= most - self.idle


class Sealer:
    """Seals batches and writes their files for as long as it runs."""

    def __init__(
        self, config: Config, journal: Journal, spool: Spool, link: Link, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal
        self._spool = spool
        self._link = link
        self._clock = clock
        self._packer = Packer(config, journal, clock)
        self._writer = Writer(config, journal, spool)
        # Of the line, as far as it was decided what goes by file then. A start is one, too: the
        # till may have been switched off in an outage.
        self._returns = -1
        self._sealing = asyncio.Lock()  # a person may ask for it while the loop does it too
        self._swept = False  # of what a former run left in the spool
        self._next_sweep = -math.inf  # monotonic
        self._foreign = 0  # files in the spool that are not ours
        self._ripeness = Ripeness()
        self._counted: _Count | None = None
        self._write_again_at = 0.0  # monotonic
        self.written = asyncio.Event()  # a file is ready to go up
        self._sealing_problem: str | None = None
        self._writing_problem: str | None = None
        self._sweeping_problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Give why batches cannot be sealed, or files not written or removed, for the page."""
        return (
            self._sealing_problem
            or self._packer.problem
            or self._writing_problem
            or self._sweeping_problem
        )

    @property
    def sealing(self) -> asyncio.Lock:
        """Give what is held while batches are made and written."""
        return self._sealing

    @property
    def decides(self) -> bool:
        """Say whether the line came back and what goes by file is not decided yet.

        Until then the API route leaves the backlog alone, or both would pick from the same pile.
        """
        return self._link.returns != self._returns

    async def run(self) -> None:
        """Seal and write until cancelled."""
        while True:
            try:
                await self.turn()
                self._sealing_problem = None
            except AgentError as error:
                if self._sealing_problem != error.message:
                    events.log().error("sealing_trouble", error=error.message)
                self._sealing_problem = error.message
                await asyncio.sleep(_AFTER_TROUBLE_S)
            await asyncio.sleep(_TICK_S)

    async def turn(self) -> None:
        """Write what is sealed, then seal what is due. Raises StylesheetProblem, JournalErrors."""
        async with self._sealing:
            await self._close_and_write()
            await self._packer.look_after_held()
        await self._seal_what_is_due()

    # --- when ---------------------------------------------------------------------------------

    async def _seal_what_is_due(self) -> None:
        if self._link.state is LinkState.OFFLINE:
            await self._seal_what_waits(used_up=0, why="offline")
            return
        if self.decides:
            returns = self._link.returns
            try:
                await self._seal_if_too_many()
            finally:
                self._returns = returns  # even if it did not work out: the API route goes on
        await self._seal_what_waits(used_up=self._config.retry.api_attempts, why="attempts")

    async def _seal_if_too_many(self) -> None:
        most = self._config.fallback.api_drain_max
        now = self._clock.monotonic()
        is_start = self._link.returns == 0
        if is_start and not await self._is_from_an_outage():
            return
        count = partial(
            batches.count_idle,
            used_up=0,
            limit=most + 1,
            now=now,
            creates=self._packer.takes_creates,
        )
        if await self._journal.read(count) <= most:
            return
        unsent = len(await self._in_state("sealed", "written"))
        if self._ripeness.takes_return(
            now, age_needed_s(self._config.fallback.seal_after_s, unsent)
        ):
            await self._seal(used_up=0, why="returned", now=now)

    async def _is_from_an_outage(self) -> bool:
        """Say whether something has waited for so long that it is not just from a busy moment."""
        oldest = await self._oldest(0)
        if oldest is None:
            return False
        age_s = (self._clock.now() - datetime.fromisoformat(oldest.created_at)).total_seconds()
        return age_s >= self._config.fallback.seal_after_s

    async def _seal_what_waits(self, *, used_up: int, why: str) -> None:
        oldest = await self._oldest(used_up)
        if oldest is None:
            return
        now = self._clock.monotonic()
        self._ripeness.note_oldest(oldest, self._clock.now(), now)
        unsent = len(await self._in_state("sealed", "written"))
        needed_s = age_needed_s(self._config.fallback.seal_after_s, unsent)
        if self._ripeness.is_ripe(now, needed_s):
            await self._seal(used_up=used_up, why=why, now=now)
        elif full := await self._full_files(used_up):
            await self._seal(used_up=used_up, why="full", now=now, limits=full)

    async def _oldest(self, used_up: int) -> Change | None:
        """Give the oldest change that a file could take."""
        after, limit = 0, 1  # usually the first one
        idle = partial(
            batches.idle_lanes,
            used_up=used_up,
            now=self._clock.monotonic(),
            creates=self._packer.takes_creates,
        )
        while True:
            lanes = await self._journal.read(partial(idle, after=after, limit=limit))
            for lane in lanes:
                if part := self._packer.part_for_file(lane):
                    return part[0]
            if len(lanes) < limit:
                return None
            after, limit = lanes[-1].head.seq, _PAGE

    async def _full_files(self, used_up: int) -> Limits | None:
        """Give how many contacts would fill whole files, or None for not even one."""
        most = self._config.fallback.max_contacts
        waiting = (await self._journal.totals()).counts[State.WAITING]
        now, last = self._clock.monotonic(), self._counted
        if waiting < most or (not used_up and last and not last.is_outdated(now, waiting, most)):
            return None
        count = partial(
            batches.count_idle_by_id,
            used_up=used_up,
            limit=2 * most,
            now=now,
            creates=self._packer.takes_creates,
        )
        counts = await self._journal.read(count)
        self._counted = _Count(now, waiting, max(counts.values()))
        full = {with_id: number // most * most for with_id, number in counts.items()}
        return full if any(full.values()) else None

    # --- sealing ------------------------------------------------------------------------------

    async def seal_now(self, *, used_up: int = 0, why: str = "by hand") -> int:
        """Seal every change that a file could take; gives how many batches that made.

        Their files are written at once; what keeps them from it is tried again, and said on the
        page. Raises StylesheetProblem, JournalErrors.
        """
        # A person asks: what was taken back a moment ago goes, too.
        return await self._seal(used_up=used_up, why=why, now=math.inf)

    async def _seal(
        self, *, used_up: int, why: str, now: float, limits: Limits | None = None
    ) -> int:
        async with self._sealing:
            self._counted = None
            await self._packer.close_begun()
            made = await self._packer.pack(used_up=used_up, why=why, now=now, limits=limits)
            if made and limits is None:
                self._ripeness.note_sealed(self._clock.monotonic())
            self._write_again_at = 0.0
            await self._close_and_write()
            return made

    async def _in_state(self, *states: str) -> tuple[Batch, ...]:
        return await self._journal.read(partial(batches.in_state, states=states))

    # --- writing ------------------------------------------------------------------------------

    async def _close_and_write(self) -> None:
        """Write every batch that has no file yet; what keeps one from it holds up nothing else."""
        found = await self._in_state("filling", "sealed")
        if any(batch.state == "filling" for batch in found):
            await self._packer.close_begun()  # what a kill or a fault left half filled
            found = await self._in_state("sealed")
        await self._sweep_now_and_then()
        if not found:
            self._writing_problem = None
        elif self._clock.monotonic() >= self._write_again_at:
            self._note_writing(await self._write_all(found))

    def _note_writing(self, problems: Sequence[str]) -> None:
        problem = problems[0] if problems else None
        if problem is not None:
            self._write_again_at = self._clock.monotonic() + _AFTER_TROUBLE_S
            if problem != self._writing_problem:
                events.log().error("writing_trouble", error=problem)
        self._writing_problem = problem

    async def _write_all(self, sealed: Sequence[Batch]) -> list[str]:
        """Write files; gives what went wrong with those that could not be written."""
        problems = []
        for batch in sealed:
            try:
                await self._write(batch)
            except RouteError as error:
                problems.append(error.message)
                note = partial(batches.note_trouble, names=(batch.name,), error=error.message)
                await self._journal.write(note)
        return problems

    async def _write(self, batch: Batch) -> None:
        if self._config.fallback.transport == "sftp":
            await self.write_file(batch)
        await self._journal.write(partial(batches.note_written, number=batch.number))
        self.written.set()

    async def remove_file(self, name: str) -> None:
        """Remove a batch's file that nobody needs any more; if that fails, a sweep does it."""
        try:
            await asyncio.to_thread(self._spool.remove, name)
        except SpoolProblem as error:
            events.log().warning("batch_not_removed", batch=name, error=error.message)
            self._sweeping_problem = error.message
            self._next_sweep = self._clock.monotonic() + _AFTER_TROUBLE_S

    async def _sweep_now_and_then(self) -> None:
        """Let nothing lie in the spool for good: it is customers' data. Nothing is sealed now."""
        now = self._clock.monotonic()
        if now < self._next_sweep:
            return
        try:
            await self._sweep()
        except SpoolProblem as error:
            if error.message != self._sweeping_problem:
                events.log().error("sweeping_trouble", error=error.message)
            self._sweeping_problem = error.message
            self._next_sweep = now + _AFTER_TROUBLE_S
            return
        self._swept, self._sweeping_problem = True, None
        self._next_sweep = now + _SWEEP_EVERY_S

    async def _sweep(self) -> None:
        keep = {batch.name for batch in await self._in_state("sealed", "written")}
        # What is unfinished may be under way, except at the start.
        sweep = partial(self._spool.sweep, keep, unfinished=not self._swept)
        swept = await asyncio.to_thread(sweep)
        # Went up, or another way, and could not be removed then; or the power failed before it was.
        ours = await self._journal.read(partial(batches.names_among, names=swept.foreign))
        for name in ours:
            await asyncio.to_thread(self._spool.remove, name)
        foreign = len(swept.foreign) - len(ours)
        if foreign and foreign != self._foreign:
            # Not their names: nobody knows what somebody else's file is named after.
            events.log().warning("foreign_files_in_spool", count=foreign)
        self._foreign = foreign

    async def write_file(self, batch: Batch) -> None:
        """Make a batch's file in the spool; safe to repeat. Raises SpoolProblem and the like."""
        await self._writer.write_file(batch)
