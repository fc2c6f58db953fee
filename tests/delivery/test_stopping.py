"""SIGTERM and SIGINT at bad moments: it ends soon, answers who waits, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import eventually
from world import Process, World, lay_till

from agent.delivery import dispatcher
from agent.sandbox import Sandbox

Start = Callable[..., Awaitable[World]]
StartProcess = Callable[..., Awaitable[Process]]

ENDS_WITHIN_S = 30.0  # four for the last calls, and time for a busy machine
SLOW = {"create_timeout_s": 11, "timeout_s": 20}


@pytest.fixture
async def start_process(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[StartProcess]:
    async with contextlib.AsyncExitStack() as stack:

        async def started(**settings: Any) -> Process:
            process = Process(lay_till(sandbox, tmp_path / "till", settings), session)
            stack.push_async_callback(process.stop)
            await process.start()
            return process

        yield started


@pytest.fixture
def short_last_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stopping agent give its last calls less time than a till's has."""
    monkeypatch.setattr(dispatcher, "_LAST_CALLS_S", 0.3)


async def ended(process: Process, *signals: signal.Signals) -> int:
    """Send signals and wait for the end; fails if it takes too long."""
    running = process._process
    assert running is not None
    for number in signals:
        os.kill(running.pid, number)
        await asyncio.sleep(0)
    return await asyncio.wait_for(running.wait(), ENDS_WITHIN_S)


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)],
    ids=["term", "int", "term-twice"],
)
@pytest.mark.system
async def test_signal_with_a_hanging_engage_ends_the_process_and_loses_nothing(
    start_process: StartProcess, sandbox: Sandbox, signals: tuple[signal.Signals, ...]
) -> None:
    process = await start_process(engage=SLOW)
    sandbox.set_fault("not_unique")
    hanging = sandbox.set_fault("hang", method="POST")
    changes = [await process.pos.create(f"vera{number}@example.test") for number in range(12)]
    await eventually(lambda: hanging.hits, "it is being sent")

    assert await ended(process, *signals) == 0

    sandbox.clear_faults(kind="hang")
    await process.start()
    states = [await process.pos.change(each) for each in changes]
    assert any(each["unknown"] for each in states)
    assert all(each["unknown"] or each["state"] in ("waiting", "sending") or each["state"]
               == "delivered" for each in states)  # fmt: skip
    assert "Traceback" not in process.output()


@pytest.mark.usefixtures("short_last_calls")
async def test_waiting_pos_gets_its_202_when_the_agent_stops(start: Start) -> None:
    world = await start(server={"wait_s": 9}, engage=SLOW)
    slow = world.sandbox.set_fault("hang", method="POST")
    waiting = asyncio.create_task(
        world.pos.call("POST", "/api/v3/contacts", {"email": "vera@example.test"})
    )
    await eventually(lambda: slow.hits, "it is being sent")

    async with asyncio.timeout(ENDS_WITHIN_S):
        await world.stop()

    status, body, headers = await waiting
    assert status == 202
    assert body["agent"]["durable"] is True
    assert headers["Agent-Change"]


async def test_answer_that_comes_while_stopping_is_still_stored(start: Start) -> None:
    world = await start(engage=SLOW)
    slow = world.sandbox.set_fault("slow", method="POST", delay_s=0.25)
    change_id = await world.pos.create()
    await eventually(lambda: slow.hits, "it is being sent")

    await world.stop()
    world.sandbox.clear_faults()
    await world.start()

    change = await world.pos.change(change_id)
    assert change["state"] == "delivered"
    assert [each["outcome"] for each in change["attempts"]] == ["delivered"]


@pytest.mark.usefixtures("short_last_calls")
async def test_what_was_being_sent_is_unknown_afterwards_and_made_once(start: Start) -> None:
    world = await start(engage={"create_timeout_s": 11, "timeout_s": 20})
    world.sandbox.set_fault("not_unique")
    # The work is done at once; the answer takes longer than a stopping agent waits.
    world.sandbox.set_fault("drip", method="POST", every_s=5.0, commit=True, times=1)
    change_id = await world.pos.create()
    await eventually(lambda: world.sandbox.contacts(), "Engage made it")

    async with asyncio.timeout(ENDS_WITHIN_S):
        await world.stop()
    await world.start()

    change = await world.pos.until(change_id, "delivered")
    assert change["attempts"][0]["outcome"] == "unknown"
    assert len(world.calls("POST", "/contacts")) == 1
    assert len(world.sandbox.contacts()) == 1


@pytest.mark.system
async def test_signal_while_a_file_goes_to_a_silent_server_ends_the_process(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(sftp={"timeout_s": 60}, engage=SLOW)
    sandbox.set_fault("refuse", target="engage")
    silent = sandbox.set_fault("hang_write", after_bytes=50)
    change_id = await process.pos.create()
    await eventually(lambda: silent.hits, "the upload hangs")

    assert await ended(process, signal.SIGTERM) == 0

    sandbox.clear_faults(target="sftp")
    await process.start()
    await process.pos.until(change_id, "uploaded")
    assert len(sandbox.waiting_files()) == 1


@pytest.mark.system
@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.5, 0.7, 0.9])
async def test_signal_while_it_starts_ends_the_process_and_the_next_start_is_clean(
    start_process: StartProcess, sandbox: Sandbox, after_s: float
) -> None:
    process = await start_process()
    sandbox.down()
    change_id = await process.pos.create()
    await process.terminate()

    starting = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--config", str(process.till.config_path)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    await asyncio.sleep(after_s)  # somewhere between the first line and listening
    with contextlib.suppress(ProcessLookupError):
        starting.terminate()
    await asyncio.wait_for(starting.wait(), ENDS_WITHIN_S)

    sandbox.up()
    await process.start()
    await process.pos.until(change_id, "delivered", "uploaded", "batched")
