"""Today so far and the last 24 hours, made of the journal's quarters of an hour. Pure.

A day and its hours are those of the till's own clock, in its time zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.journal.figures import Figures, Quarter

HOURS = 24
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Today:
    """What happened since midnight."""

    accepted: int
    delivered: int  # reached Engage, on either route
    by_file: int  # of these, by file
    rejected: int


@dataclass(frozen=True)
class Hour:
    """One hour; the last one is not over yet."""

    begins_at: datetime  # UTC, at a full hour of the till's clock
    accepted: int
    delivered: int
    waiting: int  # not settled at its end, or now


def begin(now: datetime) -> datetime:
    """Give the first moment for which `today` or `hours` needs figures."""
    return min(_midnight(now), _first_hour(now))


def today(figures: Figures, now: datetime) -> Today:
    """Add up what happened since midnight."""
    midnight = _midnight(now)
    found = [quarter for quarter in figures.quarters if midnight <= quarter.begins_at <= now]
    return Today(
        accepted=sum(quarter.accepted for quarter in found),
        delivered=sum(quarter.delivered for quarter in found),
        by_file=sum(quarter.by_file for quarter in found),
        rejected=sum(quarter.rejected for quarter in found),
    )


def hours(figures: Figures, now: datetime) -> tuple[Hour, ...]:
    """Give the last 24 hours, the oldest first; what waited is worked out backwards from now."""
    found: list[Hour] = []
    waiting = figures.open
    for number in reversed(range(HOURS)):
        begins_at = _first_hour(now) + number * _HOUR
        within = _within(figures.quarters, begins_at)
        accepted = sum(quarter.accepted for quarter in within)
        delivered = sum(quarter.delivered for quarter in within)
        # A clock that went wrong meanwhile may tell more ends than beginnings.
        found.append(Hour(begins_at, accepted, delivered, max(0, waiting)))
        waiting -= sum(quarter.net for quarter in within)
    return tuple(reversed(found))


def _within(quarters: tuple[Quarter, ...], hour: datetime) -> list[Quarter]:
    return [quarter for quarter in quarters if hour <= quarter.begins_at < hour + _HOUR]


def _midnight(now: datetime) -> datetime:
    # The day's own offset, which is another one than now's after the clocks were changed.
    day = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return day.astimezone(UTC)


def _first_hour(now: datetime) -> datetime:
    local = now.astimezone().replace(minute=0, second=0, microsecond=0)
    return local.astimezone(UTC) - (HOURS - 1) * _HOUR
