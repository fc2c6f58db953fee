"""Create, update and upgrade as a POS calls them, with Engage behind the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from patience import eventually
from running_agent import CONTACTS, Pos, Shop, open_shop

from agent.intake.contacts import preference

REF_OF_NOBODY = "01890000-0000-7000-8000-000000000000"
GUID_OF_NOBODY = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"


# --- sign-ups -------------------------------------------------------------------------------------


async def test_a_sign_up_that_reaches_engage_is_answered_201_with_engages_contact(
    shop: Shop,
) -> None:
    answer = await shop.pos.create("vera@example.test")

    (contact,) = shop.sandbox.contacts()
    assert answer.status == 201
    assert answer.body["id"] == contact["id"]
    assert answer.body["attributes"]["firstName"] == "Vera"
    assert answer.body["meta"]["contactType"] == "Member"


async def test_every_write_answer_says_which_change_it_is_about(pos: Pos) -> None:
    answer = await pos.create("vera@example.test")

    change_id = answer.headers["Agent-Change"]
    assert answer.headers["Agent-State"] == "delivered"
    assert answer.headers["Location"] == f"/agent/v1/changes/{change_id}"
    assert (await pos.change(answer))["id"] == change_id


async def test_a_sign_up_of_somebody_who_exists_updates_and_is_answered_200(shop: Shop) -> None:
    contact_id = shop.sandbox.seed(email="vera@example.test", firstName="Verra", city="Lund")

    answer = await shop.pos.create("Vera@Example.test")

    contact = shop.sandbox.contact(contact_id)
    assert answer.status == 200
    assert answer.body["id"] == contact_id
    assert contact is not None
    assert contact["attributes"]["firstName"] == "Vera"
    assert contact["attributes"]["city"] == "Lund"


async def test_a_sign_up_of_somebody_who_exists_is_409_where_the_chain_wants_it(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path, {"engage": {"on_existing": "conflict"}}) as shop:
        contact_id = shop.sandbox.seed(email="vera@example.test", firstName="Verra")

        answer = await shop.pos.create("vera@example.test")

        contact = shop.sandbox.contact(contact_id)
        assert (answer.status, answer.code) == (409, "ApprovedContactWithKeyExists")
        assert answer.headers["Agent-State"] == "rejected"
        assert contact is not None
        assert contact["attributes"]["firstName"] == "Verra"


async def test_after_such_a_409_the_contact_can_be_updated(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"engage": {"on_existing": "conflict"}}) as shop:
        contact_id = shop.sandbox.seed(email="vera@example.test", firstName="Verra")
        await shop.pos.create("vera@example.test")

        answer = await shop.pos.update(contact_id, {"city": "Lund"})

        assert answer.status == 200


async def test_a_sign_up_of_somebody_whom_engage_has_erased_makes_a_new_contact(
    shop: Shop,
) -> None:
    first = await shop.pos.create("vera@example.test")
    shop.sandbox.erase(first.body["id"])

    second = await shop.pos.create("vera@example.test", {"city": "Lund"})

    (contact,) = shop.sandbox.contacts()
    assert second.status == 201
    assert second.body["id"] == contact["id"] != first.body["id"]


async def test_a_corrected_sign_up_is_not_held_up_by_the_refused_one(tmp_path: Path) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        refused = await shop.pos.create("vera@example.test")

        corrected = await shop.pos.create("vera@example.test", {"lastName": "Lind"})

        assert (refused.status, corrected.status) == (422, 201)


async def test_a_sign_up_while_offline_is_answered_202_and_lies_on_the_disk(shop: Shop) -> None:
    await shop.go_offline()

    answer = await shop.pos.create("vera@example.test", {"city": "Lund"})

    change = await shop.pos.change(answer)
    assert answer.status == 202
    assert answer.headers["Agent-State"] == "waiting"
    assert answer.body == {
        "id": change["contactRef"],
        "attributes": {"email": "vera@example.test", "firstName": "Vera", "city": "Lund"},
        "meta": {"contactType": "Member"},
        "agent": {"changeId": change["id"], "state": "waiting", "durable": True},
    }


async def test_what_was_taken_offline_is_delivered_when_the_line_is_back(shop: Shop) -> None:
    await shop.go_offline()
    answer = await shop.pos.create("vera@example.test")

    shop.sandbox.up()

    change = await shop.pos.settled(answer, "delivered")
    (contact,) = shop.sandbox.contacts()
    assert change["contactId"] == contact["id"]


async def test_source_store_and_country_are_filled_in(shop: Shop) -> None:
    await shop.pos.create("vera@example.test")

    (contact,) = shop.sandbox.contacts()
    created = next(each for each in shop.sandbox.requests if each.method == "POST")
    assert contact["attributes"]["countryCode"] == "SE"
    assert created.query == {"source": "POS", "storeExternalId": "0042"}


async def test_what_engage_refuses_is_passed_on_in_engages_words(tmp_path: Path) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        answer = await shop.pos.create("vera@example.test")

        (error,) = answer.body["validationErrors"]
        assert answer.status == 422
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert answer.headers["Agent-State"] == "rejected"
        assert "lastName" in error["message"]
        assert answer.body["message"] == answer.body["detail"]
        assert answer.body["engageRequestId"]


# --- updates and upgrades -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ref", "guid", "GUID in upper case"])
async def test_an_update_goes_by_ref_and_by_guid_in_either_case(shop: Shop, form: str) -> None:
    created = await shop.pos.create("vera@example.test")
    guid = created.body["id"]
    ref = (await shop.pos.change(created))["contactRef"]
    public_id = {"ref": ref, "guid": guid, "GUID in upper case": guid.upper()}[form]

    answer = await shop.pos.update(public_id, {"city": "Lund"})

    contact = shop.sandbox.contact(guid)
    assert (answer.status, answer.body["id"]) == (200, guid)
    assert contact is not None
    assert contact["attributes"]["city"] == "Lund"


async def test_an_update_of_a_guid_that_this_till_has_never_seen_goes_to_engage(
    shop: Shop,
) -> None:
    contact_id = shop.sandbox.seed(email="vera@example.test")

    answer = await shop.pos.update(contact_id.upper(), {"city": "Lund"})

    assert (answer.status, answer.body["id"]) == (200, contact_id)


@pytest.mark.parametrize("public_id", [REF_OF_NOBODY, "42", "%C3%A5"])
async def test_an_update_of_a_ref_that_nobody_knows_is_404_and_stores_nothing(
    pos: Pos, public_id: str
) -> None:
    answer = await pos.update(public_id, {"city": "Lund"})

    assert (answer.status, answer.code) == (404, "NotFound")
    assert "Agent-Change" not in answer.headers
    assert await pos.changes() == []


async def test_an_update_of_a_guid_that_engage_does_not_know_is_refused(pos: Pos) -> None:
    answer = await pos.update(GUID_OF_NOBODY, {"city": "Lund"})

    assert (answer.status, answer.code) == (404, "ContactNotFound")
    assert answer.headers["Agent-State"] == "rejected"


async def test_an_update_sends_only_what_is_given(shop: Shop) -> None:
    created = await shop.pos.create("vera@example.test", {"city": "Lund"})

    await shop.pos.update(created.body["id"], {"city": "Malmö"})

    contact = shop.sandbox.contact(created.body["id"])
    assert contact is not None
    assert contact["attributes"]["city"] == "Malmö"
    assert contact["attributes"]["firstName"] == "Vera"


@pytest.mark.parametrize("query", ["clear=street,city", "clear=street&clear=city"])
async def test_what_is_named_in_clear_is_emptied(shop: Shop, query: str) -> None:
    created = await shop.pos.create("vera@example.test", {"city": "Lund", "street": "Storgatan 1"})

    answer = await shop.pos("PATCH", f"{CONTACTS}/{created.body['id']}?{query}")

    contact = shop.sandbox.contact(created.body["id"])
    assert answer.status == 200
    assert contact is not None
    assert not contact["attributes"].get("city")
    assert not contact["attributes"].get("street")
    assert contact["attributes"]["firstName"] == "Vera"


async def test_an_upgrade_without_a_body_changes_the_type(shop: Shop) -> None:
    contact_id = shop.sandbox.seed(email="vera@example.test", contactType="Contact")

    answer = await shop.pos(
        "POST", f"{CONTACTS}/{contact_id}/updateContactType?contactTypeId=Member"
    )

    contact = shop.sandbox.contact(contact_id)
    assert answer.status == 200
    assert contact is not None
    assert contact["meta"]["contactType"] == "Member"


async def test_an_upgrade_sends_its_attributes_before_the_type(tmp_path: Path) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        contact_id = shop.sandbox.seed(email="vera@example.test", contactType="Contact")

        answer = await shop.pos(
            "POST",
            f"{CONTACTS}/{contact_id}/updateContactType?contactTypeId=Member",
            {"lastName": "Lind"},
        )

        contact = shop.sandbox.contact(contact_id)
        assert answer.status == 200
        assert contact is not None
        assert contact["meta"]["contactType"] == "Member"
        assert contact["attributes"]["lastName"] == "Lind"


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
async def test_a_caller_who_does_not_want_to_wait_is_answered_at_once(
    shop: Shop, prefer: str
) -> None:
    shop.sandbox.set_fault("slow", delay_s=0.3, times=1, path="/contacts")

    answer = await shop.pos.create("vera@example.test", Prefer=prefer)

    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == prefer


@pytest.mark.parametrize(
    ("header", "seconds", "applied"),
    [
        ("respond-async", 0, "respond-async"),
        ("wait=5, Respond-Async", 0, "respond-async"),
        ("wait=2", 2, "wait=2"),
        ("Wait = 2", 2, "wait=2"),
        ('wait="2"', 2, "wait=2"),
        ("handling=lenient; wait=2", 2, "wait=2"),
        ("wait=0.4", 0.4, "wait=0"),
        ("wait=3600", 9, "wait=9"),  # Engage itself gives up in less
        ("wait=" + "9" * 400, 9, "wait=9"),
        ("", 3, None),
        ("wait", 3, None),
        ("wait=soon", 3, None),
        ("wait=-1", 3, None),
        ("return=minimal", 3, None),
        ("no-wait=5", 3, None),
    ],
)
def test_every_form_of_prefer_is_read_and_the_rest_ignored(
    header: str, seconds: float, applied: str | None
) -> None:
    wish = preference(header, 3.0)

    assert (wish.seconds, wish.applied) == (seconds, applied)


async def test_a_wait_ends_with_202_and_the_change_goes_on(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"server": {"wait_s": 0.2}}) as shop:
        shop.sandbox.set_fault("slow", delay_s=0.6, times=1, path="/contacts")

        answer = await shop.pos.create("vera@example.test")

        assert answer.status == 202
        assert answer.headers["Agent-State"] == "sending"
        assert (await shop.pos.settled(answer, "delivered"))["contactId"]


async def test_who_waits_is_answered_as_soon_as_engage_has_it(shop: Shop) -> None:
    shop.sandbox.set_fault("slow", delay_s=0.3, times=1, path="/contacts")

    answer = await shop.pos.create("vera@example.test", Prefer="wait=9")

    assert answer.status == 201


async def test_a_caller_who_hangs_up_loses_nothing(shop: Shop) -> None:
    shop.sandbox.set_fault("slow", delay_s=0.5, times=1, path="/contacts")
    calling = asyncio.create_task(shop.pos.create("vera@example.test"))
    while not await shop.pos.changes():
        await asyncio.sleep(0.01)

    calling.cancel()

    await eventually(lambda: shop.sandbox.contacts())


# --- repeats --------------------------------------------------------------------------------------


async def test_the_same_idempotency_key_gets_the_same_change_and_its_present_answer(
    shop: Shop,
) -> None:
    await shop.go_offline()
    first = await shop.pos.create("vera@example.test", Idempotency_Key="k1")
    shop.sandbox.up()
    await shop.pos.settled(first, "delivered")

    again = await shop.pos.create("vera@example.test", Idempotency_Key="k1")

    (contact,) = shop.sandbox.contacts()
    assert (first.status, again.status) == (202, 201)
    assert "Idempotent-Replay" not in first.headers
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.headers["Agent-Change"] == first.headers["Agent-Change"]
    assert again.body["id"] == contact["id"]


async def test_a_replay_of_what_engage_refused_is_the_refusal(tmp_path: Path) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        first = await shop.pos.create("vera@example.test", Idempotency_Key="k1")

        again = await shop.pos.create("vera@example.test", Idempotency_Key="k1")

        assert (first.status, again.status) == (422, 422)
        assert again.body["validationErrors"] == first.body["validationErrors"]
        assert again.headers["Idempotent-Replay"] == "true"


async def test_a_replay_does_not_depend_on_prefer_or_on_the_order_of_names(pos: Pos) -> None:
    first = await pos(
        "POST", CONTACTS, {"email": "v@example.test", "city": "Lund"}, Idempotency_Key="k1"
    )

    again = await pos(
        "POST",
        CONTACTS,
        {"city": "Lund", "email": "v@example.test"},
        Idempotency_Key="k1",
        Prefer="respond-async",
    )

    assert again.headers["Agent-Change"] == first.headers["Agent-Change"]
    assert again.headers["Idempotent-Replay"] == "true"


async def test_the_same_key_for_another_request_is_refused_and_stores_nothing(pos: Pos) -> None:
    first = await pos.create("vera@example.test", Idempotency_Key="k1")

    other = await pos.create("per@example.test", Idempotency_Key="k1")

    assert (other.status, other.code) == (422, "IdempotencyKeyReused")
    assert [change["id"] for change in await pos.changes()] == [first.headers["Agent-Change"]]


async def test_an_identical_request_without_a_key_is_the_same_change(pos: Pos) -> None:
    first = await pos.create("vera@example.test")

    again = await pos.create("vera@example.test")

    assert again.headers["Agent-Change"] == first.headers["Agent-Change"]
    assert "Idempotent-Replay" not in again.headers
    assert (await pos.change(first))["repeated"] == 1


async def test_twenty_calls_at_once_with_one_key_are_one_change(shop: Shop) -> None:
    answers = await asyncio.gather(
        *[shop.pos.create("vera@example.test", Idempotency_Key="k1") for _ in range(20)]
    )

    assert {answer.status for answer in answers} == {201}
    assert len({answer.headers["Agent-Change"] for answer in answers}) == 1
    assert shop.sandbox.counts()["creates"] == 1


# --- many at once ---------------------------------------------------------------------------------


async def test_two_hundred_callers_at_once_are_all_answered_and_all_delivered(shop: Shop) -> None:
    answers = await asyncio.gather(
        *[shop.pos.create(f"person{n}@example.test", Prefer="wait=9") for n in range(200)]
    )

    assert {answer.status for answer in answers} <= {201, 202}
    assert len({answer.headers["Agent-Change"] for answer in answers}) == 200
    await eventually(lambda: shop.sandbox.counts()["contacts"] == 200)
    assert shop.sandbox.counts()["duplicates"] == 0


async def test_two_hundred_callers_offline_are_all_stored(shop: Shop) -> None:
    await shop.go_offline()

    answers = await asyncio.gather(
        *[shop.pos.create(f"person{n}@example.test") for n in range(200)]
    )

    stored = {change["id"] for change in await shop.pos.changes()}
    assert {answer.status for answer in answers} == {202}
    assert stored == {answer.headers["Agent-Change"] for answer in answers}
