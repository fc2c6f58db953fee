"""SFTP servers that take no password and ask for one instead (keyboard-interactive, RFC 4256).

paramiko's own server, as neither OpenSSH without PAM nor asyncssh lets its client in this way.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
import pytest
from patience import PATIENCE_S

from agent.delivery.batch.host_keys import HostKey, trust
from agent.delivery.batch.sftp import Finding, SftpServer


class Asking(paramiko.ServerInterface):
    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = prompts

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        return paramiko.InteractiveQuery("", "", *self.prompts)

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        right = responses == ["open sesame"]
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED


class AskingServer:
    """Serves one connection."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self._prompts = prompts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._transport = paramiko.Transport(connection)
        self._transport.add_server_key(self.key)
        self._transport.start_server(event=threading.Event(), server=Asking(self._prompts))

    def stop(self) -> None:
        self._thread.join(PATIENCE_S)
        self._transport.close()
        self._listener.close()


@pytest.fixture
def prompts() -> list[str]:
    return ["Password: "]


@pytest.fixture
def server(prompts: list[str]) -> Iterator[AskingServer]:
    running = AskingServer(prompts)
    yield running
    running.stop()


async def login(server: AskingServer, known_hosts: Path, password: str) -> Finding:
    """Give how the login went."""
    key = HostKey(server.key.get_name(), server.key.get_base64())
    trust(known_hosts, "127.0.0.1", server.port, key)
    agent = SftpServer(
        host="127.0.0.1",
        port=server.port,
        username="till",
        directory="/import",
        timeout_s=PATIENCE_S,
        password=lambda: password,
        private_key_file=None,
        known_hosts_file=known_hosts,
    )
    return next(row for row in await agent.check() if row.step == "login")


async def test_the_password_is_given_to_a_server_that_asks_for_it(
    server: AskingServer, tmp_path: Path
) -> None:
    row = await login(server, tmp_path / "known_hosts", "open sesame")

    assert row.good, row.words


@pytest.mark.parametrize(
    ("prompts", "password"),
    [(["Password: "], "hunter2"), (["Password: ", "Code: "], "open sesame")],
)
async def test_a_refused_answer_is_a_refused_login(
    server: AskingServer, tmp_path: Path, password: str
) -> None:
    row = await login(server, tmp_path / "known_hosts", password)

    assert not row.good
    assert "refused the login: the password is wrong, or more than a password" in row.words
    assert password not in row.words
