"""Keys as digests: who has the journal alone can neither read nor try out whose they are.

A digest is 64 bits of an HMAC under a key of this till, which lies in a file of its own beside the
journal. Without that file every digest is worth nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from agent.contact import Key
from agent.errors import AgentError

_KEY_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}\n?")


class RegisterKeyProblem(AgentError):
    """The file with the register's key cannot be used."""

    code = "RegisterKeyProblem"


def path_of(journal: Path) -> Path:
    """Give where the key of a journal's register lies."""
    return journal.with_name(journal.name + ".register-key")


class Digests:
    """Makes digests once the key was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    def open(self) -> None:
        """Read the key; make one where there is none, or none that can be used.

        Raises RegisterKeyProblem.
        """
        try:
            self._key = self._read() or self._make()
        except OSError as error:
            raise RegisterKeyProblem(
                f"The key of the member register in {self._path} cannot be used: {error.strerror}. "
                "Members are not recognised without a line. Give the file to the agent's user."
            ) from error

    def forget(self) -> None:
        """Remove the key for good: what was made with it can never be looked up again."""
        self._key = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise RegisterKeyProblem(
                f"The key of the member register in {self._path} cannot be removed: "
                f"{error.strerror}. The register itself is erased."
            ) from error

    @property
    def is_open(self) -> bool:
        """Say whether digests can be made."""
        return self._key is not None

    @property
    def check(self) -> str:
        """Give a sign of the key by which another one is noticed; tells nothing of the key."""
        return self._mac(b"check").hex()[:16]

    def of(self, key: Key) -> int:
        """Give the digest of a key, a number of 64 bits with its sign."""
        mac = self._mac(f"{key.name}\0{key.value}".encode(errors="surrogatepass"))
        return int.from_bytes(mac[:8], "big", signed=True)

    def _mac(self, data: bytes) -> bytes:
        if self._key is None:
            raise RegisterKeyProblem
        return hmac.digest(self._key, data, hashlib.sha256)

    def _read(self) -> bytes | None:
        try:
            text = self._path.read_text("ascii", errors="replace")
        except FileNotFoundError:
            return None
        return bytes.fromhex(text) if _HEX.fullmatch(text) else None

    def _make(self) -> bytes:
        key = secrets.token_bytes(_KEY_BYTES)
        temporary = self._path.with_name(self._path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        return key
