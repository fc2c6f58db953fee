"""Files to an SFTP server: whole or not at all, once, to the pinned server only, never stuck."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from agent.delivery.batch import sftp
from agent.delivery.batch.sftp import (
    ChangedFile,
    Finding,
    ForeignFile,
    HostKey,
    ServerRefused,
    SftpServer,
    Upload,
    pinned_keys,
    shown_keys,
    trust,
)
from agent.delivery.batch.spool import SpoolProblem
from agent.errors import (
    AgentError,
    AnswerLost,
    HostKeyChanged,
    NotAuthorised,
    RouteError,
    Unreachable,
)

pytestmark = pytest.mark.system

NAME = "20261121101500_7-1-1_contacts.xml"
OTHER = "20261121101501_7-1-2_contacts.xml"
BLOCKS = 5
CONTENT = bytes(range(256)) * 128 * BLOCKS  # 32 KiB each, as the agent sends them
PATIENCE_S = 10.0

Hook = Callable[["Files", bytes], Awaitable[None]]


class Files(asyncssh.SFTPServer):
    """The server's files, with a hook before and after each operation."""

    def __init__(self, chan: Any, server: FakeServer) -> None:
        self.server = server
        self.line = chan.get_connection()
        server.lines.append(self.line)
        super().__init__(chan, chroot=bytes(server.root))

    async def _do(self, operation: str, name: bytes, work: Callable[[], Any]) -> Any:
        self.server.operations.append(operation)
        for moment in ("before", "after"):
            if moment == "after":
                result = work()
            hook = self.server.hooks.get(f"{moment} {operation}")
            if hook:
                await hook(self, name)
        return result

    async def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        file = await self._do("open", path, lambda: super(Files, self).open(path, pflags, attrs))
        self.server.opened.append(file)
        return file

    async def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
        return await self._do(
            "write", b"", lambda: super(Files, self).write(file_obj, offset, data)
        )

    async def close(self, file_obj: Any) -> Any:
        return await self._do("close", b"", lambda: super(Files, self).close(file_obj))

    async def stat(self, path: bytes) -> Any:
        return await self._do("stat", path, lambda: super(Files, self).stat(path))

    async def remove(self, path: bytes) -> Any:
        return await self._do("remove", path, lambda: super(Files, self).remove(path))

    async def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        return await self._do(
            "rename", newpath, lambda: super(Files, self).rename(oldpath, newpath)
        )

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        return await self._do(
            "posix_rename", newpath, lambda: super(Files, self).posix_rename(oldpath, newpath)
        )


@dataclass
class FakeServer:
    """asyncssh's server, an implementation of SFTP that shares nothing with paramiko."""

    root: Path
    keys: list[asyncssh.SSHKey]
    hooks: dict[str, Hook] = field(default_factory=dict)
    password: str = "open sesame"
    client_key: str | None = None  # a public key that may log in
    connections: int = 0
    lost: int = 0
    logins: list[str] = field(default_factory=list)  # user names
    operations: list[str] = field(default_factory=list)
    lines: list[Any] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    port: int = 0
    listener: asyncssh.SSHAcceptor | None = None

    @property
    def folder(self) -> Path:
        return self.root / "import"

    def files(self) -> dict[str, bytes]:
        return {place.name: place.read_bytes() for place in self.folder.iterdir()}

    async def start(self) -> None:
        self.listener = await asyncssh.create_server(
            lambda: Login(self),
            "127.0.0.1",
            self.port,
            server_host_keys=self.keys,
            sftp_factory=lambda chan: Files(chan, self),
            allow_scp=False,
        )
        self.port = self.listener.get_port()

    async def stop(self) -> None:
        if self.listener:
            self.listener.close()
            await self.listener.wait_closed()
        self.listener = None
        for line in self.lines:
            line.abort()
        for file in self.opened:  # an operation that hangs keeps asyncssh from doing so
            file.close()


