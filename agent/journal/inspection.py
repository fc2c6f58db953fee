"""Looks at a journal from outside, without writing to it: is it whole?

A connection of its own that may only read; beside a running agent's two it neither writes nor
checkpoints, and its time is limited, because a long read keeps the -wal from shrinking.
"""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent.errors import JournalUnavailable, SchemaTooNew
from agent.journal import marker
from agent.journal.driver import Connection, Driver
from agent.journal.migrating import migrations


@dataclass(frozen=True)
class Condition:
    """What was found."""

    is_whole: bool | None  # None: there was not time enough to tell
    words: str  # SQLite's, where it is not whole
    size_bytes: int
    wal_bytes: int


def look(path: Path, way: Driver, limit_s: float) -> Condition | None:
    """Check a journal's structure; None where there is none yet.

    Raises JournalUnavailable where it is gone or cannot be read, SchemaTooNew.
    """
    marker.refuse_lost(marker.path_of(path), path)
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with closing(way.connect(path, read_only=True)) as db:
            words = _checked(db, path, limit_s)
    except way.module.Error as error:
        raise JournalUnavailable(
            f"The journal {path} cannot be read ({error}). Check that this user may read it and "
            "write to its folder, and that journal.key_file (if set) holds the right key."
        ) from error
    wal = path.with_name(path.name + "-wal")
    return Condition(
        is_whole=None if words is None else words == "ok",
        words=words or "",
        size_bytes=path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
    )


def _checked(db: Connection, path: Path, limit_s: float) -> str | None:
    db.execute("PRAGMA query_only = ON")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    newest = migrations()[-1][0]
    if version > newest:
        raise SchemaTooNew(
            f"A newer till-agent wrote the journal {path} (version {version}; this program knows "
            f"up to {newest}). The data is untouched. Install the newer till-agent again."
        )
    over = threading.Event()

    def stop() -> None:
        over.set()
        db.interrupt()

    alarm = threading.Timer(limit_s, stop)
    alarm.daemon = True
    alarm.start()
    try:
        return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except db.OperationalError:
        if over.is_set():
            return None
        raise
    finally:
        alarm.cancel()
        alarm.join()
