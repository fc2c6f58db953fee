"""A change that grows old although the line is up is said on the page, and nothing else is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually
from world import World

from agent import assembly
from agent.delivery import stall

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]

# Engage is up and fails in its own words: the line is not to blame.
FAILING = {"status": 503, "commit": False}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "STALLED_AFTER_S", 0.3)
    monkeypatch.setattr(assembly, "_STATUS_EVERY_S", 0.05)


async def begun(start: Start) -> World:
    return await start(retry={"waits_s": [0.05], "api_attempts": 20}, link={"offline_after": 20})


async def waits_named(world: World) -> list[dict[str, Any]]:
    needed = (await world.pos.status())["needsPerson"]
    return [each for each in needed if "although the line is up" in str(each)]


async def looked_often(world: World) -> None:
    """Let the detector look for longer than it takes to call something stuck."""
    assert world.agent is not None
    looks = 0
    look = world.agent.stall.look

    async def counted() -> None:
        nonlocal looks
        await look()
        looks += 1

    world.agent.stall.look = counted  # type: ignore[method-assign]
    await eventually(lambda: looks >= 12, "it was looked at")


async def test_change_that_waits_with_the_line_up_is_named_with_its_cause(start: Start) -> None:
    world = await begun(start)
    world.sandbox.set_fault("status", **FAILING)

    change_id = await world.pos.create()

    (need,) = await eventually(lambda: waits_named(world), "the page names it")
    assert change_id in str(need)
    assert "HTTP 503" in str(need)


async def test_stall_goes_away_by_itself(start: Start) -> None:
    world = await begun(start)
    world.sandbox.set_fault("status", **FAILING)
    change_id = await world.pos.create()
    await eventually(lambda: waits_named(world), "the page names it")

    world.sandbox.clear_faults()

    await world.pos.until(change_id, "delivered")

    async def healed() -> bool:
        return not await waits_named(world)

    await eventually(healed, "the page is content")


async def test_import_that_cannot_be_looked_up_is_named_with_its_cause(start: Start) -> None:
    world = await start(retry={"waits_s": [3600]})
    async with world.pos.sealing():
        change_id = await world.pos.create()
    await world.pos.until(change_id, "uploaded", "imported")
    world.sandbox.set_fault("status", status=500, path="/contacts/id")
    await world.sandbox.import_now()

    (need,) = await eventually(lambda: waits_named(world), "the page names it")
    world.sandbox.clear_faults()
    await world.pos.call("POST", "/agent/v1/drain")  # not in an hour

    assert "could not be looked up" in need["what"]
    assert "Engage failed (HTTP 500)" in need["what"]
    assert change_id in need["whatToDo"]
    await world.pos.until(change_id, "confirmed")

    async def healed() -> bool:
        return not await waits_named(world)

    await eventually(healed, "the page is content")


async def test_offline_line_is_no_stall(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    world.sandbox.down()
    await world.pos.create()

    async def offline() -> bool:
        return bool((await world.pos.status())["link"]["state"] == "offline")

    await eventually(offline, "the line is seen down")
    await looked_often(world)

    assert not await waits_named(world)


async def test_paused_route_is_no_stall(start: Start) -> None:
    world = await begun(start)
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    await world.pos.create()

    await looked_often(world)

    assert not await waits_named(world)


async def test_halted_route_is_no_stall_but_says_its_own_cause(start: Start) -> None:
    world = await begun(start)
    world.sandbox.set_fault("unauthorised")
    await world.pos.create()

    await looked_often(world)

    assert not await waits_named(world)
    assert "API key" in str((await world.pos.status())["needsPerson"])


async def test_followers_of_a_rejected_create_are_no_stall(start: Start) -> None:
    world = await begun(start)
    created = await world.pos.create(contactType="Employee")  # Engage has no such type
    await world.pos.until(created, "rejected")
    ref = await world.pos.ref_of(created)
    await world.pos.update(ref, city="Lund")

    await looked_often(world)

    assert (await world.pos.change(created))["state"] == "rejected"
    assert not await waits_named(world)


async def test_engages_own_words_of_an_older_refusal_stay_off_the_page(start: Start) -> None:
    # Long enough to be still under way when it is called stuck.
    world = await start(engage={"timeout_s": 60, "create_timeout_s": 60})
    created = await world.pos.create(contactType="Employee")  # Engage has no such type
    refused = await world.pos.until(created, "rejected")
    world.sandbox.set_fault("hang")

    await world.pos.call("POST", f"/agent/v1/changes/{created}/retry")

    (need,) = await eventually(lambda: waits_named(world), "the page names it")
    assert refused["error"]["message"] not in str(need)
    assert "it was refused before" in str(need)
