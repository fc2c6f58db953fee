"""The same batches through Engage's bulk calls instead of a file: `fallback.transport = "bulk"`.

POST and PATCH /api/v3/contacts/bulk take a JSON array of contacts of one type, at most 4,000, and
only queue it: any 2xx means queued, nothing more (Engage's docs, "Bulk contacts API"). How long
that queue is, and when it is done, nobody tells. So some contacts of each call are watched that are
not in Engage as the call will make them: once one of them is, the call was worked on, and what
became of each contact is looked up, as after a file. Without such a sign `fallback.import_grace_s`
must pass; until then the lanes stay where they are (docs/decisions/0013).

Before a create each contact is looked up, as on the other route. What was looked up is sent before
it grows old, however small the call, so that a line on which some calls fail holds nothing up for
ever. A call whose answer was lost may have been queued: an update is simply sent again, because it
sets the same values while its lane waits; creates only if nothing of them has shown by the end of
the grace, and after new look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent import events
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.batch.bulk_calls import Call, SentCalls, calls_of, may_be_queued
from agent.delivery.batch.bulk_looks import KNOWN_FOR_S, Looker, Looks, creates
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.verify import Engage
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import JournalError, NotAuthorised, NotWithdrawn, Refused, RouteError, Throttled
from agent.journal import batches
from agent.journal.batches import Batch, Entry, Rest
from agent.journal.journal import Journal

MOST_CONTACTS = 4000

_TICK_S = 1.0
_PAGE = 500
_TURN_S = 30.0  # of looking up for one batch, until others have their turn
_PATIENCE_S = 20.0  # of a person, until no call is under way
_TOLD_AFTER = 5  # tries in a row that brought nothing
_UNCHANGED = "The batch and its changes stay as they are."

# Method, contact type, contacts → Engage's answer as text. Raises RouteErrors.
Send = Callable[[str, str, Sequence[Mapping[str, Any]]], Awaitable[str]]


class _Interrupted(Exception):
    """Nothing more is done for this batch now; what was found of it is kept."""


@dataclass
class _Progress:
    """How far a batch has come in this run; the journal knows what must not be forgotten."""

    looks: Looks = field(default_factory=Looks)
    tries: int = 0  # in a row that brought nothing
    next_try: float = 0.0  # monotonic, like all moments here
    trouble: str | None = None  # for the page
    # What was sent before a restart counts from the start: that is later, and so on the safe side.
    sent_at: float | None = None
    shown: set[tuple[int, ...]] = field(default_factory=set)  # calls that were worked on
    shown_at: float | None = None  # when all of it was seen to be worked on
    next_look: float = 0.0

    def got_on(self) -> None:
        """Something was achieved."""
        self.tries, self.trouble = 0, None


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
        self._looker = Looker(journal, engage, config.engage.contact_key, clock)
        self._is_open = is_open  # the API's line and both routes
        self._clock = clock
        self.imported = asyncio.Event()
        self._stranded: str | None = None  # a batch of the other transport
        self._sending = asyncio.Lock()  # a person may take a batch back between two calls
        self._progress: dict[str, _Progress] = {}  # by batch
        self._next_try = 0.0
        self._began = clock.monotonic()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                if self._is_open():
                    await self.turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="bulk", error=error.message)
            await until_rung(self._sealer.written, min(_TICK_S, self._config.sftp.poll_s))

    def hurry(self) -> None:
        """A person asked: do not wait for the next try."""
        self._next_try = 0.0
        for progress in self._progress.values():
            progress.next_try = 0.0

    @property
    def problem(self) -> str | None:
        """Give what Engage does not take or what this transport cannot settle, for the page."""
        for progress in self._progress.values():
            if progress.trouble is not None:
                return progress.trouble
        if self._stranded is None:
            return None
        return (
            f"{self._stranded} was uploaded by SFTP, or may have been, and fallback.transport is "
            "bulk now. Set it to sftp again until Engage has imported it, or take it back then; "
            "its customers' changes wait for it."
        )

    async def withdraw(self, name: str, *, removed: bool = False) -> Batch:
        """Take a batch back because a person asks, as long as none of it can be in Engage's queue.

        Raises NotFound, Conflict where it was imported, NotWithdrawn where it may be queued or lie
        on the SFTP server. Safe to repeat. `removed` is about files there, and means nothing here.
        """
        async with self._between_calls():
            batch = await self._journal.read(partial(batches.get, name=name))
            if batch.state in ("written", "uploaded"):
                _check_withdrawable(batch)
            now, monotonic = to_text(self._clock.now()), self._clock.monotonic()
            rest = Rest(0.0, None, sealed_from=monotonic + self._config.fallback.seal_after_s)
            withdrawn = await self._journal.write(
                partial(batches.withdraw, name=name, now=now, rest=rest, leftover=False)
            )
            self._progress.pop(name, None)
            # Written for the other transport, before that was changed.
            await self._sealer.remove_file(name)
        events.log().warning("batch_withdrawn", batch=name, contacts=batch.contacts)
        self._journal.news.recorded.set()
        return withdrawn

    @contextlib.asynccontextmanager
    async def _between_calls(self) -> AsyncIterator[None]:
        """Wait until no call is under way and nothing is written, and keep it so."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await stack.enter_async_context(self._sending)
                    await stack.enter_async_context(self._sealer.sealing)
            except TimeoutError:
                raise NotWithdrawn(
                    f"A bulk call is under way; try again later. {_UNCHANGED}"
                ) from None
            yield

    async def turn(self) -> None:
        """Do what is due now. Raises JournalError."""
        read = partial(batches.in_state, states=("written", "uploaded"))
        found = await self._journal.read(read)
        self._stranded = next((batch.name for batch in found if batch.by_sftp), None)
        names = {batch.name for batch in found}
        for name in [name for name in self._progress if name not in names]:
            del self._progress[name]
        for batch in found:
            if not batch.by_sftp and not await self._do_what_is_due(batch):
                return

    async def _do_what_is_due(self, batch: Batch) -> bool:
        """Get on with a batch; says whether others can be got on with, too."""
        progress = self._progress.setdefault(batch.name, _Progress())
        now = self._clock.monotonic()
        try:
            if batch.state == "uploaded":
                await self._look_after(batch, progress)
            elif now >= max(self._next_try, progress.next_try):
                await self._hand_over(batch, progress)
        except _Interrupted:
            return True
        except RouteError as error:
            await self._put_off(batch, progress, error)
            return isinstance(error, Refused)
        return True

    async def _put_off(self, batch: Batch, progress: _Progress, error: RouteError) -> None:
        progress.tries += 1
        wait_s = next_wait(
            self._config.retry.waits_s,
            progress.tries,
            random.uniform,
            retry_after_s=error.retry_after_s if isinstance(error, Throttled) else None,
        )
        until = self._clock.monotonic() + wait_s
        if isinstance(error, Refused):
            progress.next_try = until
        else:
            self._next_try = until  # what ails the line ails all batches
        batch = await self._journal.read(partial(batches.get, name=batch.name))
        progress.trouble = _trouble(batch, progress.tries, error) or progress.trouble
        if not isinstance(error, NotAuthorised):  # said on the page as the API's halt
            events.log().warning("bulk_failed", batch=batch.name, code=error.code)
        await self._journal.write(
            partial(batches.note_trouble, names=(batch.name,), error=error.message)
        )

    # --- handing over -------------------------------------------------------------------------

    async def _hand_over(self, batch: Batch, progress: _Progress) -> None:
        sent = SentCalls(self._journal, batch)
        for call in sent.doubtful:
            await self._settle(batch, progress, sent, call)
        await self._send_what_is_left(batch, progress, sent)
        if sent.doubtful:
            progress.next_try = self._clock.monotonic() + self._config.sftp.poll_s
            return
        now = to_text(self._clock.now())
        await self._journal.write(
            partial(batches.note_uploaded, name=batch.name, now=now, receipt=sent.receipt())
        )
        await self._sealer.remove_file(batch.name)  # written for the other transport
        events.log().info("batch_queued", batch=batch.name, contacts=batch.contacts)

    async def _settle(self, batch: Batch, progress: _Progress, sent: SentCalls, call: Call) -> None:
        """Find out about a call whose answer was lost, or send its contacts again."""
        if await self._looker.shows(batch, call):
            await sent.note_queued(call, "")
        elif not call.creates:
            # Its lanes stand still, so that the same values once more change nothing.
            await self._send_call(batch, progress, sent, call)
        elif self._waited_s(progress) >= self._config.fallback.import_grace_s:
            # What is still not there will not come any more.
            await sent.give_up(call)

    async def _send_what_is_left(self, batch: Batch, progress: _Progress, sent: SentCalls) -> None:
        """Send what went with no call yet: creates and updates apart, of one type each.

        Whom Engage has already is not created: nobody tells what a bulk create does then. Whom it
        does not single out is left out, and verifying says why to a person.
        """
        groups: dict[tuple[bool, str], list[Entry]] = {}
        gone, began = sent.positions(), self._clock.monotonic()
        async for entry in self._entries(batch):
            if entry.position in gone:
                continue
            known = progress.looks.fresh(entry.position, self._clock.monotonic())
            if creates(entry) and known is None:
                if self._grow_old(progress, groups):
                    await self._send_new(batch, progress, sent, groups)
                self._check_going_on(batch, progress, began)
                try:
                    found = await self._look(batch, progress, entry)
                except RouteError:
                    if progress.tries:  # nothing got on since it failed before: the others go
                        await self._send_new(batch, progress, sent, groups)
                    raise
                if found is None:
                    continue
                entry = found
            elif known is not None and not known.is_absent:
                continue
            key = creates(entry), entry.contact_type
            groups.setdefault(key, []).append(entry)
            if len(groups[key]) >= MOST_CONTACTS:
                await self._send_group(batch, progress, sent, key, groups.pop(key))
        for key, group in groups.items():
            await self._send_group(batch, progress, sent, key, group)

    async def _look(self, batch: Batch, progress: _Progress, entry: Entry) -> Entry | None:
        seen = len(progress.looks.ever)
        found = await self._looker.look(batch, entry, progress.looks)
        if len(progress.looks.ever) > seen:
            progress.got_on()
        return found

    def _grow_old(
        self, progress: _Progress, groups: Mapping[tuple[bool, str], Sequence[Entry]]
    ) -> bool:
        """Say whether some who are to be created should go before more are looked up."""
        looks = [
            progress.looks.found[entry.position].at
            for (is_new, _), group in groups.items()
            if is_new
            for entry in group
        ]
        return bool(looks) and self._clock.monotonic() - min(looks) >= KNOWN_FOR_S / 2

    def _check_going_on(self, batch: Batch, progress: _Progress, began: float) -> None:
        """Raise _Interrupted: it was taken back, a route closed, or others have their turn."""
        is_ours = self._progress.get(batch.name) is progress
        if not is_ours or not self._is_open() or self._clock.monotonic() - began >= _TURN_S:
            raise _Interrupted

    async def _send_new(
        self,
        batch: Batch,
        progress: _Progress,
        sent: SentCalls,
        groups: dict[tuple[bool, str], list[Entry]],
    ) -> None:
        """Send those who are to be created; updates can wait for a fuller call."""
        for key in [key for key in groups if key[0]]:
            await self._send_group(batch, progress, sent, key, groups.pop(key))

    async def _send_group(
        self,
        batch: Batch,
        progress: _Progress,
        sent: SentCalls,
        key: tuple[bool, str],
        group: Sequence[Entry],
    ) -> None:
        is_new, contact_type = key
        watched = await self._looker.worth_watching(is_new, group, progress.looks)
        positions = tuple(entry.position for entry in group)
        await self._send_call(batch, progress, sent, Call(is_new, contact_type, positions, watched))

    async def _send_call(
        self, batch: Batch, progress: _Progress, sent: SentCalls, call: Call
    ) -> None:
        """Send a call; whatever comes of it, the journal knows whether it may have been queued."""
        key, wanted = self._config.engage.contact_key, set(call.positions)
        is_new, sent_before = call not in sent.calls, progress.sent_at
        async with self._sending:
            self._check_going_on(batch, progress, self._clock.monotonic())
            bodies = [
                body_of(entry, key)
                async for entry in self._entries(batch)
                if entry.position in wanted
            ]
            await sent.begin(call)
            progress.sent_at = self._clock.monotonic()
            method = "POST" if call.creates else "PATCH"
            try:
                receipt = await self._send(method, call.contact_type, bodies)
            except RouteError as error:
                if may_be_queued(error):
                    progress.looks.forget(call)
                    raise
                progress.sent_at = sent_before
                if is_new:  # or else the time before may have worked
                    await sent.take_back(call)
                raise
            await sent.note_queued(call, receipt)
        progress.looks.forget(call)
        progress.got_on()

    async def _entries(self, batch: Batch) -> AsyncIterator[Entry]:
        """Give a batch's contacts, a page at a time."""
        start = 0
        while True:
            read = partial(batches.entries, number=batch.number, start=start, limit=_PAGE)
            page = await self._journal.read(read)
            for entry in page:
                yield entry
            if len(page) < _PAGE:
                return
            start = page[-1].position + 1

    # --- whether Engage has worked on it ------------------------------------------------------

    async def _look_after(self, batch: Batch, progress: _Progress) -> None:
        now, poll_s = self._clock.monotonic(), self._config.sftp.poll_s
        waited_s = self._waited_s(progress)
        if waited_s < poll_s or now < progress.next_look:
            return
        progress.next_look = now + poll_s * random.uniform(0.8, 1.2)  # noqa: S311
        if progress.shown_at is None and await self._all_show(batch, progress):
            progress.shown_at = now
        # A sign shows that a call is being worked on; what is left of it gets the same time again.
        is_done = progress.shown_at is not None and now - progress.shown_at >= poll_s
        if not (is_done or waited_s >= self._config.fallback.import_grace_s):
            return
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

    def _waited_s(self, progress: _Progress) -> float:
        since = self._began if progress.sent_at is None else progress.sent_at
        return self._clock.monotonic() - since

    async def _all_show(self, batch: Batch, progress: _Progress) -> bool:
        calls = calls_of(batch)
        for call in calls:
            if call.positions not in progress.shown and await self._looker.shows(batch, call):
                progress.shown.add(call.positions)
                progress.got_on()
        return bool(calls) and all(call.positions in progress.shown for call in calls)


