"""A till whose parts are broken one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patient import Patient
from world import lay_till

from agent.sandbox import Sandbox

# As in a shop: the short times of other tests are unwise, and the doctor says so.
USUAL: dict[str, dict[str, Any]] = {
    "engage": {
        "max_requests_per_s": 5,
        "backlog_requests_per_s": 1,
        "timeout_s": 5,
        "create_timeout_s": 11,
    },
    "server": {"port": 0},
}


@pytest.fixture
def lay(sandbox: Sandbox, tmp_path: Path) -> Callable[..., Patient]:
    """Lay a till: `lay(engage={"proxy": …}, engage_url=…)`."""

    numbers = itertools.count(1)

    def laid(engage_url: str | None = None, **settings: Any) -> Patient:
        over = {} if engage_url is None else {"engage_url": engage_url}
        tables = {
            name: {**USUAL.get(name, {}), **settings.get(name, {})} for name in {*USUAL, *settings}
        }
        folder = tmp_path / f"till-{next(numbers)}"
        return Patient(sandbox, lay_till(sandbox, folder, tables, **over))

    return laid


@pytest.fixture
def patient(lay: Callable[..., Patient]) -> Patient:
    return lay()
