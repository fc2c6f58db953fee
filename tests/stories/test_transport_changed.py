"""The transport is changed while batches are under way: nothing goes twice, nothing is lost."""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from patience import eventually
from world import World

from agent.journal import batches

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
VERA = "vera@example.test"
SETTINGS: dict[str, dict[str, Any]] = {"fallback": {"seal_after_s": 3600, "max_contacts": 4000}}


def settings(transport: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {"fallback": {**SETTINGS["fallback"], "transport": transport}, **more}


async def restart(world: World, transport: str) -> None:
    """Change the transport as an administrator does, and restart the agent."""
    await world.stop()
    path = world.till.config_path
    text = path.read_text("utf-8")
    before = tomllib.loads(text)["fallback"]["transport"]
    path.write_text(text.replace(f'transport = "{before}"', f'transport = "{transport}"'), "utf-8")
    await world.start()


async def pause(world: World, *routes: str) -> None:
    for route in routes:
        await world.pos.call("POST", f"/agent/v1/routes/{route}/pause")


async def resume(world: World, *routes: str) -> None:
    for route in routes:
        await world.pos.call("POST", f"/agent/v1/routes/{route}/resume")


async def sealed(world: World, ask: Awaitable[str]) -> tuple[str, str]:
    """Let a change get into a batch that does not go anywhere; gives change and batch."""
    await pause(world, "api", "file")
    change_id = await ask
    await world.pos.call("POST", "/agent/v1/batches/seal")
    return change_id, str((await world.pos.change(change_id))["batch"])


async def batch(world: World, name: str) -> dict[str, Any]:
    return dict(await world.pos.get(f"/agent/v1/batches/{name}"))


async def needs(world: World) -> str:
    found = (await world.pos.status())["needsPerson"]
    return " ".join(f"{need['what']} {need['whatToDo']}" for need in found)


async def test_a_file_that_may_lie_on_the_server_goes_no_second_way_and_overwrites_nothing(
    start: Start,
) -> None:
    world = await start(**settings("sftp"))
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    older, name = await sealed(world, world.pos.update(contact_id, city="Lund"))
    assert world.agent is not None
    # As far as a kill right after the rename leaves it.
    await world.agent.journal.write(partial(batches.note_full_size, name=name))
    (world.till.folder / "spool" / name).rename(world.sandbox.import_path / name)

    await restart(world, "bulk")
    await resume(world, "api", "file")
    newer = await world.pos.update(contact_id, city="Ystad")

    await eventually(partial(says, world, name, "Set it to sftp again"), "the page names it")
    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw")
    assert (status, body["errorCode"]) == (503, "NotWithdrawn")
    assert "Set it to sftp again" in body["detail"]
    assert world.calls(path="/contacts/bulk") == []
    assert (await world.pos.change(newer))["state"] == "waiting"
    await restart(world, "sftp")
    await world.sandbox.import_now()
    await world.pos.until(older, "confirmed")
    await world.pos.until(newer, "delivered")
    assert world.attributes()["city"] == "Ystad"


async def says(world: World, *words: str) -> bool:
    told = await needs(world)
    return all(word in told for word in words)


async def test_a_file_that_never_went_up_goes_by_bulk_calls_and_leaves_nothing_in_the_spool(
    start: Start,
) -> None:
    world = await start(**settings("sftp"))
    change_id, name = await sealed(world, world.pos.create(city="Lund"))
    written = (world.till.folder / "spool" / name).exists()

    await restart(world, "bulk")
    await resume(world, "api", "file")

    await world.pos.until(change_id, "confirmed")
    assert written
    assert list((world.till.folder / "spool").iterdir()) == []


async def was_refused(world: World, name: str) -> bool:
    return bool((await batch(world, name))["error"])


async def test_a_batch_of_which_engage_took_nothing_goes_by_file(start: Start) -> None:
    world = await start(**settings("bulk"), retry={"waits_s": [3600]})
    world.sandbox.set_fault("throttle", path="/contacts/bulk")
    change_id, name = await sealed(world, world.pos.create(city="Lund"))
    await resume(world, "api", "file")
    await eventually(partial(was_refused, world, name), "a bulk call is refused")
    world.sandbox.clear_faults()

    await restart(world, "sftp")

    await world.pos.until(change_id, "uploaded")
    assert (await batch(world, name))["where"].startswith("sftp://")
    await world.sandbox.import_now()
    await world.pos.until(change_id, "confirmed")
    assert world.sandbox.counts()["duplicates"] == 0


async def test_what_engage_has_queued_is_left_to_bulk_calls_and_named(start: Start) -> None:
    world = await start(**settings("bulk"), sftp={"poll_s": 3600})
    change_id, name = await sealed(world, world.pos.create(city="Lund"))
    await resume(world, "api", "file")
    await world.pos.until(change_id, "uploaded")

    await restart(world, "sftp")

    await eventually(partial(says, world, name, "Set it to bulk again"), "the page names it")
    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw")
    assert (status, body["errorCode"]) == (503, "NotWithdrawn")
    assert (await batch(world, name))["where"] == "Engage's queue"
    assert world.sandbox.waiting_files() == []
