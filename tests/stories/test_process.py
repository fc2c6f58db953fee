"""The agent as a process: stopped, killed, started twice, started wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import PATIENCE_S, eventually
from world import Pos, Process, lay_till, run_once

from agent.demo.world import free_port
from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

StartProcess = Callable[..., Awaitable[Process]]
VERA = "vera@example.test"


async def is_one_contact(sandbox: Sandbox) -> None:
    assert len(sandbox.find("email", VERA)) == 1
    assert sandbox.counts()["duplicates"] == 0


async def test_sigterm_with_work_in_flight_ends_at_once_and_loses_nothing(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(engage={"create_timeout_s": 11, "timeout_s": 20})
    hanging = sandbox.set_fault("hang", method="POST")
    change_id = await process.pos.create()
    await eventually(lambda: hanging.hits, "it is being sent")

    assert await process.terminate() == 0

    sandbox.clear_faults()
    await process.start()
    assert (await process.pos.change(change_id))["unknown"] is True
    interrupted = (await process.pos.change(change_id))["attempts"][0]
    assert (interrupted["outcome"], interrupted["code"]) == ("unknown", "Interrupted")


async def test_killed_between_engages_201_and_our_commit_makes_no_second_contact(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(engage={"create_timeout_s": 3})
    sandbox.set_fault("not_unique")
    # The work is done at once, and the answer comes too slowly for the agent to hear it.
    dripping = sandbox.set_fault("drip", method="POST", every_s=5.0, commit=True, times=1)
    change_id = await process.pos.create(city="Lund")
    await eventually(lambda: dripping.hits and sandbox.find("email", VERA), "Engage made it")

    await process.kill()
    await process.start()

    change = await process.pos.until(change_id, "delivered")
    assert change["unknown"] is False
    assert change["contactId"] == sandbox.find("email", VERA)[0]["id"]
    await is_one_contact(sandbox)


async def test_killed_while_a_late_commit_is_under_way_makes_no_second_contact(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(engage={"create_timeout_s": 2})
    sandbox.set_fault("not_unique")
    late = sandbox.set_fault("late_commit", method="POST", delay_s=1.8, times=1)
    change_id = await process.pos.create()
    await eventually(lambda: late.hits, "it was sent")

    await process.kill()
    await process.start()

    await process.pos.until(change_id, "delivered")
    await is_one_contact(sandbox)


async def test_killed_right_after_the_answer_still_delivers(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process()
    sandbox.down()
    changes = [await process.pos.create(f"vera{number}@example.test") for number in range(20)]

    await process.kill()

    sandbox.up()
    await process.start()
    for change_id in changes:
        await process.pos.until(change_id, "delivered", "uploaded", "batched")
    await sandbox.import_now()


async def test_request_repeated_after_a_kill_gets_the_same_change(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process()
    sandbox.down()
    asked: dict[str, Any] = {"email": VERA, "city": "Lund"}
    once = await process.pos.call("POST", "/api/v3/contacts", asked, Idempotency_Key="sale-1")
    await process.kill()
    await process.start()

    again = await process.pos.call("POST", "/api/v3/contacts", asked, Idempotency_Key="sale-1")

    assert again[2]["Agent-Change"] == once[2]["Agent-Change"]
    assert again[2]["Idempotent-Replay"] == "true"


async def test_killed_with_a_file_half_way_up_delivers_it_once(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(sftp={"timeout_s": 30})
    sandbox.set_fault("refuse", target="engage")
    stuck = sandbox.set_fault("hang_write", after_bytes=50)
    change_id = await process.pos.create()
    await eventually(lambda: stuck.hits, "the upload hangs")

    await process.kill()

    sandbox.clear_faults(target="sftp")
    await process.start()
    await process.pos.until(change_id, "uploaded")
    await sandbox.import_now()
    sandbox.clear_faults()
    await process.pos.until(change_id, "confirmed")
    await is_one_contact(sandbox)
    assert [each.outcome for each in sandbox.integration_log] == ["imported"]


async def test_killed_while_a_file_is_written_makes_the_same_file_again(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process()
    sandbox.down()
    await process.pos.create()
    spool = process.till.folder / "spool"
    (published,) = await eventually(lambda: list(spool.glob("2*.xml")), "the file is written")
    content = published.read_bytes()
    await process.kill()
    # As a power cut leaves it: the journal knows the batch, the folder only a part of its file.
    published.unlink()
    part = spool / f".{published.name}.tmp"
    part.write_bytes(content[:100])

    await process.start()
    sandbox.set_fault("refuse", target="engage")
    sandbox.up()

    await eventually(lambda: published.name in sandbox.waiting_files(), "it went up")
    assert (sandbox.import_path / published.name).read_bytes() == content
    assert not part.exists()


async def test_second_agent_on_the_same_journal_says_so_and_leaves_it_alone(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process()
    change_id = await process.pos.create()

    code, output = await run_once(process.till)

    assert code == 3
    assert "Another till-agent" in output
    assert "data is untouched" in output
    assert "Traceback" not in output
    await process.pos.until(change_id, "delivered")


async def test_wrong_settings_end_with_code_2_and_name_every_place(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    till = lay_till(
        sandbox, tmp_path / "till", {"engage": {"timeout_s": -1}, "link": {"prob_s": 3}}
    )

    code, output = await run_once(till)

    assert code == 2
    assert "timeout_s" in output
    assert "probe_s" in output
    assert not (till.folder / "journal.db").exists()


async def test_port_that_stays_taken_ends_with_code_3_and_loses_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with taken_port() as port:
        till = lay_till(sandbox, tmp_path / "till", {"server": {"port": port}})

        code, output = await run_once(till, within_s=60)

    assert code == 3
    assert f"127.0.0.1:{port}" in output
    assert "Traceback" not in output


async def test_port_that_is_taken_at_boot_is_tried_again(
    sandbox: Sandbox, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(taken_port())
        process = Process(lay_till(sandbox, tmp_path / "till", {"server": {"port": port}}), session)
        starting = asyncio.create_task(process.start())
        try:
            await eventually(lambda: "port_taken" in process.output(), "it sees the port taken")
            stack.close()
            await starting

            assert process.pos.url.endswith(f":{port}")
            await process.pos.until(await process.pos.create(), "delivered")
        finally:
            starting.cancel()
            await process.stop()


async def test_stop_while_the_port_is_taken_does_not_wait_for_it(
    sandbox: Sandbox, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with taken_port() as port:
        process = Process(lay_till(sandbox, tmp_path / "till", {"server": {"port": port}}), session)
        starting = asyncio.create_task(process.start())
        try:
            await eventually(lambda: "port_taken" in process.output(), "it sees the port taken")

            # The port would be tried for 30 seconds; terminate() gives up before that.
            code = await process.terminate()
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await process.stop()

    assert code == 0
    assert "Traceback" not in process.output()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


async def test_journal_of_a_newer_program_is_refused_and_untouched(
    start_process: StartProcess,
) -> None:
    process = await start_process()
    await process.terminate()
    place = process.till.folder / "journal.db"
    db = sqlite3.connect(place)
    db.execute("PRAGMA user_version = 999")
    db.close()
    before = place.read_bytes()

    code, output = await run_once(process.till)

    assert code == 3
    assert "newer till-agent" in output
    assert place.read_bytes() == before


@pytest.mark.parametrize("twice", [False, True])
async def test_process_ends_within_seconds_even_when_nothing_answers(
    start_process: StartProcess, sandbox: Sandbox, twice: bool
) -> None:
    process = await start_process(engage={"timeout_s": 60}, sftp={"timeout_s": 60})
    sandbox.set_fault("hang")
    sandbox.set_fault("hang_kex")
    await process.pos.create()
    began = time.monotonic()
    pid = process._process.pid if process._process else 0

    ending = asyncio.create_task(process.terminate())
    if twice:
        os.kill(pid, 15)

    assert await ending == 0
    assert time.monotonic() - began < PATIENCE_S


# --- a log that nobody takes ----------------------------------------------------------------------


@pytest.fixture(params=["a full disk", "a reader who is gone", "a reader who takes nothing"])
def bad_log(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give what an agent is to log to."""
    reading, writing = os.pipe()
    if request.param == "a full disk":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    elif request.param == "a reader who is gone":
        os.close(reading)
        reading = os.open(os.devnull, os.O_RDONLY)
    else:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"\n" * 4096)
        os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


async def test_a_log_that_takes_nothing_ends_and_holds_up_nothing(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path, bad_log: int
) -> None:
    port = free_port()
    till = lay_till(sandbox, tmp_path / "till", {"server": {"port": port}})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--config", str(till.config_path)),
        stdout=bad_log,
        stderr=bad_log,
        cwd=Path(__file__).parents[2],
    )
    pos = Pos(f"http://127.0.0.1:{port}", till.token, session)

    async def ready() -> bool:
        assert process.returncode is None
        with contextlib.suppress(aiohttp.ClientError):
            return (await pos.call("GET", "/readyz"))[0] == 200
        return False

    try:
        await eventually(ready, "the agent is ready")
        await pos.until(await pos.create(), "delivered")
    finally:
        process.terminate()
        code = await process.wait()

    assert code == 0
