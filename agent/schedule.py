"""The calendar jobs: what happens by the time of day. Never a retry: those wait in the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from agent import events
from agent.clock import to_text
from agent.errors import JournalError
from agent.journal import batches, changes, contacts, register
from agent.journal.journal import Journal

_PAGE = 500
# No older file of the member export comes so late.
_GONE_FOR = timedelta(days=90)


class Schedule:
    """Runs the jobs by the till's own time of day."""

    def __init__(
        self,
        journal: Journal,
        sure_now: Callable[[], datetime | None],
        *,
        retain_days: int,
        recognise_days: int,
    ) -> None:
        self._journal = journal
        # The time by Engage's clock; None while it was not heard. A till's own clock may have
        # jumped by years, and what is erased by it is gone.
        self._sure_now = sure_now
        self._retain_days = retain_days  # settled changes
        self._recognise_days = recognise_days  # the keys of customers
        self._scheduler: object | None = None

    def start(self) -> None:
        """Arm the jobs in the running loop."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        # No misfire limit: the default of one second would skip a job that is late without a word.
        scheduler = AsyncIOScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        # Several times a day: a till that is switched off at night must erase all the same.
        scheduler.add_job(self._safely(self.prune), "cron", hour="*/4", minute=17, jitter=1800)
        scheduler.start()
        self._scheduler = scheduler

    def stop(self) -> None:
        """Disarm them."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)  # type: ignore[attr-defined]
            self._scheduler = None

    async def prune(self) -> int:
        """Erase what is older than the settings allow; gives how many changes.

        These are settled changes with what stands beside them, the keys of customers with whom the
        till had nothing more to do, and who was deleted in the member export. In pages, so that
        intake never waits for it. None is erased while only the till's own clock says what day it
        is.
        """
        now = self._sure_now()
        if now is None:
            events.log().info("pruning_put_off", reason="Engage's time is not known")
            return 0
        await self._redate(now)
        before = to_text(now - timedelta(days=self._retain_days))
        removed = await self._in_pages(partial(changes.prune, before=before))
        in_batches = await self._in_pages(partial(batches.prune_contacts, before=before))
        keys = await self._prune_keys(to_text(now - timedelta(days=self._recognise_days)))
        gone = to_text(now - _GONE_FOR)
        members = await self._journal.write(partial(register.prune_gone, before=gone))
        if removed or in_batches or keys or members:
            await self._journal.scrub()
        await self._journal.finish_removing()
        events.log().info("pruned", changes=removed, count=keys)
        return removed

    async def _in_pages(self, work: Callable[..., int]) -> int:
        total = 0
        while True:
            page = await self._journal.write(partial(work, limit=_PAGE))
            total += page
            if page < _PAGE:
                return total

    async def _prune_keys(self, before: str) -> int:
        total = 0
        while True:
            # Found on the reader's connection: looking through all keys must hold up no sign-up.
            found = await self._journal.read(
                partial(contacts.stale_keys, before=before, limit=_PAGE)
            )
            if not found:
                return total
            await self._journal.write(partial(contacts.prune_keys, found=found, before=before))
            total += len(found)

    async def _redate(self, now: datetime) -> None:
        """What bears a date to come was stored by a wrong clock; it would never grow old."""
        after, now_text = to_text(now + timedelta(days=1)), to_text(now)
        await self._journal.write(partial(changes.redate, after=after, now=now_text))
        if await self._journal.read(partial(contacts.has_misdated_keys, after=after)):
            await self._journal.write(partial(contacts.redate_keys, after=after, now=now_text))

    def _safely(self, job: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            try:
                await job()
            except JournalError as error:
                events.log().error("journal_trouble", where="schedule", error=error.message)

        return run
