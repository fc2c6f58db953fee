"""The doctor's rows of the way to Engage, each good and broken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, blocking_tls_server
from patient import Patient
from world import write_secret

from agent.sandbox import Sandbox

ENGAGE_ROWS = ("dns", "tcp", "tls", "api key", "clock", "rate")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.asynccontextmanager
async def secure_engage(folder: Path, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Run an Engage that speaks https; gives its address."""
    async with Sandbox(folder / "secure", import_every_s=0, tls=context) as sandbox:
        yield sandbox.engage_url


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Run a server that accepts and never says a word; gives its port."""
    open_ones: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in open_ones:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_all_rows_are_ok_where_all_is_well(
    lay: Callable[..., Patient], authority: Authority, tmp_path: Path
) -> None:
    async with secure_engage(tmp_path, authority.server()) as url:
        patient = lay(url, engage={"ca_file": str(authority.ca_file)})

        rows = await patient.examined()

    assert {name: str(rows[name].result) for name in ENGAGE_ROWS} == dict.fromkeys(
        ENGAGE_ROWS, "ok"
    ), rows
    assert "holds for 364 days" in rows["tls"].meaning
    assert "TLSv1.3" in rows["tls"].meaning


async def test_dns_fails_for_a_name_that_nobody_knows(
    lay: Callable[..., Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patient = lay("https://engage.example.test")
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)

    rows = await patient.examined()

    assert rows["dns"].result == "failed"
    assert "engage.example.test cannot be resolved" in rows["dns"].meaning
    assert rows["tcp"].result == rows["tls"].result == "warning"
    assert rows["tcp"].meaning.startswith("Not examined.")


async def test_resolver_that_hangs_is_a_row_and_hides_no_other(
    lay: Callable[..., Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    patient = lay("https://engage.example.test")
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)

    rows = await patient.examined(step_s=0.3)

    assert rows["dns"].result == "failed"
    assert "within 0.3 seconds" in rows["dns"].meaning
    assert rows["journal"].result == "ok"
    assert len(rows) == 18


async def test_tcp_fails_where_nobody_listens(patient: Patient) -> None:
    patient.sandbox.down()

    rows = await patient.examined()

    assert rows["tcp"].result == "failed"
    assert "Connection refused" in rows["tcp"].meaning
    assert rows["api key"].meaning.startswith("Not examined.")
    assert rows["clock"].meaning.startswith("Not examined.")


@pytest.mark.parametrize(
    ("address", "to_days", "trusts", "words", "remedy"),
    [
        ("127.0.0.1", -1, True, "it has expired", "clock"),
        ("engage.example.test", 365, True, "it is for another name", "engage.base_url"),
        ("127.0.0.1", 365, False, "its authority is not known here", "engage.ca_file"),
    ],
    ids=["expired", "another name", "unknown authority"],
)
async def test_tls_says_why_a_certificate_is_not_accepted(
    lay: Callable[..., Patient],
    authority: Authority,
    tmp_path: Path,
    address: str,
    to_days: float,
    trusts: bool,
    words: str,
    remedy: str,
) -> None:
    context = authority.server(address, to_days=to_days)
    async with secure_engage(tmp_path, context) as url:
        patient = lay(url, engage={"ca_file": str(authority.ca_file)} if trusts else {})

        rows = await patient.examined()

    assert rows["tls"].result == "failed"
    assert words in rows["tls"].meaning
    assert remedy in rows["tls"].what_to_do
    assert words in rows["api key"].meaning


async def test_tls_fails_for_a_certificate_that_is_not_valid_yet(
    lay: Callable[..., Patient], authority: Authority, tmp_path: Path
) -> None:
    async with secure_engage(tmp_path, authority.server(from_days=2)) as url:
        row = await lay(url, engage={"ca_file": str(authority.ca_file)}).row("tls")

    assert row.result == "failed"
    assert "not valid yet" in row.meaning


async def test_tls_fails_where_only_an_old_protocol_is_spoken(
    lay: Callable[..., Patient], authority: Authority
) -> None:
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with blocking_tls_server(context) as port:
        patient = lay(f"https://127.0.0.1:{port}", engage={"ca_file": str(authority.ca_file)})

        row = await patient.row("tls")

    assert row.result == "failed"
    assert "no longer safe" in row.meaning


async def test_tls_warns_of_a_certificate_that_ends_soon(
    lay: Callable[..., Patient], authority: Authority, tmp_path: Path
) -> None:
    async with secure_engage(tmp_path, authority.server(to_days=13.5)) as url:
        row = await lay(url, engage={"ca_file": str(authority.ca_file)}).row("tls")

    assert row.result == "warning"
    assert "holds for 13 days" in row.meaning


async def test_server_that_says_nothing_fails_tls_and_key_and_hides_no_other(
    lay: Callable[..., Patient],
) -> None:
    async with silent_server() as port:
        rows = await lay(f"https://127.0.0.1:{port}").examined(step_s=0.3)

    assert [str(rows[name].result) for name in ("tcp", "tls", "api key")] == [
        "ok",
        "failed",
        "failed",
    ]
    assert rows["sftp folder"].result == "ok"


# --- through a proxy ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxy(status: int) -> AsyncIterator[str]:
    """Run an HTTP proxy that lets through to this machine, or refuses; gives its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other side has seen enough
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # only tried whether somebody is there
            writer.close()
            return
        writer.write(b"HTTP/1.1 %d Said\r\n\r\n" % status)
        if status != 200:
            writer.close()
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        there, back = await asyncio.open_connection(host, int(port))
        for pair in ((reader, back), (there, writer)):
            task = asyncio.create_task(pump(*pair))
            tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def test_all_is_looked_at_through_the_proxy(
    lay: Callable[..., Patient], authority: Authority, tmp_path: Path
) -> None:
    async with secure_engage(tmp_path, authority.server()) as url, proxy(200) as way:
        rows = await lay(url, engage={"ca_file": str(authority.ca_file), "proxy": way}).examined()

    assert {str(rows[name].result) for name in ENGAGE_ROWS} == {"ok"}, rows
    assert rows["dns"].meaning.startswith("The proxy's name")


