"""Who wants to hear what happened in the journal, inside this process.

Intake tells that a change was recorded, delivery tells that one was settled; neither knows the
other. Nothing here is durable: after a restart the journal alone says what is to be done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from agent.change import Change

# More fresh lanes than this are a backlog, and the dispatcher finds them in the journal.
FRESH_LIMIT = 1024


@dataclass(frozen=True)
class Settled:
    """What a waiting POS is told: the change as it stands, and what Engage answered."""

    change: Change
    body: Any = None  # the contact as Engage answered it


@dataclass(eq=False)
class _Waiter:
    """A handler that waits for a change, and until when."""

    future: asyncio.Future[Settled | None]
    until: float  # the loop's time

    def answer(self, settled: Settled | None) -> None:
        if not self.future.done():
            self.future.set_result(settled)


class News:
    """The board on which the parts leave word for one another."""

    def __init__(self) -> None:
        self.recorded = asyncio.Event()  # something new may be due
        self.fresh: deque[int] = deque(maxlen=FRESH_LIMIT)  # lanes in which a person is waiting
        self._waiting: dict[str, list[_Waiter]] = {}

    def tell_recorded(self, lane: int) -> None:
        """Say that a change of this lane is durable and may be sent."""
        self.fresh.append(lane)
        self.recorded.set()

    def tell_settled(self, settled: Settled) -> None:
        """Say that a change moved on to a state that answers a waiting POS."""
        for waiter in self._waiting.get(settled.change.id, ()):
            waiter.answer(settled)

    def tell_deferred(self, settled: Settled, seconds: float) -> None:
        """Say that a change is tried again in so many seconds; who waits less long, goes now."""
        ends_at = asyncio.get_running_loop().time() + seconds
        for waiter in self._waiting.get(settled.change.id, ()):
            if waiter.until <= ends_at:
                waiter.answer(settled)

    async def wait_for(self, change_id: str, seconds: float) -> Settled | None:
        """Wait until somebody settles the change; None when the time is over."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), loop.time() + seconds)
        self._waiting.setdefault(change_id, []).append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter.future
        except TimeoutError:
            return None
        finally:
            self._waiting[change_id].remove(waiter)
            if not self._waiting[change_id]:
                del self._waiting[change_id]

    def dismiss(self) -> None:
        """Let everybody who waits go: the agent is stopping."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.answer(None)

    def is_awaited(self, change_id: str) -> bool:
        """Say whether a POS is waiting for this change right now."""
        return change_id in self._waiting
