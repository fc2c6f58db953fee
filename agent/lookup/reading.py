"""One question, answered from what is kept or by Engage: fresh, asked, or stale and marked so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import to_text
from agent.delivery.engage.answers import Answer
from agent.delivery.engage.client import EngageClient
from agent.errors import ContactGone, EngageUnreachable, Refused, RouteError
from agent.journal import served
from agent.journal.journal import Journal
from agent.journal.served import Entry, Kept, Shelf
from agent.lookup.asking import EngageOffline, Flights, ask, refuse_offline
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, Source, is_fresh

# A person stands at the till; whoever has not answered by then is as good as not there.
PATIENCE_S = 9.0
# Where an older answer is at hand, nobody waits that long for a newer one.
PATIENCE_WITH_STALE_S = 3.0


@dataclass(frozen=True)
class Question:
    """What is asked of Engage, and where its answer is kept."""

    shelf: Shelf
    name: str
    contact_id: str
    path: str  # below /api/v3
    query: Mapping[str, str] | None
    read: Callable[[Answer], Any]


@dataclass(frozen=True)
class Answered:
    """An answer and where it comes from."""

    body: Any
    provenance: Provenance
    is_absent: bool = False  # Engage says that there is no such contact
    kept: Kept | None = None  # the answer with its place in time; None for an absence

    @property
    def was_asked(self) -> bool:
        """Say whether Engage was asked, or would have been had the line allowed it."""
        origin = self.provenance
        return origin.source is not Source.CACHE or origin.stale_because is not None


@dataclass(frozen=True)
class _Fetched:
    kept: Kept
    stored: bool


class Reader:
    """Answers questions; many who ask the same cost Engage one call."""

    def __init__(self, journal: Journal, client: EngageClient, cache: Cache) -> None:
        self._journal = journal
        self._client = client
        self._cache = cache
        self._flights = Flights()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def answer(
        self, question: Question, is_outdated: Callable[[Kept], bool] = lambda kept: False
    ) -> Answered:
        """Answer from what is kept while it is fresh and not outdated, else ask Engage.

        Raises Refused (in Engage's words), and EngageUnreachable when Engage cannot be asked and
        nothing is kept.
        """
        ttl_s = self._cache.ttl_s(question.shelf)
        kept = await self._cache.find(question.shelf, question.name)
        if kept is not None and is_fresh(kept.age_s, ttl_s) and not is_outdated(kept):
            return Answered(kept.body, Provenance(Source.CACHE, kept.age_s, ttl_s), kept=kept)
        absent_s = await self._cache.absent_for_s(question.contact_id)
        if absent_s is not None:
            return Answered(None, self._absence(Source.CACHE, absent_s), is_absent=True)
        try:
            fetched, collapsed = await self._ask(question, has_stale=kept is not None)
        except ContactGone:
            return Answered(None, self._absence(Source.ENGAGE), is_absent=True)
        except Refused:
            raise
        except RouteError as error:
            if kept is None:
                raise EngageUnreachable from error
            why = "offline" if isinstance(error, EngageOffline) else "engage-failed"
            stale = Provenance(Source.CACHE, kept.age_s, ttl_s, stale_because=why)
            return Answered(kept.body, stale, kept=kept)
        provenance = Provenance(
            Source.ENGAGE,
            ttl_s=ttl_s,
            replaced=kept is not None,
            stored=fetched.stored,
            collapsed=collapsed,
        )
        return Answered(fetched.kept.body, provenance, kept=fetched.kept)

    def _absence(self, source: Source, age_s: float = 0.0) -> Provenance:
        return Provenance(source, age_s, self._cache.absent_ttl_s)

    async def _ask(self, question: Question, *, has_stale: bool) -> tuple[_Fetched, bool]:
        refuse_offline(self._client)
        return await self._flights.join(
            (question.shelf, question.name),
            lambda: self._fetch(question),
            PATIENCE_WITH_STALE_S if has_stale else PATIENCE_S,
        )

    async def _fetch(self, question: Question) -> _Fetched:
        begun = self._cache.now()
        # Whatever this till delivers from here on may be missing in the answer.
        told = await self._journal.read(served.last_attempt)
        progress = await self._cache.progress()
        try:
            body = await ask(self._client, question.path, question.read, question.query)
        except ContactGone:
            self._cache.note_absent(question.contact_id, progress)
            await self._cache.erase_contact(question.contact_id)
            raise
        entry = Entry(question.shelf, question.name, question.contact_id, body, begun, told)
        stored = await self._cache.keep(entry)
        return _Fetched(Kept(body, 0.0, told, to_text(begun.at)), stored)
