"""A connection to Engage's SFTP server: one connection, one thread, and a time limit for each step.

Every step has `timeout_s` seconds of its own; each answer of the server in a long step starts them
anew: a slow transfer goes on, a stalled one ends. At the end of a step's time, and when the task is
cancelled, the socket is shut, which is what brings a blocked thread back.

paramiko is imported at first use, here, in `sftp_login.py` and in `sftp_client.py`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agent.delivery.batch.host_keys import HostKey
from agent.delivery.batch.sftp_words import in_words
from agent.errors import AgentError, NotAuthorised, Unreachable

if TYPE_CHECKING:
    import paramiko

Result = TypeVar("Result")

_GRACE_S: Final = 5.0  # for a thread to come back once its socket is shut
MARGIN_S: Final = 5.0  # paramiko's own limits lie behind the watchdog's, so that one decides


# Names of signature algorithms, where they differ from the name of the key that makes them.
_ALGORITHMS_OF_KEY: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


async def shown_keys(
    host: str, port: int, timeout_s: float, pinned: Sequence[HostKey] = ()
) -> list[HostKey]:
    """Ask a server for its keys, one of each kind, without trusting any: no login follows.

    The first is the one that a login looks at which has these `pinned`; there is at least one. A
    server shows one key on a connection, so this takes one more than it has keys.

    Raises Unreachable, ServerRefused, and NotAuthorised when the server speaks only algorithms that
    are no longer safe.
    """
    found: list[HostKey] = []
    while True:
        line = Line(host, port, timeout_s)
        try:
            await line.connect()
            found.append(await line.negotiate(first=pinned, without=found))
        except NotAuthorised:
            # Nothing is agreed on: it has no further kind, or none at all.
            if not found:
                raise
            return found
        finally:
            await line.close()


class Line:
    """One connection: blocking work on one thread, ended from outside by shutting the socket."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.server = f"The SFTP server {host}:{port}"
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._directory_setting = ""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sftp")
        self._socket: socket.socket | None = None
        self._transport: paramiko.Transport | None = None
        self._moved_at = time.monotonic()

    async def connect(self) -> None:
        """Resolve the name and open TCP; no thread of ours is involved.

        A resolver that hangs keeps a thread of the loop until it gives up by itself; we do not wait
        for it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                places = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._socket = await self._connected(places)
        except UnicodeError as error:
            raise Unreachable(
                f"The name of {self.server} is no host name: {error}. Correct sftp.host."
            ) from error
        except OSError as error:
            raise self._in_words(error, "connecting") from error

    async def negotiate(
        self, first: Sequence[HostKey] = (), without: Sequence[HostKey] = ()
    ) -> HostKey:
        """Agree on keys and give the server's; its own proof of having that key is checked.

        A server with several shows one: of a kind that is in `first`, if it has one, and never of a
        kind that is in `without`. Raises NotAuthorised when the server has no other.
        """
        return await self.run("agreeing on keys", lambda: self._negotiate(first, without))

    async def run(self, doing: str, work: Callable[[], Result]) -> Result:
        """Run blocking work on the connection's thread, with the time limit of a step.

        What the libraries raise, whatever it is, becomes a RouteError with `doing` in its words.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            late = await self._is_late(future)
        except asyncio.CancelledError:
            await self._bring_back(future)
            raise
        if late:
            await self._bring_back(future)
            raise Unreachable(
                f"{self.server} did not answer within {self._timeout_s:g} s while {doing}."
            )
        try:
            return future.result()
        except AgentError:
            raise
        except Exception as error:
            raise self._in_words(error, doing) from error

    def moved(self) -> None:
        """Start the step's time anew; called on the thread, when the server has answered."""
        self._moved_at = time.monotonic()

    async def close(self) -> None:
        """End the connection and its threads. Safe after anything."""
        self._shut()
        released = asyncio.get_running_loop().run_in_executor(self._executor, self._release)
        self._executor.shutdown(wait=False)
        await asyncio.wait({released}, timeout=_GRACE_S + MARGIN_S)

    async def _connected(self, places: Sequence[tuple[Any, ...]]) -> socket.socket:
        for last, (family, kind, protocol, _, address) in enumerate(places, start=1 - len(places)):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                # One address that swallows packets must not use up the time of the others.
                async with asyncio.timeout(self._timeout_s / len(places)):
                    await asyncio.get_running_loop().sock_connect(connection, address)
                connection.setblocking(True)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except OSError:
                connection.close()
                if last == 0:
                    raise
            except BaseException:
                connection.close()
                raise
        raise OSError("the name has no address")

    def _negotiate(self, first: Sequence[HostKey], without: Sequence[HostKey]) -> HostKey:
        import paramiko

        # Everything that paramiko logs as an error reaches us as an exception too.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        assert self._socket is not None  # noqa: S101
        transport = self._transport = paramiko.Transport(self._socket)
        limit = self._timeout_s + MARGIN_S
        transport.banner_timeout = transport.handshake_timeout = limit
        transport.auth_timeout = transport.channel_timeout = limit
        options = transport.get_security_options()
        spared = _algorithms(without)
        offered = [name for name in options.key_types if name not in spared]
        if not offered:
            raise paramiko.ssh_exception.IncompatiblePeer("there is no further kind of key")
        wanted = [name for name in _algorithms(first) if name in offered]
        options.key_types = [*wanted, *(name for name in offered if name not in wanted)]
        transport.start_client(timeout=limit)
        key = transport.get_remote_server_key()
        return HostKey(key.get_name(), key.get_base64())

    async def _is_late(self, future: asyncio.Future[Any]) -> bool:
        self._moved_at = time.monotonic()
        while (left := self._moved_at + self._timeout_s - time.monotonic()) > 0:
            done, _ = await asyncio.wait({future}, timeout=left)
            if done:
                return False
        return not future.done()

    async def _bring_back(self, future: asyncio.Future[Any]) -> None:
        self._shut()
        # What the work raises now is only the echo of the shut socket.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({future}, timeout=_GRACE_S)

    def _shut(self) -> None:
        """Shut the socket: whatever blocks on it, in whichever thread, ends. Never blocks."""
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # closed already, or never connected

    def _release(self) -> None:
        if self._transport is not None:
            self._transport.close()
            if self._transport.is_alive():
                self._transport.join(_GRACE_S)
            # Else its timer lives on, as a thread, for as long as a handshake may take.
            self._transport.packetizer.complete_handshake()
        if self._socket is not None:
            self._socket.close()

    def _is_lost(self) -> bool:
        return self._transport is not None and not self._transport.is_active()

    def _in_words(self, error: Exception, doing: str) -> Exception:
        """Give the RouteError for what a library raised; a bug of ours comes back as it is."""
        told = in_words(
            error,
            server=self.server,
            doing=doing,
            setting=self._directory_setting,
            is_lost=self._is_lost(),
        )
        return told or error


def _algorithms(keys: Sequence[HostKey]) -> list[str]:
    """Give the names of the signatures that these kinds of keys make."""
    return [
        name for key in keys for name in _ALGORITHMS_OF_KEY.get(key.algorithm, (key.algorithm,))
    ]
