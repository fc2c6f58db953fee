"""One agent per journal: a lock on a file beside it, gone with the process that held it."""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import JournalInUse, JournalUnavailable

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; the only place that would need it
    fcntl = None  # type: ignore[assignment]


class JournalLock:
    """Held from opening the journal to closing it."""

    def __init__(self, journal: Path) -> None:
        self.path = _place(journal)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises JournalInUse naming the other process, JournalUnavailable."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalUnavailable(
                f"The journal's folder {self.path.parent} cannot be used: {error.strerror}. "
                "Nothing was changed. Create the folder, or give the agent's user write access."
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise JournalInUse(
                f"Another till-agent (process {holder}) uses the journal {self.path.parent}. "
                "Its data is untouched. Stop that one first, or set journal.path to another file."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next agent in. The file stays: removing it would let two agents in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _place(journal: Path) -> Path:
    return journal.with_name(journal.name + ".lock")


def holder(journal: Path) -> str | None:
    """Give the process that has a journal open, or None; takes nothing from anybody.

    Raises OSError where that cannot be told.
    """
    place = _place(journal)
    if fcntl is None or not place.exists():
        return None
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(descriptor)
    return None
