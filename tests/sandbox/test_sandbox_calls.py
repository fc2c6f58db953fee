"""Engage's calls, one by one: what is answered, and what is refused with which code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.sandbox import Sandbox

VERA = {"email": "vera@example.test", "firstName": "Vera"}
CONTACTS = "/api/v3/contacts"


def fields(body: dict[str, Any]) -> set[str]:
    return {each["field"] for each in body["validationErrors"]}


# --- looking up -----------------------------------------------------------------------------------


async def test_look_up_answers_the_contact_id_as_a_bare_json_string(
    engage: Any, session: aiohttp.ClientSession
) -> None:
    contact = await engage.create(**VERA)

    async with session.get(
        f"{engage.url}{CONTACTS}/id", params={"email": "vera@example.test"}
    ) as response:
        text = await response.text()

    assert text == f'"{contact["id"]}"'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("email", "VERA@Example.test"),  # e-mail compares without case
        ("mobilePhone", "+46700000001"),
        ("socialSecurityNumber", "19121212-1212"),  # stored with ten digits
        ("customKey", "1000001"),  # the tenant's custom key is memberNumber
        ("any", "vera@example.test"),
        ("any", "+46700000001"),
        ("any", "1000001"),
    ],
)
async def test_contact_is_found_by_each_typed_key(engage: Any, key: str, value: str) -> None:
    contact = await engage.create(
        **VERA, mobilePhone="+46700000001", socialSecurityNumber="121212-1212"
    )

    assert await engage.look_up(**{key: value}) == (200, contact["id"])


async def test_unknown_key_is_contact_not_found(engage: Any) -> None:
    status, body = await engage.look_up(email="nobody@example.test")

    assert (status, body["errorCode"]) == (404, "ContactNotFound")
    assert body["requestId"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"email": "not-an-address"}, "InvalidEmailAddress"),
        ({"mobilePhone": "0700000001"}, "InvalidPhoneNumber"),
        ({"mobilePhone": "+46 700 000 001"}, "InvalidPhoneNumber"),
        ({"socialSecurityNumber": "121212-1213"}, "InvalidSocialSecurityNumber"),
        ({"email": "vera@example.test", "contactType": "vip"}, "InvalidContactType"),
        ({}, "InvalidSearchQuery"),
        ({"externalId": "STORE-7"}, "InvalidSearchQuery"),  # no parameter of this call
        ({"memberNumber": "1000001"}, "InvalidSearchQuery"),  # nor is this
    ],
)
async def test_wrong_look_up_is_refused_with_its_code(
    engage: Any, query: dict[str, str], code: str
) -> None:
    status, body = await engage.look_up(**query)

    assert (status, body["errorCode"]) == (400, code)


async def test_any_stops_at_the_first_type_that_validates(engage: Any) -> None:
    # A member number that is a valid personal number too: any looks at the latter only.
    await engage.create(**VERA, memberNumber="1212121212")

    status, body = await engage.look_up(any="1212121212")

    assert (status, body["errorCode"]) == (404, "ContactNotFound")


async def test_two_contacts_with_one_key_are_multiple_matches_with_their_ids(engage: Any) -> None:
    member = await engage.create(**VERA)
    contact = await engage.create(**VERA, contactType="Contact")

    status, body = await engage.look_up(email="vera@example.test")

    assert (status, body["errorCode"]) == (409, "MultipleMatches")
    assert body["messageDetails"] == {"multipleMatchesFound": [member["id"], contact["id"]]}


async def test_contact_type_narrows_multiple_matches(engage: Any) -> None:
    await engage.create(**VERA)
    contact = await engage.create(**VERA, contactType="Contact")

    found = await engage.look_up(email="vera@example.test", contactType="contact")

    assert found == (200, contact["id"])


async def test_custom_key_can_mean_external_id(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path, custom_key="externalId") as sandbox:
        engage = engage_of(sandbox)
        contact = await engage.create(**VERA, externalId="STORE-7-000123")

        assert await engage.look_up(customKey="STORE-7-000123") == (200, contact["id"])


@pytest.mark.parametrize("number", ["131052-308T", "131052A308T", "701063-2391"])
async def test_finnish_codes_and_coordination_numbers_are_personal_numbers(
    engage: Any, number: str
) -> None:
    # The examples of the Finnish and the Swedish authority; 701063 is the third of October.
    _, body = await engage.look_up(socialSecurityNumber=number)

    assert body["errorCode"] == "ContactNotFound"


@pytest.mark.parametrize("number", ["131052-308U", "701063-2392", "991301-0000", "x"])
async def test_wrong_check_digits_are_no_personal_numbers(engage: Any, number: str) -> None:
    _, body = await engage.look_up(socialSecurityNumber=number)

    assert body["errorCode"] == "InvalidSocialSecurityNumber"


# --- creating -------------------------------------------------------------------------------------


async def test_create_answers_201_with_the_whole_contact(engage: Any, sandbox: Sandbox) -> None:
    status, contact = await engage(
        "POST",
        CONTACTS,
        {
            **VERA,
            "preferences": {"acceptsEmail": True},
            "consents": [{"id": "memberTerms", "value": True, "source": "POS"}],
        },
        source="POS",
        storeExternalId="600",
    )

    assert status == 201
    assert contact["attributes"] == {
        **VERA,
        "createdInStore": "600",
        "store": "600",
        "memberNumber": "1000001",
    }
    assert contact["meta"]["contactType"] == "Member"
    assert contact["meta"]["sourceType"] == "POS"
    assert contact["meta"]["approved"] is True
    assert contact["preferences"] == {
        "AcceptsEmails": True,
        "AcceptsPostals": False,
        "AcceptsSms": False,
    }
    assert contact["consents"][0]["id"] == "memberTerms"
    assert contact["consents"][0]["value"] is True
    assert sandbox.contacts() == [contact]


async def test_headers_of_version_2_are_ignored(
    engage: Any, session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    headers = {"source": "POS", "storeExternalId": "600", "createAsUnapproved": "true"}

    async with session.post(f"{engage.url}{CONTACTS}", json=VERA, headers=headers) as response:
        contact = await response.json()

    assert contact["meta"]["sourceType"] is None
    assert contact["meta"]["approved"] is True
    assert "createdInStore" not in contact["attributes"]


async def test_member_numbers_are_a_sequence(engage: Any) -> None:
    first = await engage.create(**VERA)
    second = await engage.create(email="sven@example.test")

    assert first["attributes"]["memberNumber"] == "1000001"
    assert second["attributes"]["memberNumber"] == "1000002"


async def test_unapproved_contact_is_marked_so(engage: Any) -> None:
    _, contact = await engage("POST", CONTACTS, VERA, createAsUnapproved="true")

    assert contact["meta"]["approved"] is False


async def test_unknown_attributes_are_dropped_without_a_word(engage: Any) -> None:
    contact = await engage.create(**VERA, shoeSize="42")

    assert "shoeSize" not in contact["attributes"]


async def test_configured_custom_attributes_are_kept(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path, custom_attributes=("shoeSize",)) as sandbox:
        contact = await engage_of(sandbox).create(**VERA, shoeSize=42)

    assert contact["attributes"]["shoeSize"] == 42


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'"text"', b"\xff"])
async def test_empty_or_unreadable_body_is_no_data(
    engage: Any, session: aiohttp.ClientSession, body: bytes
) -> None:
    async with session.post(f"{engage.url}{CONTACTS}", data=body) as response:
        answer = await response.json()

    assert (response.status, answer["errorCode"]) == (400, "NoData")


async def test_key_of_an_approved_contact_is_refused(engage: Any, sandbox: Sandbox) -> None:
    await engage.create(**VERA)

    status, body = await engage("POST", CONTACTS, {"email": "Vera@example.test"})

    assert (status, body["errorCode"]) == (409, "ApprovedContactWithKeyExists")
    assert "messageDetails" not in body
    assert len(sandbox.contacts()) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"email": None}, "email"),  # the key is missing
        ({"email": "not-an-address"}, "email"),
        ({"mobilePhone": "0700000001"}, "mobilePhone"),
        ({"birthDay": "15/01/1990"}, "birthDay"),
        ({"birthDay": "1990-02-30"}, "birthDay"),
        ({"birthDay": "2999-01-01"}, "birthDay"),
        ({"countryCode": "Sweden"}, "countryCode"),
        ({"gender": "X"}, "gender"),
        ({"firstName": 5}, "firstName"),
        ({"socialSecurityNumber": "1"}, "socialSecurityNumber"),
        ({"contactType": "Vip"}, "contactType"),
        ({"preferences": {"acceptsSms": "yes"}}, "preferences.acceptsSms"),
        ({"preferences": "all"}, "preferences"),
        ({"consents": {}}, "consents"),
        ({"consents": ["memberTerms"]}, "consents[0]"),
        ({"consents": [{"value": True}]}, "consents[0]"),
        ({"consents": [{"id": "memberTerms"}]}, "consents[0]"),
        ({"consents": [{"id": "memberTerms", "value": None}]}, "consents[0]"),
    ],
)
async def test_wrong_attribute_is_a_validation_error_that_names_it(
    engage: Any, sandbox: Sandbox, wrong: dict[str, Any], field: str
) -> None:
    status, body = await engage("POST", CONTACTS, {**VERA, **wrong})

    assert (status, body["errorCode"]) == (422, "ValidationError")
    assert fields(body) == {field}
    assert body["validationErrors"][0]["errorDescription"]
    assert sandbox.contacts() == []


async def test_required_attributes_differ_by_contact_type(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path, required={"Member": ("firstName",)}) as sandbox:
        engage = engage_of(sandbox)

        status, body = await engage("POST", CONTACTS, {"email": "vera@example.test"})

        assert (status, fields(body)) == (422, {"firstName"})
        await engage.create(email="vera@example.test", contactType="Contact")


async def test_minimum_age_is_asked_for(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path, minimum_age=18) as sandbox:
        status, body = await engage_of(sandbox)(
            "POST", CONTACTS, {**VERA, "birthDay": "2020-01-01"}
        )

    assert (status, fields(body)) == (422, {"birthDay"})


# --- updating -------------------------------------------------------------------------------------


async def test_update_changes_only_the_given_attributes(engage: Any) -> None:
    contact = await engage.create(**VERA, city="Teststad")

    status, updated = await engage("PATCH", f"{CONTACTS}/{contact['id']}", {"street": "Provgatan"})

    assert status == 200
    assert updated["attributes"] == {**contact["attributes"], "street": "Provgatan"}


@pytest.mark.parametrize("nothing", [None, ""])
async def test_null_and_empty_text_erase(engage: Any, nothing: str | None) -> None:
    contact = await engage.create(**VERA, city="Teststad")

    _, updated = await engage("PATCH", f"{CONTACTS}/{contact['id']}", {"city": nothing})

    assert "city" not in updated["attributes"]


async def test_update_drops_unknown_attributes_and_ignores_the_type(engage: Any) -> None:
    contact = await engage.create(**VERA, contactType="Contact")

    status, updated = await engage(
        "PATCH", f"{CONTACTS}/{contact['id']}", {"contactType": "Member", "shoeSize": "42"}
    )

    assert status == 200
    assert updated["attributes"] == contact["attributes"]
    assert updated["meta"]["contactType"] == "Contact"


async def test_store_of_creation_cannot_be_changed_once_set(engage: Any) -> None:
    contact = await engage.create(**VERA)
    path = f"{CONTACTS}/{contact['id']}"
    await engage("PATCH", path, {"createdInStore": "600"})

    _, updated = await engage("PATCH", path, {"createdInStore": "700"})

    assert updated["attributes"]["createdInStore"] == "600"


async def test_update_changes_preferences_and_consents_one_by_one(engage: Any) -> None:
    contact = await engage.create(
        **VERA,
        preferences={"acceptsEmail": True, "acceptsSms": True},
        consents=[{"id": "memberTerms", "value": True}, {"id": "profiling", "value": True}],
    )

    _, updated = await engage(
        "PATCH",
        f"{CONTACTS}/{contact['id']}",
        {"preferences": {"acceptsSms": False}, "consents": [{"id": "profiling", "value": False}]},
    )

    assert updated["preferences"]["AcceptsEmails"] is True
    assert updated["preferences"]["AcceptsSms"] is False
    assert {each["id"]: each["value"] for each in updated["consents"]} == {
        "memberTerms": True,
        "profiling": False,
    }


async def test_empty_list_of_consents_takes_none_away(engage: Any) -> None:
    contact = await engage.create(**VERA, consents=[{"id": "memberTerms", "value": True}])

    _, updated = await engage(
        "PATCH", f"{CONTACTS}/{contact['id']}", {"consents": [], "city": "Teststad"}
    )

    assert updated["consents"] == contact["consents"]


async def test_changed_key_is_found_by_its_new_value_only(engage: Any) -> None:
    contact = await engage.create(**VERA)

    await engage("PATCH", f"{CONTACTS}/{contact['id']}", {"email": "new@example.test"})

    assert (await engage.look_up(email="vera@example.test"))[0] == 404
    assert await engage.look_up(email="new@example.test") == (200, contact["id"])


async def test_update_to_a_taken_key_is_refused(engage: Any) -> None:
    await engage.create(**VERA)
    other = await engage.create(email="sven@example.test")

    status, body = await engage(
        "PATCH", f"{CONTACTS}/{other['id']}", {"email": "vera@example.test"}
    )

    assert (status, body["errorCode"]) == (409, "ApprovedContactWithKeyExists")


async def test_update_with_its_own_key_is_no_clash(engage: Any) -> None:
    contact = await engage.create(**VERA)

    status, _ = await engage("PATCH", f"{CONTACTS}/{contact['id']}", VERA)

    assert status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"email": ""}, 422, "ValidationError"),  # the key cannot be erased
        ({"birthDay": "x"}, 422, "ValidationError"),
        ({}, 400, "NoData"),
    ],
)
async def test_wrong_update_is_refused(
    engage: Any, body: dict[str, Any], status: int, code: str
) -> None:
    contact = await engage.create(**VERA)

    answer = await engage("PATCH", f"{CONTACTS}/{contact['id']}", body)

    assert (answer[0], answer[1]["errorCode"]) == (status, code)


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_unknown_contact_is_not_found(engage: Any, sandbox: Sandbox, method: str) -> None:
    contact_id = sandbox.seed(**VERA)
    sandbox.erase(contact_id)

    status, body = await engage(method, f"{CONTACTS}/{contact_id}", {"city": "Teststad"})

    assert (status, body["errorCode"]) == (404, "ContactNotFound")


# --- type and preferences -------------------------------------------------------------------------


async def test_type_is_changed_by_its_own_call(engage: Any, sandbox: Sandbox) -> None:
    contact = await engage.create(**VERA, contactType="Contact")

    status, body = await engage(
        "POST", f"{CONTACTS}/{contact['id']}/updateContactType", contactTypeId="member"
    )

    assert (status, body) == (200, None)
    assert sandbox.contacts()[0]["meta"]["contactType"] == "Member"


async def test_type_is_changed_only_with_the_data_it_demands(
    tmp_path: Path, engage_of: Any
) -> None:
    async with Sandbox(tmp_path, required={"Member": ("firstName",)}) as sandbox:
        engage = engage_of(sandbox)
        contact = await engage.create(email="vera@example.test", contactType="Contact")
        call = ("POST", f"{CONTACTS}/{contact['id']}/updateContactType")

        status, body = await engage(*call, contactTypeId="Member")
        assert (status, fields(body)) == (422, {"firstName"})

        await engage("PATCH", f"{CONTACTS}/{contact['id']}", {"firstName": "Vera"})
        assert (await engage(*call, contactTypeId="Member"))[0] == 200


async def test_type_change_is_refused_for_a_wrong_type_a_taken_key_or_nobody(
    engage: Any, sandbox: Sandbox
) -> None:
    await engage.create(**VERA)
    contact = await engage.create(**VERA, contactType="Contact")
    path = f"{CONTACTS}/{contact['id']}/updateContactType"

    wrong = await engage("POST", path, contactTypeId="Vip")
    missing = await engage("POST", path)
    taken = await engage("POST", path, contactTypeId="Member")
    sandbox.erase(contact["id"])
    nobody = await engage("POST", path, contactTypeId="Member")

    assert (wrong[0], wrong[1]["errorCode"]) == (400, "InvalidContactType")
    assert (missing[0], missing[1]["errorCode"]) == (400, "InvalidContactType")
    assert (taken[0], taken[1]["errorCode"]) == (409, "ApprovedContactWithKeyExists")
    assert (nobody[0], nobody[1]["errorCode"]) == (404, "ContactNotFound")


async def test_preference_call_sets_it_and_approves(engage: Any) -> None:
    _, contact = await engage("POST", CONTACTS, VERA, createAsUnapproved="true")

    status, updated = await engage(
        "POST", f"{CONTACTS}/{contact['id']}/preferences/acceptsSms", {"value": True}
    )

    assert status == 200
    assert updated["preferences"]["AcceptsSms"] is True
    assert updated["meta"]["approved"] is True


# --- reading --------------------------------------------------------------------------------------


async def test_contact_is_read_as_it_was_created(engage: Any) -> None:
    contact = await engage.create(**VERA)

    assert await engage("GET", f"{CONTACTS}/{contact['id']}") == (200, contact)


async def test_transactions_hold_purchases_and_a_return_in_pages(engage: Any) -> None:
    contact = await engage.create(**VERA)
    path = f"{CONTACTS}/transactions"

    _, all_of_them = await engage("GET", path, contactId=contact["id"])
    _, page = await engage("GET", path, contactId=contact["id"], offset="1", count="1")

    assert all_of_them["totalCount"] == all_of_them["count"] == 3
    lines = [line for each in all_of_them["items"] for line in each["lineItems"]]
    assert {line["type"] for line in lines} == {"PURCHASE", "RETURN"}
    assert page == {**page, "count": 1, "offset": 1, "items": all_of_them["items"][1:2]}


async def test_promotions_are_filtered_by_channel_and_hold_a_redeemed_one(engage: Any) -> None:
    contact = await engage.create(**VERA)
    path = "/api/v3/promotion-assignments"

    _, all_of_them = await engage("GET", path, contactId=contact["id"])
    _, at_the_till = await engage("GET", path, contactId=contact["id"], redemptionChannelType="POS")

    assert len(all_of_them) == 3
    assert len(at_the_till) == 2
    assert [each["redeemed"] for each in at_the_till] == [False, True]


async def test_overview_spells_preferences_as_they_are_written(engage: Any) -> None:
    contact = await engage.create(**VERA, preferences={"acceptsEmail": True})

    by_id = await engage("GET", "/api/v3/contactoverview", contactId=contact["id"])
    by_key = await engage(
        "GET", "/api/v3/contactoverview", email="vera@example.test", contactType="Member"
    )

    assert by_id == by_key
    assert by_id[1]["preferences"]["acceptsEmail"] is True


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/api/v3/contacts/transactions", {}, 400, "InvalidContactId"),
        ("/api/v3/contacts/transactions", {"contactId": "x"}, 404, "ContactNotFound"),
        ("/api/v3/promotion-assignments", {"contactId": "x"}, 404, "ContactNotFound"),
        ("/api/v3/contactoverview", {"email": "v@example.test"}, 400, "InvalidSearchQuery"),
        ("/api/v3/contacts/bulk/status", {"batchId": "x"}, 404, "BatchNotFound"),
        ("/api/v3/contact", {}, 404, "NoSuchCall"),
    ],
)
async def test_wrong_reads_are_refused(
    engage: Any, path: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = await engage("GET", path, **query)

    assert (answer[0], answer[1]["errorCode"]) == (status, code)


async def test_page_must_be_given_in_numbers(engage: Any, sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(**VERA)

    status, _ = await engage("GET", f"{CONTACTS}/transactions", contactId=contact_id, count="all")

    assert status == 400


async def test_count_is_a_bare_number(engage: Any, sandbox: Sandbox) -> None:
    sandbox.seed(**VERA)

    assert await engage("GET", "/api/v2/contacts/count") == (200, 1)


# --- bulk -----------------------------------------------------------------------------------------


async def test_bulk_is_queued_and_worked_on_later(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    status, batch_id = await engage(
        "POST",
        f"{CONTACTS}/bulk",
        [{"email": "a@example.test"}, {"email": "b@example.test"}, {"firstName": "No key"}, 5],
        contactType="contact",
    )
    assert status == 202

    await eventually(lambda: len(sandbox.contacts()) == 2)
    _, report = await engage("GET", f"{CONTACTS}/bulk/status", batchId=batch_id)

    assert {each["meta"]["contactType"] for each in sandbox.contacts()} == {"Contact"}
    assert report == {
        "batchId": batch_id,
        "status": "Finished",
        "totalCount": 4,
        "succeededCount": 2,
        "failedCount": 2,
        "errors": [
            {"index": 2, "errorCode": "ValidationError"},
            {"index": 3, "errorCode": "NoData"},
        ],
    }


async def test_bulk_create_of_an_existing_key_fails_alone(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.seed(**VERA)

    await engage("POST", f"{CONTACTS}/bulk", [VERA, {"email": "b@example.test"}])

    await eventually(lambda: len(sandbox.contacts()) == 2)
    assert sandbox.counts()["duplicates"] == 0


async def test_bulk_create_of_an_existing_key_shows_as_a_double_when_keys_are_not_unique(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    sandbox.seed(**VERA)
    sandbox.set_fault("not_unique")

    await engage("POST", f"{CONTACTS}/bulk", [VERA])

    await eventually(lambda: sandbox.counts()["duplicates"] == 1)


async def test_bulk_update_finds_contacts_by_id_or_key(
    engage: Any, sandbox: Sandbox, eventually: Callable[..., Any]
) -> None:
    first = sandbox.seed(**VERA)
    second = sandbox.seed(email="sven@example.test")

    await engage(
        "PATCH",
        f"{CONTACTS}/bulk",
        [
            {"contactId": first, "city": "Teststad"},
            {"email": "sven@example.test", "city": "Provby"},
            {"email": "nobody@example.test", "city": "Nowhere"},
        ],
    )

    await eventually(lambda: "city" in sandbox.contact(second)["attributes"])
    assert sandbox.contact(first)["attributes"]["city"] == "Teststad"
    assert len(sandbox.contacts()) == 2


async def test_bulk_is_still_queued_until_its_delay_is_over(tmp_path: Path, engage_of: Any) -> None:
    async with Sandbox(tmp_path, bulk_delay_s=60) as sandbox:
        engage = engage_of(sandbox)
        _, batch_id = await engage("POST", f"{CONTACTS}/bulk", [VERA])

        _, report = await engage("GET", f"{CONTACTS}/bulk/status", batchId=batch_id)

    assert report["status"] == "Queued"


async def test_bulk_takes_at_most_4000_and_needs_a_list_and_a_known_type(engage: Any) -> None:
    too_many = [{"email": f"v{number}@example.test"} for number in range(4001)]

    large = await engage("POST", f"{CONTACTS}/bulk", too_many)
    empty = await engage("POST", f"{CONTACTS}/bulk", [])
    untyped = await engage("POST", f"{CONTACTS}/bulk", [VERA], contactType="Vip")

    assert (large[0], large[1]["errorCode"]) == (400, "TooManyContacts")
    assert (empty[0], empty[1]["errorCode"]) == (400, "NoData")
    assert (untyped[0], untyped[1]["errorCode"]) == (400, "InvalidContactType")


# --- what every request must carry ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value", "status", "message"),
    [
        ("apikey", "wrong", 401, "The API key is missing or not valid."),
        ("User-Agent", "", 400, "The User-Agent header is missing."),
        ("Content-Type", "text/plain", 500, "An error has occurred"),
    ],
)
async def test_missing_headers_are_refused_on_reads_too(
    engage: Any,
    session: aiohttp.ClientSession,
    header: str,
    value: str,
    status: int,
    message: str,
) -> None:
    async with session.get(
        f"{engage.url}/api/v2/contacts/count", headers={header: value}
    ) as response:
        body = await response.json()

    assert (response.status, body["message"]) == (status, message)


async def test_beyond_the_rate_limit_comes_429_without_retry_after(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with Sandbox(tmp_path, rate_limit=1) as sandbox:
        url = f"{sandbox.engage_url}/api/v2/contacts/count"
        answers = []
        for _ in range(3):  # three within two seconds: one of them is too many
            async with session.get(url) as response:
                answers.append((response.status, response.headers.get("Retry-After")))

    assert (429, None) in answers
    assert answers[0] == (200, None)


async def test_requests_are_logged_with_their_body_and_without_the_key(
    engage: Any, sandbox: Sandbox
) -> None:
    await engage("POST", CONTACTS, VERA, source="POS")

    (request,) = sandbox.requests
    assert (request.method, request.path, request.status) == ("POST", CONTACTS, 201)
    assert request.query == {"source": "POS"}
    assert b"vera@example.test" in request.body
    assert "sandbox-key" not in request.headers.values()
