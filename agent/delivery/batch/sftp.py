"""Engage's SFTP server: sealed files go up whole or not at all, and never to a stranger.

Owns the connection and the way a file gets its name there; knows neither the journal nor the spool.
The only module that imports paramiko, at first use and on one thread per connection.

Every step has `timeout_s` seconds of its own. While a file is being sent, each acknowledged block
starts them anew: a slow transfer goes on, a stalled one ends. At the end of a step's time, and when
the task is cancelled, the socket is shut, which is what brings a blocked thread back.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import secrets
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from agent.delivery.batch.host_keys import HostKey, pinned_keys, trust
from agent.delivery.batch.spool import SpoolProblem
from agent.errors import (
    AgentError,
    AnswerLost,
    HostKeyChanged,
    NotAuthorised,
    RouteError,
    Unreachable,
)

if TYPE_CHECKING:
    import paramiko

__all__ = [
    "Finding",
    "ForeignFile",
    "HostKey",
    "ServerRefused",
    "SftpServer",
    "Upload",
    "host_key",
    "pinned_keys",
    "trust",
]

Result = TypeVar("Result")


class ServerRefused(RouteError):
    """The SFTP server does not take the file; it stays in the spool and is tried again slowly."""

    code = "ServerRefused"


class ForeignFile(ServerRefused):
    """Another file stands under the batch's name on the server; it is never overwritten."""

    code = "ForeignFile"

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


@dataclass(frozen=True)
class _Meaning:
    error: type[RouteError]
    words: str  # {server}, {doing}, {said}


# What the libraries raise, by the name of the class or of its nearest listed base (by name, so that
# reading this table does not import paramiko).
_MEANINGS: Final[Mapping[str, _Meaning]] = {
    # The line.
    "gaierror": _Meaning(
        Unreachable, "The name of {server} cannot be resolved. Check the line and sftp.host."
    ),
    "UnicodeError": _Meaning(Unreachable, "The name of {server} is no host name: {said}."),
    "ConnectionRefusedError": _Meaning(
        Unreachable, "{server} refuses connections. Check sftp.host and sftp.port."
    ),
    "TimeoutError": _Meaning(Unreachable, "{server} did not answer in time while {doing}."),
    "EOFError": _Meaning(Unreachable, "{server} closed the connection while {doing}."),
    "OSError": _Meaning(Unreachable, "The line to {server} broke while {doing}: {said}."),
    "SSHException": _Meaning(
        Unreachable, "The connection to {server} failed while {doing}: {said}."
    ),
    # The login, and what no amount of waiting cures.
    "AuthenticationException": _Meaning(
        NotAuthorised,
        "{server} refused the login: {said}. Check sftp.username and the password or key file; "
        "the account may also be locked.",
    ),
    "BadAuthenticationType": _Meaning(
        NotAuthorised,
        "{server} does not allow this way to log in: {said}. Use a password file or a private key, "
        "as the server wants it.",
    ),
    "IncompatiblePeer": _Meaning(
        NotAuthorised,
        "{server} speaks only algorithms that are no longer safe ({said}). "
        "Its operator must update it.",
    ),
    # The server's own answers to a request.
    "FileNotFoundError": _Meaning(
        ServerRefused, "{server} says while {doing}: {said}. Check that sftp.directory exists."
    ),
    "PermissionError": _Meaning(
        ServerRefused, "{server} says while {doing}: {said}. The login needs the right to do so."
    ),
    "status": _Meaning(
        ServerRefused,
        "{server} says while {doing}: {said}. Its disk may be full or the folder read-only.",
    ),
    "ChannelException": _Meaning(
        ServerRefused, "{server} opens no SFTP session: {said}. The login needs the right to it."
    ),
}

_GRACE_S: Final = 5.0  # for a thread to come back once its socket is shut
_MARGIN_S: Final = 5.0  # paramiko's own limits lie behind the watchdog's, so that one decides
_BLOCK_BYTES: Final = 32 * 1024  # what every SFTP server takes at once
_STEPS: Final = ("connect", "host key", "login", "folder", "write")  # of check(), in this order

# Names of signature algorithms, where they differ from the name of the key that makes them.
_ALGORITHMS_OF_KEY: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True)
class Upload:
    """A sealed file to be shipped."""

    path: Path  # in the spool
    name: str  # on the server
    bytes: int
    rename_tried: bool = False  # an earlier try came as far as on_complete()


