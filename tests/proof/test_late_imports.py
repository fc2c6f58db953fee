"""Engage imports a file long after it went up, and nothing newer is overwritten.

In virtual time; that what Engage holds never goes back is watched by the world itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from history_steps import step
from history_world import HistoryWorld, told

HOUR_S = 3600.0
# The import comes an hour after the sandbox's start; the page is to complain after 20 minutes.
LATE = {"import_every_s": HOUR_S, "import_grace_s": 1200}


@pytest.fixture(autouse=True)
def slow_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loops look around seldom: it is their bells that must ring, and an hour is long."""
    for name in ("dispatcher", "batch.bulk", "batch.sealer", "batch.uploader", "batch.verify"):
        monkeypatch.setattr(f"agent.delivery.{name}._TICK_S", 5.0)
    monkeypatch.setattr("agent.assembly._STATUS_EVERY_S", 60.0)


async def file_goes_up(world: HistoryWorld) -> None:
    """Sign a customer up, then change their city while the API is left alone: it goes by file."""
    await world.do(step("sign_up", person=1, wait="3"))
    await world.do(
        step("pause", route="api")
    )  # not a fault: it might just be tried, and not sealed
    await world.do(step("update", person=1, names=("city",), wait="0"))
    await world.do(step("seal"))
    await world.do(step("elapse", seconds=15.0))
    await world.do(step("resume", route="api"))


async def states(world: HistoryWorld, person: int = 1) -> list[str]:
    asked = [each.change for each in world.people[person].asked if each.change]
    return [(await world.change(each)).state for each in asked]


async def needs(world: HistoryWorld) -> list[str]:
    _, status, _ = await world._call("GET", "/agent/v1/status")
    return [need["what"] for need in status["needsPerson"]]


async def file(world: HistoryWorld) -> dict[str, Any]:
    _, found, _ = await world._call("GET", "/agent/v1/batches")
    (batch,) = found["items"]
    return dict(batch)


def test_an_import_that_comes_an_hour_late_overwrites_nothing_newer(tmp_path: Path) -> None:
    async def tell(world: HistoryWorld) -> None:
        await file_goes_up(world)
        await world.do(step("update", person=1, names=("city",), wait="3"))
        await world.do(step("sign_up", person=0, wait="3"))  # somebody else is not held up

        await world.do(step("elapse", seconds=0.75 * HOUR_S))

        assert await states(world) == ["delivered", "uploaded", "waiting"]
        assert await states(world, 0) == ["delivered"]
        name = (await file(world))["name"]
        assert [name in need for need in await needs(world)].count(True) == 1

    told(tmp_path, tell, **LATE)


def test_a_file_that_is_taken_back_lets_what_is_newer_go_and_is_never_imported(
    tmp_path: Path,
) -> None:
    async def tell(world: HistoryWorld) -> None:
        await file_goes_up(world)
        await world.do(step("update", person=1, names=("city",), wait="3"))
        await world.do(step("withdraw"))

        await world.do(step("elapse", seconds=120.0))

        assert await states(world) == ["delivered", "delivered", "delivered"]
        await world.do(step("elapse", seconds=HOUR_S))
        assert world.sandbox.counts()["imports"]["files"] == 0
        assert (await file(world))["state"] == "withdrawn"

    told(tmp_path, tell, **LATE)


def test_a_bulk_queue_that_is_slow_overwrites_nothing_newer(tmp_path: Path) -> None:
    async def tell(world: HistoryWorld) -> None:
        await world.do(step("sign_up", person=1, wait="3"))
        await world.do(step("pause", route="api"))
        await world.do(step("update", person=1, names=("city",), wait="0"))
        await world.do(step("seal"))
        await world.do(step("resume", route="api"))
        await world.do(step("update", person=1, names=("city",), wait="3"))

        await world.do(step("elapse", seconds=600.0))

        assert await states(world) == ["delivered", "uploaded", "waiting"]

    told(tmp_path, tell, transport="bulk", bulk_delay_s=900.0, import_grace_s=1200)
