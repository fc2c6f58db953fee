"""GET /api/v3/contacts/{id}: fetched when asked for, kept, overlaid, and never a false 404."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import eventually

Start = Callable[..., Awaitable[Any]]
CONSENT = "newsletter"


def ttl_of(headers: Any) -> int:
    (part,) = [part for part in headers["Cache-Status"].split("; ") if part.startswith("ttl=")]
    return int(part.removeprefix("ttl="))


# --- from Engage, from the cache ----------------------------------------------------------------


async def test_contact_is_what_engage_answers(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", firstName="Vera")

    status, body, headers = await till.read(contact_id.upper())

    assert (status, body) == (200, till.sandbox.contact(contact_id))
    assert headers["Agent-Source"] == "engage"
    assert headers["Cache-Status"] == "till-agent; fwd=uri-miss; stored; ttl=60"
    assert headers["ETag"].startswith('"')


async def test_contact_is_fetched_only_when_asked_for(till: Any) -> None:
    contact_id = await till.signed_up()

    assert till.calls("GET", contact_id) == []


async def test_second_read_comes_from_the_cache(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    _, first, engage = await till.read(contact_id)

    status, body, headers = await till.read(contact_id)

    assert (status, body) == (200, first)
    assert headers["Agent-Source"] == "cache"
    assert headers["Cache-Status"].startswith("till-agent; hit; ttl=")
    assert ttl_of(headers) + int(headers["Age"]) == 59
    assert headers["ETag"] == engage["ETag"]
    assert len(till.calls("GET", contact_id)) == 1


async def test_contact_that_is_no_longer_fresh_is_fetched_again(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    till.clock.shift_s += 61

    _, _, headers = await till.read(contact_id)

    assert headers["Cache-Status"] == "till-agent; fwd=stale; stored; ttl=60"
    assert len(till.calls("GET", contact_id)) == 2


async def test_cache_time_of_zero_asks_every_time(start: Start) -> None:
    till = await start(cache={"contact_ttl_s": 0})
    contact_id = till.sandbox.seed(email="vera@example.test")

    for _ in range(3):
        await till.read(contact_id)

    assert len(till.calls("GET", contact_id)) == 3


async def test_unchanged_contact_is_answered_with_304(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    _, _, first = await till.read(contact_id)

    status, body, headers = await till.read(contact_id, If_None_Match=f'"other", {first["ETag"]}')

    assert (status, body) == (304, None)
    assert headers["ETag"] == first["ETag"]
    assert headers["Agent-Source"] == "cache"


async def test_changed_contact_is_answered_whole(start: Start) -> None:
    till = await start(cache={"contact_ttl_s": 0})
    contact_id = till.sandbox.seed(email="vera@example.test")
    _, _, first = await till.read(contact_id)
    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")

    status, body, headers = await till.read(contact_id, If_None_Match=first["ETag"])

    assert (status, body["attributes"]["city"]) == (200, "Lund")
    assert headers["ETag"] != first["ETag"]


# --- many readers -------------------------------------------------------------------------------


async def test_many_readers_cost_engage_one_call(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.set_fault("slow", path=f"/contacts/{contact_id}", delay_s=0.3)

    answers = await asyncio.gather(*(till.read(contact_id) for _ in range(20)))

    assert {status for status, _, _ in answers} == {200}
    assert len(till.calls("GET", contact_id)) == 1
    assert sum("collapsed" in headers["Cache-Status"] for _, _, headers in answers) == 19


async def test_reader_who_leaves_takes_the_answer_from_nobody(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.set_fault("slow", path=f"/contacts/{contact_id}", delay_s=0.3)
    leaving = asyncio.create_task(till.read(contact_id))
    await eventually(lambda: till.calls("GET", contact_id), "Engage is asked")
    staying = asyncio.create_task(till.read(contact_id))

    leaving.cancel()
    status, _, _ = await staying

    assert status == 200
    assert len(till.calls("GET", contact_id)) == 1


async def test_answer_is_kept_even_if_all_readers_leave(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.set_fault("slow", path=f"/contacts/{contact_id}", delay_s=0.2)
    leaving = asyncio.create_task(till.read(contact_id))
    await eventually(lambda: till.calls("GET", contact_id), "Engage is asked")

    leaving.cancel()

    await eventually(till.kept, "the answer is kept")


# --- the agent's own changes --------------------------------------------------------------------


async def test_delivered_change_makes_the_kept_contact_old(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")

    _, body, headers = await till.read(contact_id)

    assert headers["Agent-Source"] == "engage"
    assert body["attributes"]["city"] == "Lund"


async def test_refused_change_is_not_shown(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.seed(email="per@example.test")
    change = await till.pos.update(contact_id, email="per@example.test")
    await till.pos.until(change, "rejected")

    _, body, _ = await till.read(contact_id)

    assert body["attributes"]["email"] == "vera@example.test"


async def test_open_changes_lie_over_the_contact(till: Any) -> None:
    contact_id = till.sandbox.seed(
        email="vera@example.test",
        city="Malmö",
        preferences={"acceptsEmail": False},
        consents=[{"id": CONSENT, "value": False, "comment": "till"}],
    )
    await till.read(contact_id)
    await till.cut_line()

    await till.pos.update(contact_id, city="Ystad", street="Storgatan 1")
    await till.pos.update(contact_id, city="Lund", preferences={"acceptsEmail": True})
    await till.pos.update(contact_id, consents=[{"id": CONSENT, "value": True}])
    _, body, headers = await till.read(contact_id)

    assert body["attributes"]["city"] == "Lund"
    assert body["attributes"]["street"] == "Storgatan 1"
    assert body["preferences"]["AcceptsEmails"] is True
    assert "acceptsEmail" not in body["preferences"]
    (consent,) = body["consents"]
    assert (consent["value"], consent["comment"]) == (True, "till")
    assert headers["Agent-Source"] == "cache"


async def test_cleared_attribute_is_gone_at_once(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", street="Storgatan 1")
    await till.read(contact_id)
    await till.cut_line()

    await till.pos.call("PATCH", f"/api/v3/contacts/{contact_id}?clear=street")
    _, body, _ = await till.read(contact_id)

    assert "street" not in body["attributes"]


async def test_contact_kept_before_a_delivery_is_shown_with_it_while_offline(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", city="Malmö")
    await till.read(contact_id)
    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")
    await till.cut_line()

    _, body, headers = await till.read(contact_id)

    assert body["attributes"]["city"] == "Lund"
    assert ttl_of(headers) < 0


# --- Engage cannot be asked ---------------------------------------------------------------------


async def test_stale_contact_is_served_offline_and_marked(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    _, fetched, _ = await till.read(contact_id)
    await till.cut_line()
    till.clock.shift_s += 3600

    status, body, headers = await till.read(contact_id)

    assert (status, body) == (200, fetched)
    assert int(headers["Age"]) >= 3600
    assert ttl_of(headers) <= -3540
    assert "hit" in headers["Cache-Status"]


async def test_stale_contact_is_served_when_engage_fails(start: Start) -> None:
    till = await start(cache={"contact_ttl_s": 0})
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    till.sandbox.set_fault("status", status=500, path=f"/contacts/{contact_id}")

    status, _, headers = await till.read(contact_id)

    assert (status, headers["Agent-Source"]) == (200, "cache")
    assert headers["Cache-Status"].endswith("; detail=engage-failed")
    assert ttl_of(headers) < 0


async def test_kept_contact_survives_a_restart(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    _, fetched, _ = await till.read(contact_id)
    till.sandbox.down()

    await till.restart()
    status, body, headers = await till.read(contact_id)

    assert (status, body) == (200, fetched)
    assert headers["Agent-Source"] == "cache"


@pytest.mark.parametrize("shift_s", [3600, -3600])
async def test_after_the_machine_was_started_anew_the_clock_on_the_wall_counts(
    till: Any, shift_s: float
) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    await till.agent.journal.write(lambda db: db.execute("UPDATE served SET boot = 'before'"))
    await till.cut_line()
    till.clock.wall_shift_s += shift_s

    status, _, headers = await till.read(contact_id)

    assert status == 200
    assert int(headers["Age"]) >= 3590
    assert ttl_of(headers) < 0


async def test_clock_that_was_set_wrong_makes_nothing_old(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    till.clock.wall_shift_s += 10 * 365 * 86400

    _, _, headers = await till.read(contact_id)

    assert headers["Agent-Source"] == "cache"
    assert ttl_of(headers) > 0


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE served SET body = substr(body, 3)",
        "UPDATE served SET boot = '', fetched_at = 'x'",
    ],
)
async def test_kept_contact_that_the_disk_damaged_is_fetched_again(till: Any, damage: str) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    await till.agent.journal.write(lambda db: db.execute(damage))

    status, body, headers = await till.read(contact_id)

    assert (status, body) == (200, till.sandbox.contact(contact_id))
    assert headers["Agent-Source"] == "engage"


async def test_contact_that_is_too_old_is_not_served(start: Start) -> None:
    till = await start(cache={"max_stale_s": 600})
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    await till.cut_line()
    till.clock.shift_s += 601

    status, body, headers = await till.read(contact_id)

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert int(headers["Retry-After"]) > 0


async def test_contact_that_is_too_old_is_erased(start: Start) -> None:
    till = await start(cache={"max_stale_s": 600})
    await till.read(till.sandbox.seed(email="vera@example.test"))
    assert await till.kept() == 2  # the contact, and what was shown of it
    till.clock.shift_s += 601

    await till.restart()

    await eventually(lambda: _is_empty(till), "old answers are erased at the start")


async def _is_empty(till: Any) -> bool:
    return not await till.kept()


async def test_least_used_contact_goes_first(start: Start) -> None:
    till = await start(cache={"max_entries": 2})
    first, second, third = (till.sandbox.seed(email=f"{name}@example.test") for name in "abc")
    for contact_id in (first, second, first, third):
        await till.read(contact_id)
    await till.cut_line()

    statuses = [(await till.read(contact_id))[0] for contact_id in (first, second, third)]

    assert statuses == [200, 503, 200]
    assert await till.kept() == 4  # two contacts, and what was shown of two


async def test_nothing_is_kept_where_the_settings_forbid_it(start: Start) -> None:
    till = await start(cache={"max_entries": 0})
    contact_id = till.sandbox.seed(email="vera@example.test")

    status, _, headers = await till.read(contact_id)

    assert (status, headers["Cache-Status"]) == (200, "till-agent; fwd=uri-miss")
    assert await till.kept() == 0


async def test_enormous_answer_is_passed_on_but_not_kept(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", firstName="V" * 300_000)

    status, body, headers = await till.read(contact_id)

    assert (status, len(body["attributes"]["firstName"])) == (200, 300_000)
    assert "stored" not in headers["Cache-Status"]


async def test_full_disk_does_not_stop_reading(start: Start) -> None:
    till = await start(journal={"min_free_mb": 100_000})
    contact_id = till.sandbox.seed(email="vera@example.test")

    status, _, headers = await till.read(contact_id)

    assert status == 200
    assert "stored" not in headers["Cache-Status"]


# --- refs ---------------------------------------------------------------------------------------


async def test_ref_that_engage_does_not_know_yet_is_told_from_the_journal(till: Any) -> None:
    await till.cut_line()
    change = await till.pos.create(firstName="Vera", preferences={"acceptsSms": True})
    ref = await till.pos.ref_of(change)
    await till.pos.update(ref, city="Lund")

    status, body, headers = await till.read(ref)

    assert status == 200
    assert body["id"] == ref
    assert body["attributes"] == {
        "email": "vera@example.test",
        "firstName": "Vera",
        "countryCode": "SE",
        "city": "Lund",
    }
    assert body["preferences"] == {"acceptsSms": True}
    assert body["meta"] == {"contactType": "Member"}
    assert headers["Agent-Source"] == "journal"
    assert "Cache-Status" not in headers


async def test_ref_leads_to_the_contact_once_engage_has_it(till: Any) -> None:
    change = await till.pos.create()
    ref = await till.pos.ref_of(change)
    contact_id = (await till.pos.until(change, "delivered"))["contactId"]

    status, body, headers = await till.read(ref)

    assert (status, body["id"]) == (200, contact_id)
    assert headers["Agent-Source"] == "engage"


async def test_contact_made_by_this_till_can_be_read_offline(till: Any) -> None:
    contact_id = await till.signed_up(firstName="Vera")
    await till.cut_line()

    status, body, headers = await till.read(contact_id)

    assert (status, body["id"]) == (200, contact_id)
    assert body["attributes"]["firstName"] == "Vera"
    assert headers["Agent-Source"] == "journal"


async def test_contact_of_which_only_a_part_is_known_is_not_made_up(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", firstName="Vera")
    change = await till.pos.update(contact_id, city="Lund")
    await till.pos.until(change, "delivered")
    await till.cut_line()

    status, body, _ = await till.read(contact_id)

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")


@pytest.mark.parametrize("unknown", ["01a00000-0000-7000-8000-000000000000", "nobody", "%20"])
async def test_what_can_be_no_contact_is_never_asked_of_engage(till: Any, unknown: str) -> None:
    status, body, _ = await till.read(unknown)

    assert (status, body["errorCode"]) == (404, "NotFound")
    assert till.calls() == []


# --- not found ----------------------------------------------------------------------------------


async def test_unknown_contact_is_not_found_when_engage_says_so(till: Any) -> None:
    contact_id = str(uuid.uuid4())

    _, first, asked = await till.read(contact_id)
    status, body, kept = await till.read(contact_id)

    assert (status, body["errorCode"]) == (404, "ContactNotFound")
    assert first["errorCode"] == "ContactNotFound"
    assert (asked["Agent-Source"], kept["Agent-Source"]) == ("engage", "cache")
    assert len(till.calls("GET", contact_id)) == 1


async def test_unknown_contact_is_asked_for_again_after_a_while(till: Any) -> None:
    contact_id = str(uuid.uuid4())
    await till.read(contact_id)
    till.clock.shift_s += 11

    await till.read(contact_id)

    assert len(till.calls("GET", contact_id)) == 2


@pytest.mark.parametrize("fault", ["html_404", "portal", "wrong_shape", "unauthorised", "throttle"])
async def test_no_other_answer_is_not_found(till: Any, fault: str) -> None:
    till.sandbox.set_fault(fault, method="GET")

    status, body, headers = await till.read(str(uuid.uuid4()))

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert "Retry-After" in headers


async def test_contact_that_nobody_here_knows_is_unreachable_offline(till: Any) -> None:
    await till.cut_line()

    status, body, headers = await till.read(str(uuid.uuid4()))

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert "Retry-After" in headers


async def test_contact_erased_in_engage_is_forgotten_here(start: Start) -> None:
    till = await start(cache={"contact_ttl_s": 0})
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.read(contact_id)
    till.sandbox.erase(contact_id)

    status, body, _ = await till.read(contact_id)

    assert (status, body["errorCode"]) == (404, "ContactNotFound")
    assert await till.kept() == 0


async def test_sign_up_on_its_way_makes_an_erased_contact_readable(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.pos.get("/api/v3/contacts/id?email=vera@example.test")
    till.sandbox.erase(contact_id)
    await till.pos.call("POST", "/agent/v1/routes/api/pause")
    await till.pos.create(firstName="Vera")

    status, body, headers = await till.read(contact_id)

    assert (status, body["attributes"]["firstName"]) == (200, "Vera")
    assert headers["Agent-Source"] == "journal"


async def test_update_on_its_way_does_not_make_an_erased_contact_up(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    till.sandbox.erase(contact_id)
    await till.pos.call("POST", "/agent/v1/routes/api/pause")
    await till.pos.update(contact_id, city="Lund")

    status, body, _ = await till.read(contact_id)

    assert (status, body["errorCode"]) == (404, "ContactNotFound")


async def test_nothing_personal_is_logged(till: Any, capsys: pytest.CaptureFixture[str]) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test", firstName="Veronika")
    await till.read(contact_id)
    await till.cut_line()
    await till.read(contact_id)
    await till.pos.call("GET", "/api/v3/contacts/id?email=vera@example.test")
    await till.pos.call("GET", f"/api/v3/contacts/transactions?contactId={contact_id}")

    logged = capsys.readouterr()

    assert "vera@" not in logged.out + logged.err
    assert "Veronika" not in logged.out + logged.err