@dataclass(frozen=True)
class Finding:
    """One row of check()."""

    step: str  # one of: connect, host key, login, folder, write
    good: bool
    words: str  # for a person


class SftpServer:
    """The server of the settings. One connection at a time; secrets are read for each of them.

    `directory` is the import folder as the login sees it. With a private key the password is not
    used. A secret that cannot be read is NotAuthorised, like a wrong one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        directory: str,
        timeout_s: float,
        password: Callable[[], str] | None,
        private_key_file: Callable[[], Path] | None,
        known_hosts_file: Path,
    ) -> None:
        if password is None and private_key_file is None:
            raise ValueError("a login needs a password or a private key")
        self.host = host
        self.port = port
        self.username = username
        self.directory = directory or "."
        self.timeout_s = timeout_s
        self.password = password
        self.private_key_file = private_key_file
        self.known_hosts_file = known_hosts_file
        self._alone = asyncio.Lock()

    async def ship(
        self,
        files: Sequence[Upload],
        on_uploaded: Callable[[str], Awaitable[None]],
        on_complete: Callable[[str], Awaitable[None]],
    ) -> None:
        """Upload files in order over one connection; each gets its name only when it is complete.

        A file goes up under `.<name>.part` (again from its start at every try), its size is
        compared, and then it is renamed. `on_complete(name)` is awaited before the rename: what it
        stores comes back as `rename_tried`, and means that a file which then stands under neither
        name was taken by the importer. `on_uploaded(name)` is awaited once the server holds the
        whole file, or held it. Both may be called again for the same file, by a later call.

        An answer to a rename that gets lost is settled over a second connection. Safe to repeat.

        Raises Unreachable, NotAuthorised, HostKeyChanged, ServerRefused, SpoolProblem (the local
        file cannot be read), AnswerLost (the rename may have happened: ship again with
        rename_tried), and ForeignFile only after all other files have been tried.
        """
        left = list(files)
        foreign: list[ForeignFile] = []
        async with self._alone:
            try:
                await self._ship_at_once(left, foreign, on_uploaded, on_complete)
            except AnswerLost as lost:
                left[0] = replace(left[0], rename_tried=True)
                try:
                    await self._ship_at_once(left, foreign, on_uploaded, on_complete)
                except Unreachable:
                    raise lost from None
        if foreign:
            raise foreign[0]

    async def look(self, names: Sequence[str]) -> dict[str, int | None]:
        """Give the size in bytes of each file, None for one that is not in the folder.

        A folder that is itself missing is ServerRefused: its files were not taken by an importer.
        Raises as ship().
        """
        async with self._alone, self._session() as session:
            return {name: await session.size(name) for name in names}

    async def remove(self, name: str) -> None:
        """Remove a file and its temporary form, and see that it is gone; none is fine.

        Raises as ship().
        """
        async with self._alone, self._session() as session:
            for there in (temporary_name(name), name):
                await session.remove(there)
            if await session.size(name) is not None:
                raise ServerRefused(f"{session.server} says it removed {name}, but it is there.")

    async def check(self) -> list[Finding]:
        """Try every step that an upload needs, up to the first that fails; leaves nothing behind.

        Raises nothing that ship() raises: it becomes the last row.
        """
        async with self._alone:
            session = _Session(self)
            try:
                await session.open()
                await session.try_writing()
            except RouteError as problem:
                failed = Finding(_STEPS[len(session.passed)], False, problem.message)
                return [*session.findings(), failed]
            finally:
                await session.close()
            return session.findings()

    async def _ship_at_once(
        self,
        left: list[Upload],
        foreign: list[ForeignFile],
        on_uploaded: Callable[[str], Awaitable[None]],
        on_complete: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take files off `left` as they are done, over one connection."""
        async with self._session() as session:
            while left:
                try:
                    await _ship_file(session, left[0], on_complete)
                except ForeignFile as problem:
                    foreign.append(problem)
                else:
                    await on_uploaded(left[0].name)
                del left[0]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        session = _Session(self)
        try:
            await session.open()
            yield session
        finally:
            await session.close()


