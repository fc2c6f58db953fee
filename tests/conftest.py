"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# Set where everything must be run (.ci/run): a test that would be skipped fails there, so that a
# missing program cannot make the proof smaller without anybody noticing.
_REQUIRE_ALL = os.environ.get("TILL_AGENT_REQUIRE_ALL") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longrepr,)
        report.outcome = "failed"
        report.longrepr = f"{reason}\nNothing may be skipped here (TILL_AGENT_REQUIRE_ALL=1)."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
