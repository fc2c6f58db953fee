"""The machine's clocks, moved by a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.clock import SystemClock


class ShiftedClock(SystemClock):
    """The machine's clocks, put forward by as much as a test says."""

    def __init__(self, begins_at: datetime | None = None) -> None:
        """`begins_at`: what the time of day is now."""
        self.shift_s = 0.0
        self.wall_shift_s = 0.0  # as if somebody had set the time of day
        if begins_at is not None:
            self.wall_shift_s = (begins_at - datetime.now(UTC)).total_seconds()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.shift_s + self.wall_shift_s)

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s