def temporary_name(name: str) -> str:
    """Give the name under which a file is uploaded; no importer's pattern matches it."""
    return f".{name}.part"


async def host_key(host: str, port: int, timeout_s: float) -> HostKey:
    """Ask a server for its key, without trusting it: no login follows.

    Raises Unreachable, and NotAuthorised when it speaks only algorithms that are no longer safe.
    """
    line = _Line(host, port, timeout_s)
    try:
        await line.connect()
        return await line.negotiate(())
    finally:
        await line.close()


async def _ship_file(
    session: _Session, upload: Upload, on_complete: Callable[[str], Awaitable[None]]
) -> None:
    if await session.has_whole(upload):
        return
    temporary = await session.size(temporary_name(upload.name))
    if upload.rename_tried and temporary is None:
        return  # neither name is there: the importer took it
    if not (upload.rename_tried and temporary == upload.bytes):
        await session.send(upload)
    await on_complete(upload.name)
    try:
        await session.rename(upload)
    except Unreachable as lost:
        raise AnswerLost(
            f"{lost.message} The file {upload.name} was complete and may have its name already."
        ) from lost
    except ForeignFile:
        raise
    except ServerRefused:
        # Refused because it happened already, or because the importer is quicker than we.
        if not await session.has_whole(upload):
            raise


# --- a connection and its thread --------------------------------------------------------------


class _Line:
    """One connection: blocking work on one thread, ended from outside by shutting the socket."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.server = f"The SFTP server {host}:{port}"
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
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
        except (OSError, UnicodeError) as error:
            raise self._in_words(error, "connecting") from error

    async def negotiate(self, preferred: Sequence[str]) -> HostKey:
        """Agree on keys and give the server's; its own proof of having that key is checked."""
        return await self.run("agreeing on keys", lambda: self._negotiate(preferred))

    async def run(self, doing: str, work: Callable[[], Result]) -> Result:
        """Run blocking work on the connection's thread, with the time limit of a step.

        What the libraries raise becomes a RouteError with `doing` in its words.
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
        await asyncio.wait({released}, timeout=_GRACE_S + _MARGIN_S)

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

    def _negotiate(self, preferred: Sequence[str]) -> HostKey:
        import paramiko

        # Everything that paramiko logs as an error reaches us as an exception too.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        assert self._socket is not None  # noqa: S101
        transport = self._transport = paramiko.Transport(self._socket)
        limit = self._timeout_s + _MARGIN_S
        transport.banner_timeout = transport.handshake_timeout = limit
        transport.auth_timeout = transport.channel_timeout = limit
        options = transport.get_security_options()
        offered = tuple(options.key_types)
        first = [name for name in preferred if name in offered]
        options.key_types = [*first, *(name for name in offered if name not in first)]
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
        meaning = self._meaning(error)
        if meaning is None:
            return error
        words = meaning.words.format(server=self.server, doing=doing, said=_said(error))
        return meaning.error(words)

    def _meaning(self, error: Exception) -> _Meaning | None:
        names = [kind.__name__ for kind in type(error).__mro__]
        if type(error) is OSError and error.errno is None:
            names = ["status"]  # paramiko has no other sign for the server's other refusals
        name = next((name for name in names if name in _MEANINGS), None)
        if self._is_lost() and name in ("AuthenticationException", "status"):
            name = "EOFError"  # for a line that broke, paramiko raises these two as well
        return _MEANINGS[name] if name else None


def _said(error: Exception) -> str:
    """Give a library's or server's words as one short printable line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:200].rstrip(".") or type(error).__name__


# --- a login and its folder -------------------------------------------------------------------


