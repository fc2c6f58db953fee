"""The calendar jobs: what happens by the time of day. Never a retry: those wait in the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from agent import events
from agent.clock import to_text
from agent.errors import JournalError
from agent.journal import changes
from agent.journal.journal import Journal

_PAGE = 500


class Schedule:
    """Runs the jobs by the till's own time of day."""

    def __init__(
        self, journal: Journal, sure_now: Callable[[], datetime | None], *, retain_days: int
    ) -> None:
        self._journal = journal
        # The time by Engage's clock; None while it was not heard. A till's own clock may have
        # jumped by years, and what is erased by it is gone.
        self._sure_now = sure_now
        self._retain_days = retain_days
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
        """Erase changes settled longer than journal.retain_days ago; gives how many.

        In pages, so that intake never waits for it. None is erased while only the till's own clock
        says what day it is.
        """
        now = self._sure_now()
        if now is None:
            events.log().info("pruning_put_off", reason="Engage's time is not known")
            return 0
        before = to_text(now - timedelta(days=self._retain_days))
        removed = 0
        while True:
            page = await self._journal.write(partial(changes.prune, before=before, limit=_PAGE))
            removed += page
            if page < _PAGE:
                events.log().info("pruned", changes=removed)
                return removed

    def _safely(self, job: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            try:
                await job()
            except JournalError as error:
                events.log().error("journal_trouble", where="schedule", error=error.message)

        return run
