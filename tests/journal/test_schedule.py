"""What the nightly job erases, and by whose time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.change import State
from agent.clock import SystemClock
from agent.journal import driver
from agent.journal.database import Database
from agent.journal.journal import Journal
from agent.schedule import Schedule

SETTLED_AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


async def _journal_with_a_settled_and_an_open_change(folder: Path) -> Journal:
    journal = Journal(Database(folder / "journal.db", driver.plain()), SystemClock())
    await journal.open()

    def fill(db: driver.Connection) -> None:
        db.execute("INSERT INTO contacts (ref, created_at) VALUES ('r', 't')")
        for change_id, state, holds, settled_at in (
            ("settled", "delivered", 0, "2026-11-01T12:00:00.000Z"),
            ("open", "waiting", 1, None),
        ):
            db.execute(
                """INSERT INTO changes (id, lane, kind, state, holds, payload, payload_sha256,
                     fingerprint, token_name, created_at, settled_at)
                   VALUES (?, 1, 'update', ?, ?, '', '', '', 'pos', '2026', ?)""",
                (change_id, state, holds, settled_at),
            )

    await journal.write(fill)
    return journal


@pytest.mark.parametrize(
    ("sure_now", "left"),
    [
        (SETTLED_AT + timedelta(days=29), 1),  # kept for journal.retain_days
        (SETTLED_AT + timedelta(days=31), 0),
        (None, 1),  # only the till's own clock says what day it is: nothing is erased by it
    ],
)
async def test_settled_changes_are_erased_by_engages_time(
    tmp_path: Path, sure_now: datetime | None, left: int
) -> None:
    journal = await _journal_with_a_settled_and_an_open_change(tmp_path)
    try:
        removed = await Schedule(
            journal, lambda: sure_now, retain_days=30, recognise_days=365
        ).prune()

        totals = await journal.totals()
    finally:
        await journal.close()
    assert removed == 1 - left
    assert totals.counts[State.DELIVERED] == left
    assert totals.counts[State.WAITING] == 1