async def test_proxy_that_refuses_is_named(
    lay: Callable[..., Patient], authority: Authority, tmp_path: Path
) -> None:
    async with secure_engage(tmp_path, authority.server()) as url, proxy(407) as way:
        rows = await lay(url, engage={"ca_file": str(authority.ca_file), "proxy": way}).examined()

    assert rows["tls"].result == "failed"
    assert "407" in rows["tls"].meaning
    assert "proxy" in rows["api key"].meaning


# --- the call -------------------------------------------------------------------------------------


async def test_key_that_is_refused_fails_and_says_where_it_lies(patient: Patient) -> None:
    write_secret(patient.till.folder / "engage_api_key", "another-key")

    row = await patient.row("api key")

    assert row.result == "failed"
    assert "refuses the API key" in row.meaning
    assert "engage.api_key_file" in row.what_to_do
    assert "another-key" not in str(row)


async def test_key_file_that_is_missing_fails(patient: Patient) -> None:
    (patient.till.folder / "engage_api_key").unlink()

    rows = await patient.examined()

    assert rows["api key"].result == rows["files"].result == "failed"
    assert "does not exist" in rows["api key"].meaning


async def test_portal_in_between_is_not_taken_for_engage(patient: Patient) -> None:
    patient.sandbox.set_fault("portal")

    row = await patient.row("api key")

    assert row.result == "failed"
    assert "web page" in row.meaning


async def test_clock_that_is_far_off_fails_and_a_little_off_warns(patient: Patient) -> None:
    patient.sandbox.set_fault("clock_skew", skew_s=-7200.0)
    far = await patient.row("clock")
    patient.sandbox.clear_faults()
    patient.sandbox.set_fault("clock_skew", skew_s=120.0)
    little = await patient.row("clock")

    assert (far.result, little.result) == ("failed", "warning")
    assert "ahead of Engage's" in far.meaning
    assert "behind Engage's" in little.meaning


async def test_rate_warns_while_engage_throttles(patient: Patient) -> None:
    patient.sandbox.set_fault("throttle")

    rows = await patient.examined()

    assert rows["api key"].result == rows["rate"].result == "warning"
    assert "too many" in rows["rate"].meaning


async def test_rate_warns_of_settings_that_use_up_the_chains_limit(
    lay: Callable[..., Patient],
) -> None:
    row = await lay(engage={"max_requests_per_s": 60}).row("rate")

    assert row.result == "warning"
    assert "fewer than 50" in row.what_to_do
