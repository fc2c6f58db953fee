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


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loops of an agent in this process look around more often than a till needs."""
    for name in ("dispatcher", "batch.uploader", "batch.verify"):
        monkeypatch.setattr(f"agent.delivery.{name}._TICK_S", 0.05)
    monkeypatch.setattr("agent.delivery.batch.verify._AFTER_PATCH_S", 0.1)


@pytest.fixture
def usual_settings() -> dict[str, Any]:
    return {"fallback": {"seal_after_s": 3600}}  # no files
