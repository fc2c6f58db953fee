"""A contact as a POS reads it: Engage's, with this till's open changes laid over it.

Also what `If-Match` means: which part of an update differs from what the POS was shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from agent.contact import Contact, is_ref_shaped, is_uuid
from agent.delivery.engage import answers
from agent.errors import EngageUnreachable, NotFound, PreconditionFailed
from agent.journal import served
from agent.journal.journal import Journal
from agent.journal.served import Own, Shelf, Shown
from agent.lookup import overlay
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, Source, named_etags
from agent.lookup.reading import Answered, Question, Reader

UNKNOWN_HERE = "This till knows no contact with that id. Use the `id` of a sign-up or a look-up."


class Profiles:
    """Answers GET /contacts/{id}."""

    def __init__(self, journal: Journal, reader: Reader, cache: Cache) -> None:
        self._journal = journal
        self._reader = reader
        self._cache = cache

    async def read(self, public_id: str) -> Answered:
        """Give a contact by its GUID or ref, in Engage's shape.

        Raises NotFound for what can be no contact, Refused, and EngageUnreachable when only Engage
        could tell and it cannot be asked.
        """
        contact, own = await self._own(public_id)
        contact_id = contact.contact_id if contact else self.guid(public_id)
        if contact_id is None:
            if contact is None or not overlay.all_of(own):
                raise NotFound(UNKNOWN_HERE)
            return await self._from_journal(contact, own)
        question = Question(
            Shelf.CONTACT,
            contact_id,
            contact_id,
            f"/contacts/{contact_id}",
            None,
            answers.read_contact,
        )
        outdated = partial(overlay.has_moved, own)
        try:
            answered = await self._reader.answer(question, outdated)
        except EngageUnreachable:
            if contact is None or not overlay.tells_the_contact(own):
                raise
            return await self._from_journal(contact, own)
        if answered.was_asked:
            # Meanwhile a change may have come or been delivered.
            contact, own = await self._own(public_id)
        if answered.kept is None:
            if contact is None or not overlay.is_on_its_way(own):
                return answered
            return await self._from_journal(contact, own)
        body = overlay.laid_over(answered.body, overlay.since(own, answered.kept))
        return await self._shown(contact_id, body, answered.provenance)

    @staticmethod
    def guid(public_id: str) -> str | None:
        """Give an id as Engage may be asked for it; None for a ref, and for what is no id."""
        usable = is_uuid(public_id) and not is_ref_shaped(public_id)
        return public_id.lower() if usable else None

    async def _own(self, public_id: str) -> tuple[Contact | None, tuple[Own, ...]]:
        return await self._journal.read(partial(served.own, public_id=public_id))

    async def _from_journal(self, contact: Contact, own: tuple[Own, ...]) -> Answered:
        body = overlay.laid_over(overlay.blank(contact), overlay.all_of(own))
        return await self._shown(contact.ref, body, Provenance(Source.JOURNAL))

    async def _shown(self, contact: str, body: dict[str, Any], provenance: Provenance) -> Answered:
        anew = provenance.source is Source.ENGAGE
        await self._cache.remember_shown(contact, body, anew=anew)
        return Answered(body, provenance)

    async def narrow(
        self, public_id: str, if_match: str, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Shown | None]:
        """Give what of an update differs from the contact as the POS was shown it, and that.

        `*` is no condition: all is given back, and None. Raises PreconditionFailed for an ETag
        that this agent did not serve for this contact, or has forgotten.
        """
        if if_match.strip() == "*":
            return dict(given), None
        for etag in named_etags(if_match):
            if shown := await self._cache.shown(etag, public_id):
                return overlay.difference(given, shown.body), shown
        raise PreconditionFailed
