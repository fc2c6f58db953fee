"""Commands as a person types them, against an agent that runs in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from world import World

from agent import commands


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def only_the_command_speaks() -> Iterator[None]:
    """Keep the agent's own log out of what the command prints: they share a process here."""
    configured = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**configured)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Ended]]:
    """Run a command as it stands: `await typed("token", "list", "--config", …)`."""

    async def run_it(*words: str) -> Ended:
        capsys.readouterr()
        code = await asyncio.to_thread(commands.main, words)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run_it


@pytest.fixture
def run(typed: Callable[..., Awaitable[Ended]], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against a world's agent: `await run(world, "batches", "list")`."""

    async def run_it(world: World, *words: str) -> Ended:
        assert world.agent is not None
        monkeypatch.setenv("TILL_AGENT_TOKEN", world.till.token)
        return await typed(*words, "--url", world.agent.url)

    return run_it
