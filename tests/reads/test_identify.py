"""GET /api/v3/contacts/id: never a false "not found", and Engage is not asked twice for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from world import eventually

from agent.sandbox import Sandbox

Start = Callable[..., Awaitable[Any]]
BY_EMAIL = "/api/v3/contacts/id?email=vera@example.test"


async def identify(till: Any) -> tuple[int, Any, Any]:
    answer: tuple[int, Any, Any] = await till.pos.call("GET", BY_EMAIL)
    return answer


async def test_known_customer_is_found_by_the_guid(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")

    status, body, headers = await identify(till)

    assert (status, body) == (200, contact_id)
    assert headers["Agent-Source"] == "engage"


async def test_not_found_is_passed_on_for_a_while_without_asking_again(till: Any) -> None:
    await identify(till)

    status, body, headers = await identify(till)

    assert (status, body["errorCode"]) == (404, "ContactNotFound")
    assert headers["Agent-Source"] == "cache"
    assert headers["Cache-Status"].startswith("till-agent; hit; ttl=")
    assert len(till.calls("GET", "/contacts/id")) == 1


async def test_not_found_holds_for_its_time_only(till: Any) -> None:
    await identify(till)
    till.sandbox.seed(email="vera@example.test")
    till.clock.shift_s += 11

    status, _, _ = await identify(till)

    assert status == 200


async def test_time_of_zero_asks_every_time(start: Start) -> None:
    till = await start(cache={"not_found_ttl_s": 0})
    await identify(till)

    _, _, headers = await identify(till)

    assert headers["Agent-Source"] == "engage"


async def test_not_found_never_hides_an_open_change(till: Any) -> None:
    await identify(till)
    await till.cut_line()
    ref = await till.pos.ref_of(await till.pos.create())

    status, body, headers = await identify(till)

    assert (status, body) == (200, ref)
    assert headers["Agent-Source"] == "journal"


async def test_not_found_never_hides_a_customer_who_was_signed_up_since(till: Any) -> None:
    await identify(till)
    contact_id = await till.signed_up()

    status, body, _ = await identify(till)

    assert (status, body) == (200, contact_id)


async def test_not_found_holds_offline_for_its_time(till: Any) -> None:
    await identify(till)
    till.sandbox.down()

    status, _, headers = await identify(till)

    assert (status, headers["Agent-Source"]) == (404, "cache")


async def test_unknown_customer_is_never_not_found_offline(till: Any) -> None:
    await till.cut_line()

    status, body, headers = await identify(till)

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert "Retry-After" in headers


@pytest.mark.parametrize(
    "question",
    [
        "contacts/id?email=vera@example.test",
        "contacts/2e40b702-2767-4abe-ae99-aa510108e22b",
        "contacts/transactions?contactId=2e40b702-2767-4abe-ae99-aa510108e22b",
    ],
)
async def test_404_for_a_call_that_engage_does_not_have_is_no_not_found(
    start: Start, sandbox: Sandbox, question: str
) -> None:
    till = await start(engage={"base_url": f"{sandbox.engage_url}/elsewhere"})

    status, body, _ = await till.pos.call("GET", f"/api/v3/{question}")

    assert sandbox.requests[-1].status == 404
    assert (status, body["errorCode"]) == (503, "EngageUnreachable")


async def test_another_question_is_asked(till: Any) -> None:
    await identify(till)

    await till.pos.call("GET", "/api/v3/contacts/id?email=per@example.test")
    await till.pos.call("GET", f"{BY_EMAIL}&contactType=member")

    assert len(till.calls("GET", "/contacts/id")) == 3


# --- many readers -------------------------------------------------------------------------------


async def test_many_who_ask_for_the_same_cost_engage_one_call(start: Start) -> None:
    till = await start(engage={"timeout_s": 5})
    contact_id = till.sandbox.seed(email="vera@example.test")
    # Long enough for all to come while Engage is asked: what it finds is not kept.
    till.sandbox.set_fault("slow", path="/contacts/id", delay_s=1.5)

    found = await asyncio.gather(*(identify(till) for _ in range(20)))

    assert {(status, body) for status, body, _ in found} == {(200, contact_id)}
    assert len(till.calls("GET", "/contacts/id")) == 1


async def test_who_asks_after_a_sign_up_never_hears_the_answer_from_before_it(till: Any) -> None:
    till.sandbox.set_fault("slow", path="/contacts/id", delay_s=1.0, times=1)
    early = asyncio.create_task(identify(till))
    await eventually(lambda: till.calls("GET", "/contacts/id"), "Engage is asked")
    contact_id = await till.signed_up()

    status, body, _ = await identify(till)

    assert (status, body) == (200, contact_id)
    await early
    assert (await identify(till))[0] == 200


async def test_one_who_leaves_takes_the_answer_from_nobody(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.set_fault("slow", path="/contacts/id", delay_s=0.3)
    leaving = asyncio.create_task(identify(till))
    await eventually(lambda: till.calls("GET", "/contacts/id"), "Engage is asked")
    staying = asyncio.create_task(identify(till))

    leaving.cancel()

    assert (await staying)[1] == contact_id


# --- what a look-up leaves behind ---------------------------------------------------------------


@pytest.mark.parametrize("query", ["email=VERA@example.test", "any=vera@example.test"])
async def test_sign_up_of_somebody_who_was_looked_up_is_one_call_to_engage(
    till: Any, query: str
) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.pos.get(f"/api/v3/contacts/id?{query}")

    change = await till.pos.create(city="Lund")
    await till.pos.until(change, "delivered")

    assert [each.method for each in till.calls()] == ["GET", "PATCH"]


async def test_update_of_somebody_who_was_looked_up_is_one_call_to_engage(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test", mobilePhone="+46701234567")
    contact_id = await till.pos.get("/api/v3/contacts/id?mobilePhone=%2B46701234567")

    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")

    assert [each.method for each in till.calls()] == ["GET", "PATCH"]


async def test_key_that_may_have_been_another_is_not_kept(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test", memberNumber="0701234567")
    await till.pos.get("/api/v3/contacts/id?any=0701234567")
    await till.cut_line()

    status, _, _ = await till.pos.call("GET", "/api/v3/contacts/id?mobilePhone=0701234567")

    assert status == 503
