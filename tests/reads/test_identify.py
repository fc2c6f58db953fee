"""GET /api/v3/contacts/id: never a false "not found", and Engage is not asked twice for nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

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


async def test_another_question_is_asked(till: Any) -> None:
    await identify(till)

    await till.pos.call("GET", "/api/v3/contacts/id?email=per@example.test")
    await till.pos.call("GET", f"{BY_EMAIL}&contactType=member")

    assert len(till.calls("GET", "/contacts/id")) == 3
