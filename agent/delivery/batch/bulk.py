"""The same batches through Engage's bulk calls instead of a file: `fallback.transport = "bulk"`.

POST and PATCH /api/v3/contacts/bulk take a JSON array of contacts of one type, at most 4,000, and
only queue it: any 2xx means queued, nothing more (Engage's docs, "Bulk contacts API"). How long
that queue is, and when it is done, nobody tells. So some contacts of each call are watched that are
not in Engage as the call will make them: once one of them is, the call was worked on, and what
became of each contact is looked up, as after a file. Without such a sign `fallback.import_grace_s`
must pass; until then the lanes stay where they are (docs/decisions/0013).

Before a create each contact is looked up, as on the other route. A call whose answer was lost may
have been queued: an update is simply sent again, because it sets the same values while its lane
waits; a create only if nothing of it has shown by the end of the grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from agent import events
from agent.change import Kind
from agent.clock import Clock, to_text
from agent.config import Config
from agent.contact import keys_of
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.verify import Engage
from agent.delivery.difference import differs
from agent.delivery.folding import fold
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import (
    ContactGone,
    JournalError,
    NotAuthorised,
    NotWithdrawn,
    Refused,
    RouteError,
    SeveralMatch,
    Throttled,
    Unreachable,
)
from agent.journal import batches
from agent.journal.batches import Batch, Entry, Rest
from agent.journal.journal import Journal

MOST_CONTACTS = 4000

_TICK_S = 1.0
_PAGE = 500
_WATCHED = 3  # contacts of a call; more cost look-ups, fewer might all be skipped
_TRIED = 6  # until so many are found that are worth watching

# Method, contact type, contacts → Engage's answer as text. Raises RouteErrors.
Send = Callable[[str, str, Sequence[Mapping[str, Any]]], Awaitable[str]]


@dataclass(frozen=True)
class Watched:
    """A contact of a call that was not in Engage, before the call, as the call will make it."""

    position: int  # in the batch
    differing: tuple[str, ...]  # attributes; empty: there was no such contact


@dataclass(frozen=True)
class Call:
    """One bulk call as it was planned, and how far it has come; the journal keeps it as JSON."""

    creates: bool  # POST, else PATCH
    contact_type: str
    positions: tuple[int, ...]  # of its contacts in the batch
    watched: tuple[Watched, ...] = ()
    began: bool = False  # it was sent, and may have been queued
    receipt: str | None = None  # it was queued for certain: Engage's answer, "" if that was lost

    @property
    def is_queued(self) -> bool:
        """Say whether Engage has it."""
        return self.receipt is not None


class BulkUploader:
    """Hands written batches to Engage, and lets them be verified once they were worked on."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        sealer: Sealer,
        send: Send,
        engage: Engage,
        is_open: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._config = config
        self._journal = journal
        self._sealer = sealer
        self._send = send
        self._engage = engage
        self._is_open = is_open  # the API's line and both routes
        self._clock = clock
        self.imported = asyncio.Event()
        self._refused: str | None = None
        self._stranded: str | None = None  # a batch of the other transport
        self._working = asyncio.Lock()  # a person may take a batch back meanwhile
        self._tries = 0
        self._next_try = 0.0
        self._began = clock.monotonic()
        # Batch → moments. What was sent before a restart counts from the start: that is later, and
        # so on the safe side.
        self._sent_at: dict[str, float] = {}
        self._shown_at: dict[str, float] = {}  # when all of it was seen to be worked on
        self._next_look: dict[str, float] = {}

    @property
    def problem(self) -> str | None:
        """Give what Engage refuses or what this transport cannot settle, for the page."""
        if self._refused is not None or self._stranded is None:
            return self._refused
        return (
            f"{self._stranded} was uploaded by SFTP, and fallback.transport is bulk now. Set it to "
            "sftp again until Engage has imported it; its customers' changes wait for it."
        )

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                if self._is_open():
                    async with self._working:
                        await self.turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="bulk", error=error.message)
            await until_rung(self._sealer.written, min(_TICK_S, self._config.sftp.poll_s))

    def hurry(self) -> None:
        """A person asked: do not wait for the next try."""
        self._next_try = 0.0

    async def withdraw(self, name: str) -> Batch:
        """Take a batch back because a person asks, as long as none of it can be in Engage's queue.

        Raises NotFound, Conflict where it was imported, NotWithdrawn where it may be queued. Safe
        to repeat.
        """
        async with self._working, self._sealer.sealing:
            batch = await self._journal.read(partial(batches.get, name=name))
            may_be_queued = batch.may_be_on_server or any(call.began for call in _calls(batch))
            if batch.state in ("written", "uploaded") and may_be_queued:
                raise NotWithdrawn(
                    "Engage has queued it, or may have, and what is queued cannot be taken back. "
                    "The batch and its changes stay as they are."
                )
            now, monotonic = to_text(self._clock.now()), self._clock.monotonic()
            rest = Rest(0.0, None, sealed_from=monotonic + self._config.fallback.seal_after_s)
            withdrawn = await self._journal.write(
                partial(batches.withdraw, name=name, now=now, rest=rest, leftover=False)
            )
            # Written for the other transport, before that was changed.
            await self._sealer.remove_file(name)
        self._refused = None
        events.log().warning("batch_withdrawn", batch=name, contacts=batch.contacts)
        self._journal.news.recorded.set()
        return withdrawn

    async def turn(self) -> None:
        """Do what is due now. Raises JournalError."""
        self._stranded = None
        read = partial(batches.in_state, states=("written", "uploaded"))
        for batch in await self._journal.read(read):
            try:
                if batch.state == "uploaded" and not batch.by_bulk:
                    self._stranded = batch.name
                elif batch.state == "uploaded":
                    await self._look_after(batch)
                elif self._clock.monotonic() >= self._next_try:
                    await self._hand_over(batch)
            except RouteError as error:
                await self._put_off(batch, error)
                return

    async def _put_off(self, batch: Batch, error: RouteError) -> None:
        self._tries += 1
        wait_s = next_wait(
            self._config.retry.waits_s,
            self._tries,
            random.uniform,
            retry_after_s=error.retry_after_s if isinstance(error, Throttled) else None,
        )
        self._next_try = self._clock.monotonic() + wait_s
        if isinstance(error, Refused):
            self._refused = (
                f"Engage refuses the bulk call of {batch.name} ({error.code}). Take it back with "
                f"“till-agent batches withdraw {batch.name}”: then its changes go by the API."
            )
        if not isinstance(error, NotAuthorised):  # said on the page as the API's halt
            events.log().warning("bulk_failed", batch=batch.name, code=error.code)
        await self._journal.write(
            partial(batches.note_trouble, names=(batch.name,), error=error.message)
        )

    # --- handing over -------------------------------------------------------------------------

    async def _hand_over(self, batch: Batch) -> None:
        calls = list(_calls(batch)) or await self._plan(batch)
        for number in range(len(calls)):
            await self._advance(batch, calls, number)
        if not all(call.is_queued for call in calls):
            self._next_try = self._clock.monotonic() + self._config.sftp.poll_s
            return
        self._tries, self._refused = 0, None
        receipt = " ".join(call.receipt for call in calls if call.receipt)
        now = to_text(self._clock.now())
        await self._journal.write(
            partial(batches.note_uploaded, name=batch.name, now=now, receipt=receipt)
        )
        await self._sealer.remove_file(batch.name)  # written for the other transport
        events.log().info("batch_queued", batch=batch.name, contacts=batch.contacts)

    async def _plan(self, batch: Batch) -> list[Call]:
        """Decide what goes in which call: creates and updates apart, of one type each.

        Whom Engage has already is not created: nobody tells what a bulk create does then. Whom it
        does not look up is left out, and verifying says why to a person.
        """
        groups: dict[tuple[bool, str], list[Entry]] = {}
        async for entry in self._entries(batch):
            creates = _creates(entry)
            if creates:
                try:
                    found = await self._look_up(entry)
                except (Refused, SeveralMatch):
                    continue
                if found is not None:
                    note = partial(batches.note_contact_id, number=batch.number, contact_id=found)
                    await self._journal.write(partial(note, position=entry.position))
                    entry, creates = replace(entry, contact_id=found), False
            groups.setdefault((creates, entry.contact_type), []).append(entry)
        calls = [
            Call(
                creates,
                contact_type,
                tuple(entry.position for entry in part),
                await self._worth_watching(creates, part),
            )
            for (creates, contact_type), entries in groups.items()
            for part in _parts(entries)
        ]
        await self._keep(batch, calls)
        return calls

    async def _advance(self, batch: Batch, calls: list[Call], number: int) -> None:
        """Send a call that was not sent yet, or settle one whose answer was lost."""
        call = calls[number]
        if call.is_queued:
            return
        if not call.began:
            await self._send_call(batch, calls, number)
        elif await self._shows(batch, call):
            await self._note(batch, calls, number, receipt="")
        elif not call.creates:
            # Its lanes stand still, so that the same values once more change nothing.
            await self._send_call(batch, calls, number)
        elif self._waited_s(batch) >= self._config.fallback.import_grace_s:
            # What is still not there will not come any more.
            missing = await self._missing(batch, call)
            await self._note(batch, calls, number, positions=missing)
            await self._send_call(batch, calls, number)

    async def _send_call(self, batch: Batch, calls: list[Call], number: int) -> None:
        """Send a call; whatever comes of it, the journal knows whether it may have been queued."""
        await self._note(batch, calls, number, began=True)
        self._sent_at[batch.name] = self._clock.monotonic()
        call, key = calls[number], self._config.engage.contact_key
        bodies = [body_of(entry, key) async for entry in self._entries(batch, call)]
        method = "POST" if call.creates else "PATCH"
        try:
            receipt = await self._send(method, call.contact_type, bodies) if bodies else ""
        except RouteError as error:
            if not _may_be_queued(error):
                await self._note(batch, calls, number, began=False)
            raise
        await self._note(batch, calls, number, receipt=receipt)

    async def _note(self, batch: Batch, calls: list[Call], number: int, **changed: Any) -> None:
        calls[number] = replace(calls[number], **changed)
        await self._keep(batch, calls)

    async def _keep(self, batch: Batch, calls: Sequence[Call]) -> None:
        text = json.dumps([asdict(call) for call in calls])
        await self._journal.write(partial(batches.note_calls, name=batch.name, calls=text))

    async def _missing(self, batch: Batch, call: Call) -> tuple[int, ...]:
        """Give those of a call's contacts that Engage does not have; verifying mends the others."""
        missing = []
        async for entry in self._entries(batch, call):
            with contextlib.suppress(Refused, SeveralMatch):
                if await self._look_up(entry) is None:
                    missing.append(entry.position)
        return tuple(missing)

    async def _look_up(self, entry: Entry) -> str | None:
        attributes = element_of(entry, self._config.engage.contact_key).attributes
        return await self._engage.look_up(keys_of(attributes), entry.contact_type)

    async def _entries(self, batch: Batch, call: Call | None = None) -> AsyncIterator[Entry]:
        """Give a batch's contacts, or those of one call, a page at a time."""
        wanted = None if call is None else set(call.positions)
        start = 0
        while True:
            read = partial(batches.entries, number=batch.number, start=start, limit=_PAGE)
            page = await self._journal.read(read)
            for entry in page:
                if wanted is None or entry.position in wanted:
                    yield entry
            if len(page) < _PAGE:
                return
            start = page[-1].position + 1

    # --- whether Engage has worked on it ------------------------------------------------------

    async def _look_after(self, batch: Batch) -> None:
        now, poll_s = self._clock.monotonic(), self._config.sftp.poll_s
        waited_s = self._waited_s(batch)
        if waited_s < poll_s or now < self._next_look.get(batch.name, 0.0):
            return
        self._next_look[batch.name] = now + poll_s * random.uniform(0.8, 1.2)  # noqa: S311
        if batch.name not in self._shown_at and await self._all_show(batch):
            self._shown_at[batch.name] = now
        # A sign shows that a call is being worked on; what is left of it gets the same time again.
        is_done = now - self._shown_at.get(batch.name, now) >= poll_s
        if not (is_done or waited_s >= self._config.fallback.import_grace_s):
            return
        for moments in (self._sent_at, self._shown_at, self._next_look):
            moments.pop(batch.name, None)
        await self._journal.write(
            partial(
                batches.note_imported,
                name=batch.name,
                now=to_text(self._clock.now()),
                verify=self._journal.verify,
            )
        )
        self.imported.set()
        events.log().info("batch_imported", batch=batch.name)

    def _waited_s(self, batch: Batch) -> float:
        return self._clock.monotonic() - self._sent_at.get(batch.name, self._began)

    async def _all_show(self, batch: Batch) -> bool:
        calls = _calls(batch)
        return bool(calls) and all([await self._shows(batch, call) for call in calls])

    async def _shows(self, batch: Batch, call: Call) -> bool:
        """Say whether one of a call's watched contacts is not any more as it was before."""
        for watched in call.watched:
            read = partial(batches.entries, number=batch.number, start=watched.position, limit=1)
            (entry,) = await self._journal.read(read)
            differing = await self._differing(entry)
            if differing is not None and (
                not watched.differing or set(watched.differing) - set(differing)
            ):
                return True
        return False

    async def _worth_watching(self, creates: bool, entries: Sequence[Entry]) -> tuple[Watched, ...]:
        """Give some of a call's last contacts that the call will change for everybody to see."""
        if creates:
            return tuple(Watched(entry.position, ()) for entry in entries[-_WATCHED:])
        found: list[Watched] = []
        for entry in entries[: -_TRIED - 1 : -1]:
            if differing := await self._differing(entry):
                found.append(Watched(entry.position, differing))
            if len(found) == _WATCHED:
                break
        return tuple(found)

    async def _differing(self, entry: Entry) -> tuple[str, ...] | None:
        """Name what Engage does not have of a contact as it is to be; None: not even the contact.

        Where Engage does not say, nothing differs.
        """
        try:
            contact_id = entry.contact_id or await self._look_up(entry)
            contact = await self._engage.fetch(contact_id) if contact_id else None
        except ContactGone:
            return None
        except (Refused, SeveralMatch):
            return ()
        return None if contact is None else differs(fold(entry.asked).attributes, contact)


