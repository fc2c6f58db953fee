"""Brings a journal to this program's version, and copies it first.

Each migration is a script in `migrations/` and one transaction, so a kill in the middle leaves the
older version whole.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import re
import sqlite3
from pathlib import Path

from agent.errors import SchemaTooNew
from agent.journal.driver import Connection
from agent.journal.opening import Opening, Phase
from agent.journal.syncing import sync


def migrations() -> list[tuple[int, str]]:
    """Give the migrations in order: number and SQL text."""
    folder = importlib.resources.files("agent.journal") / "migrations"
    found = []
    for entry in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})-[a-z0-9-]+\.sql", entry.name):
            found.append((int(match[1]), entry.read_text("utf-8")))
    return sorted(found)


def migrate(db: Connection, path: Path, opening: Opening | None = None) -> None:
    """Bring a journal to this program's version; a copy is made first where data stands in it.

    Each migration is one transaction, so a kill in the middle leaves the older version whole.
    Raises SchemaTooNew for a journal of a newer program.
    """
    opening = opening or Opening()
    version = db.execute("PRAGMA user_version").fetchone()[0]
    steps = migrations()
    newest = steps[-1][0]
    if version > newest:
        raise SchemaTooNew(
            f"A newer till-agent wrote the journal {path} (version {version}; this program knows "
            f"up to {newest}). The data is untouched. Install the newer till-agent again."
        )
    if 0 < version < newest:
        target = path.with_name(f"{path.name}.before-{newest}")
        with opening.doing(db, Phase.COPYING, lambda: _share(_unfinished(target), path)):
            backup(db, target)
    for number, text in steps:
        if number > version:
            with opening.doing(db, Phase.MIGRATING) if version else contextlib.nullcontext():
                _apply(db, number, text)


def _share(copy: Path, whole: Path) -> float | None:
    """Give how much of a file is copied; what is pruned in it makes the copy smaller."""
    try:
        return min(1.0, copy.stat().st_size / whole.stat().st_size)
    except (OSError, ZeroDivisionError):
        return None


def backup(db: Connection, target: Path) -> None:
    """Write a whole copy of the journal to `target`, replacing one that stands there.

    On return it survives a power cut; never does a part of one stand under that name.
    """
    unfinished = _unfinished(target)
    unfinished.unlink(missing_ok=True)
    # Made here, because SQLite would let others read it. It leaves the syncing to us, too.
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db.execute("VACUUM INTO ?", (str(unfinished),))
    sync(unfinished)
    unfinished.replace(target)
    sync(target.parent)


def _unfinished(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.new")


def _apply(db: Connection, number: int, text: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(text):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number:d}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _statements(text: str) -> list[str]:
    """Split a script; executescript would commit the transaction that it runs in."""
    found, pending = [], ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
