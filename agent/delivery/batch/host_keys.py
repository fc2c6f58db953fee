"""Pinned host keys, in OpenSSH's known_hosts format.

Owns reading and extending that file; knows nothing of connections. A key gets in only because a
person trusted it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.journal.syncing import sync
from agent.rights import READ, why_denied

_REVOKED = "@revoked"  # sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"


class HostKeyProblem(AgentError):
    """The file of pinned host keys cannot be used as asked."""

    code = "HostKeyProblem"


@dataclass(frozen=True)
class HostKey:
    """The public key by which a server shows that it is the right one."""

    algorithm: str  # "ssh-ed25519"
    base64: str  # as in known_hosts

    @property
    def fingerprint(self) -> str:
        """Give what `ssh-keygen -l` prints: `SHA256:` and 43 characters."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        """Give what a person compares."""
        return f"{self.fingerprint} ({self.algorithm})"


def pinned_keys(known_hosts_file: Path, host: str, port: int) -> list[HostKey]:
    """Give the keys pinned for a server, in the file's order; no file means none.

    Hashed names are understood, wildcards are not. A key that is marked @revoked, for whichever
    server, is not pinned, wherever else it stands; lines of certificate authorities and lines that
    cannot be read count as absent.
    Raises HostKeyProblem when the file cannot be read.
    """
    lines = _read(known_hosts_file)
    revoked = {line.key for line in lines if line.marker == _REVOKED}
    return [
        line.key
        for line in lines
        if line.key is not None and line.marker == "" and line.key not in revoked
        if line.names_host(host, port)
    ]


def revoked_in_line(known_hosts_file: Path, key: HostKey) -> int | None:
    """Give the number of the first line that revokes a key, None if there is none.

    Raises HostKeyProblem when the file cannot be read.
    """
    lines = enumerate(_read(known_hosts_file), start=1)
    return next(
        (number for number, line in lines if line.marker == _REVOKED and line.key == key), None
    )


def refuse_revoked(known_hosts_file: Path, key: HostKey) -> None:
    """Raise HostKeyProblem for a key that the file revokes, or a file that cannot be read."""
    number = revoked_in_line(known_hosts_file, key)
    if number is not None:
        raise HostKeyProblem(
            f"{key} is revoked in {known_hosts_file}, line {number}. Nothing was pinned. "
            "Let Voyado tell you which key is right; only if the line itself is wrong, remove it "
            "first."
        )


def trust(known_hosts_file: Path, host: str, port: int, key: HostKey) -> None:
    """Pin a key that a person has compared; durable on return, and safe to repeat.

    It is the server's only one from then on: a former key of any algorithm would still be let in,
    and one that the server has changed would be looked at first and found wrong. The file is
    replaced as a whole, so a power cut leaves the old one or the new one.

    Raises HostKeyProblem when the key is revoked there, or the file cannot be read or written;
    nothing is changed then.
    """
    refuse_revoked(known_hosts_file, key)
    kept = [
        line.without(host, port) if line.marker == "" and line.key else line.text
        for line in _read(known_hosts_file)
    ]
    added = f"{_name(host, port)} {key.algorithm} {key.base64}"
    text = "".join(f"{line}\n" for line in [*kept, added] if line is not None)
    try:
        _replace(known_hosts_file, text)
    except OSError as error:
        raise HostKeyProblem(
            f"The key cannot be pinned in {known_hosts_file}: {error.strerror}. The file is as it "
            "was. Run the command as a user who may write there, for example with sudo."
        ) from error


@dataclass(frozen=True)
class _Line:
    text: str
    marker: str = ""
    names: tuple[str, ...] = ()
    key: HostKey | None = None

    def names_host(self, host: str, port: int) -> bool:
        return any(_matches(name, _name(host, port)) for name in self.names)

    def without(self, host: str, port: int) -> str | None:
        """Give the line without that host; None when nothing is left of it."""
        if not self.names_host(host, port):
            return self.text
        others = [name for name in self.names if not _matches(name, _name(host, port))]
        return " ".join([",".join(others), *self.text.split()[1:]]) if others else None


def _read(known_hosts_file: Path) -> list[_Line]:
    try:
        text = known_hosts_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except PermissionError:
        raise _unreadable(known_hosts_file, why_denied(known_hosts_file, READ)) from None
    except OSError as error:
        raise _unreadable(known_hosts_file, error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _unreadable(known_hosts_file, f"line {line} is not UTF-8 text") from error
    return [_parse(line) for line in text.splitlines()]


def _unreadable(path: Path, why: str) -> HostKeyProblem:
    return HostKeyProblem(
        f"The pinned host keys in {path} cannot be read: {why}. "
        "Correct the file; until then no server is trusted."
    )


def _parse(text: str) -> _Line:
    fields = text.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#"):
        return _Line(text)
    try:
        base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return _Line(text)
    return _Line(text, marker, tuple(fields[0].split(",")), HostKey(fields[1], fields[2]))


def _name(host: str, port: int) -> str:
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("|1|"):
        return pattern.lower() == name
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    # HMAC-SHA1 is the format's own (ssh-keygen -H); it hides names, nothing is secured by it.
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _replace(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            _take_after(place, descriptor)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(place.parent)


def _take_after(place: Path, descriptor: int) -> None:
    """Give a new file the owner and mode of the one that it replaces, else the folder's owner.

    Or the service could not read any more what root has pinned.
    """
    try:
        facts = place.stat()
        mode = facts.st_mode & 0o777
    except FileNotFoundError:
        facts = place.parent.stat()
        mode = 0o644  # public keys
    if os.geteuid() == 0:
        os.fchown(descriptor, facts.st_uid, facts.st_gid)
    os.fchmod(descriptor, mode)
