"""/agent/v1: what was promised, where it stands, and what a person may do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running_agent import Answer, Pos, Shop, open_shop

NOBODY = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop whose Engage demands a last name."""
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as opened:
        yield opened


async def act(pos: Pos, answer: Answer, what: str, body: Any = None) -> Answer:
    return await pos("POST", f"{answer.headers['Location']}/{what}", body)


# --- changes --------------------------------------------------------------------------------------


async def test_a_change_shows_all_that_is_known_of_it(pos: Pos) -> None:
    created = await pos.create("vera@example.test")

    change = await pos.change(created)

    assert change["id"] == created.headers["Agent-Change"]
    assert change["contactId"] == created.body["id"]
    assert {
        key: change[key] for key in ("kind", "state", "unknown", "route", "batch", "error")
    } == {
        "kind": "create",
        "state": "delivered",
        "unknown": False,
        "route": "api",
        "batch": None,
        "error": None,
    }
    assert set(change) >= {"contactRef", "attempts", "createdAt", "dueAt"}
    (attempt,) = change["attempts"]
    assert (attempt["outcome"], attempt["status"]) == ("delivered", 201)
    assert [step["step"] for step in attempt["steps"]] == ["look up", "create"]


async def test_changes_are_listed_newest_first_in_pages(shop: Shop) -> None:
    await shop.go_offline()
    made = [
        (await shop.pos.create(f"person{n}@example.test")).headers["Agent-Change"] for n in range(5)
    ]

    seen: list[str] = []
    after = ""
    while after is not None:
        page = (await shop.pos("GET", f"/agent/v1/changes?limit=2&after={after}")).body
        assert set(page) == {"items", "next"}
        seen += [change["id"] for change in page["items"]]
        after = page["next"]

    assert seen == made[::-1]


async def test_changes_are_listed_by_state(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")
    await strict.pos.create("per@example.test", {"lastName": "Berg"})

    page = (await strict.pos("GET", "/agent/v1/changes?state=rejected")).body

    assert [change["id"] for change in page["items"]] == [refused.headers["Agent-Change"]]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("state=lost", 400),
        ("limit=0", 400),
        ("limit=201", 400),
        ("limit=ten", 400),
        ("limit=000200999", 400),
        (f"after={NOBODY}", 404),
    ],
)
async def test_a_listing_that_cannot_be_is_refused(pos: Pos, query: str, status: int) -> None:
    answer = await pos("GET", f"/agent/v1/changes?{query}")

    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/agent/v1/changes/{NOBODY}"),
        ("POST", f"/agent/v1/changes/{NOBODY}/retry"),
        ("POST", f"/agent/v1/changes/{NOBODY}/discard"),
        ("GET", f"/agent/v1/contacts/{NOBODY}"),
        ("GET", "/agent/v1/batches/none.xml"),
        ("POST", "/agent/v1/routes/pigeon/pause"),
    ],
)
async def test_what_is_not_there_is_404(pos: Pos, method: str, path: str) -> None:
    answer = await pos(method, path)

    assert (answer.status, answer.code) == (404, "NotFound")


