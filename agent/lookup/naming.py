"""Engage's GUID for a contact of which this till knows only by what it is found.

That is a member whom an export named without a GUID: the till gave it a ref of its own.
"""

from __future__ import annotations

import contextlib
from functools import partial

from agent.config import Engage
from agent.contact import Contact, Key
from agent.delivery.engage import answers
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.finding import find_contact
from agent.errors import (
    EngageUnreachable,
    JournalError,
    JournalFull,
    MultipleMatches,
    Overloaded,
    Refused,
    RouteError,
    SeveralMatch,
)
from agent.journal import changes, contacts
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.lookup.asking import refuse_offline


class Naming:
    """Asks Engage for the GUID, once it is needed."""

    def __init__(self, journal: Journal, client: EngageClient, settings: Engage) -> None:
        self._journal = journal
        self._client = client
        self._settings = settings

    async def contact_id(self, contact: Contact) -> str | None:
        """Give the GUID; None for a sign-up on its way, and where there is nothing to ask by.

        Raises MultipleMatches, Refused (in Engage's words) and EngageUnreachable.
        """
        if contact.contact_id is not None:
            return contact.contact_id
        keys = await self._journal.read(partial(_keys_alone, lane=contact.lane))
        if not keys:
            return None
        try:
            refuse_offline(self._client)
            found = await find_contact(self._ask, self._settings, keys, contact.contact_type)
        except SeveralMatch as error:
            raise MultipleMatches(error.contact_ids) from error
        except Refused:
            raise
        except RouteError as error:
            raise EngageUnreachable from error
        if found is not None:
            learn = partial(contacts.learn, lane=contact.lane, contact_id=found, contact_type=None)
            # The answer is good all the same; the page says what is wrong with the journal.
            with contextlib.suppress(JournalError, JournalFull, Overloaded):
                await self._journal.write(learn)
        return found

    async def _ask(self, _: str, query: dict[str, str]) -> str | None:
        return await self._client.call("GET", "/contacts/id", answers.looked_up, query=query)


def _keys_alone(db: Connection, lane: int) -> tuple[Key, ...]:
    """Give the keys of a contact that has nothing but them: no change that would make it known."""
    return () if changes.of_lane_exist(db, lane) else contacts.keys(db, lane)
