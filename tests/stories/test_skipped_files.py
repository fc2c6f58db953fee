"""Engage's import skips a whole file: one alarm, one more try by itself, then a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually
from world import World

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
PEOPLE = [f"vera{number}@example.test" for number in range(3)]


async def skipped(world: World, changes: list[str]) -> str:
    """Let changes go up in a file that the import skips whole; gives the file's name."""
    for change_id in changes:
        await world.pos.until(change_id, "uploaded")
    name = (await world.pos.change(changes[0]))["batch"]
    world.sandbox.set_fault("skips_file", times=1)
    await world.sandbox.import_now()
    world.sandbox.clear_faults(kind="refuse")

    async def told() -> bool:
        return bool((await world.pos.get(f"/agent/v1/batches/{name}"))["skippedAt"])

    await eventually(told, "the file was skipped")
    return str(name)


async def needs(world: World) -> list[dict[str, Any]]:
    return list((await world.pos.status())["needsPerson"])


async def lose_the_line_between_two_calls(world: World, changes: list[str]) -> None:
    """Let Engage be gone; a call that was cut off would have to be looked up there first."""
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    for change_id in changes:
        await world.pos.until(change_id, "waiting", "batched", "uploaded")
    world.sandbox.set_fault("refuse", target="engage")
    await world.pos.call("POST", "/agent/v1/routes/api/resume")


async def sign_ups(world: World) -> list[str]:
    world.sandbox.set_fault("refuse", target="engage")
    return [await world.pos.create(email, city="Lund") for email in PEOPLE]


async def test_a_file_skipped_whole_is_one_alarm_and_its_changes_go_by_the_api(
    start: Start,
) -> None:
    world = await start()
    changes = await sign_ups(world)
    world.sandbox.set_fault("busy", method="POST", path="/contacts$")  # what is sent again waits

    name = await skipped(world, changes)

    (need,) = await eventually(lambda: needs(world), "an alarm")
    assert name in need["what"]
    assert "none of its 3 customers" in need["what"]
    world.sandbox.clear_faults()
    for change_id in changes:
        change = await world.pos.until(change_id, "delivered")
        assert [each["code"] for each in change["attempts"]].count("FileSkipped") == 1
    assert world.sandbox.counts()["duplicates"] == 0

    async def calm() -> bool:
        return not await needs(world)

    await eventually(calm, "the alarm is over")
    assert (await world.pos.get(f"/agent/v1/batches/{name}"))["state"] == "skipped"


async def test_a_file_skipped_a_second_time_is_one_need_that_one_retry_settles(
    start: Start,
) -> None:
    world = await start()
    changes = await sign_ups(world)
    world.sandbox.set_fault("busy", method="POST", path="/contacts$")
    first = await skipped(world, changes)
    await lose_the_line_between_two_calls(world, changes)

    second = await skipped(world, changes)

    assert second != first
    for change_id in changes:
        assert (await world.pos.until(change_id, "rejected"))["error"]["code"] == "FileSkipped"

    async def told() -> Any:
        found = await needs(world)
        return found if [second in need["what"] for need in found] == [True] else None

    (need,) = await eventually(told, "one alarm for all of it")
    assert need["count"] == 3
    assert f"till-agent batches retry {second}" in need["whatToDo"]
    world.sandbox.clear_faults()
    _, answer, _ = await world.pos.call("POST", f"/agent/v1/batches/{second}/retry")
    assert answer == {"retried": 3}
    for change_id in changes:
        assert (await world.pos.until(change_id, "delivered"))["route"] == "api"
    assert world.sandbox.counts()["duplicates"] == 0


async def test_a_retry_of_a_file_that_lacks_nothing_is_told(start: Start) -> None:
    world = await start()
    changes = await sign_ups(world)
    await world.pos.until(changes[0], "uploaded")
    name = (await world.pos.change(changes[0]))["batch"]

    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/retry")

    assert (status, body["errorCode"]) == (409, "Conflict")
