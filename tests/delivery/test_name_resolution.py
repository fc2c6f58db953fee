"""Names that do not resolve, resolve slowly, or lead to the wrong place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import eventually
from world import Process, lay_till

from agent import config
from agent.clock import SystemClock
from agent.delivery.engage import answers
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.pace import Pace
from agent.delivery.link import Link, LinkState
from agent.errors import Unreachable
from agent.sandbox import Sandbox

Resolve = Callable[..., Awaitable[list[Any]]]
NAME = "engage.example.test"
ENDS_WITHIN_S = 30.0

AddressInfo = tuple[Any, ...]


def address(host: str, port: int) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = (host, port, 0, 0) if ":" in host else (host, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)


def resolve_with(monkeypatch: pytest.MonkeyPatch, answer: Resolve) -> list[str]:
    """Let this loop ask somebody else for names; gives what it asked."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    usual = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **more: Any) -> Any:
        if host != NAME:
            return await usual(host, port, **more)
        asked.append(host)
        return await answer(host, port)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


@contextlib.asynccontextmanager
async def client_of(
    sandbox: Sandbox, folder: Path, **engage: Any
) -> AsyncIterator[tuple[EngageClient, Link]]:
    """Open the client of a till whose Engage has a name."""
    given = {"timeout_s": 2, "create_timeout_s": 2, **engage}
    url = f"https://{NAME}:{sandbox.engage_port}"
    till = lay_till(sandbox, folder, {"engage": given}, engage_url=url)
    settings = config.load(till.config_path)
    clock = SystemClock()
    link = Link(clock, offline_after=2)
    client = EngageClient(
        settings.engage,
        lambda: sandbox.api_key,
        link,
        Pace(clock, per_s=200, backlog_per_s=200),
        clock,
    )
    await client.open()
    try:
        yield client, link
    finally:
        await client.close()


async def ask(client: EngageClient) -> Any:
    return await client.call("GET", "/api/v2/contacts/count", answers.read_any)


@pytest.mark.parametrize(
    "code", [socket.EAI_NONAME, socket.EAI_AGAIN], ids=["NXDOMAIN", "SERVFAIL"]
)
async def test_name_that_does_not_resolve_counts_against_the_link(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async def fail(*_: Any) -> list[Any]:
        raise socket.gaierror(code, "no")

    resolve_with(monkeypatch, fail)
    async with client_of(sandbox, tmp_path / "till") as (client, link):
        for _ in range(2):
            with pytest.raises(Unreachable, match="name cannot be resolved"):
                await ask(client)

    assert link.state is LinkState.OFFLINE
    assert "DNS" in (link.reason or "")


async def test_resolver_that_hangs_is_given_up_within_the_calls_deadline(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> list[Any]:
        await asyncio.sleep(60)
        return []

    resolve_with(monkeypatch, hang)
    async with client_of(sandbox, tmp_path / "till", timeout_s=0.3) as (client, link):
        async with asyncio.timeout(30):
            with pytest.raises(Unreachable):
                await ask(client)

    assert link.state is LinkState.SUSPECT


async def test_create_whose_name_did_not_resolve_was_not_sent(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> list[Any]:
        await asyncio.sleep(60)
        return []

    resolve_with(monkeypatch, hang)
    async with client_of(sandbox, tmp_path / "till", create_timeout_s=0.3) as (client, _):
        with pytest.raises(Unreachable):  # and not LineLost: nothing can have happened
            await client.call("POST", "/contacts", answers.created, body={}, create=True)


async def test_broken_ipv6_falls_back_to_ipv4(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def both(_: str, port: int) -> list[Any]:
        return [address("::1", port), address("127.0.0.1", port)]

    resolve_with(monkeypatch, both)
    monkeypatch.setattr(EngageClient, "_url", plain_url)
    async with client_of(sandbox, tmp_path / "till") as (client, link):
        await ask(client)

    assert link.state is LinkState.ONLINE
    assert sandbox.counts()["requests"] == 1


def plain_url(self: EngageClient, path: str, query: Any) -> Any:
    """Speak http to the sandbox; https is only for the settings' check."""
    from yarl import URL

    return URL(f"{self._settings.base_url}{path}".replace("https:", "http:"))


# --- an address that is not Engage's ------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make the certificate of a router that calls itself something else."""
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=router.example.test"),
            *("-addext", "subjectAltName=DNS:router.example.test"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.mark.parametrize("trusted", [True, False], ids=["wrong-host", "unknown-CA"])
async def test_private_address_with_another_certificate_is_the_lines_fault(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: tuple[Path, Path],
    trusted: bool,
) -> None:
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    requests: list[bytes] = []

    async def router(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(router, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def private(*_: Any) -> list[Any]:
        return [address("127.0.0.1", port)]

    resolve_with(monkeypatch, private)
    given = {"ca_file": str(cert)} if trusted else {}
    async with server, client_of(sandbox, tmp_path / "till", **given) as (client, link):
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            await ask(client)

    assert link.state is LinkState.SUSPECT
    assert "".join(each.decode() for each in requests) == ""  # the key never left the till


# --- the whole agent ----------------------------------------------------------------------------

_HANGING_RESOLVER = """
import socket, time
usual = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    if host == "engage.example.test":
        time.sleep(3600)
    return usual(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.system
async def test_process_ends_soon_while_the_resolver_hangs_in_a_thread(
    sandbox: Sandbox, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_HANGING_RESOLVER)
    monkeypatch.setenv("PYTHONPATH", str(site))
    url = f"https://{NAME}:{sandbox.engage_port}"
    till = lay_till(
        sandbox, tmp_path / "till", {"fallback": {"seal_after_s": 3600}}, engage_url=url
    )
    process = Process(till, session)
    try:
        await process.start()
        change_id = await process.pos.create()

        async def offline() -> bool:
            return bool((await process.pos.status())["link"]["state"] != "online")

        await eventually(offline, "the line is not trusted")
        assert process._process is not None
        os.kill(process._process.pid, signal.SIGTERM)

        assert await asyncio.wait_for(process._process.wait(), ENDS_WITHIN_S) == 0

        monkeypatch.setenv("PYTHONPATH", "")
        await process.start()
        change = await process.pos.change(change_id)
        assert change["state"] in ("waiting", "sending")
        assert change["unknown"] is False  # a name that did not resolve got nothing sent
    finally:
        await process.stop()
