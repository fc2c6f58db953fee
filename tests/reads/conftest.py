"""An agent in front of a sandbox, on a clock that can be put forward; helpers are the stories'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest
from patience import eventually
from shifted_clock import ShiftedClock
from world import World

from agent import config
from agent.assembly import Agent
from agent.delivery.link import LinkState


class Reading(World):
    """A till whose time can pass, and whose line can be cut for good."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.clock = ShiftedClock()

    async def start(self) -> Self:
        self.agent = Agent(config.load(self.till.config_path), self.clock)
        await self.agent.start()
        self.pos.url = self.agent.url
        return self

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def cut_line(self) -> None:
        """Take the line down and wait until the agent has noticed."""
        self.sandbox.down()

        async def noticed() -> bool:
            await self.pos.call("GET", "/api/v3/contacts/id?email=nobody@example.test")
            assert self.agent
            return self.agent.link.state is LinkState.OFFLINE

        await eventually(noticed, "the line is seen as down")

    async def read(self, contact: str, **headers: str) -> tuple[int, Any, Any]:
        return await self.pos.call("GET", f"/api/v3/contacts/{contact}", **headers)

    async def signed_up(self, **attributes: Any) -> str:
        """Sign a customer up online; gives the GUID."""
        change = await self.pos.create(**attributes)
        return str((await self.pos.until(change, "delivered"))["contactId"])

    async def kept(self) -> int:
        """Count the kept answers and what was shown."""
        assert self.agent
        return await self.agent.journal.read(
            lambda db: db.execute("SELECT count(*) AS n FROM served").fetchone()["n"]
        )


@pytest.fixture
def usual_settings() -> dict[str, Any]:
    return {"fallback": {"seal_after_s": 3600}}  # no files


@pytest.fixture
def world_type() -> type[World]:
    return Reading


@pytest.fixture
async def till(start: Callable[..., Awaitable[Reading]]) -> Reading:
    """A till with the usual settings."""
    return await start()
