"""Many tills behind one limit: no storm of 429, all drained, people before the backlog."""

from __future__ import annotations

import asyncio

import pytest

from agent.delivery.engage.pace import Pace
from agent.delivery.retry import backlog_after
from tests.bench.fleet import Fleet, Report, VirtualClock, VirtualLoop, simulate

# The same ratio as 2,000 tills at 50 a second; so few calls a second are a rougher measure.
SMALL = Fleet(tills=100, limit=5, backlog=(5, 25), person_every_s=1200)


@pytest.fixture(scope="module")
def report() -> Report:
    return simulate(SMALL)


def test_fleet_that_comes_back_at_once_is_seldom_refused(report: Report) -> None:
    assert report.refused_share < 0.1


def test_fleet_is_wholly_drained_and_nothing_is_lost(report: Report) -> None:
    assert report.delivered == report.expected
    assert report.drained_by[100] > 0


def test_fleet_uses_most_of_the_limit_while_most_tills_have_a_backlog(report: Report) -> None:
    assert report.utilisation(report.drained_by[50]) > 0.3


def test_people_do_not_wait_for_the_backlog(report: Report) -> None:
    assert report.told_within(0.5) < 1
    assert report.told_within(0.99) < 5


def test_heedless_tills_would_be_refused_most_of_the_time() -> None:
    heedless = simulate(Fleet(**{**vars(SMALL), "heeds": False, "until_s": 60}))

    assert heedless.refused_share > 0.5


def test_person_goes_before_backlog_that_asked_earlier() -> None:
    order: list[str] = []

    async def ask() -> None:
        pace = Pace(VirtualClock(asyncio.get_running_loop()), per_s=5, backlog_per_s=1)
        pace.begin_slowly()

        async def turn(name: str, *, person: bool) -> None:
            await pace.turn(person=person)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(turn(f"backlog {number}", person=False))
            await asyncio.sleep(0.01)
            group.create_task(turn("person", person=True))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(ask())

    assert order == ["backlog 0", "person", "backlog 1", "backlog 2"]


def test_backlog_starts_anywhere_in_a_window_that_is_no_longer_than_needed() -> None:
    def latest(low: float, high: float) -> float:
        assert low == 0
        return high

    assert backlog_after(8 * 3600, 15, latest) == 300
    assert backlog_after(60, 15, latest) == 30
