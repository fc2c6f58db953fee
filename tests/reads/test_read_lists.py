"""Purchases and promotions: Engage's lists as they are, kept a while, stale while offline."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.lookup.purchases import usable

Start = Callable[..., Awaitable[Any]]
PURCHASES = "/api/v3/contacts/transactions"
PROMOTIONS = "/api/v3/promotion-assignments"


@pytest.fixture
def contact_id(till: Any) -> str:
    return str(till.sandbox.seed(email="vera@example.test"))


async def ask(till: Any, path: str, query: str) -> tuple[int, Any, Any]:
    answer: tuple[int, Any, Any] = await till.pos.call("GET", f"{path}?{query}")
    return answer


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_list_is_passed_on_and_kept(till: Any, contact_id: str, path: str) -> None:
    status, fetched, first = await ask(till, path, f"contactId={contact_id}")

    _, kept, second = await ask(till, path, f"contactId={contact_id.upper()}")

    assert status == 200
    assert fetched
    assert kept == fetched
    assert (first["Agent-Source"], second["Agent-Source"]) == ("engage", "cache")
    assert len(till.calls("GET", path)) == 1


async def test_purchases_and_returns_can_be_told_apart(till: Any, contact_id: str) -> None:
    _, body, _ = await ask(till, PURCHASES, f"contactId={contact_id}")

    lines = [
        (line["type"], line["quantity"]) for each in body["items"] for line in each["lineItems"]
    ]
    assert {kind for kind, quantity in lines if quantity < 0} == {"RETURN"}
    assert {kind for kind, quantity in lines if quantity > 0} == {"PURCHASE"}


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_many_readers_of_a_list_cost_engage_one_call(
    till: Any, contact_id: str, path: str
) -> None:
    till.sandbox.set_fault("slow", path=path, delay_s=0.3)

    answers = await asyncio.gather(*(ask(till, path, f"contactId={contact_id}") for _ in range(20)))

    assert {status for status, _, _ in answers} == {200}
    assert len(till.calls("GET", path)) == 1


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_list_is_asked_for_again_after_a_change_of_this_till(
    till: Any, contact_id: str, path: str
) -> None:
    await ask(till, path, f"contactId={contact_id}")
    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")

    _, _, headers = await ask(till, path, f"contactId={contact_id}")

    assert headers["Cache-Status"].startswith("till-agent; fwd=stale")
    assert len(till.calls("GET", path)) == 2


async def test_purchases_have_engages_shape(till: Any, contact_id: str) -> None:
    _, body, _ = await ask(till, PURCHASES, f"contactId={contact_id}")

    assert set(body) == {"count", "offset", "totalCount", "items"}


async def test_parameters_reach_engage_as_they_were_given(till: Any, contact_id: str) -> None:
    _, body, _ = await ask(till, PURCHASES, f"contactId={contact_id}&offset=1&count=1")
    await ask(till, PROMOTIONS, f"contactId={contact_id}&redemptionChannelType=POS")

    assert (body["offset"], body["count"]) == (1, 1)
    assert [each.query for each in till.calls("GET")] == [
        {"contactId": contact_id, "offset": "1", "count": "1"},
        {"contactId": contact_id, "redemptionChannelType": "POS"},
    ]


async def test_each_page_is_kept_by_itself(till: Any, contact_id: str) -> None:
    _, first, _ = await ask(till, PURCHASES, f"contactId={contact_id}&count=1&offset=0")
    _, second, _ = await ask(till, PURCHASES, f"offset=1&contactId={contact_id}&count=1")

    _, again, headers = await ask(till, PURCHASES, f"count=1&offset=0&contactId={contact_id}")

    assert headers["Agent-Source"] == "cache"
    assert again == first != second


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_list_is_served_stale_while_offline(till: Any, contact_id: str, path: str) -> None:
    _, fetched, _ = await ask(till, path, f"contactId={contact_id}")
    await till.cut_line()
    till.clock.shift_s += 3600

    status, body, headers = await ask(till, path, f"contactId={contact_id}")

    assert (status, body) == (200, fetched)
    assert headers["Agent-Source"] == "cache"
    assert "ttl=-" in headers["Cache-Status"]


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_list_that_was_never_read_is_unreachable_offline(till: Any, path: str) -> None:
    await till.cut_line()

    status, body, headers = await ask(till, path, f"contactId={uuid.uuid4()}")

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert "Retry-After" in headers


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_list_of_a_contact_that_engage_does_not_have_is_404(till: Any, path: str) -> None:
    status, body, _ = await ask(till, path, f"contactId={uuid.uuid4()}")

    assert (status, body["errorCode"]) == (404, "ContactNotFound")


async def test_redeemed_promotions_are_left_out_on_request(till: Any, contact_id: str) -> None:
    _, every, _ = await ask(till, PROMOTIONS, f"contactId={contact_id}")

    _, usable, headers = await ask(till, PROMOTIONS, f"contactId={contact_id}&redeemed=false")

    assert usable == [each for each in every if not each["redeemed"]]
    assert 0 < len(usable) < len(every)
    assert headers["Agent-Source"] == "cache"
    assert [each.query for each in till.calls("GET", PROMOTIONS)] == [{"contactId": contact_id}]


@pytest.mark.parametrize(
    ("promotion", "left"),
    [
        ({"redeemed": True}, False),
        ({"redeemed": False, "redeemedOn": None}, True),
        ({"redeemedOn": "2026-10-01T12:00:00+00:00"}, False),  # where the flag is missing
        ({"redeemed": None, "redeemedOn": ""}, True),
        ({}, True),
        ("something else", True),
    ],
)
def test_promotion_is_left_out_once_it_was_redeemed(promotion: Any, left: bool) -> None:
    expected = [promotion] if left else []

    assert usable([promotion]) == expected
    assert usable({"items": [promotion], "count": 1}) == {"items": expected, "count": 1}


async def test_redeemed_must_be_true_or_false(till: Any, contact_id: str) -> None:
    status, body, _ = await ask(till, PROMOTIONS, f"contactId={contact_id}&redeemed=no")

    assert (status, body["errorCode"]) == (400, "MalformedRequest")


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
@pytest.mark.parametrize("query", ["", "contactId=", "offset=0"])
async def test_list_without_a_contact_is_refused(till: Any, path: str, query: str) -> None:
    status, body, _ = await ask(till, path, query)

    assert (status, body["errorCode"]) == (400, "MalformedRequest")
    assert till.calls() == []


@pytest.mark.parametrize("path", [PURCHASES, PROMOTIONS])
async def test_ref_is_asked_for_by_its_guid(till: Any, path: str) -> None:
    change = await till.pos.create()
    ref = await till.pos.ref_of(change)
    guid = (await till.pos.until(change, "delivered"))["contactId"]

    status, body, _ = await ask(till, path, f"contactId={ref}")

    assert status == 200
    assert body
    assert [each.query for each in till.calls("GET", path)] == [{"contactId": guid}]


@pytest.mark.parametrize(
    ("path", "empty"),
    [
        (PURCHASES, {"count": 0, "offset": 0, "totalCount": 0, "items": []}),
        (PROMOTIONS, []),
    ],
)
async def test_customer_whom_engage_does_not_know_yet_has_empty_lists(
    till: Any, path: str, empty: Any
) -> None:
    await till.cut_line()
    ref = await till.pos.ref_of(await till.pos.create())

    status, body, headers = await ask(till, path, f"contactId={ref}")

    assert (status, body) == (200, empty)
    assert headers["Agent-Source"] == "journal"


async def test_unchanged_list_is_answered_with_304(till: Any, contact_id: str) -> None:
    _, _, first = await ask(till, PURCHASES, f"contactId={contact_id}")

    status, body, _ = await till.pos.call(
        "GET", f"{PURCHASES}?contactId={contact_id}", If_None_Match=first["ETag"]
    )

    assert (status, body) == (304, None)


async def test_what_engage_refuses_is_told_in_its_words(till: Any, contact_id: str) -> None:
    status, body, _ = await ask(till, PURCHASES, f"contactId={contact_id}&count=many")

    assert (status, body["errorCode"]) == (400, "InvalidQuery")
