"""A login at Engage's SFTP server: never at a stranger's.

What the login is good for is said elsewhere: `sftp.py` sends files, `agent/register` reads some.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.delivery.batch.host_keys import HostKey, HostKeyProblem, pinned_keys, revoked_in_line
from agent.delivery.batch.sftp_line import MARGIN_S, Line
from agent.delivery.batch.sftp_words import ServerRefused
from agent.errors import AgentError, HostKeyChanged, NotAuthorised

if TYPE_CHECKING:
    import paramiko

Result = TypeVar("Result")


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
        shown = await self.negotiate(first=pinned)
        if shown not in pinned:
            await self.run("reading the pinned keys", lambda: self._refuse_revoked(shown))
            raise HostKeyChanged(_host_key_words(self.server, pinned, shown))
        return shown

    def _refuse_revoked(self, shown: HostKey) -> None:
        path = self._account.known_hosts_file
        line = revoked_in_line(path, shown)
        if line is not None:
            raise HostKeyChanged(
                f"{self.server} shows a key that is revoked, {shown}, in line {line} of {path}. "
                "Nothing is sent to it. Let Voyado tell you which key is right."
            )

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
        except paramiko.BadAuthenticationType as error:
            # The password was given as the answer to its question (RFC 4256) and refused; paramiko
            # says then what it said before.
            if "keyboard-interactive" not in error.allowed_types:
                raise
            raise NotAuthorised(
                f"{self.server} refused the login: the password is wrong, or more than a password "
                "is asked for. Check sftp.username and the password file; the account may also be "
                "locked."
            ) from error
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

        from agent.delivery.batch.sftp_client import TolerantClient

        assert self._transport is not None  # noqa: S101
        limit = self._timeout_s + MARGIN_S
        channel = self._transport.open_session(timeout=limit)
        channel.settimeout(limit)
        channel.invoke_subsystem("sftp")
        try:
            self._client = TolerantClient(channel)
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

    @contextmanager
    def writing(self, name: str) -> Iterator[paramiko.SFTPFile]:
        """Open a file of the folder to write it from its start, and close it."""
        with self.files.open(self.place(name), "wb") as file:
            yield file
            self.close_file(file)

    def close_file(self, file: paramiko.SFTPFile) -> None:
        """Close a file and hear the answer: some servers refuse what was written only then.

        paramiko's own close() drops a refusal; it does nothing any more after this.
        """
        from paramiko import BufferedFile
        from paramiko.sftp import CMD_CLOSE

        BufferedFile.close(file)
        self.files._request(CMD_CLOSE, file.handle)  # type: ignore[attr-defined]


def _read_pins(known_hosts_file: Path, host: str, port: int) -> list[HostKey]:
    try:
        return pinned_keys(known_hosts_file, host, port)
    except HostKeyProblem as problem:
        raise HostKeyChanged(problem.message) from problem


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
            f"The private key file {path} cannot be read: {error.strerror}. "
            "Name a file that the agent's user can read."
        ) from None
    except (TypeError, paramiko.PasswordRequiredException):
        raise NotAuthorised(
            f"The private key in {path} has a passphrase, which nobody is there to type. "
            "Use one without, readable by the agent only."
        ) from None
    except (ValueError, paramiko.SSHException, UnknownKeyType):
        raise NotAuthorised(
            f"The file {path} holds no private key that can be used: Ed25519, ECDSA or RSA, in the "
            "OpenSSH or the older PEM format. Change one in another format, such as PKCS#8, with "
            f"“ssh-keygen -p -f {path}”, or make a new one with ssh-keygen."
        ) from None
