"""Agents whose log is caught."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from log_lines import LogLines, caught


@pytest.fixture
def log() -> Iterator[LogLines]:
    with caught() as lines:
        yield lines
