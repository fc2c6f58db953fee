"""SFTP servers that talk nonsense: each is told in clear words, and none of it gets past the route.

The server is raw: packets as a test writes them, after a real login.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from patience import PATIENCE_S

from agent.delivery.batch.host_keys import HostKey, trust
from agent.delivery.batch.sftp import ServerRefused, SftpServer, shown_keys
from agent.delivery.batch.sftp_line import Line
from agent.delivery.batch.sftp_words import in_words
from agent.errors import Unreachable

INIT, VERSION, STATUS, HANDLE, ATTRIBUTES = 1, 2, 101, 102, 105
OK, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 2, 3, 4
IN_LATIN_1 = "Åtkomst nekad på servern".encode("latin-1")

# Gives the packet for a request: (its type, its id) -> bytes.
Answer = Callable[[int, bytes], bytes]
Connect = Callable[[Answer], Awaitable[SftpServer]]


def packet(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def status(request: bytes, code: int, words: bytes) -> bytes:
    return packet(STATUS, request + struct.pack(">I", code) + text(words) + text(b""))


class Login(asyncssh.SSHServer):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def connection_made(self, conn: Any) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        return False  # everybody may come in

    def session_requested(self) -> Any:
        return self.connection.create_server_channel(encoding=None), Session(self.answer)


class Session(asyncssh.SSHServerSession[bytes]):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.received = b""

    def connection_made(self, chan: Any) -> None:
        self.channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.received += data
        while (end := 4 + int.from_bytes(self.received[:4], "big")) <= len(self.received) > 4:
            request, self.received = self.received[:end], self.received[end:]
            self.channel.write(self.answer(request[4], request[5:9]))


@pytest.fixture(scope="module")
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
async def connect(key: asyncssh.SSHKey, tmp_path: Path) -> AsyncIterator[Connect]:
    """Start a server that answers each request as told, and make the agent's side."""
    listeners: list[asyncssh.SSHAcceptor] = []

    async def make(answer: Answer) -> SftpServer:
        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=lambda: Login(answer), server_host_keys=[key]
        )
        listeners.append(listener)
        algorithm, encoded = key.export_public_key().decode().split()[:2]
        known_hosts = tmp_path / "known_hosts"
        trust(known_hosts, "127.0.0.1", listener.get_port(), HostKey(algorithm, encoded))
        return SftpServer(
            host="127.0.0.1",
            port=listener.get_port(),
            username="till",
            directory="/import",
            timeout_s=PATIENCE_S,
            password=lambda: "open sesame",
            private_key_file=None,
            known_hosts_file=known_hosts,
        )

    yield make
    for listener in listeners:
        listener.close()
        await listener.wait_closed()


def greets(kind: int, request: bytes) -> bytes:
    return packet(VERSION, struct.pack(">I", 3))


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"Welcome to the shop's server\n", id="text"),
        pytest.param(b"\0" * 64, id="zeros"),
        pytest.param(packet(HANDLE, b"\0\0\0\1"), id="no version"),
        pytest.param(packet(VERSION, b""), id="an empty version"),
    ],
)
async def test_a_session_that_does_not_begin_as_sftp_is_refused_in_clear_words(
    connect: Connect, greeting: bytes
) -> None:
    server = await connect(lambda kind, request: greeting)

    with pytest.raises(ServerRefused, match=r"opening the SFTP session.*Let its operator look"):
        await server.look([])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda request: packet(HANDLE, request + text(b"h")), id="a handle"),
        pytest.param(lambda request: status(request, OK, b"fine"), id="nothing wrong"),
        pytest.param(lambda request: packet(250, request), id="an unknown type"),
        pytest.param(lambda request: packet(STATUS, request + b"\0"), id="half a status"),
    ],
)
async def test_an_answer_to_something_else_is_refused_in_clear_words(
    connect: Connect, answer: Callable[[bytes], bytes]
) -> None:
    server = await connect(
        lambda kind, request: greets(kind, request) if kind == INIT else answer(request)
    )

    with pytest.raises(ServerRefused, match="looking for the folder") as caught:
        await server.look([])
    assert (await server.check())[-1].words == caught.value.message


@pytest.mark.parametrize("code", [PERMISSION_DENIED, FAILURE])
async def test_a_refusal_in_another_encoding_is_a_refusal_in_the_server_s_words(
    connect: Connect, code: int
) -> None:
    server = await connect(
        lambda kind, request: (
            greets(kind, request) if kind == INIT else status(request, code, IN_LATIN_1)
        )
    )

    with pytest.raises(ServerRefused, match=r"looking for the folder.*Åtkomst nekad på servern"):
        await server.look([])


async def test_no_such_file_in_another_encoding_is_no_file(connect: Connect) -> None:
    answers = [
        lambda request: packet(VERSION, struct.pack(">I", 3)),
        lambda request: packet(ATTRIBUTES, request + struct.pack(">I", 0)),
        lambda request: status(request, NO_SUCH_FILE, IN_LATIN_1),
    ]
    server = await connect(lambda kind, request: answers.pop(0)(request))

    assert await server.look(["a_contacts.xml"]) == {"a_contacts.xml": None}


def test_any_other_text_in_another_encoding_is_the_server_s_fault_too() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        IN_LATIN_1.decode()

    told = in_words(
        caught.value, server="The server", doing="listing", setting="sftp.directory", is_lost=False
    )

    assert isinstance(told, ServerRefused)
    assert "while listing: Åtkomst nekad på servern." in told.message


async def test_a_name_that_cannot_be_one_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"is no host name.*Correct sftp\.host"):
        await shown_keys("a" * 70 + ".example", 22, PATIENCE_S)


async def test_a_bug_of_ours_is_not_taken_for_the_server_s_answer() -> None:
    line = Line("127.0.0.1", 22, PATIENCE_S)

    with pytest.raises(KeyError, match="ours"):
        await line.run("thinking", lambda: {}["ours"])
    await line.close()
