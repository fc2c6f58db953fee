"""A text stream that neither fails nor waits, for a log: whoever reads it must hold up nobody.

Stdout of a service leads to the system's log. That may be restarted (a broken pipe), its disk may
be full, or it may take nothing for a while; none of it is a reason to lose a sign-up. What cannot
be written at once is lost, and said with the next line that can.
"""

from __future__ import annotations

import io
import os
import select
from typing import TextIO

# What a pipe takes at once if it takes anything (POSIX's PIPE_BUF on Linux).
_PIECE_BYTES = 4096


class SteadyStream(io.TextIOBase):
    """Writes to the same place as another stream, past its buffer."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._is_terminal = stream.isatty()
        self._lost = 0  # lines since the last one that was written
        self._is_torn = False  # of a line that is lost a part was written

    def write(self, text: str) -> int:
        """Write a text, or lose it; gives its length in either case."""
        if self._lost and self._put(f'{{"event": "lines_lost", "lines": {self._lost}}}\n'):
            self._lost = 0
        if self._lost or not self._put(text):
            self._lost += max(1, text.count("\n"))
        return len(text)

    def _put(self, text: str) -> bool:
        begun = "\n" if self._is_torn else ""
        rest = memoryview(f"{begun}{text}".encode("utf-8", "backslashreplace"))
        try:
            while rest:
                if not select.select((), (self._descriptor,), (), 0)[1]:
                    return False
                rest = rest[os.write(self._descriptor, rest[:_PIECE_BYTES]) :]
                self._is_torn = bool(rest)
        except OSError:
            return False
        return True

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def isatty(self) -> bool:
        """Say whether a person looks on."""
        return self._is_terminal

    def fileno(self) -> int:
        """Give the descriptor that is written to."""
        return self._descriptor

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True
