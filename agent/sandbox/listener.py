"""A loopback port that can be closed to callers without being given away.

A refused connection must be refused by the kernel, as on a machine where nothing runs. So the
listening socket really goes away, while a second socket, bound and never listening, keeps the
port: nobody else can take it meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

HOST = "127.0.0.1"
_BACKLOG = 512


class Listener:
    """One port of the sandbox."""

    def __init__(self, on_socket: Callable[[socket.socket], None]) -> None:
        """Hand every accepted socket (non-blocking) to `on_socket`."""
        self.port = 0
        self._on_socket = on_socket
        self._holder: socket.socket | None = None
        self._listening: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether callers are let in."""
        return self._listening is not None

    def hold(self, port: int) -> None:
        """Take the port (0: any free one), still closed to callers.

        Raises:
            OSError: The port is taken.
        """
        if port:
            _refuse_taken(port)
        self._holder = _socket()
        self._holder.bind((HOST, port))
        self.port = self._holder.getsockname()[1]

    def open(self) -> None:
        """Let callers in; harmless when it is open already."""
        if self._listening is not None:
            return
        listening = _socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, self.port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening.fileno(), self._accept, listening)
        self._listening = listening

    def close(self) -> None:
        """Refuse callers from now on; those waiting to be accepted are reset."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None

    def release(self) -> None:
        """Close, and give the port away."""
        self.close()
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BACKLOG):
            try:
                connection, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            self._on_socket(connection)


def close_if_cancelled(task: asyncio.Task[None], connection: socket.socket) -> None:
    """Close an accepted socket whose server was stopped before it took the socket over."""
    if task.cancelled():
        connection.close()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Lets our own two sockets share the port. The kernel gives a share only to sockets of the
    # same user that ask for it too, and it never picks such a port as a free one.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def _refuse_taken(port: int) -> None:
    """Fail if the port is taken; by another sandbox too, which would share it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
