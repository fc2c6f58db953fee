"""An agent in front of a sandbox, with short times; the helpers are those of the stories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


class FakeClock:
    """A clock that goes only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def usual_settings() -> dict[str, Any]:
    return {"fallback": {"seal_after_s": 3600}}  # no files
