"""The disk fails while an agent stores something: no space, an I/O error, a sync that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from failing_disk import FailingDisk
from patience import eventually
from system_calls import need_tracing
from world import Process

from agent.sandbox import Sandbox, mishaps

pytestmark = pytest.mark.system

StartProcess = Callable[..., Awaitable[Process]]
VERA = "vera@example.test"
ASKED = {"email": VERA, "city": "Lund"}

# What goes wrong, and what the POS hears of it.
TROUBLE = {
    "no space": (("pwrite64",), "ENOSPC", (507, "JournalFull")),
    "I/O error": (("pwrite64",), "EIO", (503, "JournalUnavailable")),
    "a sync that fails": (("fsync", "fdatasync"), "EIO", (503, "JournalUnavailable")),
}
each_trouble = pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
Trouble = tuple[Sequence[str], str, tuple[int, str]]


@pytest.fixture(autouse=True)
def tracing() -> None:
    need_tracing()


@pytest.fixture
def failing(tmp_path: Path) -> Callable[[Process, Trouble], FailingDisk]:
    def failing(process: Process, trouble: Trouble) -> FailingDisk:
        journal = process.till.folder / "journal.db"
        files = (journal, Path(f"{journal}-wal"))
        return FailingDisk(process.pid, files, trouble[0], trouble[1], tmp_path / "strace.log")

    return failing


class HeldAnswer:
    """Engage does what it is asked and keeps the answer back until it is let go."""

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        monkeypatch.setitem(mishaps.MISHAPS, "slow", self._answer)
        self.fault = sandbox.set_fault("slow", method="POST", times=1)

    async def _answer(self, hit: Any) -> Any:
        answer = hit.server.reply(hit.call)
        await self.go.wait()
        return mishaps.json_response(answer)


@each_trouble
async def test_outcome_that_cannot_be_stored_is_looked_up_and_not_sent_again(
    start_process: StartProcess,
    sandbox: Sandbox,
    failing: Callable[..., FailingDisk],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Trouble,
) -> None:
    process = await start_process(engage={"create_timeout_s": 30})
    sandbox.set_fault("not_unique")
    held = HeldAnswer(sandbox, monkeypatch)
    change_id = await process.pos.create(city="Lund")
    await eventually(lambda: held.fault.hits and sandbox.find("email", VERA), "Engage made it")

    async with failing(process, trouble) as disk:
        held.go.set()
        await eventually(lambda: "settle_failed" in process.output(), "the outcome is not stored")
        await disk.strikes(times=2)

    change = await process.pos.until(change_id, "delivered")
    outcomes = [(each["outcome"], each["code"]) for each in change["attempts"]]
    assert outcomes == [("unknown", "NotRecorded"), ("delivered", None)]
    assert change["contactId"] == sandbox.find("email", VERA)[0]["id"]
    asked = [(each.method, each.path.rpartition("/")[2]) for each in sandbox.requests]
    assert asked.count(("POST", "contacts")) == 1
    assert ("GET", "id") in asked[asked.index(("POST", "contacts")) :]
    assert sandbox.counts()["duplicates"] == 0


@each_trouble
async def test_sign_up_that_cannot_be_stored_is_never_answered_as_stored(
    start_process: StartProcess,
    sandbox: Sandbox,
    failing: Callable[..., FailingDisk],
    trouble: Trouble,
) -> None:
    process = await start_process()
    sandbox.down()
    before = await process.pos.create("anna@example.test")

    async def ask() -> tuple[int, Any, Any]:
        return await process.pos.call(
            "POST", "/api/v3/contacts", ASKED, Idempotency_Key="sale-1", Prefer="respond-async"
        )

    async with failing(process, trouble) as disk:
        for _ in range(3):
            status, body, headers = await ask()
            assert (status, body["errorCode"]) == trouble[2]
            assert "Agent-Change" not in headers
        failed = disk.calls()
    status, _, headers = await ask()
    await process.kill()
    await process.start()

    assert status == 202
    found = (await process.pos.get("/agent/v1/changes?limit=10"))["items"]
    assert sorted(each["id"] for each in found) == sorted([before, headers["Agent-Change"]])
    assert disk.hits >= 3
    no_sync_was_tried_again(failed)


def no_sync_was_tried_again(calls: Sequence[tuple[str, str, bool]]) -> None:
    """After a sync that failed the file is written anew before the next one."""
    to_wal = [each for each in calls if each[1] == "journal.db-wal" and each[0] != "openat"]
    for (before, _, failed), (after, _, _) in pairwise(to_wal):
        if before in ("fsync", "fdatasync") and failed:
            assert after == "pwrite64", calls


@each_trouble
async def test_change_that_could_not_be_claimed_goes_as_soon_as_the_disk_is_well(
    start_process: StartProcess,
    sandbox: Sandbox,
    failing: Callable[..., FailingDisk],
    trouble: Trouble,
) -> None:
    process = await start_process(fallback={"seal_after_s": 600})
    sandbox.down()
    change_id = await process.pos.create(city="Lund")
    await process.pos.until_link("offline")

    async with failing(process, trouble) as disk:
        sandbox.up()
        await disk.strikes(times=2)
        assert sandbox.find("email", VERA) == []

    change = await process.pos.until(change_id, "delivered")
    assert change["unknown"] is False
    assert len(sandbox.find("email", VERA)) == 1


async def test_journal_is_opened_anew_after_a_sync_that_failed(
    start_process: StartProcess, sandbox: Sandbox, failing: Callable[..., FailingDisk]
) -> None:
    process = await start_process()
    sandbox.down()

    async with failing(process, TROUBLE["a sync that fails"]) as disk:
        for _ in range(2):
            await process.pos.call("POST", "/api/v3/contacts", ASKED, Prefer="respond-async")
        calls = disk.calls()

    failed = next(number for number, (*_, hit) in enumerate(calls) if hit)
    assert ("openat", "journal.db-wal", False) in calls[failed:]
