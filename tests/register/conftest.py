"""A till that reads the member export of a sandbox, on a clock that can be put forward."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from shifted_clock import ShiftedClock
from world import World, eventually

from agent import config
from agent.assembly import Agent
from agent.change import Route
from agent.clock import to_text
from agent.delivery.link import LinkState

Answer = tuple[int, Any, Any]


class Recognising(World):
    """A till that knows members; what it knows is asked for by its own calls."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.clock = ShiftedClock()

    async def start(self) -> Self:
        self.agent = Agent(config.load(self.till.config_path), self.clock)
        await self.agent.start()
        # The folder is looked through on command only, so that a test says when.
        self.agent.gates[Route.FILE].paused = True
        self.pos.url = self.agent.url
        return self

    async def export(self, **wish: Any) -> list[Path]:
        """Have Engage export, a minute after what happened before and one before what comes."""
        self.clock.shift_s += 60
        paths = [
            self.dated(self.sandbox.export_path / name) for name in self.sandbox.export_now(**wish)
        ]
        self.clock.shift_s += 60
        return paths

    def dated(self, path: Path) -> Path:
        """Give a file of the export the till's time, in its name and on the server."""
        now = self.clock.now()
        os.utime(path, (now.timestamp(), now.timestamp()))
        return path.rename(path.with_name(f"{now:%Y%m%d%H%M%S}{path.name[14:]}"))

    async def read(self, times: int = 1) -> bool:
        """Look through the export's folder now, so often; says whether all of it was read."""
        assert self.agent
        return [await self.agent.exports.look() for _ in range(times)][-1]

    async def told(self, **wish: Any) -> None:
        """Have Engage export, and read all of it."""
        await self.export(**wish)
        assert await self.read()

    async def cut_line(self) -> None:
        """Take the line down and wait until the agent has noticed."""
        self.sandbox.down()

        async def noticed() -> bool:
            await self.ask("email=nobody@example.test")
            assert self.agent
            return self.agent.link.state is LinkState.OFFLINE

        await eventually(noticed, "the line is seen as down")

    async def ask(self, question: str) -> Answer:
        return await self.pos.call("GET", f"/api/v3/contacts/id?{question}")

    async def found(self, question: str) -> Any:
        """Give who is found; None where nobody can tell."""
        status, body, _ = await self.ask(question)
        assert status in (200, 503), body
        return body if status == 200 else None

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        assert self.agent
        return await self.agent.journal.read(
            lambda db: [tuple(row) for row in db.execute(query).fetchall()]
        )

    def now_text(self) -> str:
        return to_text(self.clock.now())


@pytest.fixture
def usual_settings() -> dict[str, Any]:
    return {
        "fallback": {"seal_after_s": 3600},
        "register": {"export_directory": "/integration/customerExport"},
    }


@pytest.fixture
def world_type() -> type[World]:
    return Recognising


@pytest.fixture
async def till(start: Callable[..., Awaitable[Recognising]]) -> Recognising:
    """A till with the usual settings."""
    return await start()
