"""The journal of an agent that does not run, as the commands open it: as its owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.running_agent import Lines
from agent.config import Config
from agent.errors import JournalInUse

if TYPE_CHECKING:
    from agent.journal.driver import Connection


@contextmanager
def closed_journal(settings: Config) -> Iterator[Lines]:
    """Give the lines of the export as they stand in the journal.

    Raises JournalInUse where an agent has it after all, JournalUnavailable.
    """
    from agent.intake import export
    from agent.journal import changes, driver, remains

    def read(db: Connection) -> Iterator[bytes]:
        after: int | None = 0
        while after is not None:
            text, after = export.page(
                db, store=settings.store.id, till=settings.store.till, after=after, upto=upto
            )
            yield from text.splitlines(keepends=True)

    path, way = settings.journal.path, driver.with_key(settings.journal.key_file)
    with ExitStack() as stack:
        try:
            with as_owner_of(path):
                db = stack.enter_context(remains.opened(path, way))
                upto = changes.last_seq(db) if db else 0
                counts = changes.totals(db, verifies=True).counts if db else {}
        except JournalInUse as error:
            raise JournalInUse(
                f"An agent has {path} open, but does not answer. Nothing was written. Look at "
                "'systemctl status till-agent'; once it is stopped, what it holds can be exported."
            ) from error
        about = sum(counts.get(state, 0) for state in changes.NOT_THERE)
        yield Lines(about, read(db) if db else iter(()))


@contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """Be a file's owner for a while: what root leaves beside a journal would lock the agent out."""
    if os.geteuid() != 0 or not path.exists():
        yield
        return
    facts, groups = path.stat(), os.getgroups()
    os.setgroups([])
    os.setegid(facts.st_gid)
    os.seteuid(facts.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)
