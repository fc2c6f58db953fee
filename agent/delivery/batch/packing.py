"""What waits → batches: lane by lane, in small transactions, each contact through the gate.

A batch is filled some contacts at a time, so that nobody waits for the journal meanwhile; it
is closed when it is full or nothing is left. Killed in between it is closed as it is by the next
start: a smaller batch (docs/decisions/0011). Knows neither when that is nor how a file is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from agent import events
from agent.change import Change, Fault, Kind
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.batch.document import Element
from agent.delivery.batch.gate import Gate, Unfit
from agent.delivery.folding import changes_key, fold
from agent.delivery.routing import file_part, key_value, takes_creates
from agent.journal import batches
from agent.journal.batches import Batch, Entry, Lane, Member
from agent.journal.journal import Journal

# Contacts a transaction: a few milliseconds, which a sign-up at the till can wait.
_CHUNK = 50

# So many changes that the stylesheet cannot take are a person's to look at. More of them are no
# matter of single contacts any more: they wait for the API or a better stylesheet.
MOST_FAILED = 100
_HELD_S = 300.0  # until they are tried again; a person who has files made does not wait

Limits = Mapping[bool, int]  # with contactId or without → how many contacts at most


class Packer:
    """Puts changes into batches. One at a time: the caller sees to that."""

    def __init__(self, config: Config, journal: Journal, clock: Clock) -> None:
        self._config = config
        self._journal = journal
        self._clock = clock
        self._held: set[int] = set()  # heads of the lanes that the stylesheet keeps from a file
        self._to_rest: list[int] = []  # those of them that were found on this page
        self._held_because = ""

    @property
    def problem(self) -> str | None:
        """Give why some changes are not put into files, for the page."""
        return self._held_because if self._held else None

    async def look_after_held(self) -> None:
        """Forget those that went by the API meanwhile, or were sealed after all."""
        while self._held:
            head = next(iter(self._held))
            if await self._journal.read(partial(batches.waits, seq=head)):
                return
            self._held.remove(head)

    @property
    def takes_creates(self) -> bool:
        """Say whether sign-ups may go by file, as the settings are now."""
        return takes_creates(self._config.engage.on_existing)

    def part_for_file(self, lane: Lane) -> tuple[Change, ...]:
        """Give the changes at a lane's head that a file can take."""
        engage = self._config.engage
        return file_part(
            lane.changes,
            lane.keys,
            contact_key=engage.contact_key,
            on_existing=engage.on_existing,
        )

    async def pack(
        self, *, used_up: int, why: str, now: float, limits: Limits | None = None
    ) -> int:
        """Seal every change that a file could take, or `limits` many; gives how many batches.

        `used_up`: only lanes whose head has used up so many attempts. `now` (monotonic): what was
        taken back a moment before rests. Contacts with Engage's GUID
        and contacts without never share a file: one GUID changes how the whole file is read
        (Engage's docs, "Contact XML import"). Raises StylesheetProblem, JournalErrors.
        """
        gate = await asyncio.to_thread(Gate, self._config)
        left = dict(limits) if limits is not None else None
        begun: dict[bool, Batch] = {}
        made = 0
        async for lanes in self._pages(used_up, now):
            members = await self._fitting(lanes, gate, used_up)
            for with_id in (True, False):
                group = [each for each in members if (each.contact_id is not None) is with_id]
                if left is not None:
                    group = group[: left[with_id]]
                    left[with_id] -= len(group)
                made += await self._put(group, with_id, begun, why)
            if left is not None and not any(left.values()):
                break
        return made + await self.close_begun(why)

    async def _pages(self, used_up: int, now: float) -> AsyncIterator[Sequence[Lane]]:
        """Give the journal's idle lanes, oldest first, a page at a time."""
        idle = partial(
            batches.idle_lanes,
            used_up=used_up,
            limit=_CHUNK,
            now=now,
            creates=self.takes_creates,
        )
        after = 0
        while True:
            page = await self._journal.read(partial(idle, after=after))
            if page:
                yield page
            if len(page) < _CHUNK:
                return
            after = page[-1].head.seq

    async def close_begun(self, why: str = "interrupted") -> int:
        """Close the batches that are being filled, as they are; gives how many have contacts."""
        now = to_text(self._clock.now())
        closed = await self._journal.write(partial(batches.close_begun, now=now))
        return sum([await self._told(batch, why) for batch in closed])

    async def _put(
        self, members: Sequence[Member], with_id: bool, begun: dict[bool, Batch], why: str
    ) -> int:
        made = 0
        while members:
            batch = begun.get(with_id)
            number = batch.number if batch else await self._journal.read(batches.next_number)
            room = self._config.fallback.max_contacts - (batch.contacts if batch else 0)
            part, members = members[:room], members[room:]
            batch = await self._journal.write(
                partial(
                    batches.seal,
                    number=number,
                    name=batch.name if batch else self._name(number),
                    with_id=with_id,
                    members=tuple(part),
                    now=to_text(self._clock.now()),
                    more=len(part) < room,
                )
            )
            begun[with_id] = batch
            if batch.state != "filling":
                del begun[with_id]
                made += await self._told(batch, why)
        return made

    async def _told(self, batch: Batch, why: str) -> int:
        """Log a batch that was closed; gives 1, and 0 if all of its contacts had moved on."""
        if not batch.contacts:
            return 0
        events.log().info("batch_sealed", batch=batch.name, contacts=batch.contacts, reason=why)
        # Of each change, too: by its request it can be found from here on.
        found = await self._journal.read(partial(batches.sealed, number=batch.number))
        for number, item in enumerate(found, 1):
            events.log().info(
                "change_sealed", change=item.change, request=item.request_id, batch=batch.name
            )
            if number % _CHUNK == 0:
                await asyncio.sleep(0)  # thousands of lines must not hold up who waits
        return 1

    def _name(self, number: int) -> str:
        return self._config.fallback.file_name.format(
            timestamp=self._clock.now().strftime("%Y%m%d%H%M%S"),
            store=self._config.store.id,
            till=self._config.store.till,
            sequence=f"{number:06d}",
        )

    # --- what fits ----------------------------------------------------------------------------

    async def _fitting(self, lanes: Sequence[Lane], gate: Gate, used_up: int) -> list[Member]:
        members, unfit = await asyncio.to_thread(self._sift, lanes, gate)
        fitting = [each for position, each in enumerate(members) if position not in unfit]
        for position, problem in unfit.items():
            rest = await self._without_culprit(members[position], problem, gate, used_up)
            if rest is not None:
                fitting.append(rest)
        await self._let_rest()
        return fitting

    def _sift(self, lanes: Sequence[Lane], gate: Gate) -> tuple[list[Member], Mapping[int, Unfit]]:
        members = [member for lane in lanes if (member := self._member(lane)) is not None]
        return members, gate.unfit([self._element(member) for member in members])

    def _member(self, lane: Lane) -> Member | None:
        part = self.part_for_file(lane)
        if not part:
            return None
        contact = lane.head.contact
        kept = fold([(change.kind, change.payload) for change in part])
        known_type = contact.contact_type or kept.contact_type
        key_name = self._config.engage.contact_key
        finds = not contact.contact_id and lane.head.kind is not Kind.CREATE
        return Member(
            lane=contact.lane,
            contact_id=contact.contact_id,
            contact_type=known_type or self._config.engage.default_contact_type,
            key_value=key_value(lane.keys, key_name) if finds else None,
            changes=part,
            key_name=key_name if finds else None,
        )

    def _element(self, member: Member) -> Element:
        asked = tuple((change.kind, change.payload) for change in member.changes)
        entry = Entry(
            position=0,
            lane=member.lane,
            contact_id=member.contact_id,
            contact_type=member.contact_type,
            key_value=member.key_value,
            asked=asked,
            key_name=member.key_name,
        )
        return element_of(entry, self._config.engage.contact_key)

    async def _without_culprit(
        self, member: Member, problem: Unfit, gate: Gate, used_up: int
    ) -> Member | None:
        """Reject the change that brought what no file can say; give what is left of its lane."""
        if problem.by_stylesheet and await self._are_too_many(problem.code):
            self._hold(member.changes[0])
            return None
        culprit = await asyncio.to_thread(self._culprit, member, problem, gate)
        await self._leave_out(culprit, problem)
        lane = await self._journal.read(partial(batches.lane, lane=member.lane))
        if lane is None or lane.head.api_attempts < used_up:
            return None
        rest = await self._fitting([lane], gate, used_up)
        return rest[0] if rest else None

    def _culprit(self, member: Member, problem: Unfit, gate: Gate) -> Change:
        """Give the last change that set the attribute, or else the first one that spoils it all."""
        part = member.changes
        if problem.attribute is not None:
            setters = [each for each in part if problem.attribute in each.payload.attributes]
            return setters[-1] if setters else part[0]
        for count in range(1, len(part)):
            if gate.unfit([self._element(replace(member, changes=part[:count]))]):
                return part[count - 1]
        return part[-1]

    async def _are_too_many(self, code: str) -> bool:
        count = partial(batches.count_left_out, code=code, limit=MOST_FAILED)
        return await self._journal.read(count) >= MOST_FAILED

    def _hold(self, head: Change) -> None:
        if not self._held:
            self._held_because = (
                f"The stylesheet {self._config.fallback.xslt} fails on more than {MOST_FAILED} "
                "contacts, so the others on which it fails wait for the API. Correct it; files are "
                "made of the rest."
            )
            events.log().error("stylesheet_fails_on_many", contacts=MOST_FAILED)
        self._held.add(head.seq)
        self._to_rest.append(head.seq)

    async def _let_rest(self) -> None:
        if self._to_rest:
            heads, self._to_rest = self._to_rest, []
            until = self._clock.monotonic() + _HELD_S
            await self._journal.write(partial(batches.let_rest, heads=heads, until=until))

    async def _leave_out(self, culprit: Change, problem: Unfit) -> None:
        fault = Fault(
            problem.code,
            f"{problem.what} It was not sent. Correct it and send it again.",
            fields=(
                ({"field": problem.attribute, "code": problem.code, "message": problem.what},)
                if problem.attribute is not None
                else ()
            ),
        )
        now = to_text(self._clock.now())
        leave_out = partial(batches.leave_out, change=culprit, fault=fault, now=now)
        self._journal.tell((await self._journal.write(leave_out),))
        events.log().warning(
            "change_left_out",
            change=culprit.id,
            request=culprit.request_id,
            code=problem.code,
        )


def element_of(entry: Entry, contact_key: str) -> Element:
    """Fold what a batch asks for one contact into its element.

    What a sign-up fills in (defaults, source, store) is for a new contact: one that Engage has
    already, as its GUID says, keeps its own.
    `contact_key` is only for what an older agent sealed: the file says what it said at first, also
    if the settings name another key by now.
    """
    kept = fold(entry.asked)
    exists = entry.contact_id is not None
    attributes = {**({} if exists else kept.defaults), **kept.attributes}
    if entry.key_value is not None:
        attributes.setdefault(entry.key_name or contact_key, entry.key_value)
    return Element(
        contact_type=entry.contact_type,
        attributes=attributes,
        contact_id=entry.contact_id,
        source=None if exists else kept.source,
        store_external_id=None if exists else kept.store_external_id,
        gets_key=exists and entry.asked[0][0] is Kind.UPDATE and changes_key(kept, contact_key),
    )
