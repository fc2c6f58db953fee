"""The SFTP server to which import files are uploaded, with its faults.

Rooted in a folder; everything outside it is out of reach. asyncssh is an optional package
(`pip install 'till-agent[sandbox]'`).
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import os
import posixpath
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from agent.sandbox.faults import Fault, Faults
from agent.sandbox.importer import Importer
from agent.sandbox.listener import HOST, Listener, close_if_cancelled

_ALGORITHM = "ssh-ed25519"
_WRITING = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_TRUNC | asyncssh.FXF_APPEND
_LOGGED_OPERATIONS = 10_000
_VERSION_LINE = b"SSH-2.0-Sandbox\r\n"
_WRITE_FAULTS = {"hang_write", "cut", "disk_full"}


@dataclass(frozen=True)
class SftpOperation:
    """One thing a client did."""

    at: float  # seconds since the epoch
    operation: str  # login, login_refused, open_write, close, rename, remove
    path: str = ""  # as the client named it; for rename the new name


class SftpServer:
    """The SFTP server on its port."""

    def __init__(
        self,
        root: Path,
        import_directory: str,
        export_directory: str,
        faults: Faults,
        importer: Importer,
        *,
        username: str,
        password: str,
        host_key: asyncssh.SSHKey,
        authorized_keys: Iterable[str] = (),
    ) -> None:
        self.root = root
        self.import_directory = import_directory.encode()
        self.export_directory = export_directory.encode()
        self.faults = faults
        self.importer = importer
        self.username = username
        self.password = password
        self.host_key = host_key
        self.operations: deque[SftpOperation] = deque(maxlen=_LOGGED_OPERATIONS)
        self.listener = Listener(self._take_socket)
        self.stopping = asyncio.Event()
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._authorized = {_key_data(line) for line in authorized_keys}
        self._mute: set[asyncio.BaseTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._other_host_key: asyncssh.SSHKey | None = None

    def start(self, port: int) -> None:
        """Take the port and serve."""
        self.listener.hold(port)
        self.listener.open()

    async def stop(self) -> None:
        """End at once, whatever hangs."""
        self.stopping.set()
        self.listener.release()
        connections = list(self.connections)
        self.cut_connections()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in connections:
            await connection.wait_closed()

    def cut_connections(self) -> None:
        """Cut every open connection, as when the line goes down."""
        for connection in list(self.connections):
            connection.abort()
        for transport in list(self._mute):
            _abort(transport)

    def authorize(self, public_key: str) -> None:
        """Let in whoever has this key: a line as in `authorized_keys`."""
        self._authorized.add(_key_data(public_key))

    def is_authorized(self, key: asyncssh.SSHKey) -> bool:
        """Return whether somebody with this key is let in."""
        return key.public_data in self._authorized

    def log(self, operation: str, path: bytes = b"") -> None:
        """Remember what a client did."""
        self.operations.append(SftpOperation(time.time(), operation, path.decode(errors="replace")))

    def take(self, *kinds: str) -> Fault | None:
        """Return the fault of these kinds that hits now."""
        return self.faults.take("sftp", kinds)

    def _take_socket(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: close_if_cancelled(done, connection))

    async def _serve(self, connection: socket.socket) -> None:
        if self.take("hang_kex"):
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: _Mute(self._mute), connection)
            return
        key = self._changed_host_key() if self.take("host_key_changed") else self.host_key
        try:
            await asyncssh.run_server(
                connection,
                server_host_keys=[key],
                server_factory=lambda: _Login(self),
                sftp_factory=lambda channel: _Session(self, channel),
                allow_scp=False,
            )
        except (asyncssh.Error, OSError, TimeoutError):
            connection.close()  # the client went away or was refused; it has been told

    def _changed_host_key(self) -> asyncssh.SSHKey:
        if self._other_host_key is None:
            self._other_host_key = asyncssh.generate_private_key(_ALGORITHM)
        return self._other_host_key


class _Mute(asyncio.Protocol):
    """Says its version and nothing more."""

    def __init__(self, open_ones: set[asyncio.BaseTransport]) -> None:
        self._open_ones = open_ones
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._open_ones.add(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_VERSION_LINE)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._open_ones.discard(self._transport)


class _Login(asyncssh.SSHServer):
    """Lets in by password or public key."""

    def __init__(self, server: SftpServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.connections.add(conn)
        if not self._server.listener.is_open:
            conn.abort()  # it was accepted just before the line went down

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._server.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def auth_completed(self) -> None:
        self._server.log("login")

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        right = username == self._server.username and hmac.compare_digest(
            password.encode(), self._server.password.encode()
        )
        return self._let_in(right)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        right = username == self._server.username and self._server.is_authorized(key)
        return self._let_in(right)

    def _let_in(self, right: bool) -> bool:
        if right and not self._server.take("refuse_login"):
            return True
        self._server.log("login_refused")
        return False


class _Session(asyncssh.SFTPServer):
    """One client's view of the folder."""

    def __init__(self, server: SftpServer, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=os.fsencode(server.root))
        self._server = server
        self._written: dict[int, bytes] = {}  # id of the open file -> its path
        self._broken: dict[int, Fault] = {}  # id of the open file -> the fault that hit it

    def map_path(self, path: bytes) -> bytes:
        if _is_in(self._server.import_directory, path) and self._server.take("folder_missing"):
            raise asyncssh.SFTPNoSuchFile("No such file")
        if _is_in(self._server.export_directory, path) and self._server.take("export_missing"):
            raise asyncssh.SFTPNoSuchFile("No such file")
        return super().map_path(path)

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if self._server.take("hang_open"):
            await self._server.stopping.wait()
        if pflags & _WRITING:
            self._refuse_writing()
        opened = super().open(path, pflags, attrs)
        if pflags & _WRITING:
            self._written[id(opened)] = path
            self._server.log("open_write", path)
        return opened

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        fault = self._server.faults.take(
            "sftp",
            {"hang_read", "cut_read"},
            where=lambda each: offset + size > each.number("after_bytes"),
        )
        if fault is not None:
            if fault.name == "cut_read":
                self.connection.abort()
            await self._server.stopping.wait()
        content: Any = super().read(file_obj, offset, size)
        return bytes(content)

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        fault = self._broken.get(id(file_obj)) or self._server.faults.take(
            "sftp",
            _WRITE_FAULTS,
            where=lambda each: offset + len(data) > each.number("after_bytes"),
        )
        if fault is None:
            return self._write(file_obj, offset, data)
        # Clients send many pieces ahead: what follows in this file meets the same fate.
        self._broken[id(file_obj)] = fault
        self._write(file_obj, offset, data[: max(0, int(fault.number("after_bytes")) - offset)])
        if fault.name == "disk_full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault.name == "cut":
            self.connection.abort()
        await self._server.stopping.wait()
        return len(data)

    def _write(self, file_obj: object, offset: int, data: bytes) -> int:
        written: Any = super().write(file_obj, offset, data) if data else 0
        return int(written)

    async def close(self, file_obj: object) -> None:
        super().close(file_obj)
        is_broken = self._broken.pop(id(file_obj), None) is not None
        path = self._written.pop(id(file_obj), None)
        if path is not None and not is_broken:
            self._server.log("close", path)
            await self._import_at_once(path)

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        self._refuse_renaming()
        super().rename(oldpath, newpath)
        await self._after_rename(newpath)

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        if self._server.take("no_posix_rename"):
            raise asyncssh.SFTPOpUnsupported("posix-rename is not supported")
        self._refuse_renaming()
        super().posix_rename(oldpath, newpath)
        await self._after_rename(newpath)

    def remove(self, path: bytes) -> None:
        self._refuse_writing()
        super().remove(path)
        self._server.log("remove", path)

    def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        self._refuse_writing()
        super().mkdir(path, attrs)

    def rmdir(self, path: bytes) -> None:
        self._refuse_writing()
        super().rmdir(path)

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        """Refuse: a link could lead out of the folder."""
        raise asyncssh.SFTPOpUnsupported("Links are not supported")

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        """Refuse: a link could lead out of the folder."""
        raise asyncssh.SFTPOpUnsupported("Links are not supported")

    def _refuse_writing(self) -> None:
        if self._server.take("read_only"):
            raise asyncssh.SFTPPermissionDenied("Permission denied")

    def _refuse_renaming(self) -> None:
        if self._server.take("rename_denied", "read_only"):
            raise asyncssh.SFTPPermissionDenied("Permission denied")

    async def _after_rename(self, newpath: bytes) -> None:
        self._server.log("rename", newpath)
        await self._import_at_once(newpath)
        if self._server.take("lose_rename_answer"):
            self.connection.abort()

    async def _import_at_once(self, path: bytes) -> None:
        local = Path(os.fsdecode(self.map_path(path)))
        if not local.name.endswith("_contacts.xml"):
            return
        if self._server.faults.take("importer", {"takes_at_once"}):
            await self._server.importer.take(local)


def load_host_key(path: Path) -> asyncssh.SSHKey:
    """Return the key in this file; made there, readable by its owner only, if there is none."""
    if path.exists():
        return asyncssh.read_private_key(path)
    key = asyncssh.generate_private_key(_ALGORITHM)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key())
    return key


def public_line(key: asyncssh.SSHKey) -> str:
    """Return `ssh-ed25519 AAAA…`, without a comment."""
    return " ".join(key.export_public_key().decode().split()[:2])


def known_hosts_line(key: asyncssh.SSHKey, port: int) -> str:
    """Return the line for known_hosts: `[127.0.0.1]:port ssh-ed25519 AAAA…`."""
    return f"[{HOST}]:{port} {public_line(key)}"


def _key_data(line: str) -> bytes:
    return asyncssh.import_public_key(line).public_data


def _is_in(folder: bytes, path: bytes) -> bool:
    full = posixpath.normpath(posixpath.join(b"/", path))
    return full == folder or full.startswith(folder.rstrip(b"/") + b"/")


def _abort(transport: asyncio.BaseTransport) -> None:
    if isinstance(transport, asyncio.Transport):
        transport.abort()
