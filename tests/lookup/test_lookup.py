"""GET /contacts/id: who it is, and never a "not found" that nobody at Engage has said."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_agent import CONTACTS, Answer, Pos, Shop, open_shop


def check_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["message"] == answer.body["detail"]
    assert "Agent-Change" not in answer.headers


# --- with the line up -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {"email": "Vera@Example.test"},
        {"mobilePhone": "%2B46701234567"},
        {"socialSecurityNumber": "198112189876"},
        {"customKey": "M-1"},
        {"any": "vera@example.test"},
        {"email": "vera@example.test", "contactType": "Member"},
    ],
    ids=str,
)
async def test_a_contact_is_found_by_each_of_engages_parameters(
    shop: Shop, query: dict[str, str]
) -> None:
    contact_id = shop.sandbox.seed(
        email="vera@example.test",
        mobilePhone="+46701234567",
        socialSecurityNumber="198112189876",
        memberNumber="M-1",
    )

    answer = await shop.pos.look_up(**query)

    assert (answer.status, answer.body) == (200, contact_id)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Agent-Source"] == "engage"


async def test_nobody_is_404_when_engage_itself_says_so(shop: Shop) -> None:
    answer = await shop.pos.look_up(email="nobody@example.test")

    check_problem(answer, 404, "ContactNotFound")
    assert answer.headers["Agent-Source"] == "engage"


async def test_several_that_match_are_409_with_engages_details(shop: Shop) -> None:
    ids = {
        shop.sandbox.seed(email="vera@example.test", contactType=kind)
        for kind in ("Member", "Contact")
    }

    answer = await shop.pos.look_up(email="vera@example.test")

    check_problem(answer, 409, "MultipleMatches")
    assert set(answer.body["messageDetails"]["multipleMatchesFound"]) == ids


async def test_a_contact_type_narrows_several_that_match(shop: Shop) -> None:
    shop.sandbox.seed(email="vera@example.test", contactType="Contact")
    member = shop.sandbox.seed(email="vera@example.test", contactType="Member")

    answer = await shop.pos.look_up(email="vera@example.test", contactType="Member")

    assert (answer.status, answer.body) == (200, member)


async def test_what_engage_calls_wrong_is_passed_on_with_its_code(shop: Shop) -> None:
    answer = await shop.pos.look_up(email="vera@example.test", contactType="NoSuchType")

    assert answer.status == 400
    assert answer.code not in (None, "MalformedRequest", "ContactNotFound")
    assert answer.body["message"]


@pytest.mark.parametrize("query", ["", "?email=", "?externalId=7", "?contactType=Member"])
async def test_a_look_up_that_names_no_key_is_malformed(pos: Pos, query: str) -> None:
    answer = await pos("GET", f"{CONTACTS}/id{query}")

    check_problem(answer, 400, "MalformedRequest")
    assert "customKey" in answer.body["detail"]


async def test_a_look_up_needs_a_token(pos: Pos) -> None:
    answer = await pos("GET", f"{CONTACTS}/id?email=vera@example.test", token="")

    check_problem(answer, 401, "Unauthorized")


# --- what is on its way ---------------------------------------------------------------------------


async def test_a_sign_up_on_its_way_is_found_by_its_ref(shop: Shop) -> None:
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    created = await shop.pos.create("vera@example.test")

    answer = await shop.pos.look_up(email="vera@example.test")

    assert created.status == 202
    assert (answer.status, answer.body) == (200, created.body["id"])
    assert answer.headers["Agent-Source"] == "journal"


async def test_a_ref_from_a_look_up_can_be_updated(shop: Shop) -> None:
    await shop.go_offline()
    await shop.pos.create("vera@example.test")
    ref = (await shop.pos.look_up(email="vera@example.test")).body

    answer = await shop.pos.update(ref, {"city": "Lund"})
    shop.sandbox.up()

    await shop.pos.settled(answer, "delivered")
    (contact,) = shop.sandbox.contacts()
    assert contact["attributes"]["city"] == "Lund"


async def test_a_sign_up_that_engage_refused_does_not_hide_that_nobody_is_there(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as shop:
        refused = await shop.pos.create("vera@example.test")

        answer = await shop.pos.look_up(email="vera@example.test")

        assert refused.status == 422
        check_problem(answer, 404, "ContactNotFound")


# --- with the line down ---------------------------------------------------------------------------


async def test_offline_an_unknown_person_is_503_and_never_404(shop: Shop) -> None:
    await shop.go_offline()

    answer = await shop.pos.look_up(email="nobody@example.test")

    check_problem(answer, 503, "EngageUnreachable")
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_not_found_of_long_ago_is_not_one_of_now(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"cache": {"not_found_ttl_s": 0}}) as shop:
        await shop.pos.look_up(email="nobody@example.test")
        await shop.go_offline()

        answer = await shop.pos.look_up(email="nobody@example.test")

        check_problem(answer, 503, "EngageUnreachable")


async def test_a_not_found_of_a_moment_ago_does_not_hide_a_sign_up_on_its_way(shop: Shop) -> None:
    await shop.pos.look_up(email="vera@example.test")
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    created = await shop.pos.create("vera@example.test")

    answer = await shop.pos.look_up(email="vera@example.test")

    assert (answer.status, answer.body) == (200, created.body["id"])


async def test_a_not_found_of_a_moment_ago_does_not_hide_who_was_signed_up_since(
    shop: Shop,
) -> None:
    await shop.pos.look_up(email="vera@example.test")
    created = await shop.pos.create("vera@example.test")

    answer = await shop.pos.look_up(email="vera@example.test")

    assert (answer.status, answer.body) == (200, created.body["id"])


async def test_what_was_looked_up_online_is_found_offline(shop: Shop) -> None:
    contact_id = shop.sandbox.seed(email="vera@example.test", memberNumber="M-1")
    await shop.pos.look_up(email="vera@example.test")
    await shop.pos.look_up(customKey="M-1")
    await shop.go_offline()

    for query in (
        {"email": "VERA@example.test"},
        {"customKey": "M-1"},
        {"any": "vera@example.test"},
    ):
        answer = await shop.pos.look_up(**query)

        assert (answer.status, answer.body) == (200, contact_id)
        assert answer.headers["Agent-Source"] == "journal"


async def test_who_was_signed_up_here_is_found_offline_by_the_guid(shop: Shop) -> None:
    created = await shop.pos.create("vera@example.test", {"mobilePhone": "+46701234567"})
    await shop.go_offline()

    answer = await shop.pos.look_up(mobilePhone="%2B46701234567")

    assert (answer.status, answer.body) == (200, created.body["id"])


async def test_a_remembered_contact_is_updated_without_another_look_up(shop: Shop) -> None:
    contact_id = shop.sandbox.seed(email="vera@example.test")
    await shop.pos.look_up(email="vera@example.test")
    await shop.go_offline()

    created = await shop.pos.create("vera@example.test", {"city": "Lund"})

    assert created.status == 202
    assert created.body["id"] == contact_id


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "portal"},
        {"kind": "portal_511"},
        {"kind": "html_404"},
        {"kind": "redirect"},
        {"kind": "proxy_407"},
        {"kind": "wrong_shape"},
        {"kind": "not_json"},
        {"kind": "unauthorised"},
        {"kind": "throttle"},
        {"kind": "status", "status": 500},
        {"kind": "reset"},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_whatever_else_comes_back_is_never_a_not_found(
    shop: Shop, fault: dict[str, object]
) -> None:
    shop.sandbox.set_fault(path="/contacts/id", times=3, **fault)

    answer = await shop.pos.look_up(email="nobody@example.test")

    check_problem(answer, 503, "EngageUnreachable")


async def test_when_engage_cannot_answer_what_the_till_knows_is_given(shop: Shop) -> None:
    created = await shop.pos.create("vera@example.test")
    shop.sandbox.set_fault("status", status=500, path="/contacts/id")

    answer = await shop.pos.look_up(email="vera@example.test")

    assert (answer.status, answer.body) == (200, created.body["id"])


async def test_a_look_up_stores_no_change(shop: Shop) -> None:
    shop.sandbox.seed(email="vera@example.test")

    await shop.pos.look_up(email="vera@example.test")

    assert await shop.pos.changes() == []
