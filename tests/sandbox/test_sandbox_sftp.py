"""The SFTP server: logging in, uploading, and every fault, with paramiko as the client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest

from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

FILE_NAME = "20261121101500_0600_contacts.xml"
CONTENT = b"x" * 100_000


def file_on_disk(sandbox: Sandbox, name: str = FILE_NAME) -> Path:
    return sandbox.import_path / name


# --- logging in -----------------------------------------------------------------------------------


async def test_upload_by_password_arrives_under_its_final_name(
    sandbox: Sandbox, uploader: Any
) -> None:
    await uploader.upload(CONTENT)

    assert sandbox.waiting_files() == [FILE_NAME]
    assert file_on_disk(sandbox).read_bytes() == CONTENT
    assert [each.operation for each in sandbox.sftp_log] == [
        "login",
        "open_write",
        "close",
        "rename",
    ]


async def test_login_by_the_generated_key(sandbox: Sandbox, uploader: Any) -> None:
    uploader.password = None
    uploader.private_key = paramiko.Ed25519Key.from_private_key_file(
        str(sandbox.sftp_private_key_file)
    )

    await uploader.upload(CONTENT)

    assert sandbox.waiting_files() == [FILE_NAME]


async def test_login_by_an_authorized_key(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key().decode()

    async with (
        Sandbox(tmp_path, authorized_keys=[line]) as sandbox,
        asyncssh.connect(
            sandbox.sftp_host,
            sandbox.sftp_port,
            username=sandbox.sftp_username,
            client_keys=[key],
            known_hosts=asyncssh.import_known_hosts(sandbox.host_key_line),
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        assert set(await sftp.listdir("/integration")) > {"contactImport", "customerExport"}


async def test_wrong_password_is_refused(sandbox: Sandbox, uploader: Any) -> None:
    uploader.password = "wrong"

    with pytest.raises(paramiko.AuthenticationException):
        await uploader.upload(CONTENT)

    assert sandbox.sftp_log[0].operation == "login_refused"


async def test_foreign_key_is_refused(sandbox: Sandbox, uploader: Any) -> None:
    uploader.password = None
    uploader.private_key = paramiko.RSAKey.generate(2048)

    with pytest.raises(paramiko.AuthenticationException):
        await uploader.upload(CONTENT)


async def test_secrets_are_readable_by_their_owner_only(sandbox: Sandbox) -> None:
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (sandbox.sftp_private_key_file, sandbox.directory / "host_key")
    }

    assert modes == {"client_key": 0o600, "host_key": 0o600}


async def test_nothing_outside_the_folder_can_be_reached(sandbox: Sandbox, uploader: Any) -> None:
    def leave(sftp: paramiko.SFTPClient) -> tuple[list[str], str]:
        with pytest.raises(OSError, match="not supported"):
            sftp.symlink("/etc", "/link")
        return sftp.listdir("/../../.."), sftp.normalize("/../..")

    assert await uploader.do(leave) == (["integration"], "/")


# --- files ----------------------------------------------------------------------------------------


async def test_plain_rename_does_not_replace_a_file(sandbox: Sandbox, uploader: Any) -> None:
    await uploader.upload(b"first")

    with pytest.raises(OSError, match="exists"):
        await uploader.upload(b"second", posix=False)

    assert file_on_disk(sandbox).read_bytes() == b"first"


async def test_posix_rename_replaces_a_file(sandbox: Sandbox, uploader: Any) -> None:
    await uploader.upload(b"first")
    await uploader.upload(b"second")

    assert file_on_disk(sandbox).read_bytes() == b"second"


async def test_file_can_be_withdrawn_and_folders_made(sandbox: Sandbox, uploader: Any) -> None:
    await uploader.upload(CONTENT)

    def tidy(sftp: paramiko.SFTPClient) -> None:
        sftp.remove(f"{sandbox.import_directory}/{FILE_NAME}")
        sftp.mkdir("/other")
        sftp.rmdir("/other")

    await uploader.do(tidy)

    assert sandbox.waiting_files() == []
    assert sandbox.sftp_log[-1].operation == "remove"


# --- faults ---------------------------------------------------------------------------------------


async def test_refused_sftp_leaves_engage_alone(
    sandbox: Sandbox, uploader: Any, engage: Any
) -> None:
    sandbox.set_fault("refuse", target="sftp")

    with pytest.raises(paramiko.ssh_exception.NoValidConnectionsError):
        await uploader.upload(CONTENT)

    await engage.create(email="vera@example.test")


async def test_hang_in_key_exchange_says_its_version_and_nothing_more(
    sandbox: Sandbox, uploader: Any
) -> None:
    sandbox.set_fault("hang_kex", times=1)
    reader, writer = await asyncio.open_connection(sandbox.sftp_host, sandbox.sftp_port)

    assert (await reader.readline()).startswith(b"SSH-2.0-")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)

    writer.close()
    await uploader.upload(CONTENT)


async def test_login_is_refused_as_often_as_wanted(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("refuse_login")

    with pytest.raises(paramiko.AuthenticationException):
        await uploader.upload(CONTENT)

    sandbox.clear_faults()
    await uploader.upload(CONTENT)


async def test_hang_on_opening_a_file(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("hang_open")
    uploader.patience_s = 0.5

    with pytest.raises(TimeoutError):
        await uploader.upload(CONTENT)

    assert sandbox.waiting_files() == []


async def test_hang_in_the_middle_of_writing(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("hang_write", after_bytes=40_000)
    uploader.patience_s = 0.5

    with pytest.raises(TimeoutError):
        await uploader.upload(CONTENT)

    assert file_on_disk(sandbox, f"{FILE_NAME}.tmp").stat().st_size == 40_000


@pytest.mark.parametrize("after_bytes", [0, 1, 32_768, 99_999])
async def test_cut_leaves_exactly_so_many_bytes(
    sandbox: Sandbox, uploader: Any, after_bytes: int
) -> None:
    sandbox.set_fault("cut", after_bytes=after_bytes)

    with pytest.raises((paramiko.SSHException, EOFError, OSError)):
        await uploader.upload(CONTENT)

    assert file_on_disk(sandbox, f"{FILE_NAME}.tmp").stat().st_size == after_bytes


async def test_cut_beyond_the_end_of_the_file_does_nothing(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("cut", after_bytes=len(CONTENT))

    await uploader.upload(CONTENT)

    assert sandbox.waiting_files() == [FILE_NAME]


async def test_full_disk_stops_the_upload_once(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("disk_full", after_bytes=50_000, times=1)

    with pytest.raises(OSError, match="No space left"):
        await uploader.upload(CONTENT)
    assert file_on_disk(sandbox, f"{FILE_NAME}.tmp").stat().st_size == 50_000

    await uploader.upload(CONTENT)


@pytest.mark.parametrize("posix", [True, False])
async def test_rename_can_be_denied(sandbox: Sandbox, uploader: Any, posix: bool) -> None:
    sandbox.set_fault("rename_denied")

    with pytest.raises(PermissionError):
        await uploader.upload(CONTENT, posix=posix)

    assert sandbox.waiting_files() == [f"{FILE_NAME}.tmp"]


async def test_server_without_posix_rename_still_renames_plainly(
    sandbox: Sandbox, uploader: Any
) -> None:
    sandbox.set_fault("no_posix_rename")

    with pytest.raises(OSError, match="not supported"):
        await uploader.upload(CONTENT)
    await uploader.upload(CONTENT, posix=False)

    assert sandbox.waiting_files() == [FILE_NAME]


@pytest.mark.parametrize("posix", [True, False])
async def test_rename_is_done_and_its_answer_lost(
    sandbox: Sandbox, uploader: Any, posix: bool
) -> None:
    sandbox.set_fault("lose_rename_answer")

    with pytest.raises((paramiko.SSHException, EOFError, OSError)):
        await uploader.upload(CONTENT, posix=posix)

    assert sandbox.waiting_files() == [FILE_NAME]


async def test_changed_host_key_is_noticed_by_a_pinned_client(
    sandbox: Sandbox, uploader: Any
) -> None:
    sandbox.set_fault("host_key_changed", times=1)

    with pytest.raises(paramiko.BadHostKeyException):
        await uploader.upload(CONTENT)

    await uploader.upload(CONTENT)


async def test_missing_import_folder(sandbox: Sandbox, uploader: Any) -> None:
    sandbox.set_fault("folder_missing")

    with pytest.raises(FileNotFoundError):
        await uploader.upload(CONTENT)
    with pytest.raises(FileNotFoundError):
        await uploader.do(lambda sftp: sftp.stat(sandbox.import_directory))

    assert await uploader.do(lambda sftp: sftp.listdir("/")) == ["integration"]


async def test_read_only_folder(sandbox: Sandbox, uploader: Any) -> None:
    await uploader.upload(CONTENT)
    sandbox.set_fault("read_only")
    path = f"{sandbox.import_directory}/{FILE_NAME}"

    for change in (
        lambda sftp: sftp.open(path, "wb"),
        lambda sftp: sftp.remove(path),
        lambda sftp: sftp.posix_rename(path, f"{path}.bak"),
        lambda sftp: sftp.mkdir("/other"),
        lambda sftp: sftp.rmdir("/integration"),
    ):
        with pytest.raises(PermissionError):
            await uploader.do(change)

    assert await uploader.do(lambda sftp: sftp.stat(path).st_size) == len(CONTENT)


async def test_line_down_cuts_an_upload_under_way(
    sandbox: Sandbox, uploader: Any, eventually: Callable[..., Any]
) -> None:
    sandbox.set_fault("hang_write", after_bytes=10)
    uploading = asyncio.create_task(uploader.upload(CONTENT))
    await eventually(lambda: [each for each in sandbox.sftp_log if each.operation == "open_write"])

    sandbox.down()

    with pytest.raises((paramiko.SSHException, EOFError, OSError)):
        await uploading
    with socket.socket() as client:
        assert client.connect_ex((sandbox.sftp_host, sandbox.sftp_port)) != 0