class _Session(_Line):
    """A connection that has logged in, with the files of one folder."""

    def __init__(self, settings: SftpServer) -> None:
        super().__init__(settings.host, settings.port, settings.timeout_s)
        self._settings = settings
        self._client: paramiko.SFTPClient | None = None
        self.passed: list[str] = []  # what each step found, in the order of _STEPS

    async def open(self) -> None:
        """Connect, compare the host key, log in, and see that the folder is there."""
        await self.connect()
        self.passed.append(f"{self.server} answers.")
        key = await self._verify()
        self.passed.append(f"Its key is the pinned one, {key}.")
        await self.run("logging in", self._log_in)
        self.passed.append(f"The login {self._settings.username} is accepted.")
        await self.run("opening the SFTP session", self._open_channel)
        await self.run(f"looking for the folder {self._settings.directory}", self._find_folder)
        self.passed.append(f"The folder {self._settings.directory} exists.")

    def findings(self) -> list[Finding]:
        """Give a good row for each step that was passed."""
        rows = zip(_STEPS, self.passed, strict=False)
        return [Finding(step, True, words) for step, words in rows]

    async def size(self, name: str) -> int | None:
        """Give a file's size in bytes, None when it is not there."""
        return await self.run(f"looking for {name}", lambda: self._size(name))

    async def has_whole(self, upload: Upload) -> bool:
        """Say whether the final name has that file. Raises ForeignFile when it has another."""
        return await self.run(f"looking for {upload.name}", lambda: self._has_whole(upload))

    async def send(self, upload: Upload) -> None:
        """Write the temporary file, from its start, and compare its size."""
        await self.run(f"sending {upload.name}", lambda: self._send(upload))

    async def rename(self, upload: Upload) -> None:
        """Give a complete temporary file its name, unless a foreign file has it."""
        await self.run(f"renaming {upload.name}", lambda: self._name(upload))

    async def remove(self, name: str) -> None:
        """Remove a file; none is fine."""
        await self.run(f"removing {name}", lambda: self._remove(name))

    async def try_writing(self) -> None:
        """Do with a few bytes what an upload does."""
        name = f".till-agent-{secrets.token_hex(4)}"
        await self.run("writing a small file to try it", lambda: self._try_writing(name))
        self.passed.append("Files can be written, renamed and removed there.")

    async def _verify(self) -> HostKey:
        settings = self._settings
        pinned = await self.run(
            "reading the pinned keys",
            lambda: _read_pins(settings.known_hosts_file, settings.host, settings.port),
        )
        # The server shows one key of several: ask for the kind that is pinned, or else another
        # kind would look like a changed key.
        wanted = [
            name
            for key in pinned
            for name in _ALGORITHMS_OF_KEY.get(key.algorithm, (key.algorithm,))
        ]
        shown = await self.negotiate(wanted)
        if shown not in pinned:
            raise HostKeyChanged(_host_key_words(self.server, pinned, shown))
        return shown

    def _log_in(self) -> None:
        assert self._transport is not None  # noqa: S101
        settings = self._settings
        if settings.private_key_file is not None:
            key = _private_key(settings.private_key_file)
            further = self._transport.auth_publickey(settings.username, key)
        else:
            assert settings.password is not None  # noqa: S101
            password = _secret(settings.password)
            further = self._transport.auth_password(settings.username, password)
        if further:
            raise NotAuthorised(
                f"{self.server} wants a further step to log in ({', '.join(further)}), "
                "which the agent cannot give. Ask for a login without it."
            )

    def _open_channel(self) -> None:
        import paramiko

        assert self._transport is not None  # noqa: S101
        limit = self._timeout_s + _MARGIN_S
        channel = self._transport.open_session(timeout=limit)
        channel.settimeout(limit)
        channel.invoke_subsystem("sftp")
        self._client = paramiko.SFTPClient(channel)

    def _is_lost(self) -> bool:
        channel = self._client.get_channel() if self._client else None
        return super()._is_lost() or (channel is not None and channel.closed)

    @property
    def _files(self) -> paramiko.SFTPClient:
        assert self._client is not None  # noqa: S101
        return self._client

    def _find_folder(self) -> None:
        mode = self._files.stat(self._settings.directory).st_mode
        if mode is not None and not stat.S_ISDIR(mode):
            raise ServerRefused(
                f"{self.server} has no folder {self._settings.directory}: it is a file. "
                "Correct sftp.directory."
            )

    def _place(self, name: str) -> str:
        return posixpath.join(self._settings.directory, name)

    def _size(self, name: str) -> int | None:
        try:
            size = self._files.stat(self._place(name)).st_size
        except FileNotFoundError:
            return None
        if size is None:
            raise ServerRefused(f"{self.server} tells no sizes, so no upload can be checked.")
        return size

    def _has_whole(self, upload: Upload) -> bool:
        size = self._size(upload.name)
        if size not in (None, upload.bytes):
            raise ForeignFile(
                upload.name,
                f"{self.server} has another file {upload.name} already: {size} bytes instead of "
                f"{upload.bytes}. It is not overwritten. Let somebody look at it and remove it.",
            )
        return size is not None

    def _send(self, upload: Upload) -> None:
        temporary = temporary_name(upload.name)
        try:
            source = upload.path.open("rb")
        except OSError as error:
            raise SpoolProblem(f"The till cannot read {upload.path}: {error.strerror}.") from error
        with source, self._files.open(self._place(temporary), "wb") as target:
            # Each block is acknowledged before the next: paramiko's pipelined writes drop the
            # server's refusals, and a batch is small.
            while block := _read(source, upload.path):
                target.write(block)
                self.moved()
        size = self._size(temporary)
        if size != upload.bytes:
            raise ServerRefused(
                f"{self.server} holds {size or 0} of {upload.bytes} bytes of {upload.name}. "
                "Its disk may be full."
            )

    def _name(self, upload: Upload) -> None:
        if not self._has_whole(upload):
            self._rename(temporary_name(upload.name), upload.name)

    def _rename(self, old: str, new: str) -> None:
        places = self._place(old), self._place(new)
        try:
            self._files.posix_rename(*places)
        except FileNotFoundError:
            raise
        except OSError:
            # Not supported, or denied as an extension: paramiko tells neither from a real failure.
            # The plain rename refuses an existing target, so it is safe as the second way.
            if self._is_lost():
                raise
            self._files.rename(*places)

    def _remove(self, name: str) -> None:
        try:
            self._files.remove(self._place(name))
        except FileNotFoundError:
            return

    def _try_writing(self, name: str) -> None:
        first, second = f"{name}.part", f"{name}.done"
        with self._files.open(self._place(first), "wb") as target:
            target.write(b"till-agent\n")
        try:
            self._rename(first, second)
        finally:
            self._remove(first)
        self._remove(second)


