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


class News:
    """The board on which the parts leave word for one another."""

    def __init__(self) -> None:
        self.recorded = asyncio.Event()  # something new may be due
        self.fresh: deque[int] = deque(maxlen=FRESH_LIMIT)  # lanes in which a person is waiting
        self._waiting: dict[str, list[asyncio.Future[Settled]]] = {}

    def tell_recorded(self, lane: int) -> None:
        """Say that a change of this lane is durable and may be sent."""
        self.fresh.append(lane)
        self.recorded.set()

    def tell_settled(self, settled: Settled) -> None:
        """Say that a change moved on to a state that answers a waiting POS."""
        for future in self._waiting.pop(settled.change.id, ()):
            if not future.done():
                future.set_result(settled)

    async def wait_for(self, change_id: str, seconds: float) -> Settled | None:
        """Wait until somebody settles the change; None when the time is over."""
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(change_id, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            if (waiting := self._waiting.get(change_id)) and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[change_id]

    def dismiss(self) -> None:
        """Let everybody who waits go: the agent is stopping."""
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(TimeoutError())

    def is_awaited(self, change_id: str) -> bool:
        """Say whether a POS is waiting for this change right now."""
        return change_id in self._waiting
