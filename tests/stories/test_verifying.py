"""After the import: looked up behind live traffic, GUID stored, attributes compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually
from world import World

pytestmark = pytest.mark.system

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


async def imported(world: World, *emails: str) -> list[str]:
    """Let sign-ups be imported while Engage answers no look-up; gives the changes' ids."""
    async with world.pos.sealing():
        ids = [await world.pos.create(email) for email in emails]
    for change_id in ids:
        await world.pos.until(change_id, "uploaded")
    world.sandbox.set_fault("status", status=500, path="/contacts/id")
    await world.sandbox.import_now()
    return ids


def look_ups(world: World) -> int:
    return len(world.calls("GET", "/contacts/id"))


async def test_a_look_up_that_engage_fails_is_kept_and_made_again_after_growing_waits(
    start: Start,
) -> None:
    world = await start(retry={"waits_s": [0.05, 3600]})
    (change_id,) = await imported(world, VERA)

    change = await world.pos.tried(change_id, 2)
    tries = look_ups(world)
    await turns(world)

    assert change["state"] == "imported"
    assert [(each["outcome"], each["code"], each["status"]) for each in change["attempts"]] == [
        ("deferred", "EngageFailed", 500)
    ] * 2
    assert (tries, look_ups(world)) == (2, 2)  # not before an hour is over
    world.sandbox.clear_faults()
    await world.pos.call("POST", "/agent/v1/drain")
    await world.pos.until(change_id, "confirmed")


async def test_an_engage_that_fails_for_all_is_not_asked_for_one_after_the_other(
    start: Start,
) -> None:
    world = await start(retry={"waits_s": [3600]})
    ids = await imported(world, *(f"{number}@example.test" for number in range(6)))

    await eventually(lambda: look_ups(world) >= 3, "some are asked for")
    await turns(world)
    asked = look_ups(world)
    await world.stop()
    world.sandbox.clear_faults()
    await world.start()

    assert asked == 3
    for change_id in ids:
        await world.pos.until(change_id, "confirmed")  # at once, after a start


async def turns(world: World, times: int = 3) -> None:
    """Let the verifier look so often whether something is due."""
    assert world.agent is not None
    verifier, seen = world.agent.verifier, 0
    turn = verifier._turn

    async def counted() -> bool:
        nonlocal seen
        seen += 1
        return await turn()

    verifier._turn = counted  # type: ignore[method-assign]

    def looked() -> bool:
        verifier._imported.set()
        return seen >= times

    await eventually(looked, "it looked")
    verifier._turn = turn  # type: ignore[method-assign]


async def test_a_key_that_another_contact_has_by_now_is_for_a_person_to_settle(
    start: Start,
) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA)
    change_id = await uploaded(
        world, lambda: world.pos.update(contact_id, email="new@example.test")
    )
    world.sandbox.seed(email="new@example.test")
    world.sandbox.set_fault("skips_file")
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    change = await world.pos.until(change_id, "rejected")
    assert change["error"]["code"] == "ApprovedContactWithKeyExists"


async def test_a_customer_merged_into_another_contact_is_found_by_key(start: Start) -> None:
    world = await start()
    signed_up = await world.pos.create(city="Lund")
    gone = (await world.pos.until(signed_up, "delivered"))["contactId"]
    ref = await world.pos.ref_of(signed_up)
    change_id = await uploaded(world, lambda: world.pos.update(ref, city="Ystad"))
    world.sandbox.erase(gone)
    merged = world.sandbox.seed(email=VERA, city="Lund")
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    confirmed = await world.pos.until(change_id, "confirmed")
    assert (confirmed["contactId"], world.attributes()["city"]) == (merged, "Ystad")


async def test_a_contact_of_another_type_that_signs_up_by_file_is_made_a_member(
    start: Start,
) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, contactType="Contact")
    change_id = await uploaded(world, lambda: world.pos.create(city="Lund"))
    await world.sandbox.import_now()
    before = world.sandbox.contact(contact_id)

    world.sandbox.clear_faults()

    await world.pos.until(change_id, "confirmed")
    after = world.sandbox.contact(contact_id)
    assert before is not None
    assert after is not None
    assert [each["meta"]["contactType"] for each in (before, after)] == ["Contact", "Member"]


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
