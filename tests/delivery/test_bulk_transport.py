"""`fallback.transport = "bulk"`: the same batches through Engage's bulk calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from world import World

from agent.sandbox import Sandbox

BULK = {"transport": "bulk", "max_contacts": 100, "seal_after_s": 3600}


async def test_sealed_changes_go_by_bulk_calls_and_are_confirmed(
    start: Callable[..., Awaitable[World]], sandbox: Sandbox
) -> None:
    world = await start(fallback=BULK)
    known = sandbox.seed(email="known@example.test")

    async with world.pos.sealing():
        asked = [
            await world.pos.create(f"new{number}@example.test", firstName="Vera")
            for number in range(3)
        ]
        asked.append(await world.pos.update(known, city="Lund"))

    for change in asked:
        await world.pos.until(change, "confirmed")
    assert sandbox.counts()["duplicates"] == 0
    assert {contact["attributes"].get("email") for contact in sandbox.contacts()} == {
        "known@example.test",
        *(f"new{number}@example.test" for number in range(3)),
    }
    assert sandbox.contact(known)["attributes"]["city"] == "Lund"
    calls = sorted((call.method, call.status) for call in world.calls(path="/contacts/bulk"))
    assert calls == [("PATCH", 202), ("POST", 202)]


async def test_a_bulk_call_whose_answer_is_lost_is_sent_again_and_doubles_nobody(
    start: Callable[..., Awaitable[World]], sandbox: Sandbox
) -> None:
    world = await start(fallback=BULK)
    sandbox.set_fault("lose_answer", path="/contacts/bulk", times=1)
    sandbox.set_fault("not_unique")  # Engage itself would not stop a double

    async with world.pos.sealing():
        change = await world.pos.create(firstName="Vera")

    await world.pos.until(change, "confirmed")
    assert len(world.calls(path="/contacts/bulk")) == 1
    assert sandbox.counts()["duplicates"] == 0


async def test_a_contact_that_became_several_is_left_to_a_person_and_the_others_go(
    start: Callable[..., Awaitable[World]], sandbox: Sandbox
) -> None:
    world = await start(fallback={**BULK, "import_grace_s": 0.5})
    sandbox.set_fault("not_unique")
    sandbox.set_fault("status", method="POST", path="/contacts/bulk", times=1)
    # Two of a type that was not asked for: neither is meant, and a third would make it worse.
    several = [sandbox.seed(email="several@example.test", contactType="Contact") for _ in range(2)]

    async with world.pos.sealing():
        unclear = await world.pos.create("several@example.test", firstName="Vera")
        clear = await world.pos.create("vera@example.test", firstName="Vera")

    await world.pos.until(clear, "confirmed")
    change = await world.pos.until(unclear, "rejected")
    assert change["error"]["code"] == "MultipleMatches"
    assert {contact["id"] for contact in sandbox.find("email", "several@example.test")} == set(
        several
    )
