"""After the import: looked up behind live traffic, GUID stored, attributes compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from patience import eventually
from world import World

Start = Callable[..., Awaitable[World]]
VERA = "vera@example.test"


async def uploaded(world: World, ask: Callable[[], Awaitable[str]]) -> str:
    """Let a change go up in a file while the API is away; gives its id."""
    world.sandbox.set_fault("refuse", target="engage")
    change_id = await ask()
    await world.pos.until(change_id, "uploaded")
    return change_id


async def test_a_confirmed_sign_up_has_engages_guid_from_then_on(start: Start) -> None:
    world = await start()
    change_id = await uploaded(world, lambda: world.pos.create(city="Lund"))
    ref = await world.pos.ref_of(change_id)
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    confirmed = await world.pos.until(change_id, "confirmed")
    (contact,) = world.sandbox.contacts()
    assert confirmed["contactId"] == contact["id"]
    assert (await world.pos.get(f"/agent/v1/contacts/{ref}"))["contactId"] == contact["id"]


async def test_look_ups_of_an_import_go_behind_what_people_do(
    start: Start, monkeypatch: Any
) -> None:
    world = await start()
    change_id = await uploaded(world, lambda: world.pos.create(city="Lund"))
    await world.sandbox.import_now()
    assert world.agent is not None
    turn, asked = world.agent.client.pace.turn, []

    async def noted(*, person: bool) -> None:
        asked.append(person)
        await turn(person=person)

    monkeypatch.setattr(world.agent.client.pace, "turn", noted)
    world.sandbox.clear_faults()
    await world.pos.until(change_id, "confirmed")
    looked_up = set(asked)
    asked.clear()
    await world.pos.call("POST", "/api/v3/contacts", {"email": "per@example.test"})

    assert (looked_up, set(asked)) == ({False}, {True})


async def test_what_the_import_and_a_mending_both_leave_out_is_rejected_naming_it(
    start: Start,
) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, city="Malmö", firstName="Vera")
    change_id = await uploaded(
        world, lambda: world.pos.update(contact_id, city="Lund", firstName="Vera")
    )
    world.sandbox.set_fault("skips_file")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    world.sandbox.set_fault("accepted", delay_s=3600.0, method="PATCH")  # taken, and dropped

    change = await world.pos.until(change_id, "rejected")

    assert change["error"]["code"] == "ImportDiffers"
    assert [each["field"] for each in change["error"]["validationErrors"]] == ["city"]
    assert world.writes(contact_id) == [{"city": "Lund"}]


async def test_a_value_of_which_engage_has_the_end_only_is_sent_by_the_api(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, zipCode="67")
    change_id = await uploaded(world, lambda: world.pos.update(contact_id, zipCode="12367"))
    world.sandbox.set_fault("skips_file")
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    await world.pos.until(change_id, "confirmed")
    assert world.attributes()["zipCode"] == "12367"


async def test_a_file_that_lies_too_long_is_named_on_the_page(start: Start) -> None:
    world = await start(fallback={"import_grace_s": 0.2})
    change_id = await uploaded(world, lambda: world.pos.create(city="Lund"))
    name = (await world.pos.change(change_id))["batch"]

    async def named() -> Any:
        needs = (await world.pos.status())["needsPerson"]
        return next((need for need in needs if name in need["what"]), None)

    need = await eventually(named, "the page names the file")

    assert f"till-agent batches withdraw {name}" in need["whatToDo"]
    assert (await world.pos.change(change_id))["state"] == "uploaded"
