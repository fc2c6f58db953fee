"""How far something is that takes a while, and how long it will take from here."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from agent.commands.parts import width

# The rate is that of the last so many seconds: an outage an hour ago says nothing of now.
_WINDOW_S = 60.0
# Before that nobody can tell; a first second would promise too much or too little.
_SURE_AFTER_S = 3.0
# What is done sooner needs no words.
_SILENT_S = 1.0
# Where no terminal shows one line that changes, a line of its own now and then.
_LINE_EVERY_S = 10.0


class Rate:
    """How quickly something that is left becomes less. Pure: the time is handed in."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, left: int) -> None:
        """Note how much is left at a moment, in seconds of a clock that does not jump."""
        self._seen.append((now, left))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float | None:
        """Give how much gets done in a second; None as long as that cannot be told."""
        (first, at_first), (last, at_last) = self._seen[0], self._seen[-1]
        if last - first < _SURE_AFTER_S:
            return None
        return max(0.0, (at_first - at_last) / (last - first))

    @property
    def seconds_left(self) -> float | None:
        """Give how long it will take at this rate; None where nobody can tell."""
        per_s = self.per_s
        return self._seen[-1][1] / per_s if per_s else None


def span(seconds: float) -> str:
    """Give a length of time as one would say it: `40 seconds`, `3 minutes`, `2 hours`."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, round(seconds))} seconds" if round(seconds) != 1 else "a second"


class ProgressLine:
    """One line on a terminal that changes; elsewhere a line now and then. On stderr, so that what
    a command prints can be read by programs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._said_at: float | None = None
        self._said = ""

    def show(self, words: str) -> None:
        """Show how far it is."""
        if self._is_terminal:
            self._stream.write(f"\r{words[: width() - 1]:<{width() - 1}}")
            self._stream.flush()
        elif self._is_time() and words != self._said:
            print(words, file=self._stream, flush=True)
            self._said = words

    def end(self) -> None:
        """Leave the line free for what comes next."""
        if self._is_terminal:
            self._stream.write("\r" + " " * (width() - 1) + "\r")
            self._stream.flush()

    def _is_time(self) -> bool:
        now = time.monotonic()
        if self._said_at is not None and now - self._said_at < _LINE_EVERY_S:
            return False
        self._said_at = now
        return True


class Counted:
    """Shows how much of something countable is done, and about how long the rest takes."""

    def __init__(
        self,
        what: str,
        total: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what`: the plural of what is counted; `total`: about how many there are."""
        self._what = what
        self._total = total
        self._clock = clock
        self._line = ProgressLine(stream)
        self._rate = Rate()
        self._said = clock()
        self._rate.note(self._said, total)

    def reached(self, done: int) -> None:
        """Note how many are done; says it once a second at most."""
        now = self._clock()
        if now - self._said < _SILENT_S:
            return
        self._said = now
        self._rate.note(now, max(0, self._total - done))
        words = f"{done:,} of about {max(done, self._total):,} {self._what}"
        if left := self._rate.seconds_left:
            words += f", about {span(left)} to go"
        self._line.show(f"{words}.")

    def end(self) -> None:
        """Leave the line free for what comes next."""
        self._line.end()
