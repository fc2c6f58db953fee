"""When changes go by file, and how a batch becomes a file in the spool.

The journal is first: a batch exists there before its file does, and the file can be made again from
it at any time. The link is asked, never told.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from agent import events
from agent.change import Change, Fault
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.batch.document import (
    CannotBeWritten,
    Element,
    check_element,
    write_document,
)
from agent.delivery.batch.spool import TEMPORARY_SUFFIX, Spool
from agent.delivery.batch.stylesheet import NotTurned, Stylesheet, StylesheetProblem
from agent.delivery.folding import fold
from agent.delivery.link import Link, LinkState
from agent.delivery.routing import file_part, key_value
from agent.errors import AgentError
from agent.journal import batches
from agent.journal.batches import Batch, Entry, Lane, Member
from agent.journal.journal import Journal

_TICK_S = 0.5
_PAGE = 200  # lanes or contacts read at once
_AFTER_TROUBLE_S = 10.0


class Sealer:
    """Seals batches and writes their files for as long as it runs."""

    def __init__(
        self, config: Config, journal: Journal, spool: Spool, link: Link, clock: Clock
    ) -> None:
        self._config = config
        self._journal = journal
        self._spool = spool
        self._link = link
        self._clock = clock
        self._returns = 0  # of the line, as far as it was decided what goes by file then
        self._sealing = asyncio.Lock()  # a person may ask for it while the loop does it too
        self._eligible_since: float | None = None  # monotonic: when the oldest was first seen
        self.written = asyncio.Event()  # a file is ready to go up
        self.problem: str | None = None  # why files cannot be written, for the page

    @property
    def decides(self) -> bool:
        """Say whether the line came back and what goes by file is not decided yet.

        Until then the API route leaves the backlog alone, or both would pick from the same pile.
        """
        return self._link.returns != self._returns

    async def run(self) -> None:
        """Seal and write until cancelled."""
        swept = False
        while True:
            try:
                if not swept:
                    await asyncio.to_thread(self._sweep, await self._names_in_use())
                    swept = True
                async with self._sealing:
                    await self._write_sealed()
                await self._seal_what_is_due()
                self.problem = None
            except AgentError as error:
                if self.problem != error.message:
                    events.log().error("sealing_trouble", error=error.message)
                self.problem = error.message
                await asyncio.sleep(_AFTER_TROUBLE_S)
            await asyncio.sleep(_TICK_S)

    async def _names_in_use(self) -> set[str]:
        read = partial(batches.in_state, states=("sealed", "written"))
        return {batch.name for batch in await self._journal.read(read)}

    def _sweep(self, keep: set[str]) -> None:
        for name in self._spool.sweep(keep).foreign:
            events.log().warning("foreign_file_in_spool", file=name)

    # --- when ---------------------------------------------------------------------------------

    async def _seal_what_is_due(self) -> None:
        if self._link.state is LinkState.OFFLINE:
            if await self._is_time(used_up=0):
                await self.seal_now(used_up=0, why="offline")
            return
        if self.decides:
            returns = self._link.returns
            try:
                await self._seal_if_too_many()
            finally:
                self._returns = returns  # even if it did not work out: the API route goes on
            return
        used_up = self._config.retry.api_attempts
        if await self._is_time(used_up=used_up):
            await self.seal_now(used_up=used_up, why="attempts")

    async def _seal_if_too_many(self) -> None:
        most = self._config.fallback.api_drain_max
        count = partial(batches.count_idle, used_up=0, limit=most + 1)
        if await self._journal.read(count) > most:
            await self.seal_now(used_up=0, why="returned")

    async def _is_time(self, *, used_up: int) -> bool:
        """Say whether the oldest change that a file could take has waited long enough."""
        oldest = await self._oldest(used_up)
        if oldest is None:
            self._eligible_since = None
            return False
        now = self._clock.monotonic()
        if self._eligible_since is None:
            # Its age by the wall clock counts only up to here: from now on a jump changes nothing.
            age_s = (self._clock.now() - datetime.fromisoformat(oldest.created_at)).total_seconds()
            self._eligible_since = now - max(0.0, age_s)
        if now - self._eligible_since >= self._config.fallback.seal_after_s:
            return True
        most = self._config.fallback.max_contacts
        waiting = (await self._journal.totals()).counts[oldest.state]
        if waiting < most:
            return False
        count = partial(batches.count_idle, used_up=used_up, limit=most)
        return await self._journal.read(count) >= most

    async def _oldest(self, used_up: int) -> Change | None:
        async for lane in _idle_lanes(self._journal, used_up):
            if part := self._part(lane):
                return part[0]
        return None

    def _part(self, lane: Lane) -> tuple[Change, ...]:
        return file_part(lane.changes, lane.keys, contact_key=self._config.engage.contact_key)

    # --- sealing ------------------------------------------------------------------------------

    async def seal_now(self, *, used_up: int = 0, why: str = "by hand") -> int:
        """Seal every change that a file could take; gives how many batches that made.

        Contacts with Engage's GUID and contacts without never share a file: one GUID changes how
        the whole file is read (Engage's docs, "Contact XML import").
        """
        async with self._sealing:
            return await self._seal_all(used_up, why)

    async def _seal_all(self, used_up: int, why: str) -> int:
        self._eligible_since = None
        made = 0
        groups: dict[bool, list[Member]] = {True: [], False: []}
        async for lane in _idle_lanes(self._journal, used_up):
            member = await self._member(lane)
            if member is None:
                continue
            group = groups[member.contact_id is not None]
            group.append(member)
            if len(group) >= self._config.fallback.max_contacts:
                made += await self._seal(group, why)
                group.clear()
        for group in groups.values():
            if group:
                made += await self._seal(group, why)
        await self._write_sealed()
        return made

    async def _member(self, lane: Lane) -> Member | None:
        part = self._part(lane)
        if not part:
            return None
        contact = lane.head.contact
        kept = fold([(change.kind, change.payload) for change in part])
        known_type = contact.contact_type or kept.contact_type
        member = Member(
            lane=contact.lane,
            contact_id=contact.contact_id,
            contact_type=known_type or self._config.engage.default_contact_type,
            key_value=None
            if contact.contact_id or lane.head.kind == "create"
            else key_value(lane.keys, self._config.engage.contact_key),
            changes=part,
        )
        try:
            check_element(element_of(_entry(member), self._config.engage.contact_key))
        except CannotBeWritten as problem:
            await self._leave_out(part, problem)
            return None
        return member

    async def _leave_out(self, part: Sequence[Change], problem: CannotBeWritten) -> None:
        """Reject the one change that brought what XML cannot say; its neighbours go."""
        culprit = next(
            (change for change in reversed(part) if problem.attribute in change.payload.attributes),
            part[-1],
        )
        fault = Fault(
            "CannotBeWritten",
            f"{problem}. It was not sent. Correct it and send it again.",
            fields=(
                {"field": problem.attribute, "code": "CannotBeWritten", "message": str(problem)},
            ),
        )
        now = to_text(self._clock.now())
        await self._journal.write(partial(batches.leave_out, change=culprit, fault=fault, now=now))

    async def _seal(self, members: Sequence[Member], why: str) -> int:
        number = await self._journal.read(batches.next_number)
        name = self._name(number)
        batch = await self._journal.write(
            partial(
                batches.seal,
                number=number,
                name=name,
                with_id=members[0].contact_id is not None,
                members=tuple(members),
                now=to_text(self._clock.now()),
            )
        )
        events.log().info("batch_sealed", batch=name, contacts=batch.contacts, reason=why)
        return 1 if batch.contacts else 0

    def _name(self, number: int) -> str:
        return self._config.fallback.file_name.format(
            timestamp=self._clock.now().strftime("%Y%m%d%H%M%S"),
            store=self._config.store.id,
            till=self._config.store.till,
            sequence=f"{number:06d}",
        )

    # --- writing ------------------------------------------------------------------------------

    async def _write_sealed(self) -> None:
        read = partial(batches.in_state, states=("sealed",))
        for batch in await self._journal.read(read):
            if self._config.fallback.transport == "sftp":
                await self.write_file(batch)
            await self._journal.write(partial(batches.note_written, number=batch.number))
            self.written.set()

    async def write_file(self, batch: Batch) -> None:
        """Make a batch's file in the spool: manifest first, then the name. Safe to repeat.

        Raises SpoolProblem.
        """
        loop = asyncio.get_running_loop()
        build = partial(self._build, batch, loop)
        prepared = await asyncio.to_thread(self._spool.prepare, batch.name, build)
        await self._journal.write(
            partial(
                batches.note_manifest,
                number=batch.number,
                sha256=prepared.sha256,
                size=prepared.bytes,
            )
        )
        await asyncio.to_thread(self._spool.publish, prepared)
        events.log().info("batch_written", batch=batch.name, bytes=prepared.bytes)

    def _build(self, batch: Batch, loop: asyncio.AbstractEventLoop, stream: BinaryIO) -> int:
        """Write the document; runs in a thread and fetches its pages from the journal."""
        elements = self._elements(batch, loop)
        stylesheet = self._config.fallback.xslt
        if stylesheet is None:
            return write_document(elements, stream)
        # Beside the file, not in /tmp: it holds personal data. After a kill the sweep removes it.
        with tempfile.NamedTemporaryFile(
            dir=self._spool.directory, prefix=".plain-", suffix=TEMPORARY_SUFFIX
        ) as canonical:
            count = write_document(elements, cast(BinaryIO, canonical))
            canonical.flush()
            try:
                Stylesheet(stylesheet).turn(Path(canonical.name), stream)
            except NotTurned as error:
                raise StylesheetProblem(
                    f"The stylesheet {stylesheet} {error.what} on the batch {batch.name}, so it "
                    "waits. Correct the stylesheet."
                ) from None
        return count

    def _elements(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> Iterator[Element]:
        start = 0
        while True:
            read = partial(batches.entries, number=batch.number, start=start, limit=_PAGE)
            page = asyncio.run_coroutine_threadsafe(self._journal.read(read), loop).result()
            for entry in page:
                yield element_of(entry, self._config.engage.contact_key)
            if len(page) < _PAGE:
                return
            start = page[-1].position + 1


def _entry(member: Member) -> Entry:
    asked = tuple((change.kind, change.payload) for change in member.changes)
    return Entry(0, member.lane, member.contact_id, member.contact_type, member.key_value, asked)


def element_of(entry: Entry, contact_key: str) -> Element:
    """Fold what a batch asks for one contact into its element."""
    kept = fold(entry.asked)
    attributes = {**kept.defaults, **kept.attributes}
    if entry.key_value is not None:
        attributes.setdefault(contact_key, entry.key_value)
    return Element(
        contact_type=entry.contact_type,
        attributes=attributes,
        contact_id=entry.contact_id,
        source=kept.source,
        store_external_id=kept.store_external_id,
    )


async def _idle_lanes(journal: Journal, used_up: int) -> AsyncIterator[Lane]:
    """Give the journal's idle lanes, oldest first, a page at a time."""
    after = 0
    while True:
        read = partial(batches.idle_lanes, after=after, used_up=used_up, limit=_PAGE)
        page = await journal.read(read)
        for lane in page:
            yield lane
        if len(page) < _PAGE:
            return
        after = page[-1].head.seq
