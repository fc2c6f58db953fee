"""What a caller may hold of the agent: in time, in size and in number."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from raw_http import Line, line_to
from running_agent import CONTACTS, Pos, Shop, eventually, open_shop

from agent.commands.running_agent import COMMAND_TOKEN
from agent.delivery import dispatcher
from agent.intake import connections
from agent.intake.listening import Door
from agent.status import signing

pytestmark = pytest.mark.system

IMPATIENT = {"server": {"caller_timeout_s": 0.5}}
SMALL = {"server": {"max_connections": 8}}


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop whose agent waits for nobody longer than half a second."""
    async with open_shop(tmp_path, IMPATIENT) as opened:
        yield opened


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop whose agent has room for eight connections."""
    async with open_shop(tmp_path, SMALL) as opened:
        yield opened


async def crowd(stack: contextlib.AsyncExitStack, shop: Shop, count: int = 8) -> list[Line]:
    """Open connections on which a request is under way: its body does not come."""
    lines = []
    for _ in range(count):
        line = await stack.enter_async_context(line_to(shop.agent.url))
        await line.send(
            line.request(
                f"POST {CONTACTS}",
                f"apikey: {shop.till.token}",
                "Content-Type: application/json",
                "Expect: 100-continue",
                "Content-Length: 100",
            )
        )
        assert (await line.answer()).status == 100
        lines.append(line)
    return lines


# --- time -----------------------------------------------------------------------------------------


async def test_a_form_of_the_page_that_drips_is_cut_off_with_408(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_FORM_S", 0.2)
    form = "Content-Type: application/x-www-form-urlencoded"

    async with line_to(shop.agent.url) as line:
        answer = await line.ask("POST /page/sign-in", form, "Content-Length: 100", body=b"token=")

    assert answer.status == 408
    assert answer.headers["content-type"].startswith("text/html")


async def test_a_head_that_drips_is_cut_off_with_408(impatient: Shop) -> None:
    async with line_to(impatient.agent.url) as line:

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                await line.send(b"POST / HTTP/1.1\r\nX-Slow: ")
                while True:
                    await line.send(b"x")
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        answer = await line.answer()
        dripping.cancel()

    assert (answer.status, answer.code) == (408, "TooSlow")
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["connection"] == "close"


async def test_a_head_that_stops_behind_a_request_is_cut_off_too(impatient: Shop) -> None:
    async with line_to(impatient.agent.url) as line:
        assert (await line.ask("GET /healthz")).status == 200
        await line.send(b"GET /healthz HT")

        assert (await line.answer()).code == "TooSlow"
        assert await line.rest() == b""


async def test_a_caller_who_says_nothing_is_hung_up_on(impatient: Shop) -> None:
    async with line_to(impatient.agent.url) as line:
        assert await line.rest() == b""


async def test_a_connection_may_rest_between_two_requests(impatient: Shop) -> None:
    async with line_to(impatient.agent.url) as resting, line_to(impatient.agent.url) as slow:
        await resting.ask("GET /healthz")
        await slow.rest()  # opened later, and cut off by now

        assert (await resting.ask("GET /healthz")).status == 200


async def test_a_caller_who_takes_no_answers_is_cut_off(impatient: Shop) -> None:
    async with line_to(impatient.agent.url, receive_bytes=4096) as line:
        asking = asyncio.create_task(line.send(line.request("GET /") * 3000))

        await eventually(lambda: impatient.agent.server.connections, within_s=10)
        await eventually(lambda: not impatient.agent.server.connections, within_s=15)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    assert (await impatient.pos("GET", "/agent/v1/changes")).status == 200


async def test_one_small_answer_that_nobody_takes_holds_no_connection(impatient: Shop) -> None:
    """Small answers fit the kernel's buffers, so here the agent's own end has almost none."""
    async with line_to(impatient.agent.url, receive_bytes=1024) as line:
        await line.ask("GET /healthz")
        (connection,) = impatient.agent.server._connections._open
        ours = connection.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        await line.send(line.request("GET /", "Connection: close"))

        await eventually(lambda: not impatient.agent.server.connections, within_s=15)


# --- size -----------------------------------------------------------------------------------------


async def test_a_head_that_does_not_end_is_431(shop: Shop) -> None:
    async with line_to(shop.agent.url) as line:
        await line.send(b"GET /healthz HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(40):
                await line.send(f"X-{number}: {'y' * 1000}\r\n".encode())

        answer = await line.answer()

    assert (answer.status, answer.code) == (431, "HeadTooLarge")


async def test_a_line_that_does_not_end_is_431(shop: Shop) -> None:
    codes = []
    for begun in ("GET /" + "a" * 9000, "GET /healthz HTTP/1.1\r\nX: " + "y" * 9000):
        async with line_to(shop.agent.url) as line:
            await line.send(begun.encode())
            codes.append((await line.answer()).code)

    assert codes == ["HeadTooLarge", "HeadTooLarge"]


async def test_a_large_body_is_refused_once_and_read_no_further(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LINGER_S", 0.2)
    async with line_to(shop.agent.url) as line:
        await line.send(
            line.request(
                f"POST {CONTACTS}",
                f"apikey: {shop.till.token}",
                "Content-Type: application/json",
                "Content-Length: 10000000",
            )
            + b"x" * 300_000
        )

        answer = await line.answer()

        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await line.rest() == b""


async def test_many_small_requests_behind_one_another_are_all_answered(shop: Shop) -> None:
    asked = 8
    async with line_to(shop.agent.url) as line:
        padding = "x" * (connections.HEAD_LIMIT // 4)
        bodies = [
            f'{{"email": "v{n}@example.test", "x": "{padding}"}}'.encode() for n in range(asked)
        ]
        sending = asyncio.create_task(
            line.send(
                b"".join(
                    line.request(
                        f"POST {CONTACTS}",
                        f"apikey: {shop.till.token}",
                        "Content-Type: application/json",
                        "Prefer: respond-async",
                        body=body,
                    )
                    for body in bodies
                )
            )
        )

        answers = [await line.answer() for _ in range(asked)]
        await sending

    assert {answer.status for answer in answers} == {202}


# --- number ---------------------------------------------------------------------------------------


async def test_beyond_the_limit_a_caller_is_told_when_to_come_again(small: Shop) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await crowd(stack, small)

        async with line_to(small.agent.url) as line:
            answer = await line.ask(
                f"POST {CONTACTS}",
                f"apikey: {small.till.token}",
                "Content-Type: application/json",
                body=b'{"email": "vera@example.test"}',
            )
            assert await line.rest() == b""

    assert (answer.status, answer.code) == (503, "Overloaded")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["connection"] == "close"
    await eventually(lambda: not small.agent.server.connections)
    assert await small.pos.changes() == []


async def test_beyond_the_limit_one_still_learns_how_it_stands_and_commands_get_through(
    small: Shop,
) -> None:
    token = small.agent.config.journal.path.with_name(COMMAND_TOKEN).read_text()
    statuses = {}
    async with contextlib.AsyncExitStack() as stack:
        await crowd(stack, small)

        for call in (
            "GET /healthz",
            "GET /readyz",
            "GET /agent/v1/status",
            "GET /",
            "POST /agent/v1/routes/api/pause",
        ):
            async with line_to(small.agent.url) as line:
                statuses[call] = (await line.ask(call, f"apikey: {token}")).status

    assert set(statuses.values()) == {200}, statuses


async def test_a_thousand_beyond_the_limit_are_all_told(small: Shop) -> None:
    async def turned_away() -> int:
        async with line_to(small.agent.url) as line:
            return (await line.ask("GET /agent/v1/changes", f"apikey: {small.till.token}")).status

    async with contextlib.AsyncExitStack() as stack:
        await crowd(stack, small)

        answers = await asyncio.gather(*(turned_away() for _ in range(300)))

    assert set(answers) == {503}


async def test_whoever_says_nothing_keeps_no_place_of_the_reserve(
    small: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_RESERVE_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        await crowd(stack, small)
        for _ in range(connections.RESERVE + 1):
            await stack.enter_async_context(line_to(small.agent.url))

        async with line_to(small.agent.url) as line:
            assert (await line.ask("GET /healthz")).status == 200


async def test_connections_that_rest_make_room(
    small: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_RESTED_S", 0.0)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            line = await stack.enter_async_context(line_to(small.agent.url))
            await line.ask("GET /healthz")

        assert (await small.pos.create("vera@example.test")).status == 201


async def test_room_is_there_again_when_others_have_gone(small: Shop) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for line in await crowd(stack, small):
            line.reset()

        await eventually(lambda: not small.agent.server.connections)

    assert (await small.pos.create("vera@example.test")).status == 201


async def test_callers_who_hang_up_count_while_their_requests_are_worked_on(
    monkeypatch: pytest.MonkeyPatch, small: Shop
) -> None:
    monkeypatch.setattr(dispatcher, "_LAST_CALLS_S", 0.1)  # the end of the test need not wait
    small.sandbox.set_fault("hang", method="POST")
    lines = [await Line.open(small.agent.url) for _ in range(8)]
    for number, line in enumerate(lines):
        await line.send(
            line.request(
                f"POST {CONTACTS}",
                f"apikey: {small.till.token}",
                "Content-Type: application/json",
                "Prefer: wait=5",
                body=f'{{"email": "vera{number}@example.test"}}'.encode(),
            )
        )
    token = small.agent.config.journal.path.with_name(COMMAND_TOKEN).read_text()

    async def stored() -> int:
        async with line_to(small.agent.url) as line:
            answer = await line.ask("GET /agent/v1/changes", f"apikey: {token}")
        return answer.body.count(b'"kind"')

    while await stored() < 8:  # bounded by the wait: then none is stored any more
        await asyncio.sleep(0.01)
    for line in lines:
        line.reset()
    answer = await small.pos("GET", "/agent/v1/changes")

    assert (answer.status, answer.code) == (503, "Overloaded")


class Short(socket.socket):
    """A listening socket for which the machine has no files left, for some tries."""

    tries = 0
    fails = 3

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        if self.tries <= self.fails:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_files_the_agent_rests_and_then_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sock = Short()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    came: list[socket.socket] = []
    door = Door(sock, came.append, lambda: True, rest_s=0.01)
    door.open()

    _, caller = await asyncio.open_connection(*sock.getsockname())
    await eventually(lambda: came)
    caller.close()
    came.pop().close()

    # Once for each rest, once that worked and once that nobody else was there: it does not spin.
    assert sock.tries == sock.fails + 2
    assert capsys.readouterr().out.count("accept_failed") == 1
    door.close()


# --- the wire -------------------------------------------------------------------------------------


NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    b"GET /api/v3/contacts/id?email=vera.lind@example.test HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"vera.lind@example.test\r\n\r\n",
)


async def test_what_is_no_http_is_malformed_and_not_quoted_anywhere(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for sent in NO_HTTP:
        async with line_to(shop.agent.url) as line:
            await line.send(sent)
            answers.append(await line.answer())
            assert await line.rest() == b""

    for answer in answers:
        assert (answer.status, answer.code) == (400, "MalformedRequest")
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.headers["server"] == "till-agent"
        assert b"vera" not in answer.body
    printed = "".join(capfd.readouterr())
    assert "vera" not in printed
    assert "Traceback" not in printed


async def test_a_body_is_asked_for_only_when_its_request_is_let_in(shop: Shop) -> None:
    asked = (f"POST {CONTACTS}", "Content-Type: application/json", "Expect: 100-continue")
    body = b'{"email": "vera@example.test"}'
    length = f"Content-Length: {len(body)}"
    async with line_to(shop.agent.url) as stranger, line_to(shop.agent.url) as known:
        await stranger.send(stranger.request(*asked, length))
        refused = await stranger.answer()
        await known.send(known.request(*asked, length, f"apikey: {shop.till.token}"))
        go_on = await known.answer()
        await known.send(body)
        taken = await known.answer()

    assert (refused.status, refused.headers["connection"]) == (401, "close")
    assert (go_on.status, taken.status) == (100, 201)


async def test_an_expectation_that_nobody_knows_is_no_obstacle(shop: Shop) -> None:
    async with line_to(shop.agent.url) as line:
        known = await line.ask("GET /healthz", "Expect: miracles")
        nowhere = await line.ask("GET /nowhere", f"apikey: {shop.till.token}", "Expect: miracles")

    assert known.status == 200
    assert nowhere.headers["content-type"].startswith("application/problem+json")


async def test_a_connection_can_be_used_again_after_a_refusal(shop: Shop) -> None:
    json, token = "Content-Type: application/json", f"apikey: {shop.till.token}"
    statuses = []
    async with line_to(shop.agent.url) as line:
        for headers, host in (
            (("Content-Type: text/plain", token), None),
            ((json, token), "evil.example.test"),
            ((json, token, "Origin: https://evil.example.test"), None),
            ((json,), None),
        ):
            refused = await line.ask(f"POST {CONTACTS}", *headers, body=b'{"a": 1}', host=host)
            after = await line.ask("GET /agent/v1/changes", token)
            statuses.append((refused.status, after.status))

    assert statuses == [(415, 200), (421, 200), (403, 200), (401, 200)]


async def test_requests_behind_one_another_are_answered_in_their_order(pos: Pos) -> None:
    async with line_to(pos.url) as line:
        await line.send(
            line.request("GET /healthz")
            + line.request("GET /nowhere", f"apikey: {pos.token}")
            + line.request("GET /agent/v1/changes", f"apikey: {pos.token}")
        )

        assert [(await line.answer()).status for _ in range(3)] == [200, 404, 200]
