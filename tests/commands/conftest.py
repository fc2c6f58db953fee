"""Commands as a person types them, against an agent that runs in this process."""

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


@pytest.fixture
def typed() -> Ask:
    """Run a command as it stands: `await typed("token", "list", "--config", …)`."""
    return till_agent


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command against a world's agent: `await run(world, "batches", "list")`."""

    async def run_it(world: World, *words: str) -> Said:
        assert world.agent is not None
        monkeypatch.setenv("TILL_AGENT_TOKEN", world.till.token)
        return await till_agent(*words, "--url", world.agent.url)

    return run_it
