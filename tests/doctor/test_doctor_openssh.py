"""The doctor before OpenSSH's own server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from getpass import getuser
from pathlib import Path

import pytest
from openssh import OpenSsh, find_sshd
from patient import Patient

from agent.delivery.batch.host_keys import trust

pytestmark = pytest.mark.system


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[OpenSsh]:
    if find_sshd() is None:
        pytest.skip("sshd is missing: apt-get install openssh-server")
    server = OpenSsh(tmp_path / "sshd")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def patient(lay: Callable[..., Patient], sshd: OpenSsh) -> Patient:
    laid = lay(
        sftp={
            "port": sshd.port,
            "username": getuser(),
            "directory": str(sshd.folder),
            "private_key_file": "./sftp_key",
        }
    )
    folder = laid.till.folder
    key = folder / "sftp_key"
    key.touch(mode=0o600)
    key.write_bytes(sshd.user_key.read_bytes())
    settings = laid.till.config_path.read_text().replace('password_file = "sftp_password"\n', "")
    laid.till.config_path.write_text(settings)
    (folder / "known_hosts").unlink()
    trust(folder / "known_hosts", "127.0.0.1", sshd.port, sshd.host_key("ed25519"))
    return laid


async def test_all_rows_are_ok_and_the_folder_is_left_as_it_was(
    patient: Patient, sshd: OpenSsh
) -> None:
    rows = await patient.examined()

    names = ("sftp line", "sftp host key", "sftp login", "sftp folder")
    assert {name: str(rows[name].result) for name in names} == dict.fromkeys(names, "ok"), rows
    assert list(sshd.folder.iterdir()) == []


async def test_folder_that_is_gone_and_a_key_that_is_refused_are_told_apart(
    patient: Patient, sshd: OpenSsh
) -> None:
    sshd.folder.rmdir()
    gone = await patient.examined()
    (sshd.home / "authorized_keys").write_text("")
    refused = await patient.examined()

    assert (gone["sftp login"].result, gone["sftp folder"].result) == ("ok", "failed")
    assert (refused["sftp login"].result, refused["sftp folder"].result) == ("failed", "warning")
