"""After the import: every contact is looked up, because the import itself reports nothing.

Found and equal → confirmed. Found and different → the difference is sent once by the API, then
compared again. Not found → looked up a second time, then rejected for a person to mend; unless the
import skipped the whole file: then its changes wait again, once. Knows Engage only as three calls
that are handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent import events
from agent.change import Fault, Route
from agent.clock import Clock, to_text
from agent.config import Config
from agent.contact import Key, contact_type_of, keys_told
from agent.delivery.batch.unanswered import Failures, Unanswered
from agent.delivery.difference import differs
from agent.delivery.folding import fold, needs_member
from agent.delivery.quoting import unquoted
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import (
    ContactGone,
    JournalError,
    KeyTaken,
    Refused,
    RouteError,
    SeveralMatch,
    Throttled,
)
from agent.journal import batches, skipped
from agent.journal.batches import Batch, Unverified
from agent.journal.changes import Attempt
from agent.journal.journal import Journal
from agent.journal.skipped import MISSES_ENOUGH, Settled

_TICK_S = 1.0
_PAGE = 20
# After a difference was sent: long enough for Engage to show it.
_AFTER_PATCH_S = 2.0


@dataclass(frozen=True)
class Engage:
    """What the verifier may ask of Engage. Each raises RouteErrors."""

    look_up: Callable[[Sequence[Key], str | None], Awaitable[str | None]]  # keys, type → GUID
    fetch: Callable[[str], Awaitable[dict[str, Any]]]  # GUID → the contact
    patch: Callable[[str, dict[str, Any]], Awaitable[None]]  # GUID, attributes
    make_member: Callable[[str], Awaitable[None]]  # GUID
    is_open: Callable[[], bool]  # whether it makes sense to ask now


class Verifier:
    """Looks imported contacts up, at a gentle pace behind live traffic."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        engage: Engage,
        imported: asyncio.Event,
        clock: Clock,
        on_attempt: Callable[[str, str], None] = lambda route, outcome: None,
    ) -> None:
        """`on_attempt` gets route and outcome of each change that is settled here."""
        self._config = config
        self._journal = journal
        self._engage = engage
        self._imported = imported
        self._clock = clock
        self._on_attempt = on_attempt
        self._failures = Failures(self._wait_s)

    @property
    def unanswered(self) -> Unanswered | None:
        """Give the contact for which Engage has given no answer for the longest time."""
        return self._failures.oldest

    async def hurry(self) -> None:
        """Look up at once for whom Engage gave no answer. Raises JournalErrors."""
        await self._journal.write(batches.look_up_now)
        self._failures.rest_no_more()
        self._imported.set()

    async def run(self) -> None:
        """Verify until cancelled."""
        began = False
        while True:
            try:
                if not began:
                    await self.hurry()  # so that what fails is known again after a start
                    began = True
                busy = self._engage.is_open() and await self._turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="verifier", error=error.message)
                busy = False
            if busy:
                continue
            await until_rung(self._imported, _TICK_S)

    async def _turn(self) -> bool:
        now = self._clock.monotonic()
        if self._failures.rests(now):
            return False
        items = await self._journal.read(partial(batches.unverified, now=now, limit=_PAGE))
        for item in items:
            if not self._engage.is_open() or self._failures.rests(self._clock.monotonic()):
                return False
            await self._verify(item)
        return bool(items)

    async def _verify(self, item: Unverified) -> None:
        place = (item.batch.number, item.entry.position)
        try:
            await self._look(item)
        except RouteError as error:
            now = self._clock.monotonic()
            self._failures.failed(place, item.change_id or "", error.message, now)
            await self._put_off(item, error)
        else:
            self._failures.answered(place)

    async def _look(self, item: Unverified) -> None:
        try:
            contact = await self._find(item)
        except (Refused, SeveralMatch) as error:
            await self._settle(item, fault=_undecided(error, *_data(item)))
            return
        if contact is None:
            await self._missed(item)
        else:
            await self._compare(item, contact["id"], contact)

    async def _find(self, item: Unverified) -> dict[str, Any] | None:
        """Give the contact as Engage has it; None if it has none. Raises RouteErrors."""
        with contextlib.suppress(ContactGone):
            if item.entry.contact_id is not None:
                return await self._engage.fetch(item.entry.contact_id)
        with contextlib.suppress(ContactGone):
            contact_id = await self._engage.look_up(item.keys, item.entry.contact_type)
            return None if contact_id is None else await self._engage.fetch(contact_id)
        return None

    async def _put_off(self, item: Unverified, error: RouteError) -> None:
        wish_s = error.retry_after_s if isinstance(error, Throttled) else None
        wait_s = self._wait_s(item.failures + 1, retry_after_s=wish_s)
        now = to_text(self._clock.now())
        attempt = Attempt(
            Route.FILE,
            "deferred",
            now,
            now,
            error.code,
            error.status,
            error.message,
            error.request_id,
        )
        due = self._clock.monotonic() + wait_s
        await self._journal.write(partial(batches.put_off, item=item, due=due, attempt=attempt))
        self._on_attempt(Route.FILE, attempt.outcome)

    def _wait_s(self, tries: int, *, retry_after_s: float | None = None) -> float:
        waits_s = self._config.retry.waits_s
        return next_wait(waits_s, tries, random.uniform, retry_after_s=retry_after_s)

    async def _missed(self, item: Unverified) -> None:
        if item.misses + 1 < MISSES_ENOUGH:
            due = self._due(self._config.sftp.poll_s)
            again = partial(batches.look_again, item=item, due=due, missed=True)
            await self._journal.write(again)
            return
        settled = await self._journal.write(
            partial(
                skipped.settle_missed,
                item=item,
                fault=_SKIPPED,
                now=to_text(self._clock.now()),
                verifies=self._journal.verifies,
            )
        )
        self._tell(item, settled, _SKIPPED)

    async def _compare(self, item: Unverified, contact_id: str, contact: dict[str, Any]) -> None:
        payload = fold(item.entry.asked)
        wanted = payload.attributes
        names = differs(wanted, contact, mended=item.patched)
        kind = contact_type_of(contact)
        beside = keys_told(contact, without=wanted.keys())
        if names and item.patched:
            await self._settle(item, _differing(names), contact_id, kind)
        elif names:
            await self._send_difference(item, contact_id, kind, wanted, names)
        elif needs_member(kind, payload):
            await self._make_member(item, contact_id, kind, beside)
        else:
            await self._settle(item, None, contact_id, kind, beside)

    async def _make_member(
        self, item: Unverified, contact_id: str, kind: str | None, keys: Sequence[Key]
    ) -> None:
        """Change the type of a contact that was there before: no import is known to do it."""
        try:
            await self._engage.make_member(contact_id)
        except Refused as error:
            words = "Engage refused to make this contact a member."
            await self._settle(item, _refused(error, item, words), contact_id, kind)
        else:
            await self._settle(item, None, contact_id, "Member", keys)

    async def _send_difference(
        self,
        item: Unverified,
        contact_id: str,
        kind: str | None,
        wanted: Any,
        names: Sequence[str],
    ) -> None:
        tops = {name.partition(".")[0] for name in names}
        # A custom attribute's own name may hold a dot.
        body = {name: wanted[name] for name in wanted if name in tops or name in names}
        try:
            await self._engage.patch(contact_id, body)
        except Refused as error:
            words = "Engage refused the attributes that the import left out."
            await self._settle(item, _refused(error, item, words), contact_id, kind)
        except KeyTaken as error:
            fault = Fault(error.code, _TAKEN, error.status, request_id=error.request_id)
            await self._settle(item, fault, contact_id, kind)
        except SeveralMatch as error:
            await self._settle(item, _undecided(error), contact_id, kind)
        else:
            due, now = self._due(_AFTER_PATCH_S), to_text(self._clock.now())
            batch = await self._journal.write(
                partial(skipped.note_mended, item=item, due=due, now=now)
            )
            self._tell_skipped(batch)

    def _due(self, wait_s: float) -> float:
        return self._clock.monotonic() + wait_s * random.uniform(1.0, 1.2)  # noqa: S311

    async def _settle(
        self,
        item: Unverified,
        fault: Fault | None = None,
        contact_id: str | None = None,
        contact_type: str | None = None,
        keys: Sequence[Key] = (),
    ) -> None:
        settled = await self._journal.write(
            partial(
                skipped.settle,
                item=item,
                fault=fault,
                contact_id=contact_id,
                contact_type=contact_type,
                keys=keys,
                now=to_text(self._clock.now()),
                verifies=self._journal.verifies,
            )
        )
        self._tell(item, settled, fault)

    def _tell(self, item: Unverified, settled: Settled, fault: Fault | None) -> None:
        self._journal.tell(settled.changes)
        for change in settled.changes:
            self._on_attempt(Route.FILE, "rejected" if fault else "delivered")
            events.log().info(
                "change_verified",
                change=change.id,
                request=change.request_id,
                batch=item.batch.name,
                state=change.state,
                code=fault.code if fault else None,
            )
        self._tell_skipped(settled.skipped)

    def _tell_skipped(self, batch: Batch | None) -> None:
        if batch is None:
            return
        events.log().error(
            "file_skipped", batch=batch.name, contacts=batch.contacts, accepted=batch.accepted
        )
        self._journal.news.recorded.set()  # its changes wait again