async def test_what_waits_for_another_change_names_it(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")
    ref = (await strict.pos.change(refused))["contactRef"]

    follower = await strict.pos.update(ref, {"city": "Lund"}, Prefer="respond-async")

    assert (await strict.pos.change(follower))["waitsFor"] == refused.headers["Agent-Change"]


# --- what a person does ---------------------------------------------------------------------------


async def test_a_rejected_change_is_sent_again_when_the_cause_is_cured(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")
    strict.sandbox.tenant.required.clear()

    answer = await act(strict.pos, refused, "retry")

    change = await strict.pos.settled(refused, "delivered")
    assert answer.status == 200
    assert answer.headers["Agent-Change"] == change["id"]
    assert [attempt["outcome"] for attempt in change["attempts"]] == ["rejected", "delivered"]


async def test_a_rejected_change_is_given_up_with_a_reason(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")

    answer = await act(strict.pos, refused, "discard", {"reason": "she left"})

    assert (answer.status, answer.body["state"]) == (200, "discarded")
    assert answer.body["attempts"][-1]["message"] == "she left"
    assert (await act(strict.pos, refused, "retry")).status == 409
    assert (await act(strict.pos, refused, "discard")).status == 409


async def test_a_replay_of_what_was_discarded_is_409(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test", Idempotency_Key="k1")
    await act(strict.pos, refused, "discard")

    again = await strict.pos.create("vera@example.test", Idempotency_Key="k1")

    assert (again.status, again.code) == (409, "Discarded")
    assert again.headers["Agent-State"] == "discarded"


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_a_delivered_change_is_left_alone(pos: Pos, action: str) -> None:
    created = await pos.create("vera@example.test")

    answer = await act(pos, created, action)

    assert (answer.status, answer.code) == (409, "Conflict")
    assert (await pos.change(created))["state"] == "delivered"


@pytest.mark.parametrize("body", [{"reason": 7}, {"reason": ["x"]}])
async def test_a_reason_that_is_no_text_changes_nothing(strict: Shop, body: Any) -> None:
    refused = await strict.pos.create("vera@example.test")

    answer = await act(strict.pos, refused, "discard", body)

    assert (answer.status, answer.code) == (400, "MalformedRequest")
    assert (await strict.pos.change(refused))["state"] == "rejected"


async def test_a_paused_route_sends_nothing_until_it_is_resumed(shop: Shop) -> None:
    paused = await shop.pos("POST", "/agent/v1/routes/api/pause")
    created = await shop.pos.create("vera@example.test")
    sent_while_paused = len(shop.sandbox.requests)

    resumed = await shop.pos("POST", "/agent/v1/routes/api/resume")

    await shop.pos.settled(created, "delivered")
    assert (paused.body["state"], resumed.body["state"]) == ("paused", "running")
    assert created.status == 202
    assert sent_while_paused == 0


@pytest.mark.parametrize("kind", ["create", "update"])
async def test_a_change_that_the_disk_has_damaged_is_set_aside_and_the_rest_goes_on(
    shop: Shop, kind: str
) -> None:
    contact_id = shop.sandbox.seed(email="seed@example.test")
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    if kind == "create":
        damaged = await shop.pos.create("vera@example.test")
    else:
        damaged = await shop.pos.update(contact_id, {"city": "Lund"})
    other = await shop.pos.create("per@example.test")
    await shop.agent.journal.write(
        lambda db: db.execute(
            "UPDATE changes SET payload = replace(payload, '{', '[') WHERE id = ?",
            (damaged.headers["Agent-Change"],),
        )
    )

    await shop.pos("POST", "/agent/v1/routes/api/resume")

    change = await shop.pos.settled(damaged, "rejected")
    await shop.pos.settled(other, "delivered")
    assert change["error"]["code"] == "PayloadDamaged"
    assert [request.method for request in shop.sandbox.requests] == ["GET", "POST"]
    assert (await act(shop.pos, damaged, "retry")).status == 409


# --- contacts and batches -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["contactRef", "contactId"])
async def test_a_contact_shows_its_ids_and_the_names_of_its_keys_only(pos: Pos, name: str) -> None:
    created = await pos.create("vera@example.test", {"mobilePhone": "+46701234567"})
    change = await pos.change(created)

    contact = (await pos("GET", f"/agent/v1/contacts/{change[name].upper()}")).body

    assert contact == {
        "ref": change["contactRef"],
        "contactId": created.body["id"],
        "contactType": "Member",
        "keys": ["email", "mobilePhone", "memberNumber"],  # the last one is Engage's own
        "openChanges": [],
        "settledChanges": 1,
        "keptAnswers": 0,
        "isMember": False,
        "wasErased": False,
    }


async def test_what_waits_is_sealed_by_hand_and_the_batch_is_listed(shop: Shop) -> None:
    await shop.go_offline()
    created = await shop.pos.create("vera@example.test")

    sealed = await shop.pos("POST", "/agent/v1/batches/seal")

    (batch,) = (await shop.pos("GET", "/agent/v1/batches")).body["items"]
    change = await shop.pos.change(created)
    assert sealed.body == {"sealed": 1}
    assert (change["state"], change["route"], change["batch"]) == ("batched", "file", batch["name"])
    shown = (await shop.pos("GET", f"/agent/v1/batches/{batch['name']}")).body
    assert {**shown, "attempts": 0, "error": None} == {**batch, "attempts": 0, "error": None}


# --- mending --------------------------------------------------------------------------------------


async def mend(pos: Pos, answer: Answer, body: Any) -> Answer:
    return await pos("PUT", f"{answer.headers['Location']}/payload", body)


async def test_a_rejected_sign_up_is_mended_and_reaches_engage(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")

    mended = await mend(strict.pos, refused, {"email": "vera@example.test", "lastName": "Lind"})

    assert (mended.status, mended.body["error"]) == (200, None)
    change = await strict.pos.settled(refused, "delivered")
    assert change["payload"]["attributes"]["lastName"] == "Lind"
    (contact,) = strict.sandbox.find("email", "vera@example.test")
    assert contact["attributes"]["lastName"] == "Lind"


async def test_what_waited_for_a_rejected_sign_up_follows_once_it_is_mended(strict: Shop) -> None:
    refused = await strict.pos.create("vera@example.test")
    ref = (await strict.pos.change(refused))["contactRef"]
    waiting = await strict.pos(
        "PATCH", f"/api/v3/contacts/{ref}", {"city": "Lund"}, Prefer="respond-async"
    )

    await mend(strict.pos, refused, {"email": "vera@example.test", "lastName": "Lind"})

    await strict.pos.settled(waiting, "delivered")
    (contact,) = strict.sandbox.find("email", "vera@example.test")
    assert contact["attributes"]["city"] == "Lund"


async def test_a_mended_address_is_what_the_contact_is_found_by(strict: Shop) -> None:
    refused = await strict.pos.create("vear@example.test")

    await mend(strict.pos, refused, {"email": "vera@example.test", "lastName": "Lind"})

    await strict.pos.settled(refused, "delivered")
    assert strict.sandbox.find("email", "vear@example.test") == []
    again = await strict.pos.create("vera@example.test", {"lastName": "Lindh"})
    assert again.body["id"] == (await strict.pos.change(refused))["contactId"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"email": "no address", "lastName": "Lind"}, 422),
        ({"lastName": "Lind"}, 422),  # without the key
        ([], 400),
    ],
)
async def test_a_correction_that_is_wrong_itself_changes_nothing(
    strict: Shop, body: Any, status: int
) -> None:
    refused = await strict.pos.create("vera@example.test")
    before = await strict.pos.change(refused)

    answer = await mend(strict.pos, refused, body)

    assert answer.status == status
    assert await strict.pos.change(refused) == before


async def test_a_delivered_change_cannot_be_mended(pos: Pos) -> None:
    created = await pos.create("vera@example.test")

    answer = await mend(pos, created, {"email": "vera@example.test"})

    assert (answer.status, answer.code) == (409, "Conflict")
