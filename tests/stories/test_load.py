"""Many callers at once, and broken ones among them: the good ones are served, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest
from raw_http import Line
from world import Process, Settings, eventually

from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

StartProcess = Callable[..., Awaitable[Process]]
CONTACTS = "/api/v3/contacts"
TAKEN = (200, 201, 202)
DRAIN_S = 90.0
# What the service's unit allows; an agent beyond it would be killed.
MEMORY_MAX_KB = 256 * 1024
# Patient enough for a machine that is kept busy: nothing goes by file, nothing is sent twice.
PATIENT: Settings = {
    "engage": {"create_timeout_s": 30, "timeout_s": 30},
    "fallback": {"seal_after_s": 600},
}


class Callers:
    """Many POS at once, each with a connection of its own."""

    def __init__(self, process: Process) -> None:
        self.url = process.pos.url
        self.token = process.till.token
        self.acknowledged: dict[str, str] = {}  # the change of each e-mail
        self.answers: Counter[int] = Counter()
        self.without_retry_after = 0

    async def sign_up(self, session: aiohttp.ClientSession, email: str) -> int:
        headers = {"apikey": self.token, "Prefer": "respond-async", "Idempotency-Key": email}
        async with session.post(
            self.url + CONTACTS, json={"email": email}, headers=headers
        ) as answer:
            await answer.read()
            self.answers[answer.status] += 1
            if answer.status in TAKEN:
                self.acknowledged[email] = answer.headers["Agent-Change"]
            elif "Retry-After" not in answer.headers:
                self.without_retry_after += 1
            return answer.status

    async def all_at_once(self, emails: list[str]) -> None:
        """Sign all up, each with a connection of its own, until each is taken."""
        async with many_connections() as session:
            await asyncio.gather(*(self.until_taken(session, email) for email in emails))

    async def until_taken(self, session: aiohttp.ClientSession, email: str) -> None:
        """Do as a good POS does: come again when told to, or when the connection broke."""
        while email not in self.acknowledged:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                if await self.sign_up(session, email) in TAKEN:
                    return
            await asyncio.sleep(0.5)


def many_connections() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=60),
    )


async def journal_holds_exactly(process: Process, callers: Callers) -> None:
    """Compare what was acknowledged with what is stored after a kill: nothing lost or doubled."""
    await process.kill()
    await process.start()
    stored: set[str] = set()
    page = ""
    while page is not None:
        listed = await process.pos.get(f"/agent/v1/changes?limit=200&after={page}")
        stored |= {change["id"] for change in listed["items"]}
        page = listed["next"]
    assert stored == set(callers.acknowledged.values())


async def all_are_in_engage(process: Process, sandbox: Sandbox, callers: Callers) -> None:
    async def drained() -> bool:
        picture = await process.pos.status()
        # It is shared for half a second, so it may be of before the burst.
        is_of_after = sum(picture["counts"].values()) >= len(callers.acknowledged)
        return is_of_after and picture["unsent"] == 0

    await eventually(drained, "everything is delivered", DRAIN_S)
    found = [len(sandbox.find("email", email)) for email in callers.acknowledged]
    assert found == [1] * len(callers.acknowledged)
    assert sandbox.counts()["duplicates"] == 0


def memory_kb(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


# --- many at once ---------------------------------------------------------------------------------


async def test_bursts_of_a_thousand_are_all_taken_or_told_when_to_come_again(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(**PATIENT)
    sandbox.down()  # what was acknowledged stays where it is
    callers = Callers(process)

    for burst in range(2):
        await callers.all_at_once([f"b{burst}.{n}@example.test" for n in range(1000)])

    assert len(callers.acknowledged) == 2000
    assert set(callers.answers) <= {*TAKEN, 503}
    assert callers.without_retry_after == 0
    assert memory_kb(process) < MEMORY_MAX_KB
    await journal_holds_exactly(process, callers)


async def test_two_hundred_callers_with_room_for_fifty_all_get_through_in_the_end(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(**PATIENT, server={"max_connections": 50})
    callers = Callers(process)

    await callers.all_at_once([f"v{n}@example.test" for n in range(200)])

    assert len(callers.acknowledged) == 200
    assert set(callers.answers) <= {*TAKEN, 503}
    assert callers.without_retry_after == 0
    await all_are_in_engage(process, sandbox, callers)


async def test_killed_in_mid_burst_loses_nothing_that_was_acknowledged(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(**PATIENT)
    callers = Callers(process)

    async def sign_up(session: aiohttp.ClientSession, number: int) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await callers.sign_up(session, f"v{number}@example.test")

    async with many_connections() as session:
        burst = [asyncio.create_task(sign_up(session, number)) for number in range(400)]
        await eventually(lambda: len(callers.acknowledged) >= 50)
        await process.kill()
        await asyncio.gather(*burst)

    await process.start()
    await all_are_in_engage(process, sandbox, callers)


# --- slow and broken ones -------------------------------------------------------------------------

Harm = Callable[["Callers", Line], Awaitable[None]]


def head(line: Line, callers: Callers, length: int) -> bytes:
    return line.request(
        f"POST {CONTACTS}",
        f"apikey: {callers.token}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )


async def says_nothing(_: Callers, line: Line) -> None:
    await line.rest()


async def drips_its_head(_: Callers, line: Line) -> None:
    await line.send(b"POST / HTTP/1.1\r\nX-Slow: ")
    while True:
        await line.send(b"x")
        await asyncio.sleep(0.2)


async def drips_its_body(callers: Callers, line: Line) -> None:
    await line.send(head(line, callers, 60_000))
    while True:
        await line.send(b" ")
        await asyncio.sleep(0.2)


async def takes_no_answers(_: Callers, line: Line) -> None:
    while True:
        await line.send(line.request("GET /") * 50)


async def hangs_up_in_mid_body(callers: Callers, line: Line) -> None:
    await line.send(head(line, callers, 100) + b'{"email": "half@example.test"')
    line.reset()


async def hangs_up_before_the_answer(callers: Callers, line: Line) -> None:
    body = json.dumps({"email": "gone@example.test"}).encode()
    await line.send(head(line, callers, len(body)) + body)
    line.reset()


async def talks_nonsense(_: Callers, line: Line) -> None:
    await line.send(b"\x00\xff" * 2000 + b"\r\n\r\n")
    await line.rest()


HARMS: Mapping[Harm, int] = {
    says_nothing: 40,
    drips_its_head: 40,
    drips_its_body: 40,
    takes_no_answers: 10,
    hangs_up_in_mid_body: 5,
    hangs_up_before_the_answer: 5,
    talks_nonsense: 5,
}


async def again_and_again(harm: Harm, callers: Callers) -> None:
    """Do harm until cancelled, each time with a new connection."""
    while True:
        with contextlib.suppress(OSError):
            line = await Line.open(callers.url, receive_bytes=4096)
            try:
                await harm(callers, line)
            finally:
                line.close()
        await asyncio.sleep(0.2)


async def test_good_callers_are_unharmed_beside_slow_and_broken_ones(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(**PATIENT)
    callers = Callers(process)
    doing_harm = [
        asyncio.create_task(again_and_again(harm, callers))
        for harm, count in HARMS.items()
        for _ in range(count)
    ]
    try:
        async with many_connections() as session:
            for number in range(10):
                emails = [f"v{number}.{n}@example.test" for n in range(20)]
                await asyncio.gather(*(callers.sign_up(session, email) for email in emails))
        healthy = await process.pos.call("GET", "/healthz")
    finally:
        for task in doing_harm:
            task.cancel()
        await asyncio.gather(*doing_harm, return_exceptions=True)

    assert set(callers.answers) == {202}
    assert len(callers.acknowledged) == 200
    assert healthy[0] == 200
    assert memory_kb(process) < MEMORY_MAX_KB
    await all_are_in_engage(process, sandbox, callers)
    assert sandbox.find("email", "half@example.test") == []


async def test_with_few_open_files_the_agent_lives_and_recovers(
    start_process: StartProcess, sandbox: Sandbox
) -> None:
    process = await start_process(**PATIENT, files=80)
    callers = Callers(process)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            line = await Line.open(callers.url)  # waits in the kernel if need be
            stack.callback(line.close)
        await eventually(lambda: "accept_failed" in process.output(), "no file is left")

    async with many_connections() as session:
        await callers.until_taken(session, "vera@example.test")

    await all_are_in_engage(process, sandbox, callers)
    assert process.output().count("accept_failed") < 10  # told, and not again and again
