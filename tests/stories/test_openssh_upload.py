"""The whole agent, with OpenSSH's own server between it and the import."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from getpass import getuser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from command_line import till_agent
from openssh import LOGIN, PASSWORD, OpenSsh, find_nss_wrapper, find_sshd
from patience import eventually
from world import World, lay_till

from agent.sandbox import Sandbox

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_sshd() is None, reason="OpenSSH's sshd is not installed"),
]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[OpenSsh]:
    server = OpenSsh(tmp_path / "sshd")
    server.start()
    yield server
    server.stop()


async def until_whole(folder: Path) -> list[Path]:
    return list(await eventually(lambda: list(folder.glob("*_contacts.xml")), "it went up"))


@pytest.fixture
async def world(
    sandbox: Sandbox, sshd: OpenSsh, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[World]:
    """An agent whose Engage is the sandbox's, and whose SFTP server is OpenSSH's."""
    pin = sshd.host_key("ed25519")
    till = lay_till(
        sandbox,
        tmp_path / "till",
        {"sftp": {"private_key_file": str(sshd.user_key), "timeout_s": 10}},
        sftp_port=sshd.port,
        sftp_username=getuser(),
        sftp_directory=str(sshd.folder),
        host_key_line=f"[127.0.0.1]:{sshd.port} {pin.algorithm} {pin.base64}",
    )
    lines = till.config_path.read_text("utf-8").splitlines(keepends=True)
    till.config_path.write_text(
        "".join(line for line in lines if not line.startswith("password_file")), "utf-8"
    )
    running = World(sandbox, till, session)
    await running.start()
    yield running
    await running.stop()


async def test_outage_ends_confirmed_by_way_of_a_real_sshd(world: World, sshd: OpenSsh) -> None:
    world.sandbox.down()
    changes = [await world.pos.create(f"vera{number}@example.test") for number in range(25)]
    for change_id in changes:
        await world.pos.until(change_id, "uploaded")
    sshd.end_sessions()

    # The importer: takes the files from the real server's folder to the sandbox's.
    files = await until_whole(sshd.folder)
    for file in files:
        file.replace(world.sandbox.import_path / file.name)
    assert await world.sandbox.import_now() == len(files)
    world.sandbox.up()

    for change_id in changes:
        await world.pos.until(change_id, "confirmed")
    assert world.sandbox.counts()["duplicates"] == 0
    assert list(sshd.folder.iterdir()) == []
    assert list((world.till.folder / "spool").iterdir()) == []


async def test_file_waits_for_an_sshd_that_is_down_and_goes_up_when_it_is_back(
    world: World, sshd: OpenSsh
) -> None:
    sshd.stop()
    world.sandbox.down()
    change_id = await world.pos.create()
    await world.pos.until(change_id, "batched")

    sshd.start()

    await until_whole(sshd.folder)
    assert (await world.pos.until(change_id, "uploaded"))["route"] == "file"


async def test_a_changed_key_of_any_kind_halts_until_the_one_that_it_names_is_trusted(
    world: World, sshd: OpenSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, known_hosts = "ssh-rsa AAAAB3NzaC1yc2E=", world.till.folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {former}\n")
    world.sandbox.down()
    change_id = await world.pos.create()

    async def halted() -> Any:
        route = (await world.pos.status())["routes"]["file"]
        return route["reason"] if route["state"] == "halted" else None

    reason = await eventually(halted, "the file route is halted")
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    trusted = await till_agent("host-key", "trust", "--config", str(world.till.config_path))

    assert sshd.host_key("rsa").fingerprint in reason
    assert trusted.code == 0
    await world.pos.until(change_id, "uploaded")
    assert former not in known_hosts.read_text()


@pytest.mark.skipif(find_nss_wrapper() is None, reason="libnss-wrapper is not installed")
async def test_an_expired_password_halts_files_alone_until_it_is_renewed(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    server = OpenSsh(tmp_path / "accounts", by_password=True)
    server.start()
    server.let_password_expire()
    pin = server.host_key("ed25519")
    till = lay_till(
        sandbox,
        tmp_path / "till",
        {"sftp": {"timeout_s": 10}},
        sftp_port=server.port,
        sftp_username=LOGIN,
        sftp_password=PASSWORD,
        sftp_directory=str(server.folder),
        host_key_line=f"[127.0.0.1]:{server.port} {pin.algorithm} {pin.base64}",
    )
    world = await World(sandbox, till, session).start()
    sandbox.set_fault("refuse", target="engage")
    change_id = await world.pos.create()

    async def halted() -> Any:
        route = (await world.pos.status())["routes"]["file"]
        return route["reason"] if route["state"] == "halted" else None

    reason = await eventually(halted, "the file route is halted")
    sandbox.clear_faults()
    by_api = await world.pos.until(await world.pos.create("per@example.test"), "delivered")
    server.let_password_expire(False)
    uploaded = await world.pos.until(change_id, "uploaded")
    await world.stop()
    server.stop()

    assert "password may have expired" in reason
    assert (by_api["route"], uploaded["route"]) == ("api", "file")


async def test_a_file_is_taken_back_from_a_real_sshd(world: World, sshd: OpenSsh) -> None:
    world.sandbox.set_fault("refuse", target="engage")
    change_id = await world.pos.create()
    name = (await world.pos.until(change_id, "uploaded"))["batch"]
    world.sandbox.clear_faults()

    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw")

    assert (status, body["state"]) == (200, "withdrawn")
    assert list(sshd.folder.iterdir()) == []
    assert (await world.pos.until(change_id, "delivered"))["route"] == "api"
