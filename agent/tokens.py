"""Owns the tokens file: which POS may talk to the agent. It holds hashes, never a token.

A line per POS, `name:sha256 of the token in hex`; lines that begin with # are comments.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import AgentError, Problem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"\s*({_NAME.pattern})\s*:\s*([0-9A-Fa-f]{{64}})\s*")


class TokenProblem(AgentError):
    """The tokens file cannot be changed as asked."""

    code = "TokenProblem"


class Tokens:
    """The tokens that are valid now; changes of the file take effect at the next question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: tuple[tuple[str, str], ...] = ()
        self._problems: tuple[Problem, ...] = ()
        self._seen: tuple[int, int, int] | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Give what is wrong in the file, by line number; such lines let nobody in."""
        self._refresh()
        return self._problems

    @property
    def names(self) -> tuple[str, ...]:
        """Give the names of the POS systems that have a token."""
        self._refresh()
        return tuple(name for name, _ in self._entries)

    def name_for(self, token: str) -> str | None:
        """Give the name that belongs to this token, or None. A missing file knows no tokens."""
        return self.name_for_digest(_digest(token))

    def name_for_digest(self, digest: str) -> str | None:
        """Give the name that belongs to the token with this SHA-256 in hex, or None."""
        self._refresh()
        found = None
        # No early end: the time taken must not tell which entry matched.
        for name, known in self._entries:
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _refresh(self) -> None:
        try:
            if self._seen is not None and _signature(os.stat(self._path)) == self._seen:
                return
            with self._path.open("rb") as file:
                seen = _signature(os.fstat(file.fileno()))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            self._forget(error)
            return
        self._entries = tuple(entry for line in lines if (entry := _entry(line)))
        self._problems = tuple(_line_problems(self._path, lines))
        self._seen = seen

    def _forget(self, error: OSError) -> None:
        self._entries = ()
        self._seen = None
        missing = isinstance(error, FileNotFoundError)
        self._problems = () if missing else (_unreadable(self._path, error),)


def new(path: Path, name: str) -> str:
    """Make a token for a POS and give it; only its hash is stored, durably on return.

    Raises TokenProblem if the name is ill-formed or taken, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise TokenProblem(
            "A name has 1 to 64 letters, digits, dots, dashes or underscores and begins with a"
            " letter or a digit. Write for example: till-1"
        )
    token = secrets.token_urlsafe(32)

    def with_it(lines: list[str]) -> list[str]:
        if name in _names(lines):
            raise TokenProblem(
                f"{name} has a token already. Take another name, or revoke it first:"
                f" till-agent token revoke {name}"
            )
        return [*lines, f"{name}:{_digest(token)}"]

    _rewrite(path, with_it)
    return token


def revoke(path: Path, name: str) -> bool:
    """Take a POS's token away, durably on return; False if it had none."""
    if name not in names(path):
        return False
    _rewrite(path, lambda lines: [line for line in lines if name not in _names([line])])
    return True


def names(path: Path) -> list[str]:
    """Give the names in the file, in its order. Raises TokenProblem if it cannot be read."""
    return _names(_lines(path))


def _digest(token: str) -> str:
    # Headers may carry bytes that are no UTF-8; aiohttp hands them over as surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _signature(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _entry(line: str) -> tuple[str, str] | None:
    match = _LINE.fullmatch(line)
    return (match[1], match[2].lower()) if match else None


def _names(lines: list[str]) -> list[str]:
    return [entry[0] for line in lines if (entry := _entry(line))]


def _line_problems(path: Path, lines: list[str]) -> Iterator[Problem]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#") and _entry(line) is None:
            yield Problem(
                f"{path}, line {number}",
                "This is not name:sha256, so it lets nobody in.",
                "Delete the line and make a token with: till-agent token new <name>",
            )


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        str(path),
        f"The tokens file cannot be read: {error.strerror}. No POS can log in.",
        "Make it a file that the user of the service can read.",
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TokenProblem(str(_unreadable(path, error))) from error


def _rewrite(path: Path, changed: Callable[[list[str]], list[str]]) -> None:
    try:
        with _folder_locked(path.parent):
            _replace(path, changed(_lines(path)))
    except OSError as error:
        raise TokenProblem(
            f"{path} cannot be written: {error.strerror}. Run the command as a user who may write"
            " there, for example with sudo."
        ) from error


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Hold the folder, so that two commands at once do not lose each other's line."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, lines: list[str]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".tokens-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            _keep_owner(path, handle)
            file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _give_to_group_of(folder: Path, handle: int) -> None:
    """Let a folder's own group read a new file: root makes it, and the service must know tokens.

    It holds hashes only.
    """
    group = folder.stat().st_gid
    if os.geteuid() == 0 and group != os.getegid():
        os.fchown(handle, -1, group)
        os.fchmod(handle, 0o640)


def _keep_owner(path: Path, handle: int) -> None:
    """Keep the owner and mode an administrator chose, or the service could not read it any more."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        _give_to_group_of(path.parent, handle)
        return
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, facts.st_uid, facts.st_gid)
    os.fchmod(handle, facts.st_mode & 0o640)
