"""Key → contactId or ref: asks Engage where it can, the journal where it cannot.

"Not found" is an answer with consequences, a sign-up that may be a double: it is given only when
Engage itself said so and no open change of this till carries the key.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from agent.change import State
from agent.clock import Clock, to_text
from agent.config import Config
from agent.contact import KEY_ATTRIBUTES, Contact, Key, comparable
from agent.delivery.engage import answers
from agent.delivery.engage.client import EngageClient
from agent.errors import (
    EngageUnreachable,
    JournalError,
    JournalFull,
    MalformedRequest,
    MultipleMatches,
    Overloaded,
    Refused,
    RouteError,
    SeveralMatch,
)
from agent.journal import changes, contacts
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.lookup.asking import Flights, refuse_offline
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, Source

# The parameters of GET /contacts/id (Engage's docs, "Find contact"); contactType only narrows.
PARAMETERS = ("email", "mobilePhone", "socialSecurityNumber", "customKey", "any")

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")  # nothing else that can be looked for has an @


@dataclass(frozen=True)
class Identified:
    """Who it is, and who says so."""

    public_id: str | None  # the GUID, or the ref of a contact that Engage does not know yet
    provenance: Provenance


class Identifier:
    """Answers GET /contacts/id."""

    def __init__(
        self, config: Config, journal: Journal, client: EngageClient, cache: Cache, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal
        self._client = client
        self._cache = cache
        self._clock = clock
        self._flights = Flights()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def identify(self, query: Mapping[str, str], wait_s: float) -> Identified:
        """Find a contact by the parameters of Engage's own call.

        Raises MalformedRequest (no key named), MultipleMatches, Refused (in Engage's words) and
        EngageUnreachable, when only Engage could tell and it cannot be asked.
        """
        wanted = {name: query[name] for name in (*PARAMETERS, "contactType") if query.get(name)}
        if not any(name in wanted for name in PARAMETERS):
            raise MalformedRequest(
                "Name one of these to look for: " + ", ".join(PARAMETERS) + ". externalId and "
                "memberNumber go through customKey."
            )
        keys = self._keys(wanted)
        # First of all: it may get there while Engage is asked, and then it is open no more.
        coming = await self._journal.read(partial(_with_open_change, keys=keys))
        absent_s = await self._cache.absent_for_s(_question(wanted))
        if absent_s is not None:
            return await self._not_found(keys, coming, Source.CACHE, absent_s)
        try:
            found = await self._ask_engage(wanted, keys, wait_s)
        except SeveralMatch as error:
            raise MultipleMatches(error.contact_ids) from error
        except Refused:
            raise
        except RouteError as error:
            known = await self._journal.read(partial(_known, keys=keys))
            if known is None:
                raise EngageUnreachable from error
            return Identified(known.public_id, Provenance(Source.JOURNAL))
        if found is not None:
            return Identified(found, Provenance(Source.ENGAGE))
        return await self._not_found(keys, coming, Source.ENGAGE)

    async def _not_found(
        self, keys: tuple[Key, ...], coming: Contact | None, source: Source, age_s: float = 0.0
    ) -> Identified:
        """Engage says that there is no such contact: then there may be one on its way to it.

        `coming` is the one that was on its way before Engage was asked.
        """
        pending = coming or await self._journal.read(partial(_with_open_change, keys=keys))
        if pending is not None:
            return Identified(pending.public_id, Provenance(Source.JOURNAL))
        return Identified(None, Provenance(source, age_s, self._cache.absent_ttl_s))

    async def _ask_engage(
        self, wanted: Mapping[str, str], keys: tuple[Key, ...], wait_s: float
    ) -> str | None:
        """Ask together with all who want the same and know as much.

        Whoever comes after a change was recorded or delivered must not hear an answer from before.
        """
        refuse_offline(self._client)
        question = _question(wanted)
        progress = await self._cache.progress()

        async def look_up() -> str | None:
            found = await self._client.call("GET", "/contacts/id", answers.looked_up, query=wanted)
            if found is None:
                self._cache.note_absent(question, progress)
            else:
                await self._remember(wanted, keys, found)
            return found

        found, _ = await self._flights.join((question, progress), look_up, wait_s)
        return found

    def _keys(self, wanted: Mapping[str, str]) -> tuple[Key, ...]:
        """Give the keys that a question may mean; `any` may mean each of them."""
        keys = []
        for name, value in wanted.items():
            if name == "customKey":
                names: tuple[str, ...] = (self._config.engage.custom_key,)
            elif name == "any":
                names = KEY_ATTRIBUTES
            elif name in KEY_ATTRIBUTES:
                names = (name,)
            else:
                continue
            keys += [Key(each, comparable(each, value)) for each in names]
        return tuple(keys)

    async def _remember(
        self, wanted: Mapping[str, str], keys: tuple[Key, ...], contact_id: str
    ) -> None:
        """Keep the GUID for the next update, where it is sure which key belongs to it."""
        key = _sure_key(wanted, keys)
        if key is None:
            return
        now = to_text(self._clock.now())
        work = partial(
            contacts.remember,
            key=key,
            contact_id=contact_id,
            contact_type=wanted.get("contactType"),
            now=now,
        )
        # Engage's answer is good all the same; the page says what is wrong with the journal.
        with contextlib.suppress(JournalError, JournalFull, Overloaded):
            await self._journal.write(work)


def _question(wanted: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(wanted.items()))


def _sure_key(wanted: Mapping[str, str], keys: tuple[Key, ...]) -> Key | None:
    """Give the key by which Engage found somebody; None where it may have been another.

    `any` is tried as an e-mail address first, and stops at the first kind for which the value is a
    valid one (Engage's docs, "Find contact").
    """
    typed = [name for name in PARAMETERS if name in wanted]
    if typed == ["any"] and _EMAIL.match(wanted["any"].strip()):
        return Key("email", comparable("email", wanted["any"]))
    return keys[0] if len(keys) == 1 else None


def _known(db: Connection, keys: tuple[Key, ...]) -> Contact | None:
    found = [contact for key in keys if (contact := contacts.find_by_key(db, key))]
    return found[0] if found else None


def _with_open_change(db: Connection, keys: tuple[Key, ...]) -> Contact | None:
    for key in keys:
        for contact in contacts.find_all_by_key(db, key):
            # A rejected sign-up is no reason to believe that the contact will exist.
            states = {change.state for change in changes.open_of_lane(db, contact.lane)}
            if states - {State.REJECTED}:
                return contact
    return None
