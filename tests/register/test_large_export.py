"""A chain's whole export, and an agent that is killed while it reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import eventually
from world import Process, lay_till

from agent.sandbox import Sandbox

MEMBERS = 20_000
PATIENCE_S = 240.0


@pytest.fixture
async def process(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Process]:
    """An agent of its own that reads exports, not started yet."""
    settings = {
        "register": {"export_directory": sandbox.export_directory, "poll_s": 0.5},
        "sftp": {"timeout_s": 30},
    }
    agent = Process(lay_till(sandbox, tmp_path / "till", settings), session)
    yield agent
    await agent.stop()


async def members(process: Process) -> int:
    return int((await process.pos.status())["register"]["members"])


def memory_mb(process: Process) -> float:
    text = Path(f"/proc/{process._process.pid}/status").read_text("ascii")  # type: ignore[union-attr]
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.system
async def test_killed_in_mid_reading_it_ends_the_same_in_flat_memory(
    process: Process, sandbox: Sandbox
) -> None:
    await process.start()
    await eventually(lambda: read_once(process), "an empty folder was looked through")
    usual_mb = memory_mb(process)
    for number in range(MEMBERS):
        sandbox.seed(email=f"member{number}@example.test", mobilePhone=f"+4670{number:07d}")
    sandbox.export_now()

    await eventually(lambda: journal_grows(process), "some are stored", PATIENCE_S)
    await process.kill()
    await process.start()
    change = await process.pos.create("somebody@example.test")  # nobody waits for the register
    await process.pos.until(change, "delivered")
    await eventually(lambda: all_stored(process), "all are stored", PATIENCE_S)

    assert memory_mb(process) - usual_mb < 48
    sandbox.down()
    found = await eventually(lambda: found_offline(process), "the line is down")
    assert found == sandbox.find("email", "member19999@example.test")[0]["id"]


async def read_once(process: Process) -> bool:
    return (await process.pos.status())["register"]["readAt"] is not None


def journal_grows(process: Process) -> bool:
    # How many are known is counted after a whole file only.
    path = process.till.folder / "journal.db-wal"
    return path.exists() and path.stat().st_size > 1_000_000


async def all_stored(process: Process) -> bool:
    return await members(process) == MEMBERS


async def found_offline(process: Process) -> Any:
    status, body, headers = await process.pos.call(
        "GET", "/api/v3/contacts/id?email=member19999@example.test"
    )
    return body if status == 200 and headers["Agent-Source"] == "register" else None
