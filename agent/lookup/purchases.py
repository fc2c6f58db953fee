"""Purchases and promotions of a contact: Engage's lists, passed on as they are and kept a while."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.delivery.engage import answers
from agent.errors import MalformedRequest, NotFound
from agent.journal import served
from agent.journal.journal import Journal
from agent.journal.served import Shelf
from agent.lookup import overlay
from agent.lookup.freshness import Provenance, Source
from agent.lookup.profiles import UNKNOWN_HERE, Profiles
from agent.lookup.reading import Answered, Question, Reader


class Lists:
    """Answers GET /contacts/transactions and GET /promotion-assignments."""

    def __init__(self, journal: Journal, reader: Reader, profiles: Profiles) -> None:
        self._journal = journal
        self._reader = reader
        self._profiles = profiles

    async def purchases(self, query: Mapping[str, str]) -> Answered:
        """Give a contact's purchases and returns, `{count, offset, totalCount, items}`."""
        offset = query.get("offset", "")
        none = {
            "count": 0,
            "offset": int(offset[:9]) if offset.isascii() and offset.isdigit() else 0,
            "totalCount": 0,
            "items": [],
        }
        return await self._read(Shelf.PURCHASES, "/contacts/transactions", query, none)

    async def promotions(self, query: Mapping[str, str]) -> Answered:
        """Give a contact's promotions, a list; with `redeemed=false` those that can be used.

        Engage lists redeemed ones too; `redeemed` is the agent's own parameter.
        """
        redeemed = query.get("redeemed", "true").lower()
        if redeemed not in ("true", "false"):
            raise MalformedRequest("`redeemed` must be true or false.")
        forwarded = {name: value for name, value in query.items() if name != "redeemed"}
        answered = await self._read(Shelf.PROMOTIONS, "/promotion-assignments", forwarded, [])
        if redeemed == "true" or answered.is_absent:
            return answered
        return Answered(usable(answered.body), answered.provenance)

    async def _read(self, shelf: Shelf, path: str, query: Mapping[str, str], none: Any) -> Answered:
        """Read a list; `none` is Engage's shape of an empty one.

        Raises MalformedRequest without `contactId`, NotFound for what can be no contact, Refused,
        and EngageUnreachable.
        """
        public_id = query.get("contactId", "").strip()
        if not public_id:
            raise MalformedRequest("Say whose: `contactId` is missing.")
        contact, own = await self._journal.read(partial(served.own, public_id=public_id))
        contact_id = await self._profiles.contact_id(contact, public_id)
        if contact_id is None:
            if contact is None:
                raise NotFound(UNKNOWN_HERE)
            # Engage does not know the customer yet, so there is nothing that it could list.
            return Answered(none, Provenance(Source.JOURNAL))
        forwarded = {**query, "contactId": contact_id}
        name = urlencode(sorted(forwarded.items()))
        question = Question(shelf, name, contact_id, path, forwarded, answers.read_any)
        # A sign-up, an update or an upgrade of this till may bring other promotions with it.
        return await self._reader.answer(question, partial(overlay.has_moved, own))


def usable(body: Any) -> Any:
    """Give a list of promotions without those that were redeemed; anything else as it came."""
    if isinstance(body, list):
        return [item for item in body if not (isinstance(item, dict) and _is_redeemed(item))]
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        return {**body, "items": usable(body["items"])}
    return body


def _is_redeemed(promotion: Mapping[str, Any]) -> bool:
    """Say whether a promotion was redeemed; either member may be missing in some version."""
    return promotion.get("redeemed") is True or bool(promotion.get("redeemedOn"))
