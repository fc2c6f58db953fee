"""An event loop whose hours pass in milliseconds: real sockets and files, virtual waiting.

The loop's time moves only when nothing can happen any more: no socket is readable and nothing is
due. Then it jumps to the next timer. What the agent does in threads (SQLite, files)
runs on the loop itself, so the same history takes the same course every time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import selectors
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosqlite.core
import pytest

# A loop that has neither timers nor sockets with news never goes on.
_DEADLOCK_S = 20.0


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Waits for real sockets, but never for time."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        # What one end of a loopback connection wrote is readable at the other by the second look.
        if ready := super().select(0):
            return ready
        if timeout is None:
            ready = super().select(_DEADLOCK_S)
            assert ready, "the world stands still: nobody waits for anything that can come"
            return ready
        self.loop.elapsed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop on virtual time; `chance` gives the small delays of disk and line."""

    def __init__(self, seed: int) -> None:
        self.elapsed = 0.0
        self.chance = random.Random(seed)
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return 1000.0 + self.elapsed

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Run on the loop what would run in a thread."""
        assert executor is None, "a thread of its own is not foreseen in a history"
        future = self.create_future()
        self.call_later(self.chance.choice((0.0, 0.0005, 0.003)), _settle, future, func, *args)
        return future


def _settle(future: asyncio.Future[Any], func: Callable[..., Any], *args: Any) -> None:
    try:
        result = func(*args)
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


class _NoThread:
    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


class _OnLoop:
    """aiosqlite's queue to its thread, worked off by the loop, one after another."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Any] = collections.deque()
        self._armed = False

    def put_nowait(self, item: Any) -> None:
        self._waiting.append(item)
        self._arm()

    def _arm(self) -> None:
        if self._waiting and not self._armed:
            self._armed = True
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            delay_s = loop.chance.choice((0.0, 0.0, 0.0, 0.0005, 0.002, 0.01))
            loop.call_later(delay_s, self._step)

    def _step(self) -> None:
        future, work = self._waiting.popleft()
        if future is None:
            work()
        else:
            _settle(future, work)
        self._armed = False
        self._arm()


@contextlib.contextmanager
def sqlite_on_the_loop() -> Iterator[None]:
    """Let aiosqlite work on the loop instead of in threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiosqlite.core, "Thread", _NoThread)
        patch.setattr(aiosqlite.core, "SimpleQueue", _OnLoop)
        yield


class VirtualClock:
    """The agent's clock on a virtual loop; the wall clock can jump, and a machine can boot."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._booted_at = loop.time() - 100.0
        self._leap = timedelta()

    def now(self) -> datetime:
        began = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
        return began + timedelta(seconds=self._loop.elapsed) + self._leap

    def monotonic(self) -> float:
        return self._loop.time() - self._booted_at

    def leap(self, seconds: float) -> None:
        """Let the wall clock jump."""
        self._leap += timedelta(seconds=seconds)

    def boot(self) -> None:
        """The machine was started anew: its monotonic clock begins again."""
        self._booted_at = self._loop.time() - 5.0