class Login(asyncssh.SSHServer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def connection_made(self, conn: Any) -> None:
        self.server.connections += 1
        self.connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.lost += 1

    def begin_auth(self, username: str) -> bool:
        self.server.logins.append(username)
        if self.server.client_key:
            self.connection.set_authorized_keys(
                asyncssh.import_authorized_keys(self.server.client_key)
            )
        return True

    def password_auth_supported(self) -> bool:
        return self.server.client_key is None

    async def validate_password(self, username: str, password: str) -> bool:
        hook = self.server.hooks.get("login")
        if hook:
            await hook(None, b"")  # type: ignore[arg-type]
        return password == self.server.password


async def forever(_files: Files, _name: bytes) -> None:
    await asyncio.Event().wait()


async def lose_line(files: Files, _name: bytes) -> None:
    files.line.abort()
    await asyncio.Event().wait()


async def importer_takes(files: Files, name: bytes) -> None:
    Path(files.map_path(name).decode()).unlink()


async def importer_takes_and_line_is_lost(files: Files, name: bytes) -> None:
    await importer_takes(files, name)
    await lose_line(files, name)


def refuse(error: type[asyncssh.SFTPError], words: str) -> Hook:
    async def hook(_files: Files, _name: bytes) -> None:
        raise error(words)

    return hook


def lie_about(server: FakeServer, way: str) -> None:
    """Let the server say that it renamed a file, in one of the two ways, and leave it there."""

    async def undo(files: Files, name: bytes) -> None:
        there = Path(files.map_path(name).decode())
        there.rename(next(place for place in renamed if not place.exists()))

    async def remember(_files: Files, _name: bytes) -> None:
        renamed.extend(server.folder.iterdir())

    renamed: list[Path] = []
    if way == "rename":
        server.hooks["before posix_rename"] = refuse(asyncssh.SFTPOpUnsupported, "not supported")
    server.hooks |= {f"before {way}": remember, f"after {way}": undo}


def after(count: int, hook: Hook) -> Hook:
    """Let `count` calls pass."""
    left = [count]

    async def counted(files: Files, name: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            await hook(files, name)

    return counted


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


def threads_of_ours() -> list[threading.Thread]:
    # The loop's own pool ("asyncio_0") resolves names and stays.
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.name.startswith("asyncio_")
    ]


@pytest.fixture(autouse=True)
async def no_thread_is_left() -> AsyncIterator[None]:
    before = set(threads_of_ours())
    yield
    await until(lambda: set(threads_of_ours()) <= before, f"the end of {threads_of_ours()}")


@pytest.fixture(scope="module")
def keys() -> dict[str, asyncssh.SSHKey]:
    return {
        "ssh-ed25519": asyncssh.generate_private_key("ssh-ed25519"),
        "ecdsa-sha2-nistp256": asyncssh.generate_private_key("ecdsa-sha2-nistp256"),
        "ssh-rsa": asyncssh.generate_private_key("ssh-rsa", key_size=2048),
    }


@pytest.fixture
async def server(tmp_path: Path, keys: dict[str, asyncssh.SSHKey]) -> AsyncIterator[FakeServer]:
    fake = FakeServer(tmp_path / "server", [keys["ssh-ed25519"]])
    fake.folder.mkdir(parents=True)
    await fake.start()
    yield fake
    await fake.stop()
    await until(lambda: fake.lost == fake.connections, "all connections closed")


@pytest.fixture
def known_hosts(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


Connect = Callable[..., SftpServer]


@pytest.fixture
def connect(server: FakeServer, known_hosts: Path) -> Connect:
    """Make the agent's side; the server's first key is pinned."""
    trust(known_hosts, "127.0.0.1", server.port, public(server.keys[0]))

    def make(**changed: Any) -> SftpServer:
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": server.port,
            "username": "till",
            "directory": "/import",
            "timeout_s": PATIENCE_S,
            "password": lambda: server.password,
            "private_key_file": None,
            "known_hosts_file": known_hosts,
        }
        return SftpServer(**{**settings, **changed})

    return make


def public(key: asyncssh.SSHKey) -> HostKey:
    algorithm, encoded = key.export_public_key().decode().split()[:2]
    return HostKey(algorithm, encoded)


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    return sealed(tmp_path, NAME)


def sealed(folder: Path, name: str, content: bytes = CONTENT, tried: bool = False) -> Upload:
    place = folder / name
    place.write_bytes(content)
    return Upload(place, name, len(content), hashlib.sha256(content).hexdigest(), tried)


class Journal:
    """What the caller of ship() keeps."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def uploaded(self, name: str) -> None:
        self.heard.append(f"uploaded {name}")

    async def complete(self, name: str) -> None:
        self.heard.append(f"complete {name}")


@pytest.fixture
def journal() -> Journal:
    return Journal()


async def ship(agent: SftpServer, journal: Journal, *files: Upload) -> dict[str, RouteError]:
    return await agent.ship(files, journal.uploaded, journal.complete)


def told(kept_back: dict[str, RouteError], kind: type[RouteError]) -> str:
    """Give what is said of the one file that was kept back."""
    ((name, error),) = kept_back.items()
    assert (name, type(error)) == (NAME, kind)
    return error.message


# --- shipping ---------------------------------------------------------------------------------


async def test_a_file_stands_on_the_server_under_its_name_alone(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    await ship(connect(), journal, upload)

    assert server.files() == {NAME: CONTENT}
    assert journal.heard == [f"complete {NAME}", f"uploaded {NAME}"]


async def test_several_files_go_in_order_over_one_connection(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path
) -> None:
    await ship(connect(), journal, upload, sealed(tmp_path, OTHER, b"two"))

    assert server.files() == {NAME: CONTENT, OTHER: b"two"}
    assert [heard for heard in journal.heard if "uploaded" in heard] == [
        f"uploaded {NAME}",
        f"uploaded {OTHER}",
    ]
    assert server.connections == 1


async def test_the_importer_never_sees_a_part(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    seen: set[str] = set()

    async def list_names(_files: Files, _name: bytes) -> None:
        seen.update(server.files())

    server.hooks = {"after write": list_names, "before posix_rename": list_names}

    await ship(connect(), journal, upload)

    assert seen == {f".{NAME}.part"}


async def test_the_rename_waits_until_the_journal_knows_that_it_is_tried(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    at_complete: list[set[str]] = []

    async def complete(_name: str) -> None:
        at_complete.append(set(server.files()))

    await connect().ship([upload], journal.uploaded, complete)

    assert at_complete == [{f".{NAME}.part"}]


async def test_a_file_that_stands_there_whole_is_uploaded_already(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(CONTENT)

    await ship(connect(), journal, upload)

    assert journal.heard == [f"uploaded {NAME}"]
    assert "write" not in server.operations


async def test_a_foreign_file_is_never_overwritten_and_holds_up_no_other(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path
) -> None:
    (server.folder / NAME).write_bytes(b"somebody else's")

    kept_back = await ship(connect(), journal, upload, sealed(tmp_path, OTHER, b"two"))

    assert "15 bytes instead of" in told(kept_back, ForeignFile)
    assert server.files() == {NAME: b"somebody else's", OTHER: b"two"}


async def test_a_foreign_file_that_appears_during_the_upload_is_not_overwritten(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    async def appear(_files: Files, _name: bytes) -> None:
        (server.folder / NAME).write_bytes(b"somebody else's")

    server.hooks["before close"] = appear

    kept_back = await ship(connect(), journal, upload)

    assert "15 bytes instead of" in told(kept_back, ForeignFile)
    assert server.files()[NAME] == b"somebody else's"


@pytest.mark.parametrize("leftover", [b"", b"half", CONTENT + b"longer"])
@pytest.mark.parametrize("tried", [False, True])
async def test_a_leftover_of_an_earlier_try_is_sent_anew(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path, *,
    leftover: bytes, tried: bool,
) -> None:  # fmt: skip
    (server.folder / f".{NAME}.part").write_bytes(leftover)

    await ship(connect(), journal, sealed(tmp_path, NAME, tried=tried))

    assert server.files() == {NAME: CONTENT}


async def test_after_a_crash_a_complete_file_is_only_renamed(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path
) -> None:
    (server.folder / f".{NAME}.part").write_bytes(CONTENT)

    await ship(connect(), journal, sealed(tmp_path, NAME, tried=True))

    assert server.files() == {NAME: CONTENT}
    assert "write" not in server.operations


async def test_after_a_crash_a_file_under_neither_name_was_taken_by_the_importer(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path
) -> None:
    await ship(connect(), journal, sealed(tmp_path, NAME, tried=True))

    assert journal.heard == [f"uploaded {NAME}"]
    assert server.files() == {}


async def test_an_importer_that_takes_the_file_at_once_does_no_harm(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    server.hooks["after posix_rename"] = importer_takes

    await ship(connect(), journal, upload)

    assert journal.heard == [f"complete {NAME}", f"uploaded {NAME}"]
    assert server.files() == {}


@pytest.mark.parametrize(
    ("moment", "what_happened", "left_there"),
    [
        ("after", lose_line, {NAME: CONTENT}),
        ("after", importer_takes_and_line_is_lost, {}),  # neither name is there
        ("before", lose_line, {NAME: CONTENT}),  # never reached: renamed again
    ],
)
async def test_a_lost_answer_to_the_rename_is_settled_by_looking_at_both_names(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, *,
    moment: str, what_happened: Hook, left_there: dict[str, bytes],
) -> None:  # fmt: skip
    async def once(files: Files, name: bytes) -> None:
        server.hooks.clear()
        await what_happened(files, name)

    server.hooks[f"{moment} posix_rename"] = once

    await ship(connect(), journal, upload)

    assert server.files() == left_there
    assert journal.heard[-1] == f"uploaded {NAME}"
    assert server.operations.count("write") == BLOCKS  # never sent twice


async def test_a_rename_that_cannot_be_settled_now_is_told_as_an_answer_lost(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    async def go_down(files: Files, name: bytes) -> None:
        assert server.listener
        server.listener.close()
        await lose_line(files, name)

    server.hooks["after posix_rename"] = go_down

    with pytest.raises(AnswerLost, match="may have its name already"):
        await ship(connect(), journal, upload)

    assert journal.heard == [f"complete {NAME}"]


async def test_files_before_a_lost_answer_are_not_shipped_again(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path
) -> None:
    server.hooks["after posix_rename"] = after(1, lose_line)

    await ship(connect(), journal, upload, sealed(tmp_path, OTHER, b"two"))

    assert server.operations.count("write") == BLOCKS + 1
    assert journal.heard.count(f"uploaded {NAME}") == 1


@pytest.mark.parametrize("passed", range(BLOCKS))
async def test_an_upload_that_is_cut_leaves_no_file_and_succeeds_later(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, passed: int
) -> None:
    server.hooks["before write"] = after(passed, lose_line)
    with pytest.raises(Unreachable):
        await ship(connect(), journal, upload)
    assert NAME not in server.files()
    server.hooks.clear()

    await ship(connect(), journal, upload)

    assert server.files() == {NAME: CONTENT}


@pytest.mark.parametrize(
    "error", [asyncssh.SFTPOpUnsupported, asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied]
)
async def test_without_posix_rename_the_plain_one_serves(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, error: Any
) -> None:
    server.hooks["before posix_rename"] = refuse(error, "not supported")

    await ship(connect(), journal, upload)

    assert server.files() == {NAME: CONTENT}


@pytest.mark.parametrize(
    ("hook", "error", "words"),
    [
        ("before rename", asyncssh.SFTPPermissionDenied, "No renaming here"),
        ("before open", asyncssh.SFTPPermissionDenied, "Read-only file system"),
        ("before write", asyncssh.SFTPFailure, "No space left on device"),
    ],
)
async def test_what_the_server_refuses_is_told_in_its_own_words(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, *,
    hook: str, error: Any, words: str,
) -> None:  # fmt: skip
    server.hooks["before posix_rename"] = refuse(asyncssh.SFTPOpUnsupported, "not supported")
    server.hooks[hook] = refuse(error, words)

    assert words in told(await ship(connect(), journal, upload), ServerRefused)

    assert NAME not in server.files()


@pytest.mark.parametrize("moment", ["open", "write", "close", "rename"])
async def test_a_file_that_the_server_refuses_holds_up_no_other(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path, *,
    moment: str,
) -> None:  # fmt: skip
    async def note_the_next(_files: Files, name: bytes) -> None:
        if OTHER.encode() in name:
            server.hooks.pop(f"before {moment}", None)

    server.hooks = {
        "before stat": note_the_next,
        "before posix_rename": refuse(asyncssh.SFTPOpUnsupported, "not supported"),
        f"before {moment}": refuse(asyncssh.SFTPFailure, "No space left on device"),
    }

    kept_back = await ship(connect(), journal, upload, sealed(tmp_path, OTHER, b"two"))

    assert "No space left on device" in told(kept_back, ServerRefused)
    assert server.files()[OTHER] == b"two"
    assert journal.heard[-1] == f"uploaded {OTHER}"
    assert server.connections == 1


async def test_what_was_refused_in_mid_write_takes_no_place_from_others(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    server.hooks["before write"] = after(2, refuse(asyncssh.SFTPFailure, "No space left on device"))

    kept_back = await ship(connect(), journal, upload)

    assert "No space left on device" in told(kept_back, ServerRefused)
    assert server.files() == {}


async def test_what_was_refused_after_a_rename_was_tried_is_not_taken_for_imported(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path
) -> None:
    (server.folder / f".{NAME}.part").write_bytes(b"half")
    upload = sealed(tmp_path, NAME, tried=True)
    server.hooks["before write"] = after(2, refuse(asyncssh.SFTPFailure, "No space left on device"))
    await ship(connect(), journal, upload)
    server.hooks.clear()

    await ship(connect(), journal, upload)

    assert server.files() == {NAME: CONTENT}


async def test_a_rename_refused_because_it_happened_already_is_done(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    server.hooks["after posix_rename"] = refuse(asyncssh.SFTPPermissionDenied, "too late")

    await ship(connect(), journal, upload)

    assert journal.heard[-1] == f"uploaded {NAME}"


async def test_a_file_of_the_wrong_size_is_not_renamed(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    async def swallow(_files: Files, _name: bytes) -> None:
        (server.folder / f".{NAME}.part").write_bytes(b"half")

    server.hooks["after close"] = swallow

    kept_back = await ship(connect(), journal, upload)

    assert f"holds 4 of {len(CONTENT)} bytes" in told(kept_back, ServerRefused)
    assert NAME not in server.files()
    assert journal.heard == []


async def test_what_the_server_refuses_at_the_end_of_a_file_is_heard(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    server.hooks["after close"] = refuse(asyncssh.SFTPFailure, "Disk quota exceeded")

    kept_back = await ship(connect(), journal, upload)

    assert "Disk quota exceeded" in told(kept_back, ServerRefused)
    assert NAME not in server.files()
    assert journal.heard == []
    assert server.operations.count("close") == 1


@pytest.mark.parametrize("way", ["posix_rename", "rename"])
async def test_a_rename_that_is_said_to_be_done_and_is_not_is_no_upload(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, way: str
) -> None:
    lie_about(server, way)

    kept_back = await ship(connect(), journal, upload)

    assert "says it renamed" in told(kept_back, ServerRefused)
    assert server.files() == {f".{NAME}.part": CONTENT}
    assert journal.heard == [f"complete {NAME}"]


async def test_a_missing_folder_is_told_and_proves_nothing(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path
) -> None:
    agent = connect(directory="/elsewhere")

    with pytest.raises(ServerRefused, match=r"sftp\.directory"):
        await ship(agent, journal, sealed(tmp_path, NAME, tried=True))
    with pytest.raises(ServerRefused, match=r"sftp\.directory"):
        await agent.look([NAME])

    assert journal.heard == []


async def test_a_folder_that_may_not_be_looked_at_is_told(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    server.hooks["before stat"] = refuse(asyncssh.SFTPPermissionDenied, "Not yours")

    with pytest.raises(ServerRefused, match="Not yours"):
        await ship(connect(), journal, upload)


async def test_a_file_in_place_of_the_folder_is_told(server: FakeServer, connect: Connect) -> None:
    (server.root / "plain").touch()

    with pytest.raises(ServerRefused, match="it is a file"):
        await connect(directory="/plain").look([NAME])


async def test_a_file_missing_from_the_spool_is_no_fault_of_the_server_and_holds_up_no_other(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path
) -> None:
    upload.path.unlink()

    kept_back = await ship(connect(), journal, upload, sealed(tmp_path, OTHER, b"two"))

    assert "No such file" in told(kept_back, SpoolProblem)
    assert server.files() == {OTHER: b"two"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CONTENT[:-1],
        CONTENT[:-1] + b"?",
        b"?" + CONTENT[1:],
        CONTENT + b"longer",
        CONTENT + CONTENT[: len(CONTENT) // BLOCKS],
    ],
)
@pytest.mark.parametrize("tried", [False, True])
async def test_a_file_that_was_changed_in_the_spool_gets_no_name_and_never_looks_complete(
    server: FakeServer,
    connect: Connect,
    journal: Journal,
    upload: Upload,
    tmp_path: Path,
    content: bytes,
    tried: bool,
) -> None:
    (server.folder / f".{NAME}.part").write_bytes(b"of an earlier try")
    upload.path.write_bytes(content)
    changed = replace(upload, rename_tried=tried)

    kept_back = await ship(connect(), journal, changed, sealed(tmp_path, OTHER, b"two"))

    assert "was changed in the spool" in told(kept_back, ChangedFile)
    assert server.files()[OTHER] == b"two"
    assert len(server.files().pop(f".{NAME}.part", b"")) < upload.bytes
    upload.path.write_bytes(CONTENT)
    assert await ship(connect(), journal, changed) == {}
    assert server.files() == {NAME: CONTENT, OTHER: b"two"}


async def test_a_journal_that_cannot_be_written_stops_before_the_rename(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    async def fail(_name: str) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        await connect().ship([upload], journal.uploaded, fail)

    assert set(server.files()) == {f".{NAME}.part"}


# --- looking, taking back, checking -----------------------------------------------------------


async def test_looking_gives_sizes_and_none_for_what_is_gone(
    server: FakeServer, connect: Connect
) -> None:
    (server.folder / NAME).write_bytes(b"four")

    assert await connect().look([NAME, OTHER]) == {NAME: 4, OTHER: None}


@pytest.mark.parametrize("there", [NAME, f".{NAME}.part"])
async def test_a_file_that_is_taken_back_is_out_of_every_importers_reach(
    server: FakeServer, connect: Connect, tmp_path: Path, there: str
) -> None:
    (server.folder / there).write_bytes(CONTENT)
    upload, agent = sealed(tmp_path, NAME, tried=True), connect()

    assert await agent.take_back(upload)
    assert await agent.take_back(upload)

    assert server.files() == {f".{NAME}.withdrawn": CONTENT}


async def test_a_file_that_the_importer_took_cannot_be_taken_back(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    assert not await connect().take_back(upload)


async def test_an_importer_that_is_quicker_than_a_person_has_the_file(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(CONTENT)

    async def take(_files: Files, _name: bytes) -> None:
        (server.folder / NAME).unlink(missing_ok=True)

    server.hooks["before posix_rename"] = take

    assert not await connect().take_back(upload)


async def test_a_lost_answer_to_taking_back_is_settled_by_asking_again(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(CONTENT)
    server.hooks["after posix_rename"] = lose_line
    agent = connect()
    with pytest.raises(Unreachable):
        await agent.take_back(upload)
    server.hooks.clear()

    assert await agent.take_back(upload)


async def test_somebody_elses_file_is_not_taken_back(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(b"somebody else's")

    with pytest.raises(ForeignFile):
        await connect().take_back(upload)

    assert server.files() == {NAME: b"somebody else's"}


async def test_a_file_that_may_not_be_taken_back_is_told(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(CONTENT)
    for operation in ("posix_rename", "rename"):
        server.hooks[f"before {operation}"] = refuse(asyncssh.SFTPPermissionDenied, "Keep off")

    with pytest.raises(ServerRefused, match="Keep off"):
        await connect().take_back(upload)

    assert server.files() == {NAME: CONTENT}


async def test_a_file_that_is_said_to_be_taken_back_and_is_not_is_told(
    server: FakeServer, connect: Connect, upload: Upload
) -> None:
    (server.folder / NAME).write_bytes(CONTENT)
    lie_about(server, "posix_rename")

    with pytest.raises(ServerRefused, match="says it renamed"):
        await connect().take_back(upload)

    assert server.files() == {NAME: CONTENT}


async def test_cleaning_removes_what_is_left_and_never_the_file_itself(
    server: FakeServer, connect: Connect
) -> None:
    for name in (NAME, f".{NAME}.part", f".{NAME}.withdrawn"):
        (server.folder / name).touch()
    agent = connect()

    await agent.clean([NAME])
    await agent.clean([NAME])

    assert set(server.files()) == {NAME}


async def test_what_may_not_be_removed_is_told(server: FakeServer, connect: Connect) -> None:
    server.hooks["before remove"] = refuse(asyncssh.SFTPPermissionDenied, "Keep off")

    with pytest.raises(ServerRefused, match="Keep off"):
        await connect().clean([NAME])


async def test_the_check_passes_all_steps_and_leaves_nothing(
    server: FakeServer, connect: Connect
) -> None:
    findings = await connect().check()

    assert [(row.step, row.good) for row in findings] == [
        ("connect", True),
        ("host key", True),
        ("login", True),
        ("folder", True),
        ("write", True),
    ]
    assert server.files() == {}


async def test_the_check_ends_at_the_first_step_that_fails(
    server: FakeServer, connect: Connect, tmp_path: Path, free_port: int
) -> None:
    async def last(agent: SftpServer) -> Finding:
        return (await agent.check())[-1]

    refused = refuse(asyncssh.SFTPFailure, "Read-only file system")

    assert (await last(connect(port=free_port))).step == "connect"
    assert (await last(connect(known_hosts_file=tmp_path / "none"))).step == "host key"
    assert (await last(connect(password=lambda: "wrong"))).step == "login"
    assert (await last(connect(directory="/elsewhere"))).step == "folder"
    server.hooks["before open"] = refused
    failed = await last(connect())
    assert (failed.step, failed.good) == ("write", False)
    assert "Read-only file system" in failed.words


# --- who is let in ----------------------------------------------------------------------------


async def test_a_wrong_password_halts_with_clear_words(
    server: FakeServer, connect: Connect
) -> None:
    with pytest.raises(NotAuthorised, match=r"refused the login.*sftp\.username") as caught:
        await connect(password=lambda: "hunter2").look([NAME])

    assert "hunter2" not in str(caught.value)


async def test_a_password_that_has_expired_is_told(server: FakeServer, connect: Connect) -> None:
    async def wants_a_new_one(_files: Files, _name: bytes) -> None:
        raise asyncssh.PasswordChangeRequired("Choose a new password")

    server.hooks["login"] = wants_a_new_one

    with pytest.raises(NotAuthorised, match="has expired"):
        await connect().look([NAME])


async def test_a_corrected_password_serves_at_the_next_connection(
    server: FakeServer, connect: Connect
) -> None:
    passwords = ["wrong", server.password]
    agent = connect(password=lambda: passwords.pop(0))
    with pytest.raises(NotAuthorised):
        await agent.look([])

    assert await agent.look([NAME]) == {NAME: None}


@pytest.mark.parametrize("error", [AgentError("Run: chmod 600 x"), PermissionError(13, "no")])
async def test_a_secret_that_cannot_be_read_halts_like_a_wrong_one(
    server: FakeServer, connect: Connect, error: Exception
) -> None:
    def fail() -> str:
        raise error

    with pytest.raises(NotAuthorised, match="login cannot be read"):
        await connect(password=fail).look([])


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
async def test_a_private_key_logs_in(
    server: FakeServer, connect: Connect, tmp_path: Path, keys: Any, algorithm: str
) -> None:
    place = tmp_path / "id"
    # Not asyncssh's own format: of its ECDSA keys, paramiko reads every second one only.
    form = "openssh" if algorithm == "ssh-ed25519" else "pkcs1-pem"
    place.write_bytes(keys[algorithm].export_private_key(form))
    server.client_key = keys[algorithm].export_public_key().decode()

    assert await connect(password=None, private_key_file=lambda: place).look([]) == {}


async def test_a_key_that_the_server_does_not_know_is_refused(
    server: FakeServer, connect: Connect, tmp_path: Path, keys: Any
) -> None:
    place = tmp_path / "id"
    keys["ssh-ed25519"].write_private_key(place)
    server.client_key = keys["ssh-rsa"].export_public_key().decode()

    with pytest.raises(NotAuthorised, match="refused the login"):
        await connect(password=None, private_key_file=lambda: place).look([])


async def test_a_server_that_wants_a_key_says_so_to_a_password(
    server: FakeServer, connect: Connect, keys: Any
) -> None:
    server.client_key = keys["ssh-rsa"].export_public_key().decode()

    with pytest.raises(NotAuthorised, match="does not allow this way to log in"):
        await connect().look([])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place, key: None, "cannot be read"),
        (lambda place, key: place.mkdir(), "Is a directory. Name a file"),
        (lambda place, key: place.write_text("not a key"), "no private key that can be used"),
        (
            lambda place, key: place.write_bytes(key.export_private_key("pkcs8-pem")),
            "ssh-keygen -p",
        ),
        (
            lambda place, key: place.write_bytes(
                key.export_private_key(passphrase="x", rounds=1, ignore_few_rounds=True)
            ),
            "has a passphrase",
        ),
        (
            lambda place, key: place.write_bytes(
                key.export_private_key("pkcs8-pem", passphrase="x")
            ),
            "has a passphrase",
        ),
    ],
)
async def test_a_private_key_file_that_is_no_use_halts_with_the_reason(
    server: FakeServer, connect: Connect, tmp_path: Path, keys: Any, *, make: Any, words: str
) -> None:
    place = tmp_path / "id"
    make(place, keys["ssh-rsa"])

    with pytest.raises(NotAuthorised, match=words):
        await connect(password=None, private_key_file=lambda: place).look([])


def test_a_login_without_any_secret_is_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="password or a private key"):
        connect(password=None)


# --- which server it is -----------------------------------------------------------------------


async def test_an_unknown_server_gets_no_login_and_no_file(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, known_hosts: Path
) -> None:
    agent = connect()
    known_hosts.unlink()

    with pytest.raises(HostKeyChanged, match="No host key is pinned") as caught:
        await ship(agent, journal, upload)

    assert public(server.keys[0]).fingerprint in str(caught.value)
    assert server.logins == []
    assert not known_hosts.exists()  # never accepted by itself


@pytest.mark.parametrize("other", ["same algorithm", "ecdsa-sha2-nistp256"])
async def test_a_changed_key_is_told_with_both_fingerprints(
    server: FakeServer, connect: Connect, known_hosts: Path, keys: Any, other: str
) -> None:
    pinned = public(keys.get(other) or asyncssh.generate_private_key("ssh-ed25519"))
    agent = connect()
    known_hosts.unlink()
    trust(known_hosts, "127.0.0.1", server.port, pinned)

    with pytest.raises(HostKeyChanged, match="host-key trust") as caught:
        await agent.look([])

    assert pinned.fingerprint in str(caught.value)
    assert public(server.keys[0]).fingerprint in str(caught.value)
    assert server.logins == []


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
async def test_of_several_keys_the_server_shows_the_pinned_kind(
    server: FakeServer, connect: Connect, known_hosts: Path, keys: Any, algorithm: str
) -> None:
    await server.stop()
    server.keys = list(keys.values())
    await server.start()
    agent = connect()
    known_hosts.unlink()
    trust(known_hosts, "127.0.0.1", server.port, public(keys[algorithm]))

    assert await agent.look([NAME]) == {NAME: None}


async def test_pinned_keys_that_cannot_be_read_trust_nobody(
    server: FakeServer, connect: Connect, known_hosts: Path
) -> None:
    agent = connect()
    known_hosts.write_bytes(b"\xff\xfe")

    with pytest.raises(HostKeyChanged, match="cannot be read"):
        await agent.look([])


async def test_the_host_key_is_shown_without_a_login(server: FakeServer, keys: Any) -> None:
    [shown] = await shown_keys("127.0.0.1", server.port, PATIENCE_S)

    assert shown == public(keys["ssh-ed25519"])
    assert shown.fingerprint == keys["ssh-ed25519"].get_fingerprint()
    assert server.logins == []


async def test_all_kinds_are_shown_and_the_one_that_a_login_looks_at_comes_first(
    server: FakeServer, keys: Any
) -> None:
    await server.stop()
    server.keys = list(keys.values())
    await server.start()
    place = ("127.0.0.1", server.port, PATIENCE_S)
    ed25519, ecdsa, rsa = (public(key) for key in server.keys)
    former = HostKey("ssh-rsa", "AAAA")

    assert await shown_keys(*place) == [ed25519, ecdsa, rsa]
    assert await shown_keys(*place, [ecdsa]) == [ecdsa, ed25519, rsa]
    assert await shown_keys(*place, [former]) == [rsa, ed25519, ecdsa]
    assert server.logins == []


def test_a_trusted_key_is_listed_once(known_hosts: Path, keys: Any) -> None:
    key = public(keys["ssh-ed25519"])

    trust(known_hosts, "Sftp.Example.Test", 22, key)
    trust(known_hosts, "sftp.example.test", 22, key)

    assert known_hosts.read_text() == f"sftp.example.test {key.algorithm} {key.base64}\n"
    assert pinned_keys(known_hosts, "SFTP.example.test", 22) == [key]


def test_another_port_is_another_server(known_hosts: Path, keys: Any) -> None:
    trust(known_hosts, "h", 2222, public(keys["ssh-ed25519"]))

    assert known_hosts.read_text().startswith("[h]:2222 ")
    assert pinned_keys(known_hosts, "h", 22) == []


def test_a_new_key_replaces_the_server_s_former_ones_of_every_kind_and_no_other_server_s(
    known_hosts: Path, keys: Any
) -> None:
    old, new = (public(asyncssh.generate_private_key("ssh-ed25519")) for _ in range(2))
    rsa = public(keys["ssh-rsa"])
    known_hosts.write_text(
        f"# kept\nh,other {old.algorithm} {old.base64} a comment\n"
        f"h {rsa.algorithm} {rsa.base64}\nh {old.algorithm} {old.base64}\nbroken line\n"
    )

    trust(known_hosts, "h", 22, new)

    assert pinned_keys(known_hosts, "h", 22) == [new]
    assert pinned_keys(known_hosts, "other", 22) == [old]
    assert "# kept\n" in known_hosts.read_text()
    assert "broken line\n" in known_hosts.read_text()


SOMEBODY = (4321, 8765)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_pins_stays_the_service_s_file(known_hosts: Path, keys: Any) -> None:
    known_hosts.write_text("# kept\n")
    known_hosts.chmod(0o600)
    os.chown(known_hosts, *SOMEBODY)

    trust(known_hosts, "h", 22, public(keys["ssh-rsa"]))

    facts = known_hosts.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (*SOMEBODY, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_new_file_of_pins_belongs_to_whom_its_folder_belongs(tmp_path: Path, keys: Any) -> None:
    folder = tmp_path / "till-agent"
    folder.mkdir()
    os.chown(folder, *SOMEBODY)

    trust(folder / "known_hosts", "h", 22, public(keys["ssh-rsa"]))

    facts = (folder / "known_hosts").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (*SOMEBODY, 0o644)


def test_the_mode_that_an_administrator_chose_stays(known_hosts: Path, keys: Any) -> None:
    known_hosts.write_text("# kept\n")
    known_hosts.chmod(0o640)

    trust(known_hosts, "h", 22, public(keys["ssh-rsa"]))

    assert known_hosts.stat().st_mode & 0o777 == 0o640


def test_hashed_names_are_understood(known_hosts: Path, keys: Any) -> None:
    key, salt = public(keys["ssh-ed25519"]), b"s" * 20
    digest = hmac.new(salt, b"h", hashlib.sha1).digest()
    hashed = "|".join(base64.b64encode(part).decode() for part in (salt, digest))
    known_hosts.write_text(f"|1|{hashed} {key.algorithm} {key.base64}\n")

    assert pinned_keys(known_hosts, "h", 22) == [key]
    assert pinned_keys(known_hosts, "other", 22) == []


def test_a_revoked_key_is_not_pinned(known_hosts: Path, keys: Any) -> None:
    key = public(keys["ssh-ed25519"])
    line = f"h {key.algorithm} {key.base64}\n"
    known_hosts.write_text(f"{line}@revoked {line}@cert-authority {line}")

    assert pinned_keys(known_hosts, "h", 22) == []


async def test_a_server_with_a_revoked_key_is_told_with_the_line(
    server: FakeServer, connect: Connect, known_hosts: Path
) -> None:
    key = public(server.keys[0])
    agent = connect()
    with known_hosts.open("a") as file:
        file.write(f"@revoked * {key.algorithm} {key.base64}\n")

    with pytest.raises(HostKeyChanged, match=f"is revoked, {re.escape(str(key))}, in line 2 of"):
        await agent.look([])

    assert server.logins == []


# --- never stuck ------------------------------------------------------------------------------

SHORT_S = 0.8  # long enough for a key exchange on a busy machine


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def silent_server(greeting: bytes) -> AsyncIterator[int]:
    """A listener that says its greeting and then nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writers.append(writer)

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    for writer in writers:
        writer.transport.abort()
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-Tarpit\r\n", b"SSH-2.0-Half"])
async def test_a_server_that_hangs_in_the_key_exchange_is_left(
    connect: Connect, greeting: bytes, known_hosts: Path, keys: Any
) -> None:
    async with silent_server(greeting) as port:
        trust(known_hosts, "127.0.0.1", port, public(keys["ssh-ed25519"]))

        with pytest.raises(Unreachable, match=r"within 0\.8 s while agreeing"):
            await connect(port=port, timeout_s=SHORT_S).look([])
        with pytest.raises(Unreachable):
            await shown_keys("127.0.0.1", port, SHORT_S)


async def test_something_that_is_no_ssh_server_is_told(connect: Connect) -> None:
    async with silent_server(b"HTTP/1.1 400 Bad Request\r\n" * 200) as port:
        with pytest.raises(Unreachable, match="agreeing on keys"):
            await connect(port=port).look([])


@pytest.mark.parametrize(
    ("hook", "doing"),
    [
        ("login", "logging in"),
        ("before stat", "looking for the folder"),
        ("before open", "sending"),
        ("before write", "sending"),
        ("before close", "sending"),
    ],
)
async def test_a_server_that_hangs_at_any_step_is_left(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, hook: str, doing: str
) -> None:
    server.hooks[hook] = forever

    with pytest.raises(Unreachable, match=f"within 0.8 s while {doing}"):
        await ship(connect(timeout_s=SHORT_S), journal, upload)


async def test_a_server_that_stops_reading_in_mid_write_is_left(
    server: FakeServer, connect: Connect, journal: Journal, tmp_path: Path
) -> None:
    async def stop_reading(files: Files, _name: bytes) -> None:
        files.line._transport.pause_reading()
        await asyncio.Event().wait()

    server.hooks["before write"] = stop_reading

    with pytest.raises(Unreachable, match="did not answer"):
        await ship(connect(timeout_s=SHORT_S), journal, sealed(tmp_path, NAME, CONTENT * 20))


async def test_a_server_that_hangs_at_the_rename_is_settled_later(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, tmp_path: Path
) -> None:
    server.hooks["after posix_rename"] = forever

    await ship(connect(timeout_s=SHORT_S), journal, upload)

    assert server.files() == {NAME: CONTENT}
    assert journal.heard[-1] == f"uploaded {NAME}"


async def test_a_slow_transfer_that_makes_progress_is_not_cut(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    async def dawdle(_files: Files, _name: bytes) -> None:
        await asyncio.sleep(0.3)

    server.hooks["before write"] = dawdle  # in all, longer than the limit of a step

    await ship(connect(timeout_s=SHORT_S), journal, upload)

    assert server.files() == {NAME: CONTENT}


@pytest.mark.parametrize("hook", ["login", "before stat", "before write", "after posix_rename"])
async def test_cancelling_ends_the_connection_and_its_threads(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload, hook: str
) -> None:
    reached = asyncio.Event()

    async def hang(_files: Files, _name: bytes) -> None:
        reached.set()
        await asyncio.Event().wait()

    server.hooks[hook] = hang
    shipping = asyncio.create_task(ship(connect(), journal, upload))
    async with asyncio.timeout(PATIENCE_S):
        await reached.wait()

    shipping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await shipping
    await until(lambda: server.lost == server.connections, "the server sees the line go")


async def test_after_a_cancelled_upload_the_next_one_goes_through(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    agent = connect()
    server.hooks["before write"] = forever
    shipping = asyncio.create_task(ship(agent, journal, upload))
    await until(lambda: "write" in server.operations, "the first write")
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    server.hooks.clear()

    await ship(agent, journal, upload)

    assert server.files() == {NAME: CONTENT}


async def test_a_server_that_is_down_is_unreachable(connect: Connect, free_port: int) -> None:
    with pytest.raises(Unreachable, match="refuses connections"):
        await connect(port=free_port).look([])


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
async def test_a_name_that_nobody_knows_is_unreachable(connect: Connect, host: str) -> None:
    with pytest.raises(Unreachable, match="The name of"):
        await connect(host=host).look([])


async def test_a_session_that_the_server_does_not_open_is_told(
    server: FakeServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "__init__", _no_files)

    with pytest.raises((ServerRefused, NotAuthorised, Unreachable), match="SFTP"):
        await connect().look([])


def _no_files(*_: Any) -> None:
    raise asyncssh.SFTPFailure("no files for you")


async def test_two_calls_never_have_two_connections(
    server: FakeServer, connect: Connect, journal: Journal, upload: Upload
) -> None:
    open_at_once: list[int] = []

    async def count(_files: Files, _name: bytes) -> None:
        open_at_once.append(server.connections - server.lost)

    server.hooks["before stat"] = count
    agent = connect()

    await asyncio.gather(ship(agent, journal, upload), agent.look([NAME]), agent.check())

    assert set(open_at_once) <= {1, 2}  # the server may notice the end of the last one late
    assert server.connections == 3


def test_paramiko_is_not_loaded_before_it_is_used() -> None:
    import subprocess
    import sys

    code = "import sys, agent.delivery.batch.sftp; print('paramiko' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    assert found.stdout.strip() == b"False"


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """Sockets that are not closed would be reported when they are collected: collect them now.

    What was there before is left out: to look through all of it would take a quarter of a second.
    """
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


def test_the_temporary_name_matches_no_pattern_of_an_importer() -> None:
    assert not sftp.temporary_name(NAME).endswith("_contacts.xml")
