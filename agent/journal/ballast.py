"""A file that takes room while there is plenty, and gives it back when the disk is full.

journal.min_free_mb keeps sign-ups from filling the disk, but others fill it too. Then no outcome of
what is delivered could be stored any more, and the agent could neither send nor settle. With the
ballast thrown off it can, until a person has freed some space.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Ballast:
    """The file beside a journal. Its methods may be called from any thread, and raise nothing."""

    def __init__(self, journal: Path, bytes: int) -> None:
        self.path = journal.with_name(f"{journal.name}.ballast")
        self._bytes = bytes
        self.spent_bytes = 0  # given back, and not to be used for anything new

    def balance(self, free_bytes: int, min_free_bytes: int) -> None:
        """Take the room where there is plenty, or give it back where hardly any is left.

        Not only a full disk: on one that is nearly full, what SQLite keeps beside the journal
        cannot grow, and it calls that an I/O error.
        """
        if free_bytes < self._bytes:
            self.throw_off()
        elif free_bytes > 2 * min_free_bytes + self._bytes and not self.path.exists():
            self._take()

    def throw_off(self) -> bool:
        """Give the room back; says whether there was any to give."""
        try:
            self.path.unlink()
        except OSError:
            return False
        self.spent_bytes = self._bytes
        return True

    def _take(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._bytes)
            finally:
                os.close(descriptor)
            self.spent_bytes = 0
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)  # a part of it takes room and gives none back
