"""What is refused: in which words, with which status, and that nothing of it is stored."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from patience import eventually
from running_agent import CONTACTS, Answer, Pos, Shop, open_shop

from agent import events, tokens
from agent.journal import database

VERA = {"email": "vera@example.test", "firstName": "Vera"}
GUID = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"


def check_problem(answer: Answer, status: int, code: str) -> None:
    """Both kinds of client can read it: RFC 9457 and Engage's own."""
    body = answer.body
    assert (answer.status, body["status"], body["errorCode"]) == (status, status, code)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    for name in ("type", "title", "detail", "instance", "message", "requestId"):
        assert isinstance(body[name], str), name
        assert body[name], name
    assert body["type"].endswith(code)
    assert body["message"] == body["detail"]
    assert answer.headers["Request-Id"] == body["requestId"]
    assert "Agent-Change" not in answer.headers


async def raw(shop: Shop, *parts: bytes, half_close: bool = False) -> bytes:
    """Send bytes as they are and give what comes back until the agent closes or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(shop.agent.url).port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    if half_close:
        writer.write_eof()
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        return head + await asyncio.wait_for(reader.readexactly(length), 5)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


def head(shop: Shop, *lines: str, length: int | None = None) -> bytes:
    given = [
        f"POST {CONTACTS} HTTP/1.1",
        f"Host: {urlsplit(shop.agent.url).netloc}",
        f"apikey: {shop.till.token}",
        "Content-Type: application/json",
        *lines,
    ]
    if length is not None:
        given.append(f"Content-Length: {length}")
    return ("\r\n".join(given) + "\r\n\r\n").encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "NoData"),
        (b"  \n", 400, "NoData"),
        (b"{", 400, "MalformedRequest"),
        (b"[]", 400, "MalformedRequest"),
        (b'"vera"', 400, "MalformedRequest"),
        (b"null", 400, "MalformedRequest"),
        (b'{"email": "a@example.test", "email": "b@example.test"}', 400, "MalformedRequest"),
        (b'{"email": "\xff\xfe"}', 400, "MalformedRequest"),
        (b'{"points": NaN}', 400, "MalformedRequest"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "MalformedRequest"),
        (b"[" * 60000, 400, "MalformedRequest"),
        (b'{"email": "v@example.test", "firstName": "\\ud800"}', 422, "ValidationError"),
        (b'{"email": "v@example.test", "firstName": "a\\u0000b"}', 422, "ValidationError"),
        (b'{"firstName": "Vera"}', 422, "ValidationError"),
        (b'{"email": "vera at home"}', 422, "ValidationError"),
        (b'{"email": "v@example.test", "x": "' + b"y" * 70_000 + b'"}', 413, "TooLarge"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_a_body_that_cannot_be_taken_is_refused_and_nothing_is_stored(
    pos: Pos, body: bytes, status: int, code: str
) -> None:
    answer = await pos("POST", CONTACTS, data=body)

    check_problem(answer, status, code)
    assert await pos.changes() == []


async def test_a_chunked_body_is_measured_too(shop: Shop) -> None:
    async def chunks() -> Any:
        yield b'{"email": "v@example.test", "x": "'
        for _ in range(70):
            yield b"y" * 1024
        yield b'"}'

    answer = await shop.pos("POST", CONTACTS, data=chunks())

    check_problem(answer, 413, "TooLarge")
    assert await shop.pos.changes() == []


async def test_a_body_of_exactly_64_kib_is_taken(pos: Pos) -> None:
    body = json.dumps({**VERA, "padding": ""}).encode()
    body = body[:-2] + b"y" * (64 * 1024 - len(body)) + b'"}'

    answer = await pos("POST", CONTACTS, data=body, Prefer="respond-async")

    assert len(body) == 64 * 1024
    assert answer.status == 202


async def test_a_chunked_body_is_taken(pos: Pos) -> None:
    async def chunks() -> Any:
        yield b'{"email": "v@ex'
        yield b'ample.test"}'

    assert (await pos("POST", CONTACTS, data=chunks())).status == 201


@pytest.mark.parametrize(
    "body",
    [b"ZZZ\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n"],
)
async def test_a_body_in_broken_chunks_is_malformed(
    shop: Shop, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    answer = await raw(shop, head(shop, "Transfer-Encoding: chunked"), body)

    assert status_of(answer) == 400
    assert await shop.pos.changes() == []
    assert "request_bug" not in capsys.readouterr().out


async def test_a_packed_body_that_cannot_be_unpacked_is_malformed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(shop, head(shop, "Content-Encoding: gzip", length=9), b"no gzip!!")

    assert status_of(answer) == 400
    assert await shop.pos.changes() == []
    assert "request_bug" not in capsys.readouterr().out


async def test_a_caller_who_hangs_up_in_mid_body_stores_nothing(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(shop.agent.url).port)
    writer.write(head(shop, length=100) + b'{"email": "v@example.test"')
    await writer.drain()

    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )
    writer.close()

    assert (await shop.pos.create("other@example.test")).status == 201
    assert len(await shop.pos.changes()) == 1
    assert "request_bug" not in capsys.readouterr().out


async def test_a_body_that_ends_too_early_stores_nothing(shop: Shop) -> None:
    answer = await raw(
        shop, head(shop, length=100), b'{"email": "v@example.test"}', half_close=True
    )

    assert status_of(answer) == 400
    assert b"MalformedRequest" in answer
    assert await shop.pos.changes() == []


async def test_who_closes_his_half_after_sending_gets_his_answer(shop: Shop) -> None:
    body = json.dumps(VERA).encode()

    answer = await raw(shop, head(shop, length=len(body)), body, half_close=True)

    assert status_of(answer) == 201
    assert len(await shop.pos.changes()) == 1


async def test_a_body_that_drips_is_cut_off(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"server": {"caller_timeout_s": 0.2}}) as shop:
        answer = await raw(shop, head(shop, length=100), b'{"email": "v@')

        assert status_of(answer) == 408
        assert b"TooSlow" in answer
        assert await shop.pos.changes() == []


async def test_a_length_that_is_too_large_is_refused_before_the_body_is_read(shop: Shop) -> None:
    answer = await raw(shop, head(shop, length=10**9))

    assert status_of(answer) == 413


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "fields"),
    [
        ("POST", CONTACTS, {"firstName": "Vera"}, [("email", "KeyMissing")]),
        ("PATCH", f"{CONTACTS}/{GUID}", {"city": ""}, [("city", "EmptyValue")]),
        ("PATCH", f"{CONTACTS}/{GUID}", {"city": None}, [("city", "EmptyValue")]),
        (
            "PATCH",
            f"{CONTACTS}/{GUID}",
            {"contactType": "Member"},
            [("contactType", "ContactTypeNotUpdatable")],
        ),
        (
            "POST",
            CONTACTS,
            {"email": "no", "mobilePhone": "12"},
            [("email", "BadEmail"), ("mobilePhone", "BadPhone")],
        ),
        (
            "POST",
            f"{CONTACTS}/{GUID}/updateContactType",
            None,
            [("contactTypeId", "Required")],
        ),
    ],
)
async def test_every_field_that_is_wrong_is_named_with_its_code(
    pos: Pos, method: str, path: str, body: Any, fields: list[tuple[str, str]]
) -> None:
    answer = await pos(method, path, body)

    check_problem(answer, 422, "ValidationError")
    assert answer.fields == fields
    assert all(each["message"] for each in answer.body["validationErrors"])
    assert await pos.changes() == []


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("sv", "saknas"),
        ("sv-SE,sv;q=0.9,en;q=0.8", "saknas"),
        ("fi, sv;q=0.5", "saknas"),
        ("en, sv", "is missing"),
        ("en;q=0.3, sv;q=0.9", "saknas"),
        ("fi", "is missing"),
    ],
)
async def test_a_cashier_reads_it_in_her_own_language(pos: Pos, language: str, words: str) -> None:
    answer = await pos("POST", CONTACTS, {"firstName": "Vera"}, Accept_Language=language)

    assert words in answer.body["validationErrors"][0]["message"]
    assert answer.headers["Content-Language"] == ("sv" if words == "saknas" else "en")


async def test_an_age_in_an_update_is_judged_by_the_type_that_the_till_knows(
    tmp_path: Path,
) -> None:
    young = {"birthDay": f"{date.today().year - 3}-01-15"}
    async with open_shop(tmp_path, {"engage.minimum_age": {"Member": 18}}) as shop:
        member = await shop.pos.create("vera@example.test")
        other = await shop.pos.create("per@example.test", {"contactType": "Contact"})

        refused = await shop.pos.update(member.body["id"], young)
        taken = await shop.pos.update(other.body["id"], young)
        unknown = await shop.pos.update(GUID, young, Prefer="respond-async")

    check_problem(refused, 422, "ValidationError")
    assert refused.fields == [("birthDay", "TooYoung")]
    assert (taken.status, unknown.status) == (200, 202)


async def test_what_is_wrong_with_mended_data_is_told_in_the_callers_language(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        refused = await shop.pos.create("vera@example.test")

        answer = await shop.pos(
            "PUT", f"{refused.headers['Location']}/payload", {}, Accept_Language="sv"
        )

    check_problem(answer, 422, "ValidationError")
    assert "saknas" in answer.body["detail"]


async def test_an_empty_update_asks_for_nothing(pos: Pos) -> None:
    check_problem(await pos("PATCH", f"{CONTACTS}/{GUID}", {}), 400, "NoData")
    check_problem(await pos("PATCH", f"{CONTACTS}/{GUID}"), 400, "NoData")


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
async def test_an_idempotency_key_that_cannot_be_one_is_malformed(pos: Pos, key: str) -> None:
    answer = await pos("POST", CONTACTS, VERA, Idempotency_Key=key)

    check_problem(answer, 400, "MalformedRequest")
    assert await pos.changes() == []


# --- who may call ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"apikey": "wrong"},
        {"apikey": "\udcff\udcfe"},  # bytes that are no UTF-8
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", CONTACTS), ("GET", "/agent/v1/changes"), ("POST", "/agent/v1/routes/api/pause")],
)
async def test_without_a_token_nothing_is_done_and_nothing_is_shown(
    shop: Shop, headers: dict[str, str], method: str, path: str
) -> None:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(shop.agent.url).netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Content-Length: 0", "", ""]

    answer = await raw(shop, "\r\n".join(lines).encode(errors="surrogateescape"))

    assert status_of(answer) == 401
    assert b'"errorCode": "Unauthorized"' in answer
    assert b"www-authenticate: bearer" in answer.lower()


@pytest.mark.parametrize("scheme", ["apikey", "Bearer", "bearer"])
async def test_a_token_goes_as_apikey_and_as_bearer(pos: Pos, scheme: str) -> None:
    headers = (
        {"apikey": pos.token} if scheme == "apikey" else {"Authorization": f"{scheme} {pos.token}"}
    )

    answer = await pos("POST", CONTACTS, VERA, token="", **headers)

    assert answer.status == 201


async def test_a_token_that_is_revoked_while_it_runs_lets_nobody_in(shop: Shop) -> None:
    await shop.pos.create("vera@example.test")

    tokens.revoke(shop.till.folder / "tokens", "pos")

    deadline = asyncio.get_running_loop().time() + 5
    while (answer := await shop.pos.create("per@example.test")).status != 401:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    check_problem(answer, 401, "Unauthorized")


async def test_a_token_that_is_made_while_it_runs_lets_its_owner_in(shop: Shop) -> None:
    token = tokens.new(shop.till.folder / "tokens", "second")

    deadline = asyncio.get_running_loop().time() + 5
    while (await shop.pos("GET", "/agent/v1/changes", token=token)).status != 200:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("host", ["evil.example.test", "127.0.0.1", "127.0.0.1:1", "localhost:80"])
async def test_another_host_name_is_refused(pos: Pos, host: str) -> None:
    answer = await pos("POST", CONTACTS, VERA, Host=host)

    check_problem(answer, 421, "WrongHost")


async def test_the_loopback_names_are_taken_and_those_of_the_settings(tmp_path: Path) -> None:
    settings = {"server": {"allowed_hosts": ["till-7.shop.test"]}}
    async with open_shop(tmp_path, settings) as shop:
        port = urlsplit(shop.agent.url).port
        hosts = (f"localhost:{port}", f"LOCALHOST:{port}", f"till-7.shop.test:{port}")

        answers = [await shop.pos("GET", "/agent/v1/changes", Host=host) for host in hosts]

    assert [answer.status for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.test"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
async def test_a_web_page_from_elsewhere_may_not_call(pos: Pos, headers: dict[str, str]) -> None:
    answer = await pos("POST", CONTACTS, VERA, **headers)

    check_problem(answer, 403, "ForbiddenOrigin")
    assert await pos.changes() == []


async def test_an_allowed_origin_may_call_and_read_the_answer(tmp_path: Path) -> None:
    origin = "https://pos.shop.test"
    async with open_shop(tmp_path, {"server": {"allowed_origins": [origin]}}) as shop:
        preflight = await shop.pos("OPTIONS", CONTACTS, token="", Origin=origin)
        answer = await shop.pos("POST", CONTACTS, VERA, Origin=origin, Sec_Fetch_Site="cross-site")

    assert preflight.status == 204
    assert answer.status == 201
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "Agent-Change" in answer.headers["Access-Control-Expose-Headers"]


# --- addresses and media types --------------------------------------------------------------------


async def test_an_address_that_leads_nowhere_is_404(pos: Pos) -> None:
    check_problem(await pos("GET", "/api/v3/nowhere"), 404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", CONTACTS, "POST"),
        ("PUT", f"{CONTACTS}/{GUID}", "PATCH"),
        ("DELETE", "/agent/v1/changes", "GET"),
        ("PATCH", f"{CONTACTS}/id", "GET"),
        ("PATCH", f"{CONTACTS}/transactions", "GET"),
        ("GET", "/agent/v1/batches/seal", "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    pos: Pos, method: str, path: str, allowed: str
) -> None:
    answer = await pos(method, path)

    check_problem(answer, 405, "MethodNotAllowed")
    assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=iso-8859-1"],
)
async def test_a_body_that_is_not_said_to_be_json_is_415(pos: Pos, media_type: str) -> None:
    answer = await pos(
        "POST", CONTACTS, data=json.dumps(VERA).encode(), **{"Content-Type": media_type}
    )

    check_problem(answer, 415, "UnsupportedMediaType")
    assert await pos.changes() == []


# --- the till itself ------------------------------------------------------------------------------


async def test_a_full_disk_is_507_and_nothing_is_stored(tmp_path: Path) -> None:
    more_than_there_is = {"journal": {"min_free_mb": 100_000_000}}
    async with open_shop(tmp_path, more_than_there_is) as shop:
        answer = await shop.pos.create("vera@example.test")

        check_problem(answer, 507, "JournalFull")
        assert await shop.pos.changes() == []


async def test_too_many_that_wait_are_503_with_retry_after(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAITING_LIMIT", 0)

    answer = await shop.pos.create("vera@example.test")

    check_problem(answer, 503, "Overloaded")
    assert int(answer.headers["Retry-After"]) > 0
    assert await shop.pos.changes() == []


async def test_a_journal_that_is_gone_is_503_with_retry_after(shop: Shop) -> None:
    shop.agent.config.journal.path.unlink()

    answer = await shop.pos.create("vera@example.test")

    check_problem(answer, 503, "JournalUnavailable")
    assert int(answer.headers["Retry-After"]) > 0


# --- privacy --------------------------------------------------------------------------------------

# Long enough that no id, port or fraction of a second holds one by chance.
SECRETS = ("Vera", "vera", "Lind", "0701234567", "46701234567", "1981121", "1218987", "Storgatan")
PERSON = {
    "email": "vera.lind@example.test",
    "firstName": "Vera",
    "lastName": "Lind",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "198112189876",
    "street": "Storgatan 1",
}


@pytest.fixture(params=["json", "text"])
def logged(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Log as in the shop; give where the lines go."""
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines):
        events.set_up("debug", request.param)
    yield lines
    structlog.reset_defaults()


