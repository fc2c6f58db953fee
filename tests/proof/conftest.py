"""What holds for every test in virtual time."""

from __future__ import annotations

import pytest
from ticks import be_usual


@pytest.fixture(autouse=True)
def usual_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    be_usual(monkeypatch)
