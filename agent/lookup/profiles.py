"""A contact as a POS reads it: Engage's, with this till's open changes laid over it.

Also what `If-Match` means: which part of an update differs from what the POS was shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from agent.contact import Contact, contact_type_of, is_ref_shaped, is_uuid, keys_told
from agent.delivery.engage import answers
from agent.errors import (
    EngageUnreachable,
    JournalError,
    JournalFull,
    NotFound,
    Overloaded,
    PreconditionFailed,
)
from agent.identifiers import keys_as_stored
from agent.journal import contacts, served
from agent.journal.journal import Journal
from agent.journal.served import Own, Shelf, Shown
from agent.lookup import overlay
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, Source, named_etags
from agent.lookup.naming import Naming
from agent.lookup.reading import Answered, Question, Reader

UNKNOWN_HERE = "This till knows no contact with that id. Use the `id` of a sign-up or a look-up."


class Profiles:
    """Answers GET /contacts/{id}."""

    def __init__(
        self,
        journal: Journal,
        reader: Reader,
        cache: Cache,
        naming: Naming,
        *,
        phone_region: str | None,
    ) -> None:
        self._journal = journal
        self._naming = naming
        self._reader = reader
        self._cache = cache
        self._phone_region = phone_region  # where a number without a country code belongs

    async def read(self, public_id: str) -> Answered:
        """Give a contact by its GUID or ref, in Engage's shape.

        Raises NotFound for what can be no contact, Refused, and EngageUnreachable when only Engage
        could tell and it cannot be asked.
        """
        contact, own = await self._own(public_id)
        contact_id = await self.contact_id(contact, public_id)
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
            await self._remember(contact_id, answered)
        if answered.kept is None:
            if contact is None or not overlay.is_on_its_way(own):
                return answered
            return await self._from_journal(contact, own)
        body = overlay.laid_over(answered.body, overlay.since(own, answered.kept))
        return await self._shown(contact_id, body, answered.provenance)

    async def _remember(self, contact_id: str, answered: Answered) -> None:
        """Keep by what a contact that was just read is found, so that it is found offline too."""
        origin, kept = answered.provenance, answered.kept
        if origin.source is not Source.ENGAGE or origin.collapsed or kept is None:
            return
        keys = keys_as_stored(keys_told(kept.body), self._phone_region, self._cache.now().at.date())
        # The answer is good all the same; the page says what is wrong with the journal.
        with contextlib.suppress(JournalError, JournalFull, Overloaded):
            await self._journal.write(
                partial(
                    contacts.remember_contact,
                    keys=keys,
                    contact_id=contact_id,
                    contact_type=contact_type_of(kept.body),
                    asked_after=kept.told,
                    now=kept.fetched_at,
                )
            )

    async def contact_id(self, contact: Contact | None, public_id: str) -> str | None:
        """Give Engage's GUID; None for a sign-up on its way, and for what can be no contact.

        Raises MultipleMatches, Refused and EngageUnreachable.
        """
        return await self._naming.contact_id(contact) if contact else _guid(public_id)

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
        that this agent did not serve for this contact, or has forgotten; NotFound for what can be
        no contact.
        """
        if if_match.strip() == "*":
            return dict(given), None
        for etag in named_etags(if_match):
            if shown := await self._cache.shown(etag, public_id):
                return overlay.difference(given, shown.body), shown
        contact, _ = await self._own(public_id)
        if contact is None and _guid(public_id) is None:
            raise NotFound(f"{UNKNOWN_HERE} Nothing was stored.")
        raise PreconditionFailed


def _guid(public_id: str) -> str | None:
    """Give an id as Engage may be asked for it; None for a ref, and for what is no id."""
    usable = is_uuid(public_id) and not is_ref_shaped(public_id)
    return public_id.lower() if usable else None
