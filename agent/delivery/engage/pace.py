"""How many calls a second: a token bucket in which people go before what waits from an outage."""

from __future__ import annotations

import asyncio
from collections import deque

from agent.clock import Clock

# What people do by hand is never slower than this: it is little, and they are waiting.
_SLOWEST = 1.0
# The backlog may become much slower: 2,000 tills that share 50 calls a second have 0.025 each.
_SLOWEST_BACKLOG = 0.01
# What a 429 leaves of the rates, and how they grow with each answered call. The backlog's growth is
# small after a 429 and quickens with every answer since: tills that share a limit seldom overstep
# it, and one that is left alone is soon fast again. Measured in docs/decisions/0010.
_CUT = 0.5
_GROWTH = 0.1
_BACKLOG_CUT = 0.25
_BACKLOG_GROWTH = 0.03
_QUICKENING = 0.002
_FASTEST_GROWTH = 0.1
# After an outage the backlog begins at this part of its rate.
_SLOW_START = 0.1


class Pace:
    """One budget for all calls to Engage, and a smaller one inside it for the backlog."""

    def __init__(self, clock: Clock, *, per_s: float, backlog_per_s: float) -> None:
        self._clock = clock
        self._full = per_s
        self._backlog_full = min(backlog_per_s, per_s)
        self.share = 1.0  # halved by each 429, grown again by answers
        self.backlog_share = 1.0  # the same for the backlog, which also begins slowly
        self._backlog_growth = _BACKLOG_GROWTH
        self._tokens = max(1.0, per_s)
        self._backlog_tokens = 1.0
        self._filled_at = clock.monotonic()
        self._people: deque[asyncio.Future[None]] = deque()
        self._backlog: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def per_s(self) -> float:
        """Give the rate in force, in calls per second."""
        return max(min(_SLOWEST, self._full), self._full * self.share)

    @property
    def backlog_per_s(self) -> float:
        """Give the rate in force for what waits from an outage."""
        return max(_SLOWEST_BACKLOG, self._backlog_full * self.backlog_share)

    async def turn(self, *, person: bool) -> None:
        """Wait until a call may be made. A person waiting goes before all backlog."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._people if person else self._backlog).append(turn)
        self._serve()
        await turn

    def throttled(self) -> None:
        """Engage said 429: go at half the rate, and the backlog at a quarter."""
        self.share = max(self.share * _CUT, min(1.0, _SLOWEST / self._full))
        slowest = min(1.0, _SLOWEST_BACKLOG / self._backlog_full)
        self.backlog_share = max(self.backlog_share * _BACKLOG_CUT, slowest)
        self._backlog_growth = _BACKLOG_GROWTH
        self._tokens = min(self._tokens, 0.0)

    def answered(self) -> None:
        """Engage took a call: grow towards the full rate again."""
        self.share = min(1.0, self.share * (1 + _GROWTH))
        self.backlog_share = min(1.0, self.backlog_share * (1 + self._backlog_growth))
        self._backlog_growth = min(_FASTEST_GROWTH, self._backlog_growth + _QUICKENING)

    def begin_slowly(self) -> None:
        """The line is back, and with it perhaps a whole chain's tills."""
        self.backlog_share = min(self.backlog_share, _SLOW_START)
        self._backlog_growth = _FASTEST_GROWTH  # until a 429 says that others are back, too

    def _fill(self) -> None:
        now = self._clock.monotonic()
        passed = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(max(1.0, self.per_s), self._tokens + passed * self.per_s)
        backlog_per_s = self.backlog_per_s
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
        # Set anew each time: a timer made for the slow backlog must not keep a person waiting.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._people or self._backlog:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.005, self._next_s()), self._again)

    def _may_serve_backlog(self) -> bool:
        return self._tokens >= 1 and self._backlog_tokens >= 1

    def _next_s(self) -> float:
        missing = (1 - self._tokens) / self.per_s
        if not self._people:
            missing = max(missing, (1 - self._backlog_tokens) / self.backlog_per_s)
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
