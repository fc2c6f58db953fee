"""The bulk calls of one batch, as the journal keeps them: those that may have been queued.

A call stands there before it is sent, and goes again if Engage certainly did not take it. So a
batch of which the journal has none is as free as one of which no file was uploaded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial

from agent.errors import NotAuthorised, RouteError, Throttled, Unreachable
from agent.journal import batches
from agent.journal.batches import Batch
from agent.journal.journal import Journal


@dataclass(frozen=True)
class Watched:
    """A contact of a call that was not in Engage, before the call, as the call will make it."""

    position: int  # in the batch
    differing: tuple[str, ...]  # attributes; empty: there was no such contact


@dataclass(frozen=True)
class Call:
    """One bulk call that was sent, or is just being sent."""

    creates: bool  # POST, else PATCH
    contact_type: str
    positions: tuple[int, ...]  # of its contacts in the batch
    watched: tuple[Watched, ...] = ()
    receipt: str | None = None  # it was queued for certain: Engage's answer, "" if that was lost

    @property
    def is_queued(self) -> bool:
        """Say whether Engage has it for certain."""
        return self.receipt is not None


class SentCalls:
    """A batch's calls; each change of them is in the journal when the method returns."""

    def __init__(self, journal: Journal, batch: Batch) -> None:
        self._journal = journal
        self._name = batch.name
        self._were_any = batch.calls is not None
        self._calls = list(_read(batch.calls))

    @property
    def calls(self) -> tuple[Call, ...]:
        """Give them in the order in which they were sent."""
        return tuple(self._calls)

    @property
    def doubtful(self) -> tuple[Call, ...]:
        """Give those that may have been queued or not."""
        return tuple(call for call in self._calls if not call.is_queued)

    def positions(self) -> set[int]:
        """Give the contacts that went with one of them."""
        return {position for call in self._calls for position in call.positions}

    def receipt(self) -> str:
        """Give what Engage answered to all of them."""
        return " ".join(call.receipt for call in self._calls if call.receipt)

    async def begin(self, call: Call) -> None:
        """Note that a call is sent now, for the first time or again."""
        if call not in self._calls:
            self._calls.append(call)
            await self._keep()

    async def take_back(self, call: Call) -> None:
        """Note that a call that was sent once was certainly not queued."""
        self._calls.remove(call)
        await self._keep()

    async def note_queued(self, call: Call, receipt: str) -> None:
        """Note that Engage has queued a call."""
        self._calls[self._calls.index(call)] = replace(call, receipt=receipt)
        await self._keep()
        self._were_any = True

    async def give_up(self, call: Call) -> None:
        """Forget a call of which nothing shows: its contacts are planned anew.

        That some of it may have been queued stays known.
        """
        self._were_any = True
        await self.take_back(call)

    async def _keep(self) -> None:
        text = json.dumps([asdict(call) for call in self._calls])
        kept = text if self._calls or self._were_any else None
        await self._journal.write(partial(batches.note_calls, name=self._name, calls=kept))


def calls_of(batch: Batch) -> tuple[Call, ...]:
    """Give a batch's calls as the journal has them."""
    return _read(batch.calls)


def _read(text: str | None) -> tuple[Call, ...]:
    return tuple(
        Call(
            each["creates"],
            each["contact_type"],
            tuple(each["positions"]),
            tuple(Watched(seen["position"], tuple(seen["differing"])) for seen in each["watched"]),
            each["receipt"],
        )
        for each in json.loads(text or "[]")
        if each.get("began", True)  # an older agent kept those that it had only planned, too
    )


def may_be_queued(error: RouteError) -> bool:
    """Say whether Engage may have queued a call that ended so."""
    is_refusal = error.status is not None and 400 <= error.status < 500
    return not (is_refusal or isinstance(error, Unreachable | Throttled | NotAuthorised))
