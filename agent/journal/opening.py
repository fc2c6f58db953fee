"""How far the opening of a journal is: after an upgrade a large one takes its time.

Written by the thread that opens the journal, read by whoever tells of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from agent.journal.driver import Connection

# Steps of SQLite's machine between two signs of life: some milliseconds.
_STEPS = 100_000


class Phase(StrEnum):
    """What is being done."""

    CHECKING = "checking"  # whether the file is whole
    COPYING = "copying"  # a backup, before it is changed
    MIGRATING = "migrating"  # to this program's version


_WORDS = {
    Phase.CHECKING: "Checking the journal",
    Phase.COPYING: "Migrating the journal to this version: copying it first",
    Phase.MIGRATING: "Migrating the journal to this version",
}


class Opening:
    """One opening. `tell` is called, from the opening thread, when something begins that changes
    the file."""

    def __init__(self, tell: Callable[[Opening], None] = lambda opening: None) -> None:
        self.tell = tell
        self.phase: Phase | None = None  # None: nothing that could take long is under way
        self.signs = 0  # grows while SQLite is at work
        self._began = 0.0
        self._share: Callable[[], float | None] = _unknown

    @contextmanager
    def doing(
        self,
        db: Connection,
        phase: Phase,
        share: Callable[[], float | None] | None = None,
    ) -> Iterator[None]:
        """Let others see what is done in this block; `share` gives how much of it is, 0 to 1."""
        self._began, self._share = time.monotonic(), share or _unknown
        self.phase = phase
        db.set_progress_handler(self._note_sign, _STEPS)
        if phase is not Phase.CHECKING:  # that is done at every start, and mostly in no time
            self.tell(self)
        try:
            yield
        finally:
            db.set_progress_handler(None, 0)
            self.phase = None

    def _note_sign(self) -> int:
        self.signs += 1
        return 0

    @property
    def seconds(self) -> float:
        """Give how long the phase has taken so far."""
        return time.monotonic() - self._began

    @property
    def share(self) -> float | None:
        """Give how much of the phase is done, 0 to 1; None where nobody can tell."""
        return self._share()

    def words(self) -> str:
        """Say how far it is, for a person who waits for the start."""
        phase = self.phase
        if phase is None:
            return "Opening the journal."
        share, seconds = self.share, self.seconds
        if share is not None and 0 < share < 1 and seconds >= 1:
            left = seconds * (1 - share) / share
            return f"{_WORDS[phase]}: {share:.0%}, about {left:.0f} seconds to go."
        return f"{_WORDS[phase]}, for {seconds:.0f} seconds so far."


def _unknown() -> float | None:
    return None
