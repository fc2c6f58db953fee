"""A person takes a file back: it is never imported, and its changes find another way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually
from world import World

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
VERA = "vera@example.test"


async def file_with(world: World, *asked: Callable[[], Awaitable[str]]) -> str:
    """Let changes go up in a file while the API is down; gives the file's name."""
    world.sandbox.set_fault("refuse", target="engage")
    changes = [await ask() for ask in asked]
    for change_id in changes:
        await world.pos.until(change_id, "uploaded")
    return str((await world.pos.change(changes[0]))["batch"])


async def withdraw(world: World, name: str) -> tuple[int, Any]:
    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw")
    return status, body


async def batch(world: World, name: str) -> dict[str, Any]:
    return dict(await world.pos.get(f"/agent/v1/batches/{name}"))


async def test_changes_of_a_withdrawn_file_go_by_the_api_and_it_is_never_imported(
    start: Start,
) -> None:
    world = await start()
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    (change_id,) = [each["id"] for each in (await world.pos.get("/agent/v1/changes"))["items"]]
    world.sandbox.clear_faults()

    status, body = await withdraw(world, name)

    assert (status, body["state"], body["where"]) == (200, "withdrawn", "nowhere")
    assert await world.sandbox.import_now() == 0
    change = await world.pos.until(change_id, "delivered")
    assert (change["route"], change["batch"]) == ("api", None)
    assert [each["code"] for each in change["attempts"]].count("Withdrawn") == 1
    assert world.attributes()["city"] == "Lund"
    assert world.sandbox.waiting_files() == []
    assert world.sandbox.counts()["imports"]["files"] == 0


async def test_what_was_asked_for_since_comes_after_what_the_file_held(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    name = await file_with(world, lambda: world.pos.update(contact_id, city="Lund"))
    world.sandbox.clear_faults()
    newer = await world.pos.update(contact_id, city="Ystad")

    await withdraw(world, name)

    await world.pos.until(newer, "delivered")
    assert world.writes(contact_id)[-1] == {"city": "Ystad"}
    assert world.attributes()["city"] == "Ystad"


async def test_a_file_that_engage_has_taken_is_told_and_goes_on(start: Start) -> None:
    world = await start(sftp={"poll_s": 3600})
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    await world.sandbox.import_now()
    world.sandbox.clear_faults()

    status, body = await withdraw(world, name)

    assert (status, body["errorCode"]) == (409, "Conflict")
    assert name in body["detail"]
    (change,) = (await world.pos.get("/agent/v1/changes"))["items"]
    await world.pos.until(change["id"], "confirmed")


async def test_a_server_out_of_reach_leaves_the_file_where_it_is(start: Start) -> None:
    world = await start()
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    world.sandbox.set_fault("refuse", target="sftp")

    status, body = await withdraw(world, name)

    assert (status, body["errorCode"]) == (503, "NotWithdrawn")
    assert "refuses connections" in body["detail"]
    assert (await batch(world, name))["state"] == "uploaded"
    world.sandbox.clear_faults()
    await world.sandbox.import_now()
    (change,) = (await world.pos.get("/agent/v1/changes"))["items"]
    await world.pos.until(change["id"], "confirmed")


async def test_a_file_that_was_never_uploaded_is_withdrawn_without_the_server(start: Start) -> None:
    world = await start()
    world.sandbox.down()
    change_id = await world.pos.create(city="Lund")
    name = (await world.pos.until(change_id, "batched"))["batch"]
    spool = world.till.folder / "spool"
    await eventually(lambda: (spool / name).exists(), "the file is written")

    status, body = await withdraw(world, name)

    assert (status, body["state"]) == (200, "withdrawn")
    assert (await world.pos.change(change_id))["state"] == "waiting"
    assert list(spool.iterdir()) == []
    world.sandbox.up()
    assert (await world.pos.until(change_id, "delivered"))["route"] == "api"


async def test_a_withdrawal_of_which_nobody_heard_is_not_taken_for_an_import(start: Start) -> None:
    world = await start(fallback={"verify": "none"})  # an import would be the end of it
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    world.sandbox.set_fault("lose_rename_answer", times=1)
    world.sandbox.clear_faults(target="engage")

    status, _ = await withdraw(world, name)

    assert status == 503
    (change,) = (await world.pos.get("/agent/v1/changes"))["items"]
    assert (await world.pos.until(change["id"], "delivered"))["route"] == "api"
    assert (await batch(world, name))["state"] == "withdrawn"
    await eventually(lambda: world.sandbox.waiting_files() == [], "nothing is left there")


async def test_withdrawn_changes_get_into_a_file_of_another_name(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 0.2})
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    await world.pos.call("POST", "/agent/v1/routes/file/pause")
    await withdraw(world, name)
    (change,) = (await world.pos.get("/agent/v1/changes"))["items"]

    await world.pos.call("POST", "/agent/v1/routes/file/resume")

    again = await world.pos.until(change["id"], "uploaded")
    assert again["batch"] != name
    assert [each for each in world.sandbox.waiting_files() if not each.startswith(".")] == [
        again["batch"]
    ]


