"""A small file beside the journal that says how far it had come: a restored backup shows by it.

The journal alone cannot know that it is yesterday's. What it then calls waiting may have been sent
since, so it has to be looked up before anything is sent.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.contact import new_id
from agent.errors import JournalUnavailable
from agent.journal.driver import Connection


@dataclass(frozen=True)
class Mark:
    """How far a journal has come."""

    journal: str  # its own id, made with it
    seq: int  # the newest change
    attempt: int  # the newest attempt


def path_of(journal: Path) -> Path:
    """Give where a journal's mark lies."""
    return journal.with_name(journal.name + ".mark")


def rescued(journal: Path) -> Path:
    """Give the name under which a rescued journal waits, whole, to be put in its place."""
    return journal.with_name(journal.name + ".rescued")


def read(path: Path) -> Mark | None:
    """Read a mark; None where there is none that can be used."""
    try:
        data = json.loads(path.read_text("utf-8"))
        return Mark(str(data["journal"]), int(data["seq"]), int(data["attempt"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, mark: Mark) -> None:
    """Write a mark, whole or not at all. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(mark), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def of(db: Connection) -> Mark:
    """Give how far the open journal has come."""
    row = db.execute("SELECT value FROM meta WHERE name = 'journal_id'").fetchone()
    if row is None:
        journal = new_id()
        db.execute("INSERT INTO meta VALUES ('journal_id', ?)", (journal,))
    else:
        journal = row["value"]
    # Highest ever given, pruned ones included.
    rows = db.execute("SELECT name, seq FROM sqlite_sequence")
    last = {row["name"]: row["seq"] for row in rows}
    return Mark(journal, last.get("changes", 0), last.get("attempts", 0))


def refuse_lost(path: Path, journal: Path) -> None:
    """Refuse to begin a new journal where an older one is missing. Raises JournalUnavailable."""
    is_there = journal.exists() and journal.stat().st_size > 0
    if not is_there and rescued(journal).exists():
        raise JournalUnavailable(
            f"The rescue of the journal {journal} was cut off at its end. Nothing was made in its "
            "place. Run it again: till-agent journal rescue"
        )
    if read(path) is not None and not is_there:
        raise JournalUnavailable(
            f"The journal {journal} is gone, but {path.name} says that it existed. Nothing was "
            "made in its place. Put the file or a backup back; or, if what it held is given up, "
            f"remove {path} and start again."
        )


def is_restored(mark: Mark | None, now: Mark) -> bool:
    """Say whether the journal is older than its mark: somebody restored a backup."""
    return (
        mark is not None
        and mark.journal == now.journal
        and (mark.seq > now.seq or mark.attempt > now.attempt)
    )


def doubt_everything(db: Connection) -> int:
    """After a restore: what waits may have been sent, what is written may have been uploaded.

    Gives how many changes are looked up before anything is sent.
    """
    doubted = db.execute(
        "UPDATE changes SET unknown = 1 WHERE state = 'waiting' AND unknown = 0"
    ).rowcount
    # An upload that finds neither name takes the file for imported, and verifying tells the truth.
    # Bulk calls are planned anew, which begins with looking up.
    db.execute(
        "UPDATE batches SET full_size = 1, calls = NULL "
        "WHERE state IN ('filling', 'sealed', 'written')"
    )
    return int(doubted)