def _calls(batch: Batch) -> tuple[Call, ...]:
    return tuple(
        Call(
            each["creates"],
            each["contact_type"],
            tuple(each["positions"]),
            tuple(Watched(seen["position"], tuple(seen["differing"])) for seen in each["watched"]),
            each["began"],
            each["receipt"],
        )
        for each in json.loads(batch.calls or "[]")
    )


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for first in range(0, len(entries), MOST_CONTACTS):
        yield entries[first : first + MOST_CONTACTS]


def _may_be_queued(error: RouteError) -> bool:
    """Say whether Engage may have queued a call that ended so."""
    is_refusal = error.status is not None and 400 <= error.status < 500
    return not (is_refusal or isinstance(error, Unreachable | Throttled | NotAuthorised))


def _creates(entry: Entry) -> bool:
    return entry.contact_id is None and any(kind is Kind.CREATE for kind, _ in entry.asked)


def body_of(entry: Entry, contact_key: str) -> dict[str, Any]:
    """Give one contact as the bulk calls take it: flat, with the key, or with Engage's GUID."""
    element = element_of(entry, contact_key)
    body = dict(element.attributes)
    if element.contact_id is not None:
        body["contactId"] = element.contact_id
    if element.store_external_id is not None:
        body.setdefault("createdInStore", element.store_external_id)
    return body
