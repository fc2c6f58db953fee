"""Where the agent is found: on both loopback addresses, with TLS, by a Unix socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from certificates import write_certificate
from raw_http import line_to
from running_agent import CONTACTS, Shop, open_shop

from agent import config
from agent.commands import main
from agent.commands.running_agent import NotRunning, RunningAgent
from agent.errors import AgentError
from agent.intake.listening import Server

VERA = {"email": "vera@example.test"}


@contextlib.contextmanager
def held(host: str, port: int = 0) -> Iterator[int]:
    """Hold a port, as another program does; gives its number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as other:
        yield other.getsockname()[1]


@contextlib.contextmanager
def held_six() -> Iterator[int]:
    """Hold a port of ::1 which is free on 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        while True:
            port = stack.enter_context(held("::1"))
            with contextlib.suppress(OSError), held("127.0.0.1", port):
                break
        yield port


def has_ipv6() -> bool:
    try:
        with held("::1"):
            return True
    except OSError:
        return False


def asked(shop: Shop, url: str | None = None) -> RunningAgent:
    """Give the running agent as the commands see it."""
    return RunningAgent(argparse.Namespace(url=url, config=shop.till.config_path))


# --- loopback -------------------------------------------------------------------------------------


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_both_loopback_addresses_lead_to_the_agent(shop: Shop) -> None:
    async with line_to(f"http://127.0.0.1:{shop.agent.server.port}") as line:
        four = await line.ask("GET /healthz")
    reader, writer = await asyncio.open_connection("::1", shop.agent.server.port)
    host = f"[::1]:{shop.agent.server.port}"
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    six = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert four.status == 200
    assert b" 200 OK\r\n" in six


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_another_program_on_the_other_loopback_address_is_told(tmp_path: Path) -> None:
    with held_six() as port:
        async with open_shop(tmp_path, {"server": {"port": port}}) as shop:
            status = (await shop.pos("GET", "/agent/v1/status")).body

    needs = [need["what"] for need in status["needsPerson"]]
    assert f"Another program listens on ::1, port {port}" in needs[0]


async def test_a_server_that_cannot_listen_leaves_nothing_behind(shop: Shop) -> None:
    settings = config.Server(port=shop.agent.server.port)
    server = Server(aiohttp.web.Application(), settings)

    with pytest.raises(OSError, match="in use"):
        await server.start(patience_s=0)

    assert (await shop.pos("GET", "/healthz")).status == 200


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
async def with_tls(tmp_path: Path) -> AsyncIterator[Shop]:
    certificate, key = write_certificate(tmp_path / "tls")
    names = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    async with open_shop(tmp_path, {"server": names}) as opened:
        yield opened


def trusting(certificate: Path) -> ssl.SSLContext:
    """Give what a POS uses that was told whom to trust."""
    return ssl.create_default_context(cafile=str(certificate))


async def get(
    shop: Shop, path: str, certificate: Path, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Ask as somebody who trusts this certificate; gives status and JSON."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(shop.agent.url + path, headers=headers, ssl=trusting(certificate)) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def test_a_pos_signs_a_customer_up_over_tls(with_tls: Shop, tmp_path: Path) -> None:
    url, headers = with_tls.agent.url + CONTACTS, {"apikey": with_tls.till.token}
    trusted = trusting(tmp_path / "tls/tls.pem")
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=VERA, headers=headers, ssl=trusted) as answer,
    ):
        status = answer.status

    assert with_tls.agent.url.startswith("https://")
    assert status == 201


async def test_plain_http_to_the_tls_port_gets_no_answer_and_does_no_harm(
    with_tls: Shop, tmp_path: Path
) -> None:
    async with line_to(with_tls.agent.url) as line:
        await line.send(line.request("GET /healthz"))
        rest = await line.rest()

    assert b"HTTP/" not in rest
    assert (await get(with_tls, "/healthz", tmp_path / "tls/tls.pem"))[0] == 200


async def test_half_a_handshake_is_cut_off(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path / "tls")
    names = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    async with (
        open_shop(tmp_path, {"server": {**names, "caller_timeout_s": 0.3}}) as shop,
        line_to(shop.agent.url) as line,
    ):
        await line.send(b"\x16\x03\x01")

        assert await line.rest() == b""


async def test_a_replaced_certificate_counts_without_a_restart(
    with_tls: Shop, tmp_path: Path
) -> None:
    new, _ = write_certificate(tmp_path / "tls")

    assert (await get(with_tls, "/healthz", new))[0] == 200


async def test_a_replaced_certificate_that_is_none_is_told_on_the_page(
    with_tls: Shop, tmp_path: Path
) -> None:
    good = (tmp_path / "tls/tls.pem").read_text()
    (tmp_path / "tls/tls.pem").write_text("none")
    (tmp_path / "good.pem").write_text(good)

    needs: list[dict[str, Any]] = []
    async with asyncio.timeout(15):
        while not needs:  # the picture is some seconds old
            needs = (await get(with_tls, "/agent/v1/status", tmp_path / "good.pem"))[1][
                "needsPerson"
            ]
            await asyncio.sleep(0.02)
    assert [need["what"] for need in needs] == [
        "The agent's own certificate was replaced, and the new one cannot be used; the one before "
        "goes on until the next restart."
    ]


async def test_a_page_of_a_tls_agent_has_an_https_origin(with_tls: Shop, tmp_path: Path) -> None:
    trusted = tmp_path / "tls/tls.pem"
    statuses = {
        scheme: (
            await get(
                with_tls,
                "/healthz",
                trusted,
                Origin=f"{scheme}://127.0.0.1:{with_tls.agent.server.port}",
            )
        )[0]
        for scheme in ("https", "http")
    }

    assert statuses == {"https": 200, "http": 403}


# --- a Unix socket --------------------------------------------------------------------------------


@pytest.fixture
async def with_socket(tmp_path: Path) -> AsyncIterator[Shop]:
    place = {"socket": str(tmp_path / "agent.sock"), "socket_mode": "0660"}
    async with open_shop(tmp_path, {"server": place}) as opened:
        yield opened


async def by_socket(shop: Shop, method: str, path: str, **more: Any) -> int:
    connector = aiohttp.UnixConnector(path=str(shop.agent.config.server.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://localhost{path}", **more) as answer,
    ):
        return answer.status


async def test_a_pos_may_come_by_the_socket_and_needs_its_token_there_too(
    with_socket: Shop,
) -> None:
    token = {"apikey": with_socket.till.token}

    assert await by_socket(with_socket, "POST", CONTACTS, json=VERA, headers=token) == 201
    assert await by_socket(with_socket, "POST", CONTACTS, json=VERA) == 401
    assert await by_socket(with_socket, "GET", "/healthz") == 200
    foreign = token | {"Host": "evil.example.test"}
    assert await by_socket(with_socket, "GET", "/agent/v1/changes", headers=foreign) == 421


async def test_socket_has_its_mode_and_goes_with_the_agent(with_socket: Shop) -> None:
    path = with_socket.agent.config.server.socket
    mode = path.lstat().st_mode

    await with_socket.agent.stop()

    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
    assert not path.exists()
    assert [each.name for each in path.parent.iterdir() if "sock" in each.name] == []


async def test_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "agent.sock"))

    async with open_shop(tmp_path, {"server": {"socket": str(tmp_path / "agent.sock")}}) as shop:
        assert await by_socket(shop, "GET", "/healthz") == 200


async def test_socket_that_cannot_be_made_is_named(shop: Shop, tmp_path: Path) -> None:
    settings = config.Server(port=0, socket=tmp_path / "nowhere" / "agent.sock")
    server = Server(aiohttp.web.Application(), settings)

    with pytest.raises(OSError) as caught:
        await server.start(patience_s=0)

    assert caught.value.filename == str(tmp_path / "nowhere/agent.sock")


# --- the commands ---------------------------------------------------------------------------------


async def test_commands_find_an_agent_with_tls(with_tls: Shop) -> None:
    with_port(with_tls)

    answer = await asyncio.to_thread(asked(with_tls).ask, "GET", "/agent/v1/changes")

    assert answer["items"] == []


async def test_commands_find_an_agent_whose_certificate_has_ended(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path / "tls", days=-1)
    names = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    async with open_shop(tmp_path, {"server": names}) as shop:
        with_port(shop)

        code = await asyncio.to_thread(
            main, ["status", "--config", str(shop.till.config_path), "--json"]
        )

    assert code == 0


async def test_commands_show_no_token_to_whoever_has_another_certificate(
    with_tls: Shop, tmp_path: Path
) -> None:
    with_port(with_tls)
    other, _ = write_certificate(tmp_path / "other")
    text = with_tls.till.config_path.read_text()
    with_tls.till.config_path.write_text(text.replace(str(tmp_path / "tls/tls.pem"), str(other)))

    with pytest.raises(AgentError, match="another certificate"):
        await asyncio.to_thread(asked(with_tls).ask, "GET", "/agent/v1/changes")


async def test_commands_trust_no_certificate_that_nobody_named(with_tls: Shop) -> None:
    with pytest.raises(AgentError, match="cannot be trusted"):
        await asyncio.to_thread(
            asked(with_tls, url=with_tls.agent.url).ask, "GET", "/healthz", public=True
        )


async def test_commands_take_the_socket_where_there_is_one(with_socket: Shop) -> None:
    answer = await asyncio.to_thread(asked(with_socket).ask, "GET", "/agent/v1/changes")

    assert answer["items"] == []


async def test_commands_say_when_nobody_answers(shop: Shop) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"

        with pytest.raises(NotRunning, match="no agent answers"):
            await asyncio.to_thread(asked(shop, url=url).ask, "GET", "/healthz", public=True)


@pytest.mark.parametrize("url", ["127.0.0.1:8717", "ftp://127.0.0.1", "http://", "http://[::1"])
async def test_commands_refuse_what_is_no_address(shop: Shop, url: str) -> None:
    with pytest.raises(AgentError, match="is not where an agent can be"):
        asked(shop, url=url).ask("GET", "/healthz", public=True)


def with_port(shop: Shop) -> None:
    """Write the port that the agent found into its settings, as in a shop it stands there."""
    path = shop.till.config_path
    path.write_text(path.read_text().replace("port = 0", f"port = {shop.agent.server.port}", 1))
