"""What a journal holds while no agent runs: for whoever is about to remove or move it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.change import State
from agent.errors import JournalUnavailable
from agent.journal.driver import Connection, Driver
from agent.journal.lock import JournalLock
from agent.journal.migrating import migrations
from agent.journal.states import is_final


def unsettled(path: Path, driver: Driver, *, verifies: bool) -> int:
    """Count the changes that are not in Engage for good, those that wait for a person included.

    0 where there is no journal. Changes nothing, but must run as the journal's owner: SQLite makes
    the files beside it anew. Raises JournalInUse while an agent runs, JournalUnavailable.
    """
    with opened(path, driver) as db:
        rows = [] if db is None else db.execute("SELECT state, n FROM counts").fetchall()
    return sum(row["n"] for row in rows if not is_final(State(row["state"]), verifies=verifies))


@contextmanager
def opened(path: Path, driver: Driver) -> Iterator[Connection | None]:
    """Open a journal that no agent uses, to read it; None where there is none.

    Raises JournalInUse while an agent runs, JournalUnavailable, also for one of another version.
    """
    if not path.exists() or path.stat().st_size == 0:
        yield None
        return
    lock = JournalLock(path)
    lock.acquire()
    try:
        db = driver.connect(path)  # not read-only: after a kill the -wal must be read in
        try:
            version, newest = db.execute("PRAGMA user_version").fetchone()[0], migrations()[-1][0]
            if version != newest:
                raise JournalUnavailable(
                    f"The journal {path} is of version {version} and this program reads version "
                    f"{newest}. It was left as it is. Use the program that wrote it, or start this "
                    "one's agent first: it brings an older journal to its version."
                )
            yield db
        finally:
            db.close()
    except driver.module.Error as error:
        raise JournalUnavailable(
            f"The journal {path} cannot be read: {error}. It was left as it is, and whether "
            "anything waits in it is not known."
        ) from error
    finally:
        lock.release()
