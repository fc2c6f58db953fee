"""The last tries that did not deliver, of all changes together: what went wrong lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.change import Route
from agent.journal.driver import Connection


@dataclass(frozen=True)
class Failure:
    """One try that did not deliver."""

    code: str
    route: Route
    at: datetime


# From the index of what did not deliver. What a person gave up is no error.
_LAST = """
SELECT code, route, ended_at FROM attempts
 WHERE outcome <> 'delivered' AND code IS NOT NULL
   AND code NOT IN ('Discarded', 'Erased', 'Withdrawn')
 ORDER BY number DESC LIMIT ?"""


def last(db: Connection, limit: int) -> tuple[Failure, ...]:
    """Give the last failed tries, the newest first."""
    return tuple(_failure(row) for row in db.execute(_LAST, (limit,)))


def _failure(row: Any) -> Failure:
    return Failure(row["code"], Route(row["route"]), datetime.fromisoformat(row["ended_at"]))