def test_a_bug_is_logged_with_its_trace_and_without_what_looks_personal(
    logged: io.StringIO,
) -> None:
    try:
        raise ValueError("vera.lind@example.test +46 70 123 45 67")
    except ValueError as error:
        events.log().error("request_bug", error=repr(error), exception=error)

    output = logged.getvalue()
    assert "test_intake_errors" in output
    assert "vera" not in output
    assert "123 45" not in output


async def test_no_log_line_holds_personal_data(tmp_path: Path, logged: io.StringIO) -> None:
    async with open_shop(tmp_path, required={"Member": ("zipCode",)}) as shop:
        refused = await shop.pos("POST", CONTACTS, PERSON)
        await shop.pos("POST", CONTACTS, {**PERSON, "zipCode": "22222"})
        await shop.pos("POST", CONTACTS, {**PERSON, "email": "vera.lind", "birthDay": "Vera"})
        await shop.pos("POST", CONTACTS, data=b'{"email": "vera.lind@example.test",')
        await shop.pos("GET", f"{CONTACTS}/id?email=vera.lind@example.test")
        await shop.pos("GET", f"{CONTACTS}/id?any=Vera")
        await shop.pos("PATCH", f"{CONTACTS}/vera.lind@example.test", PERSON)
        await shop.pos("GET", "/agent/v1/changes/vera.lind@example.test")
        await shop.pos("POST", CONTACTS, PERSON, apikey="vera.lind@example.test")
        await raw(shop, head(shop, length=100), b'{"email": "vera.lind@', half_close=True)
        shop.sandbox.set_fault("status", status=500, times=2)
        await shop.pos("POST", CONTACTS, {**PERSON, "city": "Lund"})
        await shop.go_offline()
        await shop.pos("POST", CONTACTS, {**PERSON, "city": "Malmö"})
        shop.sandbox.up()
        await eventually(lambda: shop.agent.link.state.value == "online")
        assert refused.status == 422

    output = logged.getvalue()
    assert "change_tried" in output
    assert [secret for secret in SECRETS if secret in output] == []
