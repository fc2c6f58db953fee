"""What came back from Engage, and what it means for the change: one test per row of the table."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually
from world import World, write_secret

from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
VERA = "vera@example.test"


def first(change: dict[str, Any]) -> tuple[str, str | None]:
    attempt = change["attempts"][0]
    return attempt["outcome"], attempt["code"]


async def is_one_contact(world: World) -> None:
    """I2: whatever happened, Engage holds one contact and never held two."""
    assert len(world.sandbox.find("email", VERA)) == 1
    assert world.sandbox.counts()["duplicates"] == 0
    await link_is(world, "online")


async def link_is(world: World, *states: str) -> dict[str, Any]:
    """Wait until the status page says so; it is made anew now and then only."""

    async def there() -> dict[str, Any] | None:
        link = (await world.pos.status())["link"]
        return dict(link) if link["state"] in states else None

    return dict(await eventually(there, f"link {states}"))


async def api_is(world: World, state: str) -> None:
    async def there() -> bool:
        route = (await world.pos.status())["routes"]["api"]
        return bool(route["state"] == state and (state == "running" or route["reason"]))

    await eventually(there, f"api route {state}")


# --- rows on a create ---------------------------------------------------------------------------

# fault and its parameters, the first attempt's outcome and code
MAY_HAVE_HAPPENED = [
    ("lose_answer", {}, "LineLost"),
    ("reset", {"when": "after", "method": "POST"}, "LineLost"),
    ("hang", {}, "LineLost"),
    ("drip", {"commit": True, "every_s": 0.2}, "LineLost"),
    ("endless", {"commit": True}, "LineLost"),
    ("gzip_bomb", {"commit": True}, None),
    ("status", {"status": 500, "commit": False}, "AnswerLost"),
    ("status", {"status": 500, "commit": True}, "AnswerLost"),
    ("status", {"status": 502, "commit": False}, "AnswerLost"),
    ("status", {"status": 502, "commit": True}, "AnswerLost"),
    ("status", {"status": 503, "commit": False}, "AnswerLost"),
    ("status", {"status": 503, "commit": True}, "AnswerLost"),
    ("empty_201", {"commit": True}, "AnswerLost"),
    ("not_json", {"commit": True}, "AnswerLost"),
    ("not_json", {"commit": False}, "AnswerLost"),
    ("wrong_shape", {"commit": True}, "AnswerLost"),
]


@pytest.mark.parametrize(("kind", "given", "code"), MAY_HAVE_HAPPENED)
async def test_create_that_may_have_happened_is_unknown_and_looked_up_first(
    start: Start, kind: str, given: dict[str, Any], code: str | None
) -> None:
    world = await start()
    limits = {"method": "POST", "path": "/contacts$", "times": 1} | given
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault(kind, **limits)

    change_id = await world.pos.create(firstName="Vera")

    change = await world.pos.until(change_id, "delivered")
    outcome, found = first(change)
    assert outcome == "unknown"
    assert code in (None, found)
    assert change["unknown"] is False
    assert change["contactId"] == world.sandbox.find("email", VERA)[0]["id"]
    calls = [(each.method, each.path) for each in world.sandbox.requests]
    after_create = calls[calls.index(("POST", "/api/v3/contacts")) + 1 :]
    assert after_create[0] == ("GET", "/api/v3/contacts/id")
    await is_one_contact(world)


async def test_late_commit_after_a_lost_answer_makes_no_second_contact(start: Start) -> None:
    world = await start()
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault("late_commit", delay_s=0.45, method="POST", times=1)

    change_id = await world.pos.create(firstName="Vera")

    change = await world.pos.until(change_id, "delivered")
    assert first(change) == ("unknown", "LineLost")
    assert len(world.calls("POST", "/contacts")) == 1
    await is_one_contact(world)


async def test_not_found_is_as_old_as_its_question_and_not_as_its_answer(start: Start) -> None:
    world = await start(engage={"create_timeout_s": 0.4, "timeout_s": 9})
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault("late_commit", delay_s=0.2, method="POST", times=1)
    # Asked before the late commit, and answered when it would be time to trust a "not found".
    slow = world.sandbox.set_fault("drip", method="GET", every_s=0.01, times=2)

    change_id = await world.pos.create(firstName="Vera")

    await world.pos.until(change_id, "delivered")
    assert slow.hits == 2  # before the create, and after it was lost
    assert len(world.calls("POST", "/contacts")) == 1
    await is_one_contact(world)


@pytest.mark.parametrize("kind", ["rollback_504", "504_committed"])
async def test_504_of_a_create_is_deferred_and_looked_up_before_the_repeat(
    start: Start, kind: str
) -> None:
    world = await start()
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault(kind, method="POST", times=1)

    change_id = await world.pos.create(firstName="Vera")

    change = await world.pos.until(change_id, "delivered")
    assert first(change) == ("deferred", "RequestTimeOut")
    assert change["attempts"][0]["status"] == 504
    await is_one_contact(world)


async def test_slow_create_is_answered_504_by_engage_and_made_once(start: Start) -> None:
    world = await start()
    world.sandbox.set_fault("slow", delay_s=0.4, method="POST", times=1)

    change_id = await world.pos.create()

    change = await world.pos.until(change_id, "delivered")
    assert first(change) == ("deferred", "RequestTimeOut")
    await is_one_contact(world)


async def test_busy_key_is_deferred_without_using_up_attempts(start: Start) -> None:
    world = await start(retry={"api_attempts": 1}, fallback={"seal_after_s": 0.01})
    world.sandbox.set_fault("busy", method="POST", times=3)

    change_id = await world.pos.create()

    change = await world.pos.until(change_id, "delivered")
    assert first(change) == ("deferred", "ContactWithKeyIsBeingCreated")
    assert change["route"] == "api"
    assert await world.pos.batches() == []
    await is_one_contact(world)


# --- rows on any call ---------------------------------------------------------------------------

IN_BETWEEN = [
    (kind, method)
    for kind in ("portal", "portal_511", "proxy_407", "redirect", "html_404")
    for method in ("GET", "POST", "PATCH")
    if method != "PATCH" or kind in ("portal", "redirect")
]


@pytest.mark.parametrize(("kind", "method"), IN_BETWEEN)
async def test_what_stands_between_is_never_success_and_counts_against_the_link(
    start: Start, kind: str, method: str
) -> None:
    world = await start(link={"offline_after": 5})
    contact_id = world.sandbox.seed(email="per@example.test")
    fault = world.sandbox.set_fault(kind, method=method)

    if method == "PATCH":
        change_id = await world.pos.update(contact_id, city="Lund")
    else:
        change_id = await world.pos.create()

    change = await world.pos.tried(change_id)
    assert first(change) == ("deferred", "NotEngage")
    assert change["unknown"] is False
    await link_is(world, "suspect", "offline")
    hosts = {each.headers["Host"] for each in world.sandbox.requests}
    assert hosts == {f"127.0.0.1:{world.sandbox.engage_port}"}
    world.sandbox.clear_faults(fault_id=fault.id)
    await world.pos.until(change_id, "delivered")
    assert world.sandbox.counts()["duplicates"] == 0


async def test_refused_connection_is_deferred_and_the_link_goes_offline_and_returns(
    start: Start,
) -> None:
    world = await start()
    world.sandbox.down()

    change_id = await world.pos.create()

    change = await world.pos.tried(change_id, 2)
    assert first(change) == ("deferred", "Unreachable")
    assert "refused" in (await link_is(world, "offline"))["reason"]
    world.sandbox.up()
    await world.pos.until(change_id, "delivered")
    await is_one_contact(world)


REPEATABLE: list[tuple[str, dict[str, Any]]] = [
    ("hang", {"method": "PATCH"}),
    ("reset", {"method": "PATCH"}),
    ("reset", {"method": "GET"}),
    ("lose_answer", {"method": "PATCH"}),
    ("drip", {"method": "PATCH", "every_s": 0.2}),
    ("endless", {"method": "GET"}),
    ("status", {"method": "PATCH", "status": 500}),
    ("status", {"method": "PATCH", "status": 502, "commit": True}),
    ("status", {"method": "GET", "status": 503}),
    ("wrong_shape", {"method": "PATCH"}),
    ("wrong_shape", {"method": "GET"}),
    ("not_json", {"method": "PATCH", "commit": True}),
    ("not_json", {"method": "GET"}),
]


@pytest.mark.parametrize(("kind", "given"), REPEATABLE)
async def test_trouble_with_what_may_be_repeated_is_deferred(
    start: Start, kind: str, given: dict[str, Any]
) -> None:
    world = await start(link={"offline_after": 10})
    contact_id = world.sandbox.seed(email="per@example.test")
    # Twice: a library may repeat what is idempotent on a fresh connection.
    world.sandbox.set_fault(kind, times=2, **given)

    if given["method"] == "PATCH":
        change_id = await world.pos.update(contact_id, city="Lund")
    else:
        change_id = await world.pos.create()

    change = await world.pos.until(change_id, "delivered")
    assert change["attempts"][0]["outcome"] == "deferred"
    assert world.sandbox.counts()["duplicates"] == 0


async def test_reset_before_anything_was_read_ends_in_one_contact(start: Start) -> None:
    world = await start()
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault("reset", when="before", times=3)

    change_id = await world.pos.create()

    await world.pos.until(change_id, "delivered")
    await is_one_contact(world)


RETRY_AFTER = [
    # what Engage says, whether the repeat may come at once
    ("none", 0.0, True),
    ("absurd", 0.0, False),
    ("seconds", 600.0, False),
    ("date", 600.0, False),
    ("0", 0.0, True),
    ("-5", 0.0, True),
    ("soon", 0.0, True),
    ("Sat, 21 Nov 1970 10:00:00 GMT", 0.0, True),
    ("Sat, 21 Nov 2026 10:00:00 -0000", 0.0, True),
]


@pytest.mark.parametrize(("wish", "delay_s", "at_once"), RETRY_AFTER)
async def test_429_is_deferred_until_retry_after_and_the_link_stays_online(
    start: Start, wish: str, delay_s: float, at_once: bool
) -> None:
    world = await start(retry={"api_attempts": 1}, fallback={"seal_after_s": 0.01})
    world.sandbox.set_fault("throttle", retry_after=wish, delay_s=delay_s, times=1, method="POST")

    change_id = await world.pos.create()

    change = await world.pos.tried(change_id)
    assert first(change) == ("deferred", "Throttled")
    assert change["attempts"][0]["status"] == 429
    await link_is(world, "online")
    if not at_once:
        assert change["state"] == "waiting"
        assert change["dueAt"] is not None
        await world.pos.call("POST", f"/agent/v1/changes/{change_id}/retry")
    change = await world.pos.until(change_id, "delivered")
    assert change["route"] == "api"
    await is_one_contact(world)


@pytest.mark.parametrize(("kind", "status"), [("unauthorised", 401), ("forbidden", 403)])
async def test_refused_key_halts_the_route_rejects_nothing_and_resumes_by_itself(
    start: Start, kind: str, status: int
) -> None:
    world = await start()
    world.sandbox.set_fault(kind)

    changes = [await world.pos.create(f"vera{number}@example.test") for number in range(3)]

    await api_is(world, "halted")
    tried = [await world.pos.change(each) for each in changes]
    assert {each["state"] for each in tried} <= {"waiting", "sending"}
    attempts = [each for change in tried for each in change["attempts"]]
    assert {(each["outcome"], each["status"]) for each in attempts} == {("halted", status)}
    world.sandbox.clear_faults()
    for each in changes:
        await world.pos.until(each, "delivered")
    await api_is(world, "running")
    assert world.sandbox.counts()["duplicates"] == 0


async def test_replaced_key_file_ends_the_halt_without_a_restart(
    start: Start, sandbox: Sandbox
) -> None:
    world = await start()
    write_secret(world.till.folder / "engage_api_key", "wrong")
    change_id = await world.pos.create()
    change = await world.pos.tried(change_id)
    assert first(change) == ("halted", "NotAuthorised")

    write_secret(world.till.folder / "engage_api_key", sandbox.api_key)

    await world.pos.until(change_id, "delivered")
    await is_one_contact(world)


async def test_removed_key_file_halts_and_its_return_ends_the_halt(start: Start) -> None:
    world = await start()
    place = world.till.folder / "engage_api_key"
    place.rename(place.with_name("away"))
    change_id = await world.pos.create()
    change = await world.pos.tried(change_id)
    assert first(change) == ("halted", "NotAuthorised")

    place.with_name("away").rename(place)

    await world.pos.until(change_id, "delivered")


async def test_422_is_rejected_in_engages_own_words_and_not_repeated(start: Start) -> None:
    world = await start()

    status, body, headers = await world.pos.call(
        "POST", "/api/v3/contacts", {"email": VERA, "contactType": "Employee"}
    )

    assert status == 422, body
    assert body["errorCode"] == "ValidationError"
    assert body["validationErrors"]
    change = await world.pos.change(headers["Agent-Change"])
    assert (change["state"], len(change["attempts"])) == ("rejected", 1)
    assert change["error"]["requestId"]


# --- updates, upgrades and who is who -----------------------------------------------------------


async def test_202_to_an_update_counts_as_delivered(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA)
    world.sandbox.set_fault("accepted", method="PATCH", delay_s=0.05, times=1)

    change_id = await world.pos.update(contact_id, city="Lund")

    await world.pos.until(change_id, "delivered")
    await eventually(lambda: world.attributes().get("city") == "Lund")


async def test_several_matches_are_narrowed_by_contact_type(start: Start) -> None:
    world = await start()
    member = world.sandbox.seed(email=VERA, contactType="Member")
    world.sandbox.seed(email=VERA, contactType="Contact")

    change_id = await world.pos.create(city="Lund")

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == member
    assert world.sandbox.contact(member)["attributes"]["city"] == "Lund"
    assert len(world.sandbox.contacts()) == 2


@pytest.mark.parametrize("contact_type", ["Member", "Contact"])
async def test_several_matches_that_stay_several_are_rejected_with_the_ids(
    start: Start, contact_type: str
) -> None:
    world = await start()
    several = [world.sandbox.seed(email=VERA, contactType=contact_type) for _ in range(2)]

    change_id = await world.pos.create(city="Lund")

    change = await world.pos.until(change_id, "rejected")
    assert change["error"]["code"] == "MultipleMatches"
    assert all(each in change["error"]["message"] for each in several)
    assert world.calls("POST", "/contacts") == []


async def test_contact_that_exists_is_updated_with_only_what_was_given(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, city="Malmö", firstName="Vera")

    change_id = await world.pos.create(city="Lund")

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == contact_id
    assert world.writes(contact_id) == [{"email": VERA, "city": "Lund"}]
    assert world.attributes()["firstName"] == "Vera"
    await is_one_contact(world)


async def test_contact_that_exists_is_a_conflict_where_the_settings_say_so(start: Start) -> None:
    world = await start(engage={"on_existing": "conflict"})
    world.sandbox.seed(email=VERA, city="Malmö")

    status, body, headers = await world.pos.call(
        "POST", "/api/v3/contacts", {"email": VERA, "city": "Lund"}
    )

    assert (status, body["errorCode"]) == (409, "ApprovedContactWithKeyExists")
    assert (await world.pos.change(headers["Agent-Change"]))["state"] == "rejected"
    assert world.attributes()["city"] == "Malmö"


async def test_after_a_conflict_the_existing_contact_can_be_updated(start: Start) -> None:
    world = await start(engage={"on_existing": "conflict"})
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    await world.pos.call("POST", "/api/v3/contacts", {"email": VERA, "city": "Lund"})

    change_id = await world.pos.update(contact_id, city="Lund")

    await world.pos.until(change_id, "delivered")
    assert world.attributes()["city"] == "Lund"


async def test_race_for_a_key_is_settled_by_a_look_up(start: Start) -> None:
    world = await start()
    # The look-up finds nobody, for Engage's index is late: the contact has the key already.
    contact_id = world.sandbox.seed(email=VERA, firstName="Other till")
    hidden = world.sandbox.set_fault("slow", method="POST", path="/contacts$", delay_s=0.2)
    world.sandbox.erase(contact_id)
    change_id = await world.pos.create(city="Lund")
    await eventually(lambda: hidden.hits == 1)

    raced = world.sandbox.seed(email=VERA, firstName="Other till")

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == raced
    codes = [step["code"] for step in change["attempts"][0]["steps"]]
    assert "ApprovedContactWithKeyExists" in codes
    assert world.attributes()["city"] == "Lund"
    await is_one_contact(world)


async def test_404_on_an_update_is_looked_up_again_by_its_key(start: Start) -> None:
    world = await start()
    created = await world.pos.until(await world.pos.create(), "delivered")
    world.sandbox.erase(created["contactId"])
    merged_into = world.sandbox.seed(email=VERA)

    change_id = await world.pos.update(created["contactRef"], city="Lund")

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == merged_into
    assert world.attributes()["city"] == "Lund"


async def test_update_of_a_contact_that_is_gone_is_rejected_and_not_repeated(start: Start) -> None:
    world = await start()
    created = await world.pos.until(await world.pos.create(), "delivered")
    world.sandbox.erase(created["contactId"])

    change_id = await world.pos.update(created["contactRef"], city="Lund")

    change = await world.pos.until(change_id, "rejected")
    assert change["error"]["code"] == "ContactNotFound"
    assert len(change["attempts"]) == 1


async def test_customer_who_was_erased_in_engage_can_sign_up_again(start: Start) -> None:
    world = await start()
    created = await world.pos.until(await world.pos.create(), "delivered")
    world.sandbox.erase(created["contactId"])

    change_id = await world.pos.create(city="Lund")

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == world.sandbox.find("email", VERA)[0]["id"]
    assert world.attributes()["city"] == "Lund"
    await is_one_contact(world)


async def test_upgrade_goes_on_where_it_broke_off(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, contactType="Contact")
    world.sandbox.set_fault("status", status=503, method="POST", times=2)

    _, _, headers = await world.pos.call(
        "POST",
        f"/api/v3/contacts/{contact_id}/updateContactType?contactTypeId=Member",
        {"city": "Lund"},
        Prefer="respond-async",
    )

    change = await world.pos.until(headers["Agent-Change"], "delivered")
    assert change["attempts"][0]["outcome"] == "deferred"
    assert len(world.writes(contact_id)) == 1
    assert world.sandbox.contact(contact_id)["meta"]["contactType"] == "Member"
    methods = [each.method for each in world.sandbox.requests if contact_id in each.path]
    assert methods == ["PATCH", "POST", "POST", "POST"]


async def test_folded_updates_are_split_after_a_422_so_that_only_the_bad_one_is_rejected(
    start: Start,
) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA)
    world.sandbox.seed(email="per@example.test")
    world.sandbox.set_fault("slow", method="PATCH", delay_s=0.3, times=1)
    opening = await world.pos.update(contact_id, firstName="Vera")
    await eventually(lambda: world.calls("PATCH"))
    good = await world.pos.update(contact_id, city="Lund")
    bad = await world.pos.update(contact_id, email="per@example.test")
    last = await world.pos.update(contact_id, street="Provgatan 1")

    for change_id in (opening, good, last):
        await world.pos.until(change_id, "delivered")

    rejected = await world.pos.until(bad, "rejected")
    assert first(rejected) == ("deferred", "ApprovedContactWithKeyExists")
    assert rejected["error"]["code"] == "ApprovedContactWithKeyExists"
    attributes = world.attributes()
    assert (attributes["city"], attributes["street"]) == ("Lund", "Provgatan 1")
    assert len(world.writes(contact_id)) == 5  # the first, three at once, then each by itself


async def test_neighbouring_updates_go_in_one_call_with_the_last_value(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA)
    world.sandbox.set_fault("slow", method="PATCH", delay_s=0.3, times=1)
    await world.pos.update(contact_id, city="Lund")
    await eventually(lambda: world.calls("PATCH"))
    changes = [await world.pos.update(contact_id, city=city) for city in ("Malmö", "Ystad")]

    for change_id in changes:
        await world.pos.until(change_id, "delivered")

    assert world.writes(contact_id) == [{"city": "Lund"}, {"city": "Ystad"}]


async def test_update_waits_for_its_create_and_then_uses_the_guid(start: Start) -> None:
    world = await start()
    world.sandbox.set_fault("slow", method="POST", delay_s=0.2, times=1)
    create = await world.pos.create()
    ref = await world.pos.ref_of(create)

    update = await world.pos.update(ref, city="Lund")

    change = await world.pos.until(update, "delivered")
    assert world.writes(change["contactId"]) == [{"city": "Lund"}]
    assert all(ref not in each.path for each in world.sandbox.requests)


async def test_ref_is_used_for_ever_beside_the_guid(start: Start) -> None:
    world = await start()
    created = await world.pos.until(await world.pos.create(), "delivered")
    await world.pos.until(await world.pos.update(created["contactId"], city="Lund"), "delivered")
    await world.stop()
    await world.start()

    change_id = await world.pos.update(created["contactRef"], city="Ystad")

    await world.pos.until(change_id, "delivered")
    assert world.attributes()["city"] == "Ystad"


async def test_contact_created_elsewhere_while_offline_becomes_one_contact(start: Start) -> None:
    world = await start()
    world.sandbox.down()
    change_id = await world.pos.create(city="Lund")
    await world.pos.tried(change_id)
    contact_id = world.sandbox.seed(email=VERA, firstName="Vera")

    world.sandbox.up()

    change = await world.pos.until(change_id, "delivered")
    assert change["contactId"] == contact_id
    assert world.attributes() | {"city": "Lund", "firstName": "Vera"} == world.attributes()
    await is_one_contact(world)


async def test_two_refs_that_turn_out_to_be_one_contact_become_one_lane(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, mobilePhone="+46701234567")
    first_change = await world.pos.update(contact_id, city="Lund")
    own = await world.pos.until(first_change, "delivered")

    change_id = await world.pos.create(city="Ystad")

    joined = await world.pos.until(change_id, "delivered")
    assert joined["contactId"] == contact_id
    for ref in (own["contactRef"], joined["contactRef"], contact_id):
        update = await world.pos.update(ref, street=f"Provgatan {ref[:4]}")
        assert (await world.pos.until(update, "delivered"))["contactId"] == contact_id


async def test_unapproved_sign_up_carries_its_query_to_engage(start: Start) -> None:
    world = await start()

    status, body, _ = await world.pos.call(
        "POST", "/api/v3/contacts?createAsUnapproved=true", {"email": VERA}
    )

    assert status == 201, body
    (create,) = world.calls("POST", "/contacts")
    assert create.query == {
        "source": "POS",
        "storeExternalId": "0042",
        "createAsUnapproved": "true",
    }


async def test_cleared_attribute_is_sent_as_null_and_nothing_else(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, street="Provgatan 1")

    _, _, headers = await world.pos.call(
        "PATCH", f"/api/v3/contacts/{contact_id}?clear=street", {"city": "Lund"}
    )

    await world.pos.until(headers["Agent-Change"], "delivered")
    assert world.writes(contact_id) == [{"city": "Lund", "street": None}]


async def test_every_call_carries_key_agent_and_content_type(start: Start) -> None:
    world = await start()

    await world.pos.until(await world.pos.create(), "delivered")

    for request in world.sandbox.requests:
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["User-Agent"]
        assert "apikey" in {name.lower() for name in request.headers}
        assert not json.dumps(request.query).count(world.sandbox.api_key)


# --- used-up attempts, and damage ---------------------------------------------------------------


async def test_create_that_engage_never_manages_goes_by_file_once_a_look_up_found_nobody(
    start: Start,
) -> None:
    world = await start(
        retry={"api_attempts": 2}, fallback={"seal_after_s": 0.1}, link={"offline_after": 50}
    )
    world.sandbox.set_fault("status", status=500, method="POST")

    change_id = await world.pos.create(city="Lund")

    await world.pos.until(change_id, "uploaded")
    await world.sandbox.import_now()
    change = await world.pos.until(change_id, "confirmed")
    assert change["route"] == "file"
    await is_one_contact(world)


async def test_create_that_no_file_may_take_goes_on_by_the_api(start: Start) -> None:
    world = await start(
        engage={"on_existing": "conflict"},
        retry={"api_attempts": 1},
        fallback={"seal_after_s": 0.1},
        link={"offline_after": 50},
    )
    world.sandbox.set_fault("status", status=500, method="POST")
    change_id = await world.pos.create(city="Lund")

    async def was_tried_thrice() -> bool:
        return len(world.calls("POST", "/contacts")) >= 3

    await eventually(was_tried_thrice, "it is tried again and again")
    world.sandbox.clear_faults()

    change = await world.pos.until(change_id, "delivered")
    assert change["route"] == "api"
    await is_one_contact(world)


async def test_payload_damaged_on_disk_is_rejected_alone_and_not_sent(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA)
    other_id = world.sandbox.seed(email="per@example.test")
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    bad = await world.pos.update(contact_id, city="Lund")
    good = await world.pos.update(contact_id, street="Provgatan 1")
    other = await world.pos.update(other_id, city="Lund")
    assert world.agent
    await world.agent.journal.write(
        lambda db: db.execute(
            "UPDATE changes SET payload = replace(payload, 'Lund', 'Lunt') WHERE id = ?", (bad,)
        )
    )

    await world.pos.call("POST", "/agent/v1/routes/api/resume")

    change = await world.pos.until(bad, "rejected")
    assert change["error"]["code"] == "PayloadDamaged"
    await world.pos.until(other, "delivered")
    await world.pos.until(good, "delivered")
    assert world.writes(contact_id) == [{"street": "Provgatan 1"}]
