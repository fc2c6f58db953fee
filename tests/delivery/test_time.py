"""Wrong clocks and sleep: a jump of the wall clock, a suspended machine, a date in an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import eventually
from world import World, lay_till

from agent import config
from agent.assembly import Agent
from agent.clock import SystemClock
from agent.delivery.engage.answers import retry_after
from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

YEARS = timedelta(days=3653)


class JumpingClock(SystemClock):
    """The machine's clocks, and how far somebody moved them."""

    def __init__(self) -> None:
        self.wall_moved = timedelta(0)
        self.slept_s = 0.0

    def now(self) -> datetime:
        return super().now() + self.wall_moved

    def monotonic(self) -> float:
        return super().monotonic() + self.slept_s


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
async def world(
    sandbox: Sandbox, session: aiohttp.ClientSession, tmp_path: Path, clock: JumpingClock
) -> AsyncIterator[World]:
    settings = {"fallback": {"seal_after_s": 3600}}
    world = World(sandbox, lay_till(sandbox, tmp_path / "till", settings), session)
    world.agent = Agent(config.load(world.till.config_path), clock)
    await world.agent.start()
    world.pos.url = world.agent.url
    yield world
    await world.stop()


jumps = pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["forward", "back"])


@jumps
async def test_jump_of_the_wall_clock_neither_delays_nor_hurries_a_wait(
    world: World, clock: JumpingClock, jump: timedelta
) -> None:
    world.sandbox.set_fault("throttle", retry_after="3600", times=1)
    held = await world.pos.create("held@example.test")
    await world.pos.tried(held)
    world.sandbox.set_fault("throttle", retry_after="1", times=1)
    soon = await world.pos.create("soon@example.test")
    await world.pos.tried(soon)

    clock.wall_moved = jump

    await world.pos.until(soon, "delivered")
    assert (await world.pos.change(held))["state"] == "waiting"
    assert len((await world.pos.change(held))["attempts"]) == 1


@jumps
async def test_jump_of_the_wall_clock_keeps_the_order_of_a_lane(
    world: World, clock: JumpingClock, jump: timedelta
) -> None:
    world.sandbox.down()
    ref = await world.pos.ref_of(await world.pos.create(city="A"))
    clock.wall_moved = jump
    await world.pos.update(ref, city="B")
    clock.wall_moved = timedelta(0)
    last = await world.pos.update(ref, city="C")
    world.sandbox.up()

    await world.pos.until(last, "delivered")

    assert world.attributes()["city"] == "C"


@jumps
async def test_open_changes_are_never_pruned_whatever_the_clock_says(
    world: World, clock: JumpingClock, jump: timedelta
) -> None:
    world.sandbox.down()
    change_id = await world.pos.create()
    assert world.agent is not None

    clock.wall_moved = jump

    assert await world.agent.schedule.prune() == 0
    assert (await world.pos.change(change_id))["id"] == change_id


async def test_due_at_is_for_people_and_decides_nothing(world: World, clock: JumpingClock) -> None:
    clock.wall_moved = YEARS
    world.sandbox.set_fault("throttle", retry_after="1", times=1)
    change_id = await world.pos.create()
    due_at = datetime.fromisoformat((await world.pos.tried(change_id))["dueAt"])
    assert due_at > datetime.now(UTC) + timedelta(days=3000)

    clock.wall_moved = timedelta(0)

    await world.pos.until(change_id, "delivered")


async def test_batch_names_stay_unique_when_the_clock_goes_back(
    world: World, clock: JumpingClock
) -> None:
    world.sandbox.down()
    moment = clock.now()
    for number in range(3):
        change_id = await world.pos.create(f"vera{number}@example.test")

        async def sealed(change_id: str = change_id) -> bool:
            clock.wall_moved = moment - SystemClock().now()  # the same second every time
            await world.pos.call("POST", "/agent/v1/batches/seal")
            return bool((await world.pos.change(change_id))["state"] == "batched")

        # It may just be under way by the API, and then it is not sealed yet.
        await eventually(sealed, "the change is in a file")

    names = [each["name"] for each in await world.pos.batches()]
    assert len(names) >= 3
    assert len(set(names)) == len(names)


# --- sleep --------------------------------------------------------------------------------------


async def test_waking_up_rebuilds_connections_and_makes_no_burst(
    world: World, clock: JumpingClock
) -> None:
    assert world.agent is not None
    client = world.agent.client
    await world.pos.until(await world.pos.create("before@example.test"), "delivered")
    before = client._session

    clock.slept_s = 8 * 3600

    await world.pos.until(await world.pos.create("after@example.test"), "delivered")
    assert client._session is not before
    assert client.pace._tokens <= client.pace.per_s
    assert client.pace._backlog_tokens <= client.pace.backlog_per_s


async def test_waits_that_passed_in_sleep_are_over(world: World, clock: JumpingClock) -> None:
    world.sandbox.set_fault("throttle", retry_after="3000", times=1)
    change_id = await world.pos.create()
    await world.pos.tried(change_id)

    clock.slept_s = 2 * 3600

    await world.pos.until(change_id, "delivered")


# --- what Engage's clock says -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [YEARS, -YEARS, timedelta(0)])
def test_retry_after_as_a_date_is_read_by_engages_own_clock(wrong: timedelta) -> None:
    engages = datetime.now(UTC) + wrong
    headers = {
        "date": format_datetime(engages, usegmt=True),
        "retry-after": format_datetime(engages + timedelta(seconds=90), usegmt=True),
    }

    assert retry_after(headers) == 90


async def needs(world: World, words: str) -> list[dict[str, Any]]:
    found = (await world.pos.status())["needsPerson"]
    return [each for each in found if words in str(each)]


@pytest.mark.parametrize(("skew_s", "words"), [(10800.0, "behind"), (-10800.0, "ahead of")])
async def test_page_says_that_the_clock_is_wrong(world: World, skew_s: float, words: str) -> None:
    world.sandbox.set_fault("clock_skew", skew_s=skew_s)
    await world.pos.until(await world.pos.create(), "delivered")

    (need,) = await eventually(lambda: needs(world, "clock is wrong"), "the page says so")

    assert f"{words} Engage's by about 3 hours" in str(need)


async def test_clock_that_goes_wrong_after_engage_was_heard_is_noticed(
    world: World, clock: JumpingClock
) -> None:
    await world.pos.until(await world.pos.create(), "delivered")
    assert not await needs(world, "clock is wrong")

    clock.wall_moved = -YEARS

    await eventually(lambda: needs(world, "clock is wrong"), "the page says so")


async def test_portals_date_does_not_accuse_the_clock(world: World) -> None:
    world.sandbox.set_fault("clock_skew", skew_s=7200.0)
    portal = world.sandbox.set_fault("portal")
    await world.pos.create()
    await eventually(lambda: portal.hits, "the portal answered")

    assert world.agent is not None
    await asyncio.sleep(0)
    assert world.agent.client.server_clock_offset_s is None