_TAKEN = "Another contact in Engage has this key already. Nothing was changed."
_SKIPPED = Fault(
    "ImportSkipped",
    "Engage's import took the file but left this contact out. Check its data against what Engage "
    "demands, correct it and send it again.",
)


def _data(item: Unverified) -> list[Mapping[str, Any]]:
    keys = {key.name: key.value for key in item.keys}
    return [keys, *(payload.attributes for _, payload in item.entry.asked)]


def _undecided(error: Refused | SeveralMatch, *data: Mapping[str, Any]) -> Fault:
    if isinstance(error, SeveralMatch):
        words = "More than one contact in Engage matches: " + ", ".join(error.contact_ids)
    else:
        words = unquoted(error, *data).words or "Engage does not look this contact up."
    return Fault(error.code, words, error.status, request_id=error.request_id)


def _refused(error: Refused, item: Unverified, words: str) -> Fault:
    words = unquoted(error, *_data(item)).words or words
    return Fault(error.code, words, error.status, error.fields, error.request_id)


def _differing(names: Sequence[str]) -> Fault:
    return Fault(
        "ImportDiffers",
        "Engage has the contact, but not these attributes as they were sent: "
        + ", ".join(names)
        + ". Check their values and send the change again.",
        fields=tuple(
            {"field": name, "code": "ImportDiffers", "message": "Engage has another value."}
            for name in names
        ),
    )
