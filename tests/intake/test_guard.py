"""Who gets in: hosts, pages, tokens. What is refused is refused before anything is read."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from certificates import write_certificate
from raw_http import line_to
from running_agent import CONTACTS, Shop, open_shop

from agent import tokens
from agent.errors import TooManyWrongTokens
from agent.intake.guard import WrongTokens

PAGE = "https://pos.shop.test"
JSON = "Content-Type: application/json"
VERA = b'{"email": "vera@example.test"}'


@pytest.fixture
async def allowing(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop that allows one web page and one more name."""
    more = {"allowed_origins": [PAGE], "allowed_hosts": ["till-7.shop.test"]}
    async with open_shop(tmp_path, {"server": more}) as opened:
        yield opened


async def statuses(shop: Shop, requests: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """Send the lines of each request as they are; gives the status of each by its name."""
    found = {}
    for name, (first, *headers) in requests.items():
        async with line_to(shop.agent.url) as line:
            token = f"apikey: {shop.till.token}"
            lines = [
                first.replace("HOST", line.host),
                *(header.replace("HOST", line.host).replace("TOKEN", token) for header in headers),
            ]
            await line.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            found[name] = (await line.answer(to_head=first.startswith("HEAD"))).status
    return found


# --- hosts ----------------------------------------------------------------------------------------


async def test_only_the_exact_names_of_the_agent_are_its_hosts(allowing: Shop) -> None:
    port = urlsplit(allowing.agent.url).port
    ours = (f"127.0.0.1:{port}", f"LocalHost:{port}", f"[::1]:{port}", "till-7.shop.test")
    foreign = (
        *("", " ", ":", "*", "127.0.0.1", "localhost", "[::1]", f":{port}"),
        *(f"evil.example.test:{port}", f"localhost.evil.example.test:{port}"),
        *(f"localhost.:{port}", f"127.1:{port}", f"0.0.0.0:{port}", f"2130706433:{port}"),
        *(f"127.0.0.1:{port}@evil.example.test", f"evil.example.test#127.0.0.1:{port}"),
        *(f"127.0.0.1:0{port}", f"127.0.0.1:{port}:{port}", f"127.0.0.1:{port}/", "127.0.0.1:1"),
        *(f"[::1%lo]:{port}", f"[::ffff:127.0.0.1]:{port}", f"127.0.0.1:\xb2{port}"),
        *(f"127.0.0.1:{port}, evil.example.test", "till-7.shop.test.evil.example.test"),
    )

    got = await statuses(
        allowing,
        {
            host: ("GET /agent/v1/changes HTTP/1.1", f"Host: {host}", "TOKEN")
            for host in (*ours, *foreign)
        },
    )

    assert {host for host in ours if got[host] != 200} == set()
    assert {host: got[host] for host in foreign if got[host] not in (421, 400)} == {}


async def test_nothing_but_the_host_header_names_the_host(shop: Shop) -> None:
    changes = "/agent/v1/changes HTTP/1.1"
    claims = ("X-Forwarded-Host: HOST", "Forwarded: host=HOST", "X-Host: HOST")

    got = await statuses(
        shop,
        {
            "claims": (f"GET {changes}", "Host: evil.example.test", *claims, "TOKEN"),
            "none, in HTTP/1.0": ("GET /agent/v1/changes HTTP/1.0", "TOKEN"),
            "none": (f"GET {changes}", "TOKEN"),
            "two": (f"GET {changes}", "Host: HOST", "Host: evil.example.test", "TOKEN"),
            "two the other way": (f"GET {changes}", "Host: evil.test", "Host: HOST", "TOKEN"),
            "the address names another": (
                f"GET http://evil.example.test{changes}",
                "Host: HOST",
                "TOKEN",
            ),
            "only the address is ours": (f"GET http://HOST{changes}", "Host: evil.test", "TOKEN"),
            "an address that is none": (f"GET http://[::1{changes}", "Host: HOST", "TOKEN"),
            "the whole address": (f"GET http://HOST{changes}", "Host: HOST", "TOKEN"),
            "a proxy is asked": ("CONNECT HOST HTTP/1.1", "Host: HOST", "TOKEN"),
        },
    )

    assert got == {
        "claims": 421,
        "none, in HTTP/1.0": 421,
        "none": 400,
        "two": 400,
        "two the other way": 400,
        "the address names another": 421,
        "only the address is ours": 421,
        "an address that is none": 400,
        "the whole address": 200,
        "a proxy is asked": 405,
    }


async def test_an_agent_on_every_address_is_called_by_none_of_them(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path / "tls")
    everywhere = {
        "host": "0.0.0.0",
        "tls_certificate_file": str(certificate),
        "tls_key_file": str(key),
        "allowed_hosts": ["till-7.shop.test"],
    }
    async with open_shop(tmp_path, {"server": everywhere}) as shop:
        port = shop.agent.server.port
        hosts = (f"0.0.0.0:{port}", f"192.0.2.7:{port}", f"127.0.0.1:{port}", "till-7.shop.test")
        statuses = [await status_over_tls(shop.agent.url, host, certificate) for host in hosts]

    assert statuses == [421, 421, 200, 200]


async def status_over_tls(url: str, host: str, certificate: Path) -> int:
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with (
        aiohttp.ClientSession() as session,
        session.get(url + "/healthz", headers={"Host": host}, ssl=trusted) as answer,
    ):
        return answer.status


# --- pages ----------------------------------------------------------------------------------------


async def test_pages_from_elsewhere_get_nothing_not_even_what_is_public(shop: Shop) -> None:
    status = ("GET /agent/v1/status HTTP/1.1", "Host: HOST")

    got = await statuses(
        shop,
        {
            "another": (*status, "Origin: https://evil.example.test"),
            "no origin at all": (*status, "Origin: null"),
            "another port of this machine": (*status, "Origin: http://127.0.0.1:1"),
            "TLS, which we do not speak": (*status, "Origin: https://HOST"),
            "ours and another": (*status, "Origin: http://HOST", "Origin: https://evil.test"),
            "from another site": (*status, "Sec-Fetch-Site: cross-site"),
            "from another port": (*status, "Sec-Fetch-Site: same-site"),
            "from where nobody knows": (*status, "Sec-Fetch-Site: near-by"),
            "ours, it says, and not": (
                *status,
                "Sec-Fetch-Site: none",
                "Sec-Fetch-Site: cross-site",
            ),
            "a frame": (
                "GET / HTTP/1.1",
                *("Host: HOST", "Sec-Fetch-Site: cross-site"),
                *("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"),
            ),
            "a form that is sent as a visit": (
                "POST /agent/v1/batches/seal HTTP/1.1",
                *("Host: HOST", "TOKEN", "Content-Length: 0", "Sec-Fetch-Site: cross-site"),
                *("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
            ),
        },
    )

    assert {name: status for name, status in got.items() if status != 403} == {}


async def test_our_own_page_and_a_visit_to_it_are_welcome(shop: Shop) -> None:
    got = await statuses(
        shop,
        {
            "our page": (
                "GET /agent/v1/status HTTP/1.1",
                *("Host: HOST", "Origin: http://HOST", "Sec-Fetch-Site: same-origin"),
            ),
            "typed by hand": ("GET / HTTP/1.1", "Host: HOST", "Sec-Fetch-Site: none"),
            "a link somewhere": (
                "GET / HTTP/1.1",
                *("Host: HOST", "Sec-Fetch-Site: cross-site"),
                *("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
            ),
        },
    )

    assert set(got.values()) == {200}


async def test_an_answer_is_for_no_other_page_to_load_or_frame(shop: Shop) -> None:
    answers = []
    async with line_to(shop.agent.url) as line:
        for path in ("/", "/agent/v1/status", "/healthz", "/nowhere", "/agent/v1/changes"):
            answers.append(await line.ask(f"GET {path}"))

    for answer in answers:
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


async def test_an_allowed_page_may_read_refusals_as_well(allowing: Shop) -> None:
    asked = (f"POST {CONTACTS}", f"Origin: {PAGE}")
    token = f"apikey: {allowing.till.token}"
    async with line_to(allowing.agent.url) as line:
        answers = [
            await line.ask(*asked, JSON, token, body=b'{"email": "vera"}'),
            await line.ask(*asked, JSON, body=VERA),
            await line.ask(*asked, "Content-Type: text/plain", token, body=VERA),
            await line.ask("GET /nowhere", f"Origin: {PAGE}", token),
        ]

    assert [answer.status for answer in answers] == [422, 401, 415, 404]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


async def test_an_allowed_page_may_not_act_for_the_person_at_the_till(allowing: Shop) -> None:
    asked = ("Sec-Fetch-Site: same-site", "Content-Type: application/x-www-form-urlencoded")
    async with line_to(allowing.agent.url) as line:
        answers = [
            await line.ask("GET /page/sign-in", f"Origin: {PAGE}"),
            await line.ask("POST /page/sign-in", f"Origin: {PAGE}", *asked, body=b"token=x"),
            await line.ask("OPTIONS /page/sign-in", f"Origin: {PAGE}"),
        ]
        own = await line.ask("GET /page/sign-in", f"Origin: http://{line.host}")

    assert {(answer.status, answer.code) for answer in answers} == {(403, "ForbiddenOrigin")}
    assert all("access-control-allow-origin" not in answer.headers for answer in answers)
    assert own.status == 200


@pytest.mark.parametrize("name", ["Private-Network", "Local-Network"])
async def test_an_allowed_page_may_reach_into_the_local_network(allowing: Shop, name: str) -> None:
    asked = ("Access-Control-Request-Method: POST", f"Access-Control-Request-{name}: true")
    allowed = f"access-control-allow-{name.lower()}"
    async with line_to(allowing.agent.url) as line:
        welcome = await line.ask(f"OPTIONS {CONTACTS}", f"Origin: {PAGE}", *asked)
        unasked = await line.ask(f"OPTIONS {CONTACTS}", f"Origin: {PAGE}", asked[0])
        foreign = await line.ask(f"OPTIONS {CONTACTS}", "Origin: https://evil.test", *asked)

    assert (welcome.status, welcome.headers[allowed]) == (204, "true")
    assert "apikey" in welcome.headers["access-control-allow-headers"]
    assert allowed not in unasked.headers
    assert foreign.status == 403
    assert not [header for header in foreign.headers if header.startswith("access-control")]


# --- tokens ---------------------------------------------------------------------------------------


async def test_wrong_tokens_are_slowed_down_and_the_right_one_never_is(shop: Shop) -> None:
    changes = "GET /agent/v1/changes"
    async with line_to(shop.agent.url) as line:
        guesses = [
            await line.ask(changes, f"apikey: guess-{number}")
            for number in range(2 * WrongTokens.BURST)
        ]
        right = await line.ask(changes, f"apikey: {shop.till.token}")
        none = await line.ask(changes)

    told = [answer for answer in guesses if answer.status == 429]
    assert guesses[0].status == 401
    assert told
    assert {answer.status for answer in guesses} == {401, 429}
    assert {(answer.code, answer.headers["retry-after"]) for answer in told} == {
        ("TooManyWrongTokens", "1")
    }
    assert (right.status, none.status) == (200, 401)


def test_wrong_tokens_are_logged_once_until_it_is_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 1000.0
    wrong = WrongTokens(lambda: now)

    def many() -> None:
        for _ in range(3 * WrongTokens.BURST):
            with contextlib.suppress(TooManyWrongTokens):
                wrong.one_more()

    many()
    many()
    assert capsys.readouterr().out.count("wrong_tokens") == 1
    now += WrongTokens.BURST / WrongTokens.PER_S
    many()
    assert capsys.readouterr().out.count("wrong_tokens") == 1


def test_wrong_tokens_are_forgiven_with_time() -> None:
    now = 1000.0
    wrong = WrongTokens(lambda: now)
    for _ in range(WrongTokens.BURST):
        wrong.one_more()

    with pytest.raises(TooManyWrongTokens):
        wrong.one_more()
    now += 1 / WrongTokens.PER_S
    wrong.one_more()
    now += 10**6
    for _ in range(WrongTokens.BURST):
        wrong.one_more()
    with pytest.raises(TooManyWrongTokens):
        wrong.one_more()


async def test_several_tokens_at_once_are_none(shop: Shop) -> None:
    right, wrong = shop.till.token, "wrong"
    second = tokens.new(shop.till.folder / "tokens", "second")
    async with line_to(shop.agent.url) as line:

        async def status(*headers: str) -> int:
            return (await line.ask("GET /agent/v1/changes", *headers)).status

        assert await status(f"apikey: {right}", f"apikey: {right}") == 200
        assert await status(f"apikey: {right}", f"apikey: {wrong}") == 401
        assert await status(f"apikey: {wrong}", f"apikey: {right}") == 401
        assert await status(f"apikey: {right}", f"apikey: {second}") == 401
        assert await status(f"apikey: {wrong}", f"Authorization: Bearer {right}") == 401
        assert await status("apikey:", f"Authorization: Bearer {right}") == 200


async def test_each_name_of_the_tokens_file_gets_in_and_a_revoked_one_at_once_not(
    shop: Shop,
) -> None:
    path = shop.till.folder / "tokens"
    second = tokens.new(path, "second")
    async with line_to(shop.agent.url) as line:
        ask = "GET /agent/v1/changes"
        before = [
            (await line.ask(ask, f"apikey: {token}")).status for token in (shop.till.token, second)
        ]

        tokens.revoke(path, "second")

        after = [
            (await line.ask(ask, f"apikey: {token}")).status for token in (shop.till.token, second)
        ]

    assert (before, after) == ([200, 200], [200, 401])


async def test_no_method_but_those_of_a_call_does_anything(shop: Shop) -> None:
    got = await statuses(
        shop,
        {
            "HEAD": ("HEAD / HTTP/1.1", "Host: HOST"),
            "HEAD without a token": ("HEAD /agent/v1/changes HTTP/1.1", "Host: HOST"),
            "OPTIONS without a token": (f"OPTIONS {CONTACTS} HTTP/1.1", "Host: HOST"),
            "OPTIONS": (f"OPTIONS {CONTACTS} HTTP/1.1", "Host: HOST", "TOKEN"),
            "OPTIONS *": ("OPTIONS * HTTP/1.1", "Host: HOST", "TOKEN"),
            "TRACE": ("TRACE / HTTP/1.1", "Host: HOST", "TOKEN"),
            "GET for a POST": ("GET /agent/v1/batches/seal HTTP/1.1", "Host: HOST", "TOKEN"),
            "an unknown one": (f"MAKE {CONTACTS} HTTP/1.1", "Host: HOST", "TOKEN"),
        },
    )

    assert got == {
        "HEAD": 200,
        "HEAD without a token": 401,
        "OPTIONS without a token": 401,
        "OPTIONS": 405,
        "OPTIONS *": 404,
        "TRACE": 405,
        "GET for a POST": 405,
        "an unknown one": 400,
    }
