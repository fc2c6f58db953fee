"""The same batches through Engage's bulk calls instead of a file: `fallback.transport = "bulk"`.

POST and PATCH /api/v3/contacts/bulk take a JSON array of contacts of one type, at most 4,000, and
only queue it: any 2xx means queued, nothing more (Engage's docs, "Bulk contacts API"). What became
of each contact is looked up afterwards, as after a file. A call whose answer was lost may have
been queued: an update is simply sent again, because it sets the same values while its lane waits; a
create is looked up first, and only who is not found is sent again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from agent import events
from agent.change import Kind
from agent.clock import Clock, to_text
from agent.config import Config
from agent.contact import Key, keys_of
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.sealer import Sealer
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import JournalError, NotAuthorised, Refused, RouteError, SeveralMatch
from agent.journal import batches
from agent.journal.batches import Batch, Entry
from agent.journal.journal import Journal

MOST_CONTACTS = 4000

_TICK_S = 1.0
_PAGE = 500

# Keys, contact type → Engage's GUID or None. Raises RouteErrors.
LookUp = Callable[[Sequence[Key], str | None], Awaitable[str | None]]
# Method, contact type, contacts → Engage's answer as text. Raises RouteErrors.
Send = Callable[[str, str, Sequence[Mapping[str, Any]]], Awaitable[str]]


class BulkUploader:
    """Hands written batches to Engage, and lets them be verified once its queue had its time."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        sealer: Sealer,
        send: Send,
        look_up: LookUp,
        is_open: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._config = config
        self._journal = journal
        self._sealer = sealer
        self._send = send
        self._look_up = look_up
        self._is_open = is_open  # the API's line and both routes
        self._clock = clock
        self.imported = asyncio.Event()
        self._tries = 0
        self._next_try = 0.0
        self._began = clock.monotonic()
        self._queued_at: dict[str, float] = {}  # batch → when Engage took the last of its calls

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                if self._is_open():
                    await self._turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="bulk", error=error.message)
            await until_rung(self._sealer.written, min(_TICK_S, self._config.sftp.poll_s))

    def hurry(self) -> None:
        """A person asked: do not wait for the next try."""
        self._next_try = 0.0

    async def _turn(self) -> None:
        if self._clock.monotonic() < self._next_try:
            return
        read = partial(batches.in_state, states=("written", "uploaded"))
        for batch in await self._journal.read(read):
            try:
                await self._hand_over(batch)
            except RouteError as error:
                await self._put_off(batch, error)
                return
            self._tries = 0

    async def _hand_over(self, batch: Batch) -> None:
        if batch.state == "written":
            answers = [
                await self._send(method, contact_type, contacts)
                for (method, contact_type), contacts in await self._calls(batch)
            ]
            now = to_text(self._clock.now())
            await self._journal.write(
                partial(batches.note_uploaded, name=batch.name, now=now, receipt=" ".join(answers))
            )
            self._queued_at[batch.name] = self._clock.monotonic()
            events.log().info("batch_queued", batch=batch.name, contacts=batch.contacts)
            return
        # What a lost answer had queued before is found at once; what was queued last may still wait
        # in Engage, and must not come after what the lanes send next.
        queued_at = self._queued_at.get(batch.name, self._began)
        if self._clock.monotonic() - queued_at < self._config.sftp.poll_s:
            return
        self._queued_at.pop(batch.name, None)
        now = to_text(self._clock.now())
        await self._journal.write(
            partial(batches.note_imported, name=batch.name, now=now, verify=self._journal.verify)
        )
        self.imported.set()

    async def _calls(self, batch: Batch) -> list[tuple[tuple[str, str], list[dict[str, Any]]]]:
        """Give a batch's calls: creates and updates apart, one contact type each."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        start = 0
        while True:
            read = partial(batches.entries, number=batch.number, start=start, limit=_PAGE)
            page = await self._journal.read(read)
            for entry in page:
                if _creates(entry) and batch.attempts:
                    try:
                        entry = await self._looked_up(entry)
                    except (Refused, SeveralMatch):
                        continue  # verifying says why to a person; the others go
                method = "POST" if _creates(entry) else "PATCH"
                body = body_of(entry, self._config.engage.contact_key)
                groups.setdefault((method, entry.contact_type), []).append(body)
            if len(page) < _PAGE:
                break
            start = page[-1].position + 1
        return [(call, part) for call, bodies in groups.items() for part in _parts(bodies)]

    async def _looked_up(self, entry: Entry) -> Entry:
        """Find out whether an earlier call whose answer was lost has made this contact."""
        attributes = element_of(entry, self._config.engage.contact_key).attributes
        found = await self._look_up(keys_of(attributes), entry.contact_type)
        return replace(entry, contact_id=found)

    async def _put_off(self, batch: Batch, error: RouteError) -> None:
        self._tries += 1
        wait_s = next_wait(self._config.retry.waits_s, self._tries, random.uniform)
        self._next_try = self._clock.monotonic() + wait_s
        if not isinstance(error, NotAuthorised):  # said on the page as the API's halt
            events.log().warning("bulk_failed", batch=batch.name, code=error.code)
        await self._journal.write(
            partial(batches.note_trouble, names=(batch.name,), error=error.message)
        )


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


def _parts(bodies: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(bodies)
    while part := list(islice(rest, MOST_CONTACTS)):
        yield part