def _check_withdrawable(batch: Batch) -> None:
    """Raise NotWithdrawn for a batch that may be somewhere else than on this till."""
    if batch.by_sftp:
        raise NotWithdrawn(
            "It was uploaded by SFTP, or may have been, and fallback.transport is bulk now. "
            f"Set it to sftp again and take the file back then. {_UNCHANGED}"
        )
    if batch.by_bulk or batch.may_be_on_server:
        raise NotWithdrawn(
            "Engage has queued it, or may have, and what is queued cannot be taken back. "
            f"{_UNCHANGED}"
        )


def _trouble(batch: Batch, tries: int, error: RouteError) -> str | None:
    """Say what a person must know of a batch that does not get on; None as long as it may."""
    if isinstance(error, Refused):
        told = f"Engage refuses the bulk call of {batch.name} ({error.code})."
    elif tries >= _TOLD_AFTER and not isinstance(error, NotAuthorised):
        told = (
            f"The bulk calls of {batch.name} do not get on: {tries} tries in a row have failed "
            f"({error.code})."
        )
    else:
        return None
    if batch.by_bulk:
        return f"{told} They are tried again; what Engage has queued cannot be taken back."
    return (
        f"{told} Take it back with “till-agent batches withdraw {batch.name}”: then its changes go "
        "by the API."
    )


def body_of(entry: Entry, contact_key: str) -> dict[str, Any]:
    """Give one contact as the bulk calls take it: flat, with the key, or with Engage's GUID."""
    element = element_of(entry, contact_key)
    body = dict(element.attributes)
    if element.contact_id is not None:
        body["contactId"] = element.contact_id
    if element.store_external_id is not None:
        body.setdefault("createdInStore", element.store_external_id)
    return body
