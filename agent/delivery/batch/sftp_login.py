"""A login at Engage's SFTP server: one connection, one thread, and never a stranger.

The only module that imports paramiko, at first use. What the login is good for is said elsewhere:
`sftp.py` sends files, `agent/register` reads some.

Every step has `timeout_s` seconds of its own; each answer of the server in a long step starts them
anew: a slow transfer goes on, a stalled one ends. At the end of a step's time, and when the task is
cancelled, the socket is shut, which is what brings a blocked thread back.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agent.delivery.batch.host_keys import HostKey, pinned_keys
from agent.errors import (
    AgentError,
    HostKeyChanged,
    NotAuthorised,
    RouteError,
    Unreachable,
)

if TYPE_CHECKING:
    import paramiko

Result = TypeVar("Result")


class ServerRefused(RouteError):
    """The SFTP server does not take the file; it stays in the spool and is tried again slowly."""

    code = "ServerRefused"


@dataclass(frozen=True)
class Account:
    """Where to log in, as whom, and the folder that is meant; secrets are read for each login.

    With a private key the password is not used. A secret that cannot be read is NotAuthorised, like
    a wrong one.
    """

    host: str
    port: int
    username: str
    directory: str  # as the login sees it
    timeout_s: float
    password: Callable[[], str] | None
    private_key_file: Callable[[], Path] | None
    known_hosts_file: Path
    directory_setting: str = "sftp.directory"  # its name in the settings, for a person

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.password is None and self.private_key_file is None:
            raise ValueError("a login needs a password or a private key")


@dataclass(frozen=True)
class _Meaning:
    error: type[RouteError]
    words: str  # {server}, {doing}, {said}, {setting}


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
        ServerRefused, "{server} says while {doing}: {said}. Check that {setting} exists."
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

# Names of signature algorithms, where they differ from the name of the key that makes them.
_ALGORITHMS_OF_KEY: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


async def host_key(host: str, port: int, timeout_s: float) -> HostKey:
    """Ask a server for its key, without trusting it: no login follows.

    Raises Unreachable, and NotAuthorised when it speaks only algorithms that are no longer safe.
    """
    line = Line(host, port, timeout_s)
    try:
        await line.connect()
        return await line.negotiate(())
    finally:
        await line.close()


# --- a connection and its thread --------------------------------------------------------------


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
        words = meaning.words.format(
            server=self.server, doing=doing, said=_said(error), setting=self._directory_setting
        )
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


class Login(Line):
    """A connection that has logged in, with the files of one folder."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.host, account.port, account.timeout_s)
        self._account = account
        self._directory_setting = account.directory_setting
        self._client: paramiko.SFTPClient | None = None
        self.passed: list[str] = []  # what each step found: connect, host key, login, folder

    async def open(self) -> None:
        """Connect, compare the host key, log in, and see that the folder is there."""
        await self.connect()
        self.passed.append(f"{self.server} answers.")
        key = await self._verify()
        self.passed.append(f"Its key is the pinned one, {key}.")
        await self.run("logging in", self._log_in)
        self.passed.append(f"The login {self._account.username} is accepted.")
        await self.run("opening the SFTP session", self._open_channel)
        await self.run(f"looking for the folder {self._account.directory}", self._find_folder)
        self.passed.append(f"The folder {self._account.directory} exists.")

    async def _verify(self) -> HostKey:
        account = self._account
        pinned = await self.run(
            "reading the pinned keys",
            lambda: _read_pins(account.known_hosts_file, account.host, account.port),
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
        account = self._account
        if account.private_key_file is not None:
            key = _private_key(account.private_key_file)
            further = self._transport.auth_publickey(account.username, key)
        else:
            assert account.password is not None  # noqa: S101
            password = _secret(account.password)
            further = self._with_password(account.username, password)
        if further:
            raise NotAuthorised(
                f"{self.server} wants a further step to log in ({', '.join(further)}), "
                "which the agent cannot give. Ask for a login without it."
            )

    def _with_password(self, username: str, password: str) -> list[str]:
        import paramiko

        assert self._transport is not None  # noqa: S101
        try:
            return self._transport.auth_password(username, password)
        except paramiko.SSHException as error:
            # What paramiko says when the server asks for another password instead of an answer
            # (RFC 4252, section 8, SSH_MSG_USERAUTH_PASSWD_CHANGEREQ).
            if "Illegal info request" not in str(error):
                raise
            raise NotAuthorised(
                f"{self.server} wants a new password: the one of {username} has expired. Have it "
                "renewed, then put the new one into the file of sftp.password_file."
            ) from error

    def _open_channel(self) -> None:
        import paramiko

        assert self._transport is not None  # noqa: S101
        limit = self._timeout_s + _MARGIN_S
        channel = self._transport.open_session(timeout=limit)
        channel.settimeout(limit)
        channel.invoke_subsystem("sftp")
        try:
            self._client = paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError) as error:
            if not self._transport.is_active():
                raise
            # OpenSSH does so, without a word, to a login whose password has expired.
            raise NotAuthorised(
                f"{self.server} accepted the login {self._account.username} and ended its session "
                "at once. The password may have expired, or the login may not be allowed to use "
                "SFTP. Try it by hand, or ask the server's operator."
            ) from error

    def _is_lost(self) -> bool:
        channel = self._client.get_channel() if self._client else None
        return super()._is_lost() or (channel is not None and channel.closed)

    @property
    def files(self) -> paramiko.SFTPClient:
        """Give the open SFTP session, for work that runs on the connection's thread."""
        assert self._client is not None  # noqa: S101
        return self._client

    def _find_folder(self) -> None:
        mode = self.files.stat(self._account.directory).st_mode
        if mode is not None and not stat.S_ISDIR(mode):
            raise ServerRefused(
                f"{self.server} has no folder {self._account.directory}: it is a file. "
                f"Correct {self._account.directory_setting}."
            )

    def place(self, name: str) -> str:
        """Give where a file of the folder lies."""
        return posixpath.join(self._account.directory, name)


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
