"""An agent in front of a sandbox, with short times; the helpers are those of the stories."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.append(str(Path(__file__).parents[1] / "stories"))

from world import World, lay_till

from agent.sandbox import Sandbox


class FakeClock:
    """A clock that goes only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loops of an agent in this process look around more often than a till needs."""
    for name in ("dispatcher", "batch.uploader", "batch.verify"):
        monkeypatch.setattr(f"agent.delivery.{name}._TICK_S", 0.05)
    monkeypatch.setattr("agent.delivery.batch.verify._AFTER_PATCH_S", 0.1)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(
        tmp_path / "sandbox", import_every_s=0, rate_limit=0, create_timeout_s=0.3, seed=1
    ) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


@pytest.fixture
async def start(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Start an agent: `await start(engage={"on_existing": "conflict"})`. No files by default."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(**settings: Any) -> World:
            settings.setdefault("fallback", {"seal_after_s": 3600})
            world = World(sandbox, lay_till(sandbox, tmp_path / "till", settings), session)
            stack.push_async_callback(world.stop)
            return await world.start()

        yield started
