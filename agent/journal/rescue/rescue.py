"""A damaged journal is put aside, and what can be read of it goes on in a new one.

For a person to start, while no agent runs (docs/decisions/0024). The damaged file is read and
renamed, never written. Killed at any moment it leaves the damaged journal where it was, or a state
that the next rescue brings to its end; an agent refuses to start in between.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.clock import to_text
from agent.errors import JournalUnavailable, SchemaTooNew
from agent.journal import driver, marker
from agent.journal.driver import Driver
from agent.journal.lock import JournalLock
from agent.journal.marker import Mark
from agent.journal.migrating import migrate, migrations
from agent.journal.rescue import image, report
from agent.journal.rescue.image import Image, Read
from agent.journal.rescue.rebuilding import Rebuilt, rebuild
from agent.journal.rescue.reminder import LOST, SAVED
from agent.journal.rescue.report import Losses
from agent.journal.rescue.salvage import Salvage, salvage
from agent.journal.syncing import sync

_ROOM = 16 * 1024 * 1024  # beside as much as the journal has


@dataclass(frozen=True)
class Rescued:
    """What was done."""

    aside: Path  # the damaged file
    report: Path
    text: str
    losses: Losses


def rescue(
    path: Path,
    way: Driver,
    now: datetime,
    *,
    read: Read = os.pread,
    tell: Callable[[str], None] = lambda step: None,
) -> Rescued | None:
    """Put a damaged journal aside and a new one in its place; None where it is whole.

    `tell` hears of each step. Raises JournalInUse while an agent runs, SchemaTooNew, and
    JournalUnavailable where nothing can be read, the disk has no room, or the result is not sound:
    the journal is left as it was then. Safe to repeat, and to kill.
    """
    lock = JournalLock(path)
    lock.acquire()
    try:
        if _finish(path, now):
            tell("An earlier rescue was cut off at its end; it is finished now.")
        return _rescue(path, way, now, read, tell)
    except OSError as error:
        raise JournalUnavailable(
            f"The journal {path} cannot be rescued: {error.strerror or error}. The damaged file is "
            "still there. Cure the disk and run it again."
        ) from error
    finally:
        lock.release()


def _rescue(
    path: Path, way: Driver, now: datetime, read: Read, tell: Callable[[str], None]
) -> Rescued | None:
    mark = marker.read(marker.path_of(path))
    if not path.exists() or not path.stat().st_size:
        raise JournalUnavailable(
            f"There is no journal at {path} to be rescued. Put the file or a backup back."
        )
    tell(f"Reading {path}.")
    taken = image.take(path, way, read)
    _refuse_newer(path, taken)
    if not taken.unreadable and not taken.lost_frames and driver.is_whole(taken.content):
        return None
    found = salvage(taken.pages, mark, taken.lost_frames)
    _refuse_nothing(path, found)
    _refuse_full(path)
    aside = _free_name(path, now)
    tell("Writing a new journal from what can be read.")
    rebuilt = _write_new(path, way, found, mark, aside.name, to_text(now))
    text = report.report(found, rebuilt, aside.name, to_text(now))
    losses = report.losses(found, rebuilt)
    end = SAVED if losses.are_none else LOST
    _write_synced(_beside(marker.rescued(path), end), text)
    tell("Putting it in the damaged one's place.")
    _swap(path, aside, rebuilt.mark)
    return Rescued(aside, _beside(aside, end), text, losses)


# --- may it -------------------------------------------------------------------------------------


def _refuse_newer(path: Path, taken: Image) -> None:
    newest = migrations()[-1][0]
    if taken.version is not None and taken.version > newest:
        raise SchemaTooNew(
            f"A newer till-agent wrote the journal {path} (version {taken.version}; this program "
            f"knows up to {newest}). The data is untouched. Rescue it with the newer till-agent."
        )


def _refuse_nothing(path: Path, found: Salvage) -> None:
    if not (found.tables["changes"].rows or found.tables["contacts"].rows):
        raise JournalUnavailable(
            f"Nothing can be read of the journal {path}: it is destroyed, or journal.key_file does "
            "not hold its key. It was left as it is. Put a backup back."
        )


def _refuse_full(path: Path) -> None:
    wal = _beside(path, "-wal")
    needed = path.stat().st_size + (wal.stat().st_size if wal.exists() else 0) + _ROOM
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < needed:
        raise JournalUnavailable(
            f"The disk of {path} has no room for a new journal: {needed // 1024 // 1024:,} MiB are "
            "needed. Nothing was changed. Free some space and run it again."
        )


# --- files --------------------------------------------------------------------------------------


def _free_name(path: Path, now: datetime) -> Path:
    """Give the name under which the damaged file is kept; two never share one."""
    moment, number = now.strftime("%Y%m%dT%H%M%SZ"), 0
    while True:
        more = f"-{number}" if number else ""
        aside = path.with_name(f"{path.name}.damaged-{moment}{more}")
        if not any(_beside(aside, end).exists() for end in ("", "-wal", SAVED, LOST)):
            return aside
        number += 1


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".rescue-new")


def _write_new(
    path: Path, way: Driver, found: Salvage, mark: Mark | None, aside: str, now: str
) -> Rebuilt:
    """Make the new journal under another name; it is whole, checked and synced on return."""
    new = _new(path)
    waiting = marker.rescued(path)
    for leftover in (new, _beside(new, "-journal"), waiting, *_reports(waiting)):
        leftover.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(way.connect(new)) as db:
            db.execute("PRAGMA synchronous = FULL")
            migrate(db, new)
            rebuilt = rebuild(db, way, found, mark, aside=aside, now=now)
    except way.module.Error as error:
        new.unlink(missing_ok=True)
        raise JournalUnavailable(
            f"What was saved of {path} cannot be written ({error}). The damaged journal is where "
            "it was. Free some space, or put a backup back."
        ) from error
    sync(new)
    new.rename(marker.rescued(path))
    sync(path.parent)
    return rebuilt


def _swap(path: Path, aside: Path, mark: Mark) -> None:
    """Let the new journal take the damaged one's place.

    The mark first: without the file beside it, it keeps an agent from beginning an empty journal.
    The -wal must be away before the new file comes: SQLite would take it for the new one's.
    """
    marker.write(marker.path_of(path), mark)
    path.rename(aside)
    _put_in_place(path, aside)


def _put_in_place(path: Path, aside: Path) -> None:
    wal, waiting = _beside(path, "-wal"), marker.rescued(path)
    if wal.exists():
        wal.rename(_beside(aside, "-wal"))
    _beside(path, "-shm").unlink(missing_ok=True)
    for former, final in zip(_reports(waiting), _reports(aside), strict=True):
        if former.exists():
            former.rename(final)
    waiting.rename(path)
    sync(path.parent)


def _finish(path: Path, now: datetime) -> bool:
    """Bring a rescue to its end that was cut off between putting aside and putting in place."""
    if path.exists() or not marker.rescued(path).exists():
        return False
    names = [
        each
        for each in path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
        if _is_file_aside(each)
    ]
    aside = max(names, key=lambda each: each.stat().st_ctime_ns, default=_free_name(path, now))
    _put_in_place(path, aside)
    return True


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _reports(path: Path) -> tuple[Path, Path]:
    return _beside(path, SAVED), _beside(path, LOST)


def _is_file_aside(path: Path) -> bool:
    return not path.name.endswith((SAVED, LOST, "-wal"))


def _write_synced(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
