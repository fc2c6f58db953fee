"""What a journal holds while no agent runs: for whoever is about to remove or move it."""

from __future__ import annotations

from pathlib import Path

from agent.change import State
from agent.errors import JournalUnavailable
from agent.journal.driver import Driver
from agent.journal.lock import JournalLock
from agent.journal.states import is_final


def unsettled(path: Path, driver: Driver, *, verifies: bool) -> int:
    """Count the changes that are not in Engage for good, those that wait for a person included.

    0 where there is no journal. Changes nothing, but must run as the journal's owner: SQLite makes
    the files beside it anew. Raises JournalInUse while an agent runs, JournalUnavailable.
    """
    if not path.exists() or path.stat().st_size == 0:
        return 0
    lock = JournalLock(path)
    lock.acquire()
    try:
        db = driver.connect(path)  # not read-only: after a kill the -wal must be read in
        try:
            rows = db.execute("SELECT state, n FROM counts").fetchall()
        finally:
            db.close()
    except driver.module.Error as error:
        raise JournalUnavailable(
            f"The journal {path} cannot be read: {error}. It was left as it is, and whether "
            "anything waits in it is not known."
        ) from error
    finally:
        lock.release()
    return sum(row["n"] for row in rows if not is_final(State(row["state"]), verifies=verifies))
