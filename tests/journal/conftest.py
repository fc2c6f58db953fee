"""A journal on a real disk, with a clock that the tests move."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from journal_helpers import Book, FakeClock

DRIVERS = ["sqlite", "sqlcipher"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def book(path: Path, clock: FakeClock) -> AsyncIterator[Book]:
    """A journal of the usual kind."""
    async with Book(path, clock) as opened:
        yield opened


@pytest.fixture(params=DRIVERS)
def driver_name(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlcipher" and importlib.util.find_spec("sqlcipher3") is None:
        pytest.skip("sqlcipher3 is not installed")
    return str(request.param)


@pytest.fixture
async def each_book(path: Path, clock: FakeClock, driver_name: str) -> AsyncIterator[Book]:
    """The journal with each driver in turn."""
    async with Book(path, clock, driver_name) as opened:
        yield opened
