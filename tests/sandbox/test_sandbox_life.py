"""Starting, stopping, ports and the snapshot."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import PATIENCE_S

from agent import sandbox as package
from agent.sandbox import Sandbox


async def test_it_stops_at_once_whatever_hangs(
    tmp_path: Path, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    sandbox = Sandbox(tmp_path)
    await sandbox.start()
    for kind in ("hang", "drip", "endless", "slow"):
        sandbox.set_fault(kind, times=1)
    sandbox.set_fault("hang_kex")

    async def call() -> bytes:
        async with session.get(f"{sandbox.engage_url}/api/v2/contacts/count") as response:
            return await response.read()

    hanging = [asyncio.create_task(call()) for _ in range(4)]
    _, writer = await asyncio.open_connection(sandbox.sftp_host, sandbox.sftp_port)
    await eventually(lambda: len(sandbox.requests) == 4)

    async with asyncio.timeout(PATIENCE_S):  # what hangs would do so for ever
        await sandbox.stop()

    await asyncio.gather(*hanging, return_exceptions=True)
    writer.close()


async def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    await sandbox.start()

    await sandbox.stop()
    await sandbox.stop()


async def test_same_ports_can_be_used_again(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path) as first:
        await engage_of(first).create(email="vera@example.test")
        ports = {
            "engage_port": first.engage_port,
            "sftp_port": first.sftp_port,
            "control_port": int(first.control_url.rpartition(":")[2]),
        }

    async with Sandbox(tmp_path, **ports) as second:
        assert second.engage_port == ports["engage_port"]
        await engage_of(second).create(email="vera@example.test")


@pytest.mark.parametrize("port", ["engage_port", "sftp_port", "control_port"])
async def test_taken_port_is_refused_even_to_another_sandbox(tmp_path: Path, port: str) -> None:
    async with Sandbox(tmp_path / "first") as first:
        first.down()
        taken = {
            "engage_port": first.engage_port,
            "sftp_port": first.sftp_port,
            "control_port": int(first.control_url.rpartition(":")[2]),
        }

        with pytest.raises(OSError, match="in use"):
            await Sandbox(tmp_path / "second", **{port: taken[port]}).start()


async def test_host_key_stays_over_a_restart(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as first:
        fingerprint = first.host_key_fingerprint

    async with Sandbox(tmp_path) as second:
        assert second.host_key_fingerprint == fingerprint


async def test_snapshot_lets_contacts_outlive_the_sandbox(tmp_path: Path, engage_of: Any) -> None:
    snapshot = tmp_path / "contacts.json"
    async with Sandbox(tmp_path / "a", snapshot=snapshot) as first:
        contact = await engage_of(first).create(email="vera@example.test")

    async with Sandbox(tmp_path / "b", snapshot=snapshot) as second:
        engage = engage_of(second)
        assert second.contacts() == [contact]
        assert second.counts()["creates"] == 1
        assert await engage.look_up(email="vera@example.test") == (200, contact["id"])
        other = await engage.create(email="sven@example.test")
        assert other["attributes"]["memberNumber"] == "1000002"


async def test_snapshot_is_written_while_it_runs(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    snapshot = tmp_path / "contacts.json"
    async with Sandbox(tmp_path / "a", snapshot=snapshot) as sandbox:
        sandbox.seed(email="vera@example.test")

        await eventually(snapshot.exists)

        assert len(json.loads(snapshot.read_text())["contacts"]) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"contacts": [{}]}'])
async def test_unreadable_snapshot_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    snapshot = tmp_path / "contacts.json"
    snapshot.write_text(content)

    with pytest.raises(ValueError, match="is no snapshot"):
        await Sandbox(tmp_path / "a", snapshot=snapshot).start()

    assert snapshot.read_text() == content


async def test_down_and_up_change_both_servers(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as sandbox:
        sandbox.down()
        for port in (sandbox.engage_port, sandbox.sftp_port):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

        sandbox.up()
        for port in (sandbox.engage_port, sandbox.sftp_port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()


async def test_a_refused_port_stays_refused_when_the_line_comes_back(
    sandbox: Sandbox,
) -> None:
    sandbox.set_fault("refuse", target="engage")
    sandbox.down()

    sandbox.up()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", sandbox.engage_port)


async def test_seeded_contacts_are_found_and_forgotten(sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(email="vera@example.test", city="Teststad", approved=False)

    assert sandbox.find("email", "VERA@example.test")[0]["id"] == contact_id
    assert sandbox.find("city", "teststad")[0]["id"] == contact_id
    assert sandbox.contact(contact_id)["meta"]["approved"] is False
    sandbox.erase(contact_id)
    assert sandbox.contact(contact_id) is None


async def test_it_answers_hundreds_of_requests_a_second(engage: Any, sandbox: Sandbox) -> None:
    began = time.process_time()

    await asyncio.gather(*(engage.create(email=f"v{number}@example.test") for number in range(300)))

    assert time.process_time() - began < 3  # what others do on this machine does not count
    assert sandbox.counts()["by_status"] == {"201": 300}


async def test_engage_speaks_https_when_given_a_certificate(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(certificate), "-out", str(tmp_path / "crt")]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "crt").read_bytes())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=tmp_path / "crt")

    async with (
        Sandbox(tmp_path, tls=server) as sandbox,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session,
    ):
        async with session.get(f"{sandbox.engage_url}/api/v2/contacts/count") as response:
            assert response.status == 500  # no Content-Type: it is Engage
        sandbox.set_fault("reset", when="before")
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"{sandbox.engage_url}/api/v3/contacts")


def test_package_has_its_public_names_and_no_others() -> None:
    assert package.FaultError.__name__ == "FaultError"
    with pytest.raises(AttributeError):
        _ = package.nothing_of_the_kind
