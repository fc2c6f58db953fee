"""The file route against OpenSSH's own server."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openssh import KINDS, PATIENCE_S, OpenSsh, find_sshd

from agent.delivery.batch.sftp import ForeignFile, ServerRefused, SftpServer, Upload, host_key
from agent.errors import HostKeyChanged, NotAuthorised, Unreachable

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_sshd() is None, reason="OpenSSH's sshd is not installed"),
]

NAME = "20261121101500_7-1-1_contacts.xml"
CONTENT = bytes(range(256)) * 40_000  # 10 MB: about 20,000 contacts

Start = Callable[..., OpenSsh]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[OpenSsh] = []

    def started(**options: Any) -> OpenSsh:
        server = OpenSsh(tmp_path / f"server{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    place = tmp_path / NAME
    place.write_bytes(CONTENT)
    return Upload(place, NAME, len(CONTENT))


async def nothing(_name: str) -> None:
    return


async def ship(agent: SftpServer, upload: Upload) -> None:
    await agent.ship([upload], nothing, nothing)


def files(server: OpenSsh) -> dict[str, bytes]:
    return {place.name: place.read_bytes() for place in server.folder.iterdir()}


async def reached(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


async def test_a_large_file_stands_on_the_server_under_its_name_alone(
    start: Start, upload: Upload
) -> None:
    server = start()

    await ship(server.client(), upload)

    assert files(server) == {NAME: CONTENT}


async def test_every_step_of_the_check_passes(start: Start) -> None:
    server = start()

    findings = await server.client().check()

    assert [row.good for row in findings] == [True] * 5
    assert files(server) == {}


async def test_files_are_looked_at_and_removed(start: Start, upload: Upload) -> None:
    server = start()
    agent = server.client()
    await ship(agent, upload)

    before = await agent.look([NAME])
    await agent.remove(NAME)

    assert before == {NAME: len(CONTENT)}
    assert await agent.look([NAME]) == {NAME: None}


@pytest.mark.parametrize("kind", KINDS)
async def test_of_several_host_keys_the_pinned_kind_is_compared(start: Start, kind: str) -> None:
    server = start()

    assert await server.client(pinned=kind).look([NAME]) == {NAME: None}


async def test_the_host_key_shown_is_the_one_that_ssh_keygen_prints(start: Start) -> None:
    server = start(host_key_kinds=["rsa"])

    shown = await host_key("127.0.0.1", server.port, PATIENCE_S)

    printed = subprocess.run(
        ["ssh-keygen", "-lf", server.home / "host_rsa.pub"], check=True, capture_output=True
    )
    assert shown.fingerprint in printed.stdout.decode()


async def test_another_server_at_the_same_place_gets_no_file(start: Start, upload: Upload) -> None:
    first, second = start(), start()
    agent = first.client()
    agent.port = second.port
    agent.known_hosts_file.write_text(
        agent.known_hosts_file.read_text().replace(str(first.port), str(second.port))
    )

    with pytest.raises(HostKeyChanged) as caught:
        await ship(agent, upload)

    assert first.host_key("ed25519").fingerprint in str(caught.value)
    assert second.host_key("ed25519").fingerprint in str(caught.value)
    assert files(second) == {}


async def test_a_key_that_is_not_authorised_is_refused(start: Start) -> None:
    server = start()

    with pytest.raises(NotAuthorised, match="refused the login"):
        await server.client(private_key=server.home / "host_rsa").look([])


async def test_a_server_with_old_algorithms_only_is_told_clearly(start: Start) -> None:
    server = start(host_key_kinds=["rsa"], extra="HostKeyAlgorithms ssh-rsa")

    with pytest.raises(NotAuthorised, match="no longer safe"):
        await server.client(pinned="rsa").look([])


async def test_a_login_for_reading_only_is_told_in_the_servers_words(
    start: Start, upload: Upload
) -> None:
    server = start(sftp_options="-R")

    with pytest.raises(ServerRefused, match="Permission denied"):
        await ship(server.client(), upload)


async def test_a_login_without_sftp_is_told(start: Start) -> None:
    server = start(extra="ForceCommand false")

    with pytest.raises((Unreachable, ServerRefused), match="opening the SFTP session"):
        await server.client().look([])


async def test_without_posix_rename_a_file_gets_its_name(start: Start, upload: Upload) -> None:
    server = start(sftp_options="-P posix-rename")

    await ship(server.client(), upload)

    assert files(server) == {NAME: CONTENT}


async def test_a_missing_folder_is_told(start: Start, upload: Upload) -> None:
    server = start()
    server.folder.rmdir()

    with pytest.raises(ServerRefused, match=r"sftp\.directory"):
        await ship(server.client(), upload)


async def test_a_foreign_file_is_never_overwritten(start: Start, upload: Upload) -> None:
    server = start()
    (server.folder / NAME).write_bytes(b"somebody else's")

    with pytest.raises(ForeignFile):
        await ship(server.client(), upload)

    assert files(server) == {NAME: b"somebody else's"}


async def test_an_upload_that_a_crash_of_the_server_cut_succeeds_later(
    start: Start, upload: Upload
) -> None:
    server = start()
    agent = server.client()
    part = server.folder / f".{NAME}.part"
    shipping = asyncio.create_task(ship(agent, upload))
    await reached(lambda: part.exists() and part.stat().st_size, "the first block")
    server.end_sessions()
    with pytest.raises(Unreachable):
        await shipping
    assert NAME not in files(server)

    await ship(agent, upload)

    assert files(server) == {NAME: CONTENT}


async def test_a_server_that_freezes_in_mid_transfer_is_left(start: Start, upload: Upload) -> None:
    server = start()
    part = server.folder / f".{NAME}.part"
    shipping = asyncio.create_task(ship(server.client(timeout_s=1.0), upload))
    await reached(lambda: part.exists() and part.stat().st_size, "the first block")

    server.freeze_sessions()

    with pytest.raises(Unreachable, match="did not answer within 1 s"):
        await shipping
