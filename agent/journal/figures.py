"""What was accepted, delivered and refused when: kept by the quarter of an hour, never counted.

The journal's triggers write these rows in the transactions of the changes themselves, so they are
as true as those, survive a restart, and cost the same with a million changes as with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from agent.journal.driver import Connection


@dataclass(frozen=True)
class Quarter:
    """A quarter of an hour in which something happened."""

    begins_at: datetime  # UTC
    accepted: int
    delivered: int  # reached Engage, on either route
    by_file: int  # of these, by file
    rejected: int
    net: int  # by how much the changes that are not settled grew


@dataclass(frozen=True)
class Figures:
    """What is kept, as far back as was asked for."""

    quarters: tuple[Quarter, ...]  # in order; those without a row are missing
    open: int  # changes that are not settled now


_SINCE = """
SELECT quarter, accepted, delivered, by_file, rejected, net FROM figures
 WHERE quarter >= ? ORDER BY quarter"""
_OPEN = "SELECT sum(net) AS n FROM figures"  # at most some hundred rows


def since(db: Connection, moment: datetime) -> Figures:
    """Give the figures from the quarter of a moment on, what a wrong clock put ahead included."""
    begin = moment.astimezone(UTC)
    text = f"{begin:%Y-%m-%dT%H:}{begin.minute // 15 * 15:02d}"
    return Figures(
        tuple(_quarter(row) for row in db.execute(_SINCE, (text,))),
        db.execute(_OPEN).fetchone()["n"],
    )


def _quarter(row: dict[str, str | int]) -> Quarter:
    kept = dict(row)
    begins_at = datetime.fromisoformat(f"{kept.pop('quarter')}:00+00:00")
    return Quarter(begins_at, **{name: int(value) for name, value in kept.items()})
