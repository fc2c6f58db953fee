"""Syncing what SQLite itself does not: copies, and what an older run could not sync."""

from __future__ import annotations

import os
from pathlib import Path

from agent.journal.driver import Connection

_AT_ONCE = 1024 * 1024  # bytes


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_wal(db: Connection, wal: Path) -> None:
    """See to it that the -wal stands on the disk just as SQLite has read it.

    After a sync that failed the kernel may call pages clean that never got to the disk. Whoever
    reads them sees them whole, no later sync writes them, and a power cut would take them with
    every commit behind them. So they are written once more. Raises OSError.
    """
    if not wal.exists() or wal.stat().st_size == 0:
        return
    db.execute("BEGIN IMMEDIATE")  # nobody else writes there meanwhile
    try:
        _write_again(wal)
    finally:
        db.execute("ROLLBACK")


def _write_again(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at = 0
        while piece := os.pread(descriptor, _AT_ONCE, at):
            at += os.pwrite(descriptor, piece, at)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
