"""A running agent, and the command line that asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from command_line import Said, till_agent, write_port
from world import World

Ask = Callable[..., Awaitable[Said]]


@pytest.fixture
def ask(start: Callable[..., Awaitable[World]]) -> Callable[..., Awaitable[tuple[World, Ask]]]:
    """Start an agent and give it with its command line: `world, ask = await ask(retry=…)`."""

    async def started(**settings: Any) -> tuple[World, Ask]:
        world = await start(**settings)
        path = write_port(world)

        async def said(*arguments: str, **more: Any) -> Said:
            return await till_agent(*arguments, "--config", path, **more)

        return world, said

    return started
