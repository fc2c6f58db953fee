"""What holds for every test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from hypothesis import settings
from patience import PATIENCE_S
from ticks import be_quick
from world import World, lay_till

from agent.sandbox import Sandbox

# Few examples while somebody waits; many in make test-system, which names the other profile.
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.load_profile("quick")

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


# --- an agent in front of a sandbox; a folder's conftest may put its own in their place ----------


@pytest.fixture(scope="session", autouse=True)
def quick_ticks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        be_quick(patch)
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Let no test hear, or be deaf, because of where another one sent the log."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(
        tmp_path / "sandbox",
        import_every_s=0,
        rate_limit=0,
        create_timeout_s=0.3,
        bulk_delay_s=0.02,  # sooner than anything is tried again
        seed=1,
    ) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as opened:
        yield opened


@pytest.fixture
def world_type() -> type[World]:
    return World


@pytest.fixture
def usual_settings() -> dict[str, Any]:
    """Give what every agent of a folder is started with, unless a test says otherwise."""
    return {}


@pytest.fixture
async def start(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    world_type: type[World],
    usual_settings: dict[str, Any],
) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Start an agent in this process: `await start(retry={"api_attempts": 1})`."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(**settings: Any) -> World:
            till = lay_till(sandbox, tmp_path / "till", {**usual_settings, **settings})
            world = world_type(sandbox, till, session)
            stack.push_async_callback(world.stop)
            return await world.start()

        yield started
