"""Reads secrets from systemd credentials and protected files, and never says what they are.

Nothing is kept: a secret is read at each call, so that a replaced file takes effect while running.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.rights import READ, why_denied

_MAX_BYTES = 64 * 1024  # a private key is a few KiB; more than this is the wrong file


class SecretProblem(AgentError):
    """A secret cannot be read."""

    code = "SecretProblem"

    def __init__(self, what: str, suggestion: str = "") -> None:
        self.what = what
        self.suggestion = suggestion
        super().__init__(f"{what} {suggestion}".strip())


@dataclass(frozen=True)
class Credential:
    """A secret known by a bare name: a systemd credential, or else a file beside agent.toml."""

    name: str
    folder: Path  # where agent.toml lies

    def __str__(self) -> str:
        return self.name


SecretSource = Credential | Path


def read_secret(name: SecretSource | str, *, credentials_directory: Path | None = None) -> str:
    """Give the secret's text without one trailing newline.

    A bare name (no slash) is looked up in `credentials_directory` (default: the environment's
    CREDENTIALS_DIRECTORY, as systemd sets it) and, if it came from agent.toml, then beside that
    file. Anything else is the path of a file. Files outside of the credentials directory must not
    be open to group or others.

    Raises SecretProblem, which names the path and the remedy and never the content.
    """
    credentials = credentials_directory or _credentials_directory()
    path, is_credential = _found(name, credentials)
    return _text(_content(path, is_credential), path)


def path_of(name: SecretSource | str, *, credentials_directory: Path | None = None) -> Path:
    """Give the file that holds a secret, for a library that reads it itself.

    Found and checked like read_secret(). Raises SecretProblem.
    """
    path, is_credential = _found(name, credentials_directory or _credentials_directory())
    _content(path, is_credential)
    return path


def _credentials_directory() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _found(name: SecretSource | str, credentials: Path | None) -> tuple[Path, bool]:
    bare = str(name)
    if "/" in bare:
        return Path(bare), False
    if bare in ("", ".", ".."):
        raise SecretProblem("This names no secret.", "Write a credential's name or a path.")
    if credentials is not None and os.path.lexists(credentials / bare):
        return credentials / bare, True
    if isinstance(name, Credential):
        return name.folder / bare, False
    raise SecretProblem(
        f"There is no systemd credential {bare}.",
        f"Add LoadCredential={bare}:<path> to the service, or give a path with a slash.",
    )


def _content(path: Path, is_credential: bool) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe by mistake must not hang the start.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        # The open file is asked, not the path: it cannot be exchanged in between.
        _refuse_unsafe(path, os.fstat(handle), is_credential)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(handle)


def _unreadable(path: Path, error: OSError) -> SecretProblem:
    if isinstance(error, FileNotFoundError):
        return SecretProblem(
            f"The file {path} does not exist.",
            f"Create it, with nothing but the secret in it, then: chmod 600 {path}",
        )
    if isinstance(error, PermissionError):
        return SecretProblem(
            f"The file {path} cannot be read by this user: {why_denied(path, READ)}.",
            "Give it to the user of the service, or hand it over with LoadCredential=.",
        )
    return SecretProblem(f"The file {path} cannot be read: {error.strerror}.")


def _refuse_unsafe(path: Path, facts: os.stat_result, is_credential: bool) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise SecretProblem(f"{path} is not a file.", "Name the file that holds the secret.")
    if not is_credential and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretProblem(
            f"The file {path} is open to other users (mode {facts.st_mode & 0o777:o}).",
            f"Run: chmod 600 {path}",
        )


def _text(content: bytes, path: Path) -> str:
    if len(content) > _MAX_BYTES:
        raise SecretProblem(
            f"The file {path} is larger than 64 KiB.", "Name the file that holds the secret alone."
        )
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretProblem(
            f"The file {path} is not text.", "Store the secret as plain UTF-8 text."
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SecretProblem(f"The file {path} is empty.", "Write the secret into it.")
    return text
