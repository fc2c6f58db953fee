"""Every fault of Engage, seen from the client's side of a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.sandbox import Sandbox

VERA = {"email": "vera@example.test", "firstName": "Vera"}
CONTACTS = "/api/v3/contacts"


@pytest.fixture
def create(engage: Any, session: aiohttp.ClientSession) -> Callable[[], Any]:
    """Send a create and return the raw response."""
    return lambda: session.post(f"{engage.url}{CONTACTS}", json=VERA, allow_redirects=False)


# --- the connection -------------------------------------------------------------------------------


async def test_refuse_really_refuses_and_ends_with_the_fault(engage: Any, sandbox: Sandbox) -> None:
    sandbox.set_fault("refuse", target="engage")

    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        await engage.create(**VERA)
    assert isinstance(caught.value.os_error, ConnectionRefusedError)

    sandbox.clear_faults()
    await engage.create(**VERA)


async def test_refused_port_cannot_be_taken_by_anybody_else(sandbox: Sandbox) -> None:
    sandbox.set_fault("refuse", target="engage")

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", sandbox.engage_port))


async def test_refuse_cuts_connections_that_are_open(engage: Any, sandbox: Sandbox) -> None:
    sandbox.set_fault("hang", times=1)
    hanging = asyncio.create_task(engage.create(**VERA))
    while not sandbox.requests:
        await asyncio.sleep(0)

    sandbox.set_fault("refuse", target="engage")

    with pytest.raises(aiohttp.ClientError):
        await hanging


async def test_refuse_can_end_by_itself(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.set_fault("refuse", target="engage", for_s=0.05)

    await eventually(lambda: not sandbox.faults() and sandbox._engage.listener.is_open)

    await engage.create(**VERA)


async def test_hang_takes_the_request_and_never_answers(
    create: Callable[[], Any], sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    hanging = sandbox.set_fault("hang")
    calling = asyncio.ensure_future(create())
    await eventually(lambda: hanging.hits)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(calling, 0.1)

    assert sandbox.contacts() == []
    assert [request.fault for request in sandbox.requests] == ["hang"]


async def test_slow_answers_after_its_delay(create: Callable[[], Any], sandbox: Sandbox) -> None:
    sandbox.set_fault("slow", delay_s=0.1)
    began = time.monotonic()

    async with create() as response:
        assert response.status == 201

    assert time.monotonic() - began >= 0.1


async def test_slow_goes_on_when_the_caller_has_hung_up(
    create: Callable[[], Any], sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    slow = sandbox.set_fault("slow", delay_s=0.1)
    calling = asyncio.ensure_future(create())
    await eventually(lambda: slow.hits)

    calling.cancel()

    await eventually(sandbox.contacts)


async def test_create_slower_than_its_limit_is_rolled_back_with_504(
    tmp_path: Path, engage_of: Any
) -> None:
    async with Sandbox(tmp_path, create_timeout_s=0.05) as sandbox:
        sandbox.set_fault("slow", delay_s=30)

        status, body = await engage_of(sandbox)("POST", CONTACTS, VERA)

        assert (status, body["errorCode"]) == (504, "RequestTimeOut")
        assert sandbox.contacts() == []


async def test_second_create_of_a_key_under_way_is_told_so(engage: Any, sandbox: Sandbox) -> None:
    sandbox.set_fault("slow", delay_s=0.2, times=1)
    first = asyncio.create_task(engage("POST", CONTACTS, VERA))
    while not sandbox.requests:
        await asyncio.sleep(0.001)

    status, body = await engage("POST", CONTACTS, VERA)

    assert (status, body["errorCode"]) == (409, "ContactWithKeyIsBeingCreated")
    assert (await first)[0] == 201


@pytest.mark.parametrize("when", ["before", "after"])
async def test_reset_resets_the_connection_and_commits_nothing(
    create: Callable[[], Any], sandbox: Sandbox, when: str
) -> None:
    sandbox.set_fault("reset", when=when)

    with pytest.raises(aiohttp.ClientOSError) as caught:
        await create()

    assert isinstance(caught.value, ConnectionResetError) or caught.value.errno == 104
    assert sandbox.contacts() == []
    assert len(sandbox.requests) == (1 if when == "after" else 0)


async def test_reset_before_reading_hits_kept_connections_too(
    engage: Any, create: Callable[[], Any], sandbox: Sandbox
) -> None:
    await engage.look_up(email="nobody@example.test")  # leaves a connection open
    sandbox.set_fault("reset", when="before", times=1)

    with pytest.raises(aiohttp.ClientConnectionError):
        await create()
    await engage.create(**VERA)


async def test_lose_answer_commits_and_drops_the_connection(
    create: Callable[[], Any], sandbox: Sandbox
) -> None:
    sandbox.set_fault("lose_answer")

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create()

    assert len(sandbox.find("email", "vera@example.test")) == 1
    assert sandbox.counts()["by_status"] == {"none": 1}


async def test_late_commit_commits_after_the_connection_is_gone(
    create: Callable[[], Any], engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.set_fault("late_commit", delay_s=0.1, times=1)

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create()

    assert (await engage.look_up(email="vera@example.test"))[0] == 404
    assert (await engage("POST", CONTACTS, VERA))[1]["errorCode"] == "ContactWithKeyIsBeingCreated"
    await eventually(sandbox.contacts)
    assert (await engage("POST", CONTACTS, VERA))[1]["errorCode"] == "ApprovedContactWithKeyExists"


async def test_without_unique_keys_a_blind_repeat_shows_as_a_duplicate(
    create: Callable[[], Any], engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.set_fault("not_unique")
    sandbox.set_fault("late_commit", delay_s=0.05, times=1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create()

    await engage.create(**VERA)
    await eventually(lambda: len(sandbox.contacts()) == 2)

    assert sandbox.counts()["duplicates"] == 1


@pytest.mark.parametrize("kind", ["slow", "late_commit"])
async def test_delayed_create_of_a_key_under_way_is_told_so(
    engage: Any, sandbox: Sandbox, kind: str
) -> None:
    sandbox.set_fault("late_commit", delay_s=60, times=1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await engage.create(**VERA)
    sandbox.set_fault(kind)

    status, body = await engage("POST", CONTACTS, VERA)

    assert (status, body["errorCode"]) == (409, "ContactWithKeyIsBeingCreated")


@pytest.mark.parametrize("kind", ["slow", "late_commit", "lose_answer"])
async def test_faulty_create_of_nothing_creates_nothing(
    engage: Any, sandbox: Sandbox, session: aiohttp.ClientSession, kind: str
) -> None:
    sandbox.set_fault(kind, times=1, **({} if kind == "lose_answer" else {"delay_s": 0.01}))

    with contextlib.suppress(aiohttp.ClientConnectionError):
        await (await session.post(f"{engage.url}{CONTACTS}", data=b"{")).read()

    assert sandbox.requests[0].fault == kind
    assert sandbox.contacts() == []


async def test_look_ups_can_be_slow_too(engage: Any, sandbox: Sandbox) -> None:
    sandbox.set_fault("slow", delay_s=0.05, path="/contacts/id")

    assert (await engage.look_up(email="nobody@example.test"))[0] == 404


async def test_key_check_is_left_out_on_creates_only(engage: Any, sandbox: Sandbox) -> None:
    await engage.create(**VERA)
    sandbox.set_fault("not_unique", times=1)

    await engage.look_up(email="vera@example.test")  # does not use the fault up
    await engage.create(**VERA)
    status, _ = await engage("POST", CONTACTS, VERA)

    assert status == 409
    assert sandbox.counts()["duplicates"] == 1


async def test_caller_that_hangs_up_in_mid_body_commits_nothing(
    sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", sandbox.engage_port)
    writer.write(
        b"POST /api/v3/contacts HTTP/1.1\r\nHost: x\r\napikey: sandbox-key\r\nUser-Agent: A/1\r\n"
        b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"email": "vera@exam'
    )
    await writer.drain()
    await eventually(lambda: sandbox.requests)

    writer.close()

    await eventually(lambda: sandbox.counts()["by_status"] == {"none": 1})
    assert sandbox.contacts() == []


async def test_flapping_line_loses_and_doubles_nothing_it_answered(
    engage: Any, sandbox: Sandbox
) -> None:
    sandbox.set_fault("slow", delay_s=0.005, share=0.5)
    answered = 0

    async def create_some(worker: int) -> None:
        nonlocal answered
        for number in range(20):
            with contextlib.suppress(aiohttp.ClientError):
                await engage.create(email=f"w{worker}n{number}@example.test")
                answered += 1

    async def flap() -> None:
        for _ in range(10):
            await asyncio.sleep(0.01)
            sandbox.down()
            await asyncio.sleep(0.005)
            sandbox.up()

    await asyncio.gather(flap(), *(create_some(worker) for worker in range(10)))
    await engage.create(email="last@example.test")
    answered += 1

    counts = sandbox.counts()
    assert 0 < answered <= counts["contacts"] <= 201
    assert counts["duplicates"] == 0


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("commit", [True, False])
async def test_server_error_with_and_without_the_work_done(
    create: Callable[[], Any], sandbox: Sandbox, status: int, commit: bool
) -> None:
    sandbox.set_fault("status", status=status, commit=commit)

    async with create() as response:
        assert response.status == status

    assert len(sandbox.contacts()) == int(commit)


@pytest.mark.parametrize(("kind", "contacts"), [("rollback_504", 0), ("504_committed", 1)])
async def test_504_says_rolled_back_and_may_lie(
    engage: Any, sandbox: Sandbox, kind: str, contacts: int
) -> None:
    sandbox.set_fault(kind)

    status, body = await engage("POST", CONTACTS, VERA)

    assert (status, body["errorCode"]) == (504, "RequestTimeOut")
    assert len(sandbox.contacts()) == contacts


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("none", None),
        ("seconds", "7"),
        ("absurd", "1000000000000"),
        ("-5", "-5"),
        (3, "3"),
    ],
)
async def test_throttle_answers_429_with_the_wanted_retry_after(
    create: Callable[[], Any], sandbox: Sandbox, given: Any, header: str | None
) -> None:
    sandbox.set_fault("throttle", retry_after=given, delay_s=7)

    async with create() as response:
        body = await response.json()

    assert (response.status, body["errorCode"]) == (429, "TooManyRequests")
    assert response.headers.get("Retry-After") == header


async def test_throttle_can_name_a_date(create: Callable[[], Any], sandbox: Sandbox) -> None:
    sandbox.set_fault("throttle", retry_after="date", delay_s=60)

    async with create() as response:
        at = email.utils.parsedate_to_datetime(response.headers["Retry-After"])

    assert 50 <= at.timestamp() - time.time() <= 61


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("unauthorised", 401, "Unauthorized"),
        ("forbidden", 403, "Forbidden"),
        ("busy", 409, "ContactWithKeyIsBeingCreated"),
    ],
)
async def test_refusals_in_engages_own_shape(
    engage: Any, sandbox: Sandbox, kind: str, status: int, code: str
) -> None:
    sandbox.set_fault(kind)

    answer = await engage("POST", CONTACTS, VERA)

    assert (answer[0], answer[1]["errorCode"]) == (status, code)
    assert sandbox.contacts() == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("portal", 200),
        ("portal_511", 511),
        ("proxy_407", 407),
        ("redirect", 302),
        ("html_404", 404),
    ],
)
async def test_portals_and_proxies_answer_html(
    create: Callable[[], Any], sandbox: Sandbox, kind: str, status: int
) -> None:
    sandbox.set_fault(kind)

    async with create() as response:
        page = await response.text()

    assert response.status == status
    assert response.content_type == "text/html"
    assert page.startswith("<!DOCTYPE html>")
    assert sandbox.contacts() == []


async def test_redirect_leads_where_it_was_told(
    create: Callable[[], Any], sandbox: Sandbox
) -> None:
    sandbox.set_fault("redirect", location="http://elsewhere.example.test/")

    async with create() as response:
        assert response.headers["Location"] == "http://elsewhere.example.test/"


# --- bodies ---------------------------------------------------------------------------------------


async def test_drip_sends_headers_and_then_byte_by_byte(
    create: Callable[[], Any], sandbox: Sandbox
) -> None:
    sandbox.set_fault("drip", every_s=0.02)

    async with create() as response:
        assert response.status == 201
        first = await response.content.read(2)

    assert len(first) == 1
    assert len(sandbox.contacts()) == 1


async def test_drip_ends_with_the_whole_answer(engage: Any, sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(**VERA)
    sandbox.set_fault("drip", every_s=0.001)

    assert await engage.look_up(email="vera@example.test") == (200, contact_id)


async def test_endless_body_does_not_end(create: Callable[[], Any], sandbox: Sandbox) -> None:
    sandbox.set_fault("endless")

    async with create() as response:
        read = 0
        while read < 5_000_000:
            read += len(await response.content.readany())
        assert not response.content.at_eof()
        response.close()


async def test_gzip_bomb_is_small_and_unpacks_to_a_gibibyte(sandbox: Sandbox, engage: Any) -> None:
    sandbox.set_fault("gzip_bomb")

    async with (
        aiohttp.ClientSession(auto_decompress=False) as raw,
        raw.get(f"{engage.url}{CONTACTS}/id") as response,
    ):
        packed = await response.read()

    assert response.headers["Content-Encoding"] == "gzip"
    unpacking = zlib.decompressobj(31)
    assert len(unpacking.decompress(packed)) == 2**20
    first = packed[: len(packed) - len(unpacking.unused_data)]
    assert packed == first * 2**10  # members in a row are one stream
    assert len(packed) < 4_000_000


@pytest.mark.parametrize(
    ("kind", "status", "body", "contacts"),
    [
        ("empty_201", 201, b"", 1),
        ("wrong_shape", 200, b'{"result": {"status": "ok"}}', 0),
        ("not_json", 201, b'{"id": "6f1c0a52-3f0e', 0),
    ],
)
async def test_bodies_that_are_not_what_was_promised(
    create: Callable[[], Any],
    sandbox: Sandbox,
    kind: str,
    status: int,
    body: bytes,
    contacts: int,
) -> None:
    sandbox.set_fault(kind)

    async with create() as response:
        assert (response.status, await response.read()) == (status, body)

    assert len(sandbox.contacts()) == contacts


async def test_accepted_answers_202_and_does_the_work_later(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    contact_id = sandbox.seed(**VERA)
    sandbox.set_fault("accepted", method="PATCH", delay_s=0.02)

    assert await engage("PATCH", f"{CONTACTS}/{contact_id}", {"city": "Teststad"}) == (202, None)

    await eventually(lambda: "city" in sandbox.contact(contact_id)["attributes"])


async def test_date_header_is_right_unless_it_is_skewed(
    create: Callable[[], Any], sandbox: Sandbox
) -> None:
    async with create() as response:
        right = email.utils.parsedate_to_datetime(response.headers["Date"])
    sandbox.set_fault("clock_skew", skew_s=-86400)
    async with create() as response:
        skewed = email.utils.parsedate_to_datetime(response.headers["Date"])

    assert abs(right.timestamp() - time.time()) < 5
    assert abs(skewed.timestamp() + 86400 - time.time()) < 5


# --- limits ---------------------------------------------------------------------------------------


async def test_fault_ends_after_its_times(engage: Any, sandbox: Sandbox) -> None:
    fault = sandbox.set_fault("status", times=2)

    statuses = [(await engage.look_up(email="v@example.test"))[0] for _ in range(3)]

    assert statuses == [503, 503, 404]
    assert fault.hits == 2
    assert sandbox.faults() == []


async def test_share_hits_some_and_a_seed_repeats_it(tmp_path: Path, engage_of: Any) -> None:
    seen = []
    for run in ("first", "second"):
        async with Sandbox(tmp_path / run, seed=7, rate_limit=0) as sandbox:
            engage = engage_of(sandbox)
            sandbox.set_fault("status", share=0.5)
            seen.append([(await engage.look_up(email="v@example.test"))[0] for _ in range(30)])

    assert seen[0] == seen[1]
    assert set(seen[0]) == {404, 503}


async def test_method_and_path_single_out_creates(engage: Any, sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(**VERA)
    sandbox.set_fault("status", method="post", path="/contacts$")

    create = await engage("POST", CONTACTS, {"email": "sven@example.test"})
    look_up = await engage.look_up(email="vera@example.test")
    upgrade = await engage(
        "POST", f"{CONTACTS}/{contact_id}/updateContactType", contactTypeId="Member"
    )

    assert (create[0], look_up[0], upgrade[0]) == (503, 200, 200)


@pytest.mark.parametrize("path", ["/contacts/id", "/api/v3/contacts/id"])
async def test_path_is_a_prefix_with_or_without_the_version(
    engage: Any, sandbox: Sandbox, path: str
) -> None:
    sandbox.set_fault("status", path=path)

    assert (await engage.look_up(email="v@example.test"))[0] == 503
    assert (await engage("POST", CONTACTS, VERA))[0] == 201


async def test_first_fault_that_fits_hits(engage: Any, sandbox: Sandbox) -> None:
    sandbox.set_fault("unauthorised", times=1)
    sandbox.set_fault("forbidden", times=1)

    statuses = [(await engage.look_up(email="v@example.test"))[0] for _ in range(3)]

    assert statuses == [401, 403, 404]


async def test_fault_can_end_after_some_seconds(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.set_fault("forbidden", for_s=0.05)
    assert (await engage.look_up(email="v@example.test"))[0] == 403

    await eventually(lambda: not sandbox.faults())

    assert (await engage.look_up(email="v@example.test"))[0] == 404
