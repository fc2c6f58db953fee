"""Where the agent listens, and how it takes connections: this machine, with TLS others, a socket.

It accepts by itself, and not by asyncio's server, because accepting must outlive everything: too
many open files, faults of the network, certificates that are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import events
from agent.config import Server as Settings
from agent.intake.connections import RESERVE, Connection, Connections
from agent.tls import Certificate

# So many may wait in the kernel until they are accepted.
_BACKLOG = 1024
# Files that the agent needs for itself: journal, Engage, SFTP, and some to spare.
_OWN_FILES = 64
_FEWEST = 8
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# What is tried again: the address may be freed, or come up, a moment later.
_MAY_PASS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_OTHER_LOOPBACK = {"127.0.0.1": "::1", "::1": "127.0.0.1"}


class Door:
    """A listening socket that is watched for callers; whatever happens, it goes on."""

    def __init__(
        self,
        sock: socket.socket,
        let_in: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
        *,
        rest_s: float = 0.25,
    ) -> None:
        self._sock = sock
        self._let_in = let_in
        self._has_room = has_room
        self._rest_s = rest_s
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._is_troubled = False

    def open(self) -> None:
        """Begin to accept."""
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more, and let the port go."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(RESERVE):  # others of the loop have their turn too
            if not self._has_room():
                return self._rest(0.01)
            try:
                conn, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                return self._give_up_for_now(error)
            self._is_troubled = False
            conn.setblocking(False)
            self._let_in(conn)
        return None

    def _give_up_for_now(self, error: OSError) -> None:
        # The socket stays readable, so without a rest the loop would turn for nothing else.
        if not self._is_troubled:
            self._is_troubled = True
            events.log().error("accept_failed", error=error.strerror)
        self._rest(self._rest_s)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(seconds, self.open)


class Server:
    """All that is listened on: bound last at the start, closed first at the end."""

    def __init__(
        self,
        app: web.Application,
        settings: Settings,
        certificate: Certificate | None = None,
    ) -> None:
        self.app = app
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=3.0)
        self._settings = settings
        self._certificate = certificate
        self._doors: list[Door] = []
        self._arriving: set[asyncio.Task[None]] = set()
        self._connections: Connections | None = None
        self._socket_file: tuple[Path, int] | None = None  # and its inode
        self._other_loopback: str | None = None
        self.port = 0  # the one that is really listened on

    @property
    def connections(self) -> int:
        """Give how many connections are open."""
        return 0 if self._connections is None else self._connections.count()

    @property
    def problem(self) -> str | None:
        """Say what a person should know of where it listens; None if all is well."""
        return self._other_loopback or (self._certificate and self._certificate.problem) or None

    async def start(self, *, patience_s: float = 30.0) -> None:
        """Bind and listen; a port that is taken is tried again, because a reboot may free it.

        Raises OSError once the patience is over, with the path where the Unix socket is to blame,
        and TlsProblem; nothing is listened on then.
        """
        try:
            await self._start(patience_s)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, patience_s: float) -> None:
        if self._certificate is not None:
            self._certificate.context()
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - set by setup()
        self._connections = Connections(
            self._runner.server,
            most=_as_many_as_files(self._settings.max_connections),
            timeout_s=self._settings.caller_timeout_s,
        )
        sock = await self._bound(patience_s)
        self.port = sock.getsockname()[1]
        self._open(sock)
        self._open_other_loopback()
        self._open_socket_file()

    async def stop(self) -> None:
        """Take no more requests and let those under way finish within seconds."""
        while self._doors:
            self._doors.pop().close()
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        self._remove_socket_file()
        await self._runner.cleanup()
        if self._connections is not None:
            self._connections.stop()

    # --- listening ----------------------------------------------------------------------------

    async def _bound(self, patience_s: float) -> socket.socket:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience_s
        while True:
            try:
                return _listen(self._settings.host, self._settings.port)
            except OSError as error:
                if error.errno not in _MAY_PASS or loop.time() >= give_up:
                    raise
                events.log().warning("port_taken", port=self._settings.port, error=error.strerror)
            await asyncio.sleep(0.5)

    def _open_other_loopback(self) -> None:
        """Listen on the other loopback address too: whoever asks for localhost may mean either."""
        host = _OTHER_LOOPBACK.get(self._settings.host)
        if host is None:
            return
        try:
            self._open(_listen(host, self.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # this machine has no IPv6
            events.log().warning("port_taken", port=self.port, error=error.strerror, host=host)
            # With port 0 it is chance, and nobody is told to call there.
            if self._settings.port:
                self._other_loopback = (
                    f"Another program listens on {host}, port {self.port}: a POS that calls "
                    "localhost may talk to that program, and show it its token. Stop it, or let "
                    f"the POS call {self._settings.host}."
                )

    def _open_socket_file(self) -> None:
        path = self._settings.socket
        if path is None:
            return
        try:
            sock = _listen_at(path, int(self._settings.socket_mode, 8), self._settings.socket_group)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        self._socket_file = path, path.lstat().st_ino
        self._open(sock)

    def _remove_socket_file(self) -> None:
        if self._socket_file is None:
            return
        path, inode = self._socket_file
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == inode:  # not what a newer agent put in its place
                path.unlink()

    def _open(self, sock: socket.socket) -> None:
        door = Door(sock, self._let_in, self._has_room)
        door.open()
        self._doors.append(door)

    # --- connections --------------------------------------------------------------------------

    def _has_room(self) -> bool:
        assert self._connections is not None  # noqa: S101 - made before the first door
        return self._connections.has_room(len(self._arriving))

    def _let_in(self, conn: socket.socket) -> None:
        task = asyncio.create_task(self._connect(conn))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, conn: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert self._connections is not None  # noqa: S101 - made before the first door
        room = self._connections
        with contextlib.suppress(OSError):  # a caller who hangs up, or speaks no TLS
            try:
                await loop.connect_accepted_socket(
                    lambda: Connection(room), conn, **self._tls(conn)
                )
            except BaseException:
                conn.close()
                raise

    def _tls(self, conn: socket.socket) -> dict[str, Any]:
        if self._certificate is None or conn.family == socket.AF_UNIX:
            return {}
        seconds = self._settings.caller_timeout_s
        return {
            "ssl": self._certificate.context(),
            "ssl_handshake_timeout": seconds,
            "ssl_shutdown_timeout": seconds,
        }


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::"
    )
    sock.setblocking(False)
    return sock


def _listen_at(path: Path, mode: int, group: str | None) -> socket.socket:
    """Listen on a Unix socket, which is whole and rightly owned before anybody can find it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    beginning = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        beginning.unlink(missing_ok=True)
        os.fchmod(sock.fileno(), 0o600)  # the file is born with it
        sock.bind(os.fspath(beginning))
        if group is not None:
            shutil.chown(beginning, group=group)
        beginning.chmod(mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        beginning.replace(path)  # what a killed agent left there goes
    except BaseException:
        sock.close()
        beginning.unlink(missing_ok=True)
        raise
    return sock


def _as_many_as_files(most: int) -> int:
    """Give how many connections there may be, so that the agent itself has files enough left."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= most + RESERVE + _OWN_FILES:
        return most
    fewer = max(_FEWEST, files - RESERVE - _OWN_FILES)
    events.log().warning("connections_limited", count=fewer, reason=f"{files} files may be open")
    return fewer
