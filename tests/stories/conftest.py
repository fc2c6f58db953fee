"""A sandbox, and agents in front of it: in this process or in their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from world import Process, lay_till

from agent.sandbox import Sandbox


@pytest.fixture
async def start_process(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Start an agent in its own process: `await start_process(sftp={"poll_s": 1})`."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(files: int | None = None, **settings: Any) -> Process:
            process = Process(lay_till(sandbox, tmp_path / "till", settings), session, files)
            stack.push_async_callback(process.stop)
            await process.start()
            return process

        yield started
