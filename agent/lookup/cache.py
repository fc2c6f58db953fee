"""What is kept of Engage's answers, within the bounds of the settings.

Answers stand in the journal and survive a restart. "Not found" is kept for seconds and in memory
only, and is forgotten as soon as this till records or delivers anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent import events
from agent.clock import Clock
from agent.config import Cache as Settings
from agent.errors import AgentError, JournalError
from agent.journal import served
from agent.journal.journal import Journal
from agent.journal.served import Entry, Kept, Moment, Shelf, Shown
from agent.lookup import overlay
from agent.lookup.freshness import is_fresh, kept_for_s

# Longer answers are passed on, but not kept: a till's disk is for what it has promised.
_LARGEST_BODY = 256 * 1024
_ABSENCES_LIMIT = 1000
# Old answers go at the start and then once an hour, whether somebody reads or not.
_TIDY_EVERY_S = 3600.0


@dataclass(frozen=True)
class _Absence:
    since: float  # monotonic
    progress: tuple[int, int]


class Cache:
    """Kept answers, and kept denials."""

    def __init__(self, settings: Settings, journal: Journal, clock: Clock) -> None:
        self._settings = settings
        self._journal = journal
        self._clock = clock
        # Written with the next answer that is kept: a hit shall not cost a sync of the disk.
        self._used: dict[tuple[Shelf, str], None] = {}
        self._absences: dict[Hashable, _Absence] = {}

    def now(self) -> Moment:
        """Give this moment on both clocks."""
        return Moment(self._clock.monotonic(), self._clock.now())

    def ttl_s(self, shelf: Shelf) -> float:
        """Give how long such an answer counts as fresh."""
        if shelf is Shelf.PURCHASES:
            return self._settings.purchases_ttl_s
        if shelf is Shelf.PROMOTIONS:
            return self._settings.promotions_ttl_s
        return self._settings.contact_ttl_s

    def kept_for_s(self, shelf: Shelf) -> float:
        """Give how old such an answer may become."""
        return kept_for_s(self.ttl_s(shelf), self._settings.max_stale_s)

    async def find(self, shelf: Shelf, name: str) -> Kept | None:
        """Give a kept answer that may still be served, fresh or stale."""
        kept = await self._journal.read(
            partial(served.find, shelf=shelf, name=name, moment=self.now())
        )
        if kept is None or kept.age_s > self.kept_for_s(shelf):
            return None
        self._used[shelf, name] = None
        return kept

    async def keep(self, entry: Entry) -> bool:
        """Store an answer if there is room; says whether it was. Never fails."""
        if not self._settings.max_entries or len(json.dumps(entry.body)) > _LARGEST_BODY:
            return False
        used, self._used = self._used, {}
        try:
            self._journal.check_room()
            await self._journal.write(
                partial(served.keep, entries=(entry,), used=used, limit=self._settings.max_entries)
            )
        except AgentError as error:
            # The answer is good all the same; the page says what is wrong with the journal.
            events.log().debug("answer_not_kept", code=error.code)
            return False
        return True

    async def erase_contact(self, contact_id: str) -> None:
        """Engage does not know this contact any more: forget what it said of it."""
        try:
            await self._journal.write(partial(served.erase_contact, public_id=contact_id))
        except AgentError as error:
            events.log().debug("answer_not_kept", code=error.code)

    # --- what a POS was shown -------------------------------------------------------------------

    async def remember_shown(self, contact: str, body: dict[str, Any], *, anew: bool) -> None:
        """Remember what a POS is about to be shown, for If-Match; `anew`: count its age from now.

        Where it cannot be stored, If-Match will say so.
        """
        etag = overlay.etag(body)
        if not anew and await self._journal.read(partial(served.was_shown, etag=etag)):
            self._used[Shelf.SHOWN, etag] = None
        else:
            await self.keep(Entry(Shelf.SHOWN, etag, contact, body, self.now()))

    async def shown(self, etag: str, public_id: str) -> Shown | None:
        """Give what was shown of a contact under an ETag."""
        return await self._journal.read(partial(served.shown, etag=etag, public_id=public_id))

    # --- what is not there ----------------------------------------------------------------------

    async def absent_for_s(self, question: Hashable) -> float | None:
        """Give how long ago Engage said that there is no such contact; None: it must be asked."""
        absence = self._absences.get(question)
        if absence is None:
            return None
        age_s = self._clock.monotonic() - absence.since
        if not is_fresh(age_s, self._settings.not_found_ttl_s):
            del self._absences[question]
            return None
        if absence.progress != await self.progress():  # something was recorded or delivered
            self._absences.pop(question, None)
            return None
        return age_s

    @property
    def absent_ttl_s(self) -> float:
        """Give how long "not found" is passed on without asking again."""
        return self._settings.not_found_ttl_s

    async def progress(self) -> tuple[int, int] | None:
        """Give how far the journal is, to be taken before Engage is asked; None: nobody can say."""
        try:
            return await self._journal.read(served.progress)
        except JournalError:
            return None

    def note_absent(self, question: Hashable, progress: tuple[int, int] | None) -> None:
        """Keep that Engage said "not found"."""
        if progress is None or not self._settings.not_found_ttl_s:
            return
        self._absences.pop(question, None)
        while len(self._absences) >= _ABSENCES_LIMIT:
            del self._absences[next(iter(self._absences))]
        self._absences[question] = _Absence(self._clock.monotonic(), progress)

    def forget_absences(self) -> None:
        """Forget all of that: a question names somebody, and somebody was erased."""
        self._absences.clear()

    # --- tidying --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Erase old answers for as long as the agent runs."""
        while True:
            await self.tidy()
            await asyncio.sleep(_TIDY_EVERY_S)

    async def tidy(self) -> int:
        """Erase what is too old to be served; gives how many answers."""
        limits_s = {shelf: self.kept_for_s(shelf) for shelf in Shelf}
        try:
            return await self._journal.write(
                partial(served.erase_old, limits_s=limits_s, moment=self.now())
            )
        except AgentError as error:
            events.log().warning("old_answers_not_erased", code=error.code)
            return 0