async def test_a_withdrawn_change_is_not_sealed_again_at_once(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    world.sandbox.set_fault("refuse", target="engage")
    change_id = await world.pos.create(city="Lund")
    await world.pos.until_link("offline")
    await world.pos.call("POST", "/agent/v1/batches/seal")
    name = (await world.pos.until(change_id, "uploaded"))["batch"]

    await withdraw(world, name)

    assert (await world.pos.change(change_id))["state"] == "waiting"
    _, body, _ = await world.pos.call("POST", "/agent/v1/batches/seal")
    assert body == {"sealed": 1}


@pytest.mark.parametrize("what", ["withdraw", "retry"])
async def test_a_file_that_nobody_knows_is_told(start: Start, what: str) -> None:
    world = await start()

    status, body, _ = await world.pos.call("POST", f"/agent/v1/batches/none.xml/{what}")

    assert (status, body["errorCode"]) == (404, "NotFound")


async def test_a_file_of_former_settings_is_given_up_only_once_it_is_said_to_be_removed(
    start: Start,
) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    name = await file_with(world, lambda: world.pos.update(contact_id, city="Lund"))
    await world.stop()
    (world.sandbox.sftp_root / "elsewhere").mkdir()
    settings = world.till.config_path.read_text("utf-8")
    here = json.dumps(world.sandbox.import_directory)
    assert here in settings
    world.till.config_path.write_text(settings.replace(here, '"/elsewhere"'), "utf-8")
    world.sandbox.clear_faults()
    await world.start()
    newer = await world.pos.update(contact_id, city="Ystad")

    refused = await withdraw(world, name)
    unclear, _, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw?file=gone")
    where = (await batch(world, name))["where"]
    (world.sandbox.import_path / name).unlink()
    status, _, _ = await world.pos.call("POST", f"/agent/v1/batches/{name}/withdraw?file=removed")

    assert (refused[0], refused[1]["errorCode"], unclear, status) == (503, "NotWithdrawn", 400, 200)
    assert where.endswith(f"{world.sandbox.import_directory}/{name}")
    await world.pos.until(newer, "delivered")
    assert world.attributes()["city"] == "Ystad"


async def test_withdrawing_again_changes_nothing(start: Start) -> None:
    world = await start()
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    await withdraw(world, name)

    status, body = await withdraw(world, name)

    assert (status, body["state"]) == (200, "withdrawn")


async def test_a_restart_in_the_middle_of_a_withdrawal_ends_it(start: Start) -> None:
    world = await start()
    name = await file_with(world, lambda: world.pos.create(city="Lund"))
    await world.stop()
    there = world.sandbox.import_path / name
    there.rename(there.with_name(f".{name}.withdrawn"))  # as far as it had come
    world.sandbox.clear_faults()

    await world.start()

    (change,) = (await world.pos.get("/agent/v1/changes"))["items"]
    assert (await world.pos.until(change["id"], "delivered"))["route"] == "api"
    await eventually(lambda: world.sandbox.waiting_files() == [], "nothing is left there")
