"""What was found of a batch's contacts in Engage, for as long as that may be trusted.

A look-up that fails ends a turn; what was found before it is kept, so that the next turn goes on
there. It is not kept for long: whoever was not in Engage may be by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from agent.change import Kind
from agent.clock import Clock
from agent.contact import keys_of
from agent.delivery.batch.bulk_calls import Call, Watched
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.verify import Engage
from agent.delivery.difference import differs
from agent.delivery.folding import fold
from agent.errors import ContactGone, Refused, RouteError, SeveralMatch
from agent.journal import batches
from agent.journal.batches import Batch, Entry
from agent.journal.journal import Journal

KNOWN_FOR_S = 600.0  # so long after its look-up a contact may be created without another one
# Failed look-ups of one contact, until it is left to verifying: it must not keep thousands from
# Engage.
_FAILED_TOO_OFTEN = 10
_WATCHED = 3  # contacts of a call; more cost look-ups, fewer might all be skipped
_TRIED = 6  # until so many are found that are worth watching


@dataclass(frozen=True)
class Look:
    """What was found of one contact, and when."""

    at: float  # monotonic
    is_absent: bool  # else Engage does not single it out


@dataclass
class Looks:
    """What is known of one batch's contacts; of those in Engage the journal has the GUID."""

    found: dict[int, Look] = field(default_factory=dict)  # by position
    differing: dict[int, tuple[float, tuple[str, ...] | None]] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)  # look-ups that ended in an error
    ever: set[int] = field(default_factory=set)  # positions that were looked up at least once

    def fresh(self, position: int, now: float) -> Look | None:
        """Give what is known of a contact, if it may still be trusted."""
        look = self.found.get(position)
        return look if look is not None and now - look.at < KNOWN_FOR_S else None

    def failed_again(self, position: int) -> int:
        """Count that Engage answered for a contact with an error of its own."""
        self.failed[position] = self.failed.get(position, 0) + 1
        return self.failed[position]

    def forget(self, call: Call) -> None:
        """What was known of a call's contacts is not true any more: it is being sent."""
        for position in call.positions:
            self.found.pop(position, None)
            self.differing.pop(position, None)


class Looker:
    """Asks Engage for contacts of a batch."""

    def __init__(self, journal: Journal, engage: Engage, contact_key: str, clock: Clock) -> None:
        self._journal = journal
        self._engage = engage
        self._contact_key = contact_key
        self._clock = clock

    async def look(self, batch: Batch, entry: Entry, looks: Looks) -> Entry | None:
        """Look one contact up that is to be created; gives it with the GUID that was found.

        The GUID goes into the journal: it is an update then. None where Engage does not single the
        contact out, or has failed too often for that contact alone. Raises RouteErrors.
        """
        try:
            contact_id = await self._look_up(entry)
        except (Refused, SeveralMatch):
            self._note(looks, entry, is_absent=False)
            return None
        except RouteError as error:
            if error.status is None or looks.failed_again(entry.position) < _FAILED_TOO_OFTEN:
                raise
            self._note(looks, entry, is_absent=False)
            return None
        if contact_id is None:
            self._note(looks, entry, is_absent=True)
            return entry
        note = partial(batches.note_contact_id, number=batch.number, contact_id=contact_id)
        await self._journal.write(partial(note, position=entry.position))
        looks.ever.add(entry.position)
        return replace(entry, contact_id=contact_id)

    def _note(self, looks: Looks, entry: Entry, *, is_absent: bool) -> None:
        looks.found[entry.position] = Look(self._clock.monotonic(), is_absent)
        looks.ever.add(entry.position)

    async def worth_watching(
        self, creates: bool, entries: Sequence[Entry], looks: Looks
    ) -> tuple[Watched, ...]:
        """Give some of a call's last contacts that the call will change for everybody to see.

        Raises RouteErrors.
        """
        if creates:
            return tuple(Watched(entry.position, ()) for entry in entries[-_WATCHED:])
        found: list[Watched] = []
        for entry in entries[: -_TRIED - 1 : -1]:
            if differing := await self._differing_lately(entry, looks):
                found.append(Watched(entry.position, differing))
            if len(found) == _WATCHED:
                break
        return tuple(found)

    async def shows(self, batch: Batch, call: Call) -> bool:
        """Say whether one of a call's watched contacts is not any more as it was before.

        Raises RouteErrors.
        """
        for watched in call.watched:
            read = partial(batches.entries, number=batch.number, start=watched.position, limit=1)
            (entry,) = await self._journal.read(read)
            differing = await self._differing(entry)
            if differing is not None and (
                not watched.differing or set(watched.differing) - set(differing)
            ):
                return True
        return False

    async def _differing_lately(self, entry: Entry, looks: Looks) -> tuple[str, ...] | None:
        now = self._clock.monotonic()
        at, differing = looks.differing.get(entry.position, (-KNOWN_FOR_S, None))
        if now - at >= KNOWN_FOR_S:
            differing = await self._differing(entry)
            looks.differing[entry.position] = (now, differing)
        return differing

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

    async def _look_up(self, entry: Entry) -> str | None:
        attributes = element_of(entry, self._contact_key).attributes
        return await self._engage.look_up(keys_of(attributes), entry.contact_type)


def creates(entry: Entry) -> bool:
    """Say whether a contact is to be created, as far as the journal knows."""
    return entry.contact_id is None and any(kind is Kind.CREATE for kind, _ in entry.asked)