def _read(source: BinaryIO, path: Path) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except OSError as error:
        raise SpoolProblem(f"The till cannot read {path}: {error.strerror}.") from error


def _read_pins(known_hosts_file: Path, host: str, port: int) -> list[HostKey]:
    try:
        return pinned_keys(known_hosts_file, host, port)
    except (OSError, UnicodeDecodeError) as error:
        raise HostKeyChanged(
            f"The pinned host keys in {known_hosts_file} cannot be read: {_said(error)}. "
            "Correct the file; until then no server is trusted."
        ) from error


def _host_key_words(server: str, pinned: Sequence[HostKey], shown: HostKey) -> str:
    if not pinned:
        return (
            f"No host key is pinned for {server[0].lower()}{server[1:]}. It shows {shown}. "
            "Compare that with what Voyado tells you, then run: till-agent host-key trust"
        )
    return (
        f"{server} shows another host key than the pinned one: {shown} instead of "
        f"{' or '.join(str(key) for key in pinned)}. Nothing is sent to it. Ask Voyado whether "
        "the key was changed; only if so, run: till-agent host-key trust"
    )


def _secret(read: Callable[[], Result]) -> Result:
    """Read a secret; one that cannot be read halts the route as a wrong one does."""
    try:
        return read()
    except AgentError as error:
        raise NotAuthorised(f"The SFTP login cannot be read. {error.message}") from error
    except (OSError, ValueError) as error:
        # The error's own text could quote the secret.
        raise NotAuthorised(
            f"The SFTP login cannot be read ({type(error).__name__}). Check the secret's file."
        ) from None


def _private_key(private_key_file: Callable[[], Path]) -> paramiko.PKey:
    import paramiko
    from paramiko.pkey import UnknownKeyType

    path = _secret(private_key_file)
    try:
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise NotAuthorised(
            f"The private key file {path} cannot be read: {error.strerror}. Check its owner."
        ) from None
    except (TypeError, paramiko.PasswordRequiredException):
        raise NotAuthorised(
            f"The private key in {path} has a passphrase, which nobody is there to type. "
            "Use one without, readable by the agent only."
        ) from None
    except (ValueError, paramiko.SSHException, UnknownKeyType):
        raise NotAuthorised(
            f"The file {path} holds no private key that can be used: Ed25519, ECDSA or RSA, "
            "as ssh-keygen writes it."
        ) from None
