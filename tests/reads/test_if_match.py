"""`If-Match` on an update: only what differs from what the POS was shown is sent."""

from __future__ import annotations

from typing import Any

import pytest

VERA = {"email": "vera@example.test", "firstName": "Vera", "city": "Malmö"}


@pytest.fixture
def contact_id(till: Any) -> str:
    return str(
        till.sandbox.seed(
            **VERA,
            preferences={"acceptsEmail": True, "acceptsSms": False},
            consents=[{"id": "newsletter", "value": True}, {"id": "profiling", "value": False}],
        )
    )


async def shown(till: Any, contact: str) -> tuple[str, dict[str, Any]]:
    """Read a contact as a POS does; gives its ETag and itself."""
    status, body, headers = await till.read(contact)
    assert status == 200
    return headers["ETag"], body


async def patch(till: Any, contact: str, etag: str, body: Any, **headers: str) -> Any:
    path = f"/api/v3/contacts/{contact}"
    return await till.pos.call("PATCH", path, body, If_Match=etag, **headers)


async def test_only_what_differs_is_sent(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)

    status, _, headers = await patch(till, contact_id, etag, {**VERA, "city": "Lund"})

    assert status == 200
    assert headers["Agent-State"] == "delivered"
    assert till.writes(contact_id) == [{"city": "Lund"}]


async def test_of_preferences_and_consents_only_those_that_differ_are_sent(
    till: Any, contact_id: str
) -> None:
    etag, _ = await shown(till, contact_id)

    await patch(
        till,
        contact_id,
        etag,
        {
            "preferences": {"acceptsEmail": True, "acceptsSms": True},
            "consents": [{"id": "newsletter", "value": True}, {"id": "profiling", "value": True}],
        },
    )

    assert till.writes(contact_id) == [
        {"preferences": {"acceptsSms": True}, "consents": [{"id": "profiling", "value": True}]}
    ]


async def test_form_sent_back_whole_changes_nothing(till: Any, contact_id: str) -> None:
    etag, body = await shown(till, contact_id)
    form = {**VERA, "street": "", "mobilePhone": None, "contactType": "Member", "preferences": {}}

    status, answer, headers = await patch(till, contact_id, etag, form)

    assert (status, answer) == (200, body)
    assert headers["ETag"] == etag
    assert "Agent-Change" not in headers
    assert till.writes(contact_id) == []
    assert (await till.pos.get("/agent/v1/changes"))["items"] == []


async def test_value_that_was_emptied_is_refused_as_ever(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)

    status, body, _ = await patch(till, contact_id, etag, {**VERA, "city": ""})

    assert status == 422
    assert [(each["field"], each["code"]) for each in body["validationErrors"]] == [
        ("city", "EmptyValue")
    ]


async def test_what_is_to_be_cleared_is_cleared(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)
    path = f"/api/v3/contacts/{contact_id}?clear=city"

    status, _, _ = await till.pos.call("PATCH", path, {**VERA, "city": ""}, If_Match=etag)

    assert status == 200
    assert till.writes(contact_id) == [{"city": None}]


async def test_empty_request_is_refused_as_ever(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)

    status, body, _ = await patch(till, contact_id, etag, {})

    assert (status, body["errorCode"]) == (400, "NoData")


@pytest.mark.parametrize("etag", ['"never-served"', "", 'W/"weak"', '"a", "b"'])
async def test_unknown_etag_stores_nothing(till: Any, contact_id: str, etag: str) -> None:
    status, body, _ = await patch(till, contact_id, etag, {"city": "Lund"})

    assert (status, body["errorCode"]) == (412, "PreconditionFailed")
    assert (await till.pos.get("/agent/v1/changes"))["items"] == []


async def test_what_can_be_no_contact_is_not_found_before_its_etag_is_looked_at(till: Any) -> None:
    status, body, _ = await patch(till, "42", '"never-served"', {"city": "Lund"})

    assert (status, body["errorCode"]) == (404, "NotFound")


async def test_etag_of_another_contact_is_unknown(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, till.sandbox.seed(email="per@example.test"))

    status, _, _ = await patch(till, contact_id, etag, {"city": "Lund"})

    assert status == 412


async def test_star_is_no_condition(till: Any, contact_id: str) -> None:
    status, _, _ = await patch(till, contact_id, "*", VERA)

    assert status == 200
    assert till.writes(contact_id) == [VERA]


async def test_one_of_several_etags_is_enough(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)

    await patch(till, contact_id, f'"other", {etag}', {**VERA, "city": "Lund"})

    assert till.writes(contact_id) == [{"city": "Lund"}]


async def test_older_etag_still_says_what_was_shown(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)
    await patch(till, contact_id, etag, {**VERA, "city": "Lund"})
    await shown(till, contact_id)

    await patch(till, contact_id, etag, {**VERA, "firstName": "Veronika"})

    assert till.writes(contact_id) == [{"city": "Lund"}, {"firstName": "Veronika"}]


async def test_etag_is_remembered_over_a_restart(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)
    await till.restart()

    await patch(till, contact_id, etag, {**VERA, "city": "Lund"})

    assert till.writes(contact_id) == [{"city": "Lund"}]


async def test_etag_of_a_ref_holds_once_the_contact_has_its_guid(till: Any) -> None:
    await till.cut_line()
    change = await till.pos.create(firstName="Vera", city="Malmö")
    etag, body = await shown(till, await till.pos.ref_of(change))
    till.sandbox.up()
    contact_id = (await till.pos.until(change, "delivered"))["contactId"]

    status, _, _ = await patch(till, contact_id, etag, {**body["attributes"], "city": "Lund"})

    assert status in (200, 202)
    (newest, _) = (await till.pos.get("/agent/v1/changes"))["items"]
    await till.pos.until(newest["id"], "delivered")
    assert till.writes(contact_id) == [{"city": "Lund"}]


async def test_open_change_was_shown_and_is_not_asked_for_again(till: Any, contact_id: str) -> None:
    await till.read(contact_id)
    await till.cut_line()
    await till.pos.update(contact_id, city="Lund")
    etag, _ = await shown(till, contact_id)

    status, _, headers = await patch(till, contact_id, etag, {"city": "Lund"})

    assert status == 200
    assert "Agent-Change" not in headers


async def test_same_form_over_another_contact_state_is_another_change(
    till: Any, contact_id: str
) -> None:
    form = {**VERA, "city": "Lund"}
    etag, _ = await shown(till, contact_id)
    await patch(till, contact_id, etag, form)
    change = await till.pos.update(contact_id, firstName="Veronika")
    await till.pos.until(change, "delivered")
    etag, _ = await shown(till, contact_id)

    await patch(till, contact_id, etag, form)

    assert till.writes(contact_id)[-1] == {"firstName": "Vera"}


async def test_repeat_with_its_key_gets_the_first_answer(till: Any, contact_id: str) -> None:
    etag, _ = await shown(till, contact_id)
    form = {**VERA, "city": "Lund"}
    _, _, first = await patch(till, contact_id, etag, form, Idempotency_Key="k")

    _, _, second = await patch(till, contact_id, etag, form, Idempotency_Key="k")

    assert second["Agent-Change"] == first["Agent-Change"]
    assert second["Idempotent-Replay"] == "true"
