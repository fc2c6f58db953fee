"""Time as an argument: the wall clock for what people read, the monotonic one for every wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the agent needs to know about time; tests replace it."""

    def now(self) -> datetime:
        """Give the wall clock's time in UTC. It may jump; nothing may wait on it."""

    def monotonic(self) -> float:
        """Give seconds that never jump and never go back."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Give the wall clock's time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds since some moment in the past; suspended time counts."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def to_text(moment: datetime) -> str:
    """Give a moment as it stands in the journal and in answers: `2026-11-21T10:15:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
