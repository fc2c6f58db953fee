"""How many calls a second: a token bucket in which people go before what waits from an outage."""

from __future__ import annotations

import asyncio
from collections import deque

from agent.clock import Clock

# A rate halved often must still let something through, or nothing would ever make it grow again.
_SLOWEST = 0.1
# Growth per answered call: from half back to full in about seven calls.
_GROWTH = 1.1


class Pace:
    """One budget for all calls to Engage, and a smaller one inside it for the backlog."""

    def __init__(self, clock: Clock, *, per_s: float, backlog_per_s: float) -> None:
        self._clock = clock
        self._full = per_s
        self._backlog_full = min(backlog_per_s, per_s)
        self.share = 1.0  # halved by each 429, grown again by answers
        self._tokens = max(1.0, per_s)
        self._backlog_tokens = 1.0
        self._filled_at = clock.monotonic()
        self._people: deque[asyncio.Future[None]] = deque()
        self._backlog: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def per_s(self) -> float:
        """Give the rate in force, in calls per second."""
        return max(_SLOWEST, self._full * self.share)

    async def turn(self, *, person: bool) -> None:
        """Wait until a call may be made. A person waiting goes before all backlog."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._people if person else self._backlog).append(turn)
        self._serve()
        await turn

    def throttled(self) -> None:
        """Engage said 429: go at half the rate."""
        self.share = max(self.share / 2, _SLOWEST / self._full)
        self._tokens = min(self._tokens, 0.0)

    def answered(self) -> None:
        """Engage took a call: grow towards the full rate again."""
        self.share = min(1.0, self.share * _GROWTH)

    def _fill(self) -> None:
        now = self._clock.monotonic()
        passed = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(max(1.0, self.per_s), self._tokens + passed * self.per_s)
        backlog_per_s = max(_SLOWEST, self._backlog_full * self.share)
        self._backlog_tokens = min(
            max(1.0, backlog_per_s), self._backlog_tokens + passed * backlog_per_s
        )

    def _serve(self) -> None:
        self._fill()
        while self._people and self._tokens >= 1:
            self._grant(self._people)
        while self._backlog and not self._people and self._may_serve_backlog():
            if self._grant(self._backlog):
                self._backlog_tokens -= 1
        if (self._people or self._backlog) and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.005, self._next_s()), self._again)

    def _may_serve_backlog(self) -> bool:
        return self._tokens >= 1 and self._backlog_tokens >= 1

    def _next_s(self) -> float:
        missing = (1 - self._tokens) / self.per_s
        if not self._people:
            slow = max(_SLOWEST, self._backlog_full * self.share)
            missing = max(missing, (1 - self._backlog_tokens) / slow)
        return missing

    def _again(self) -> None:
        self._timer = None
        self._serve()

    def _grant(self, queue: deque[asyncio.Future[None]]) -> bool:
        turn = queue.popleft()
        if turn.done():  # its caller was cancelled while it waited
            return False
        self._tokens -= 1
        turn.set_result(None)
        return True
