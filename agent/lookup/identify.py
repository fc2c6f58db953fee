"""Key → contactId or ref: asks Engage where it can, what this till knows where it cannot.

"Not found" is an answer with consequences, a sign-up that may be a double: it is given only when
Engage itself said so and no open change of this till carries the key. What this till knows by
itself is marked so, with its age.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
from agent.identifiers import key_as_stored, key_that_any_means
from agent.journal import changes, contacts, recognising, register, served
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.journal.recognising import Asked, Person, Word
from agent.lookup.asking import EngageOffline, Flights, ask, refuse_offline
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, Source

# The parameters of GET /contacts/id (Engage's docs, "Find contact"); contactType only narrows.
PARAMETERS = ("email", "mobilePhone", "socialSecurityNumber", "customKey", "any")

# A key → how the register has it; None where no export is read.
Digest = Callable[[Key], int | None]


@dataclass(frozen=True)
class Identified:
    """Who it is, and who says so."""

    public_id: str | None  # the GUID, or the ref of a contact that Engage does not know yet
    provenance: Provenance


class Identifier:
    """Answers GET /contacts/id."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        client: EngageClient,
        cache: Cache,
        clock: Clock,
        digest: Digest,
    ) -> None:
        self._config = config
        self._journal = journal
        self._client = client
        self._cache = cache
        self._clock = clock
        self._digest = digest
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
            found = await self._ask_engage(wanted, wait_s)
        except SeveralMatch as error:
            raise MultipleMatches(error.contact_ids) from error
        except Refused:
            raise
        except RouteError as error:
            return await self._without_engage(wanted, error)
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

    async def _ask_engage(self, wanted: Mapping[str, str], wait_s: float) -> str | None:
        """Ask together with all who want the same and know as much.

        Whoever comes after a change was recorded or delivered must not hear an answer from before.
        """
        refuse_offline(self._client)
        question = _question(wanted)
        progress = await self._cache.progress()

        async def look_up() -> str | None:
            asked_after = await self._journal.read(served.last_attempt)
            found = await ask(self._client, "/contacts/id", answers.looked_up, wanted)
            if found is None:
                self._cache.note_absent(question, progress)
            await self._learn(wanted, found, asked_after)
            return found

        found, _ = await self._flights.join((question, progress), look_up, wait_s)
        return found

    # --- without Engage -------------------------------------------------------------------------

    async def _without_engage(self, wanted: Mapping[str, str], error: RouteError) -> Identified:
        """Answer from what this till knows. Raises MultipleMatches and EngageUnreachable."""
        asked = self._asked(wanted)
        people = await self._journal.read(
            partial(recognising.recognise, asked=asked, contact_type=wanted.get("contactType"))
        )
        person = self._single(people, asked)
        if person is None:
            raise EngageUnreachable from error
        public_id = person.public_id or await self._ref_for(person, asked, error)
        why = "offline" if isinstance(error, EngageOffline) else "engage-failed"
        return Identified(public_id, self._provenance(person, why))

    def _single(self, people: tuple[Person, ...], asked: tuple[Asked, ...]) -> Person | None:
        if len(people) <= 1:
            return people[0] if people else None
        if any(each.key.name == self._config.engage.contact_key for each in asked):
            # A sign-up on its way is the same person as whoever has its key: it is joined to them.
            coming = [each for each in people if each.word is Word.OPEN and not each.contact_id]
            if coming:
                return coming[0]
        ids = sorted(public_id for each in people if (public_id := each.public_id))
        raise MultipleMatches(ids)

    async def _ref_for(self, person: Person, asked: tuple[Asked, ...], error: RouteError) -> str:
        """Give a ref to a member whose GUID the export did not tell, so that it can be used."""
        assert person.member is not None  # noqa: S101 - else it has a contact, and that a ref
        keys = tuple(each.key for each in asked)
        now = to_text(self._clock.now())
        try:
            contact = await self._journal.write(
                partial(register.give_ref, member=person.member, keys=keys, now=now)
            )
        except (JournalError, JournalFull, Overloaded):
            raise EngageUnreachable from error
        return contact.ref

    def _provenance(self, person: Person, why: str) -> Provenance:
        if person.word is Word.OPEN:
            return Provenance(Source.JOURNAL)
        source = Source.REGISTER if person.word is Word.EXPORT else Source.JOURNAL
        age = self._clock.now() - datetime.fromisoformat(person.told_at)
        return Provenance(source, abs(age.total_seconds()), stale_because=why)

    def _asked(self, wanted: Mapping[str, str]) -> tuple[Asked, ...]:
        settings, today = self._config.engage, self._clock.now().astimezone().date()
        asked = []
        for name, value in wanted.items():
            if name == "customKey":
                key = Key(settings.custom_key, comparable(settings.custom_key, value))
            elif name == "any":
                key = key_that_any_means(value, settings.custom_key, settings.phone_region, today)
            elif name in KEY_ATTRIBUTES:
                key = key_as_stored(name, value, settings.phone_region, today)
            else:
                continue
            asked.append(Asked(key, self._digest(key)))
        return tuple(asked)

    # --- with Engage ----------------------------------------------------------------------------

    def _keys(self, wanted: Mapping[str, str]) -> tuple[Key, ...]:
        """Give the keys that a question may mean; `any` may mean each of them."""
        keys = [each.key for each in self._asked(wanted)]
        if "any" in wanted:
            keys += [Key(name, comparable(name, wanted["any"])) for name in KEY_ATTRIBUTES]
        return tuple(dict.fromkeys(keys))

    async def _learn(self, wanted: Mapping[str, str], found: str | None, asked_after: int) -> None:
        """Keep what Engage said of a key; with one typed key it is sure what belongs to it."""
        asked = self._asked(wanted)
        kind = wanted.get("contactType")
        # The export has Members only: that there is nobody of another type says nothing of them.
        # `any` is tried as an e-mail address first, whatever else the value could be.
        is_sure = len(asked) == 1 and ("any" not in wanted or asked[0].key.name == "email")
        if not is_sure or (found is None and kind and kind.casefold() != "member"):
            return
        # Engage's answer is good all the same; the page says what is wrong with the journal.
        with contextlib.suppress(JournalError, JournalFull, Overloaded):
            if found is None:
                if await self._journal.read(partial(register.has, asked=asked[0])):
                    await self._journal.write(partial(register.correct, asked=asked[0]))
                return
            await self._journal.write(
                partial(
                    _remember,
                    asked=asked[0],
                    contact_id=found,
                    contact_type=kind,
                    contact_key=self._config.engage.contact_key,
                    asked_after=asked_after,
                    now=to_text(self._clock.now()),
                )
            )


def _remember(
    db: Connection,
    asked: Asked,
    contact_id: str,
    contact_type: str | None,
    contact_key: str,
    asked_after: int,
    now: str,
) -> None:
    register.correct(db, asked, contact_id)
    contacts.remember(
        db,
        asked.key,
        contact_id,
        contact_type,
        contact_key=contact_key,
        asked_after=asked_after,
        now=now,
    )


def _question(wanted: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(wanted.items()))


def _with_open_change(db: Connection, keys: tuple[Key, ...]) -> Contact | None:
    for key in keys:
        for contact in contacts.find_all_by_key(db, key):
            # A rejected sign-up is no reason to believe that the contact will exist.
            states = {change.state for change in changes.open_of_lane(db, contact.lane)}
            if states - {State.REJECTED}:
                return contact
    return None
