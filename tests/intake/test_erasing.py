"""`DELETE /agent/v1/contacts/{ref}`: a customer is erased, in every file of the till."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import eventually
from running_agent import CONTACTS, Answer, Shop, open_shop

VERA = {
    "firstName": "Verafirst",
    "lastName": "Testlastname",
    "street": "Provgatan 17",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "198112189876",
    "externalId": "STORE-7-000123",
}
EMAIL = "vera@example.test"
TELLING = (EMAIL, *VERA.values())


async def erase(shop: Shop, public_id: str, query: str = "") -> Answer:
    return await shop.pos("DELETE", f"/agent/v1/contacts/{public_id}{query}")


async def signed_up(shop: Shop, email: str = EMAIL, **more: Any) -> Answer:
    """Sign a customer up and wait until Engage has them."""
    created = await shop.pos.create(email, {**VERA, **more})
    await shop.pos.settled(created, "delivered")
    return created


def found_in_files(shop: Shop) -> list[str]:
    """Give what of the customer stands in any file of the till."""
    files = [path for path in shop.till.folder.rglob("*") if path.is_file()]
    held = b"".join(path.read_bytes() for path in files if path.name != "agent.toml")
    return [text for text in TELLING if text.encode() in held]


# --- what goes ------------------------------------------------------------------------------------


async def test_nothing_of_the_customer_is_left_in_any_file(shop: Shop) -> None:
    created = await signed_up(shop)
    await shop.pos("GET", f"{CONTACTS}/{created.body['id']}")
    await shop.pos.settled(await shop.pos.update(created.body["id"], {"city": "Lund"}), "delivered")
    for number in range(30):  # others, so that rows move
        await shop.pos.create(f"person{number}@example.test", Prefer="respond-async")
    before = found_in_files(shop)

    answer = await erase(shop, created.body["id"])

    assert set(before) == set(TELLING)
    assert answer.status == 200
    assert answer.body["erased"] == {"changes": 2, "keys": 5, "answers": 2, "member": False}
    assert found_in_files(shop) == []


async def test_others_keep_all_of_theirs(shop: Shop) -> None:
    vera = await signed_up(shop)
    per = await signed_up(shop, "per@example.test", lastName="Annat")

    await erase(shop, vera.body["id"])

    change = await shop.pos.change(per)
    assert change["payload"]["attributes"]["lastName"] == "Annat"
    assert (await shop.pos("GET", f"/agent/v1/contacts/{per.body['id']}")).body["keys"]


async def test_customer_is_found_no_more_and_the_ids_stay_usable(shop: Shop) -> None:
    created = await signed_up(shop)
    contact_id = created.body["id"]

    await erase(shop, contact_id)

    held = (await shop.pos("GET", f"/agent/v1/contacts/{contact_id}")).body
    await shop.go_offline()
    assert held["keys"] == []
    assert (held["settledChanges"], held["keptAnswers"], held["wasErased"]) == (0, 0, True)
    assert (await shop.pos.look_up(email=EMAIL)).status == 503
    assert (await shop.pos("GET", f"{CONTACTS}/{contact_id}")).status == 503
    assert (await shop.pos.update(contact_id, {"city": "Lund"})).status == 202


async def test_of_a_change_it_stays_what_it_was_and_what_became_of_it(shop: Shop) -> None:
    created = await signed_up(shop)

    await erase(shop, created.body["id"])

    change = await shop.pos.change(created)
    assert (change["kind"], change["state"]) == ("create", "delivered")
    assert change["payload"]["attributes"] == {}
    assert [attempt["code"] for attempt in change["attempts"]] == [None]


async def test_a_note_stays_that_names_nobody(shop: Shop) -> None:
    created = await signed_up(shop)
    ref = (await shop.pos.change(created))["contactRef"]

    await erase(shop, ref)

    (note,) = (await shop.pos("GET", "/agent/v1/erasures")).body["items"]
    assert (note["ref"], note["contactId"], note["by"]) == (ref, created.body["id"], "pos")
    assert (note["changes"], note["discarded"], note["inEngage"]) == (1, 0, "yes")
    assert [text for text in TELLING if text in str(note)] == []


async def test_answer_and_page_say_that_engage_has_them_still(shop: Shop) -> None:
    created = await signed_up(shop)

    answer = await erase(shop, created.body["id"])

    assert answer.body["left"] == ["Engage has this customer. Erase them there too."]
    assert shop.sandbox.find("email", EMAIL)  # nobody but a person erases there
    await eventually(lambda: page_says(shop, "1 customer; to be erased in Engage, too"))
    assert (await shop.pos("GET", "/agent/v1/status")).body["erasedHere"] == 1


async def page_says(shop: Shop, text: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(shop.agent.url) as answer:
        return text in await answer.text()


# --- never brought back ---------------------------------------------------------------------------


async def test_late_repeat_of_the_sign_up_brings_nobody_back(shop: Shop) -> None:
    key = f"sign-up {EMAIL}"  # a POS may make its keys of anything
    created = await shop.pos.create(EMAIL, VERA, Idempotency_Key=key)
    await shop.pos.settled(created, "delivered")
    await erase(shop, created.body["id"])

    again = await shop.pos.create(EMAIL, VERA, Idempotency_Key=key)
    other = await shop.pos.create("per@example.test", Idempotency_Key=key)

    assert again.headers["Idempotent-Replay"] == "true"
    assert again.headers["Agent-Change"] == created.headers["Agent-Change"]
    assert (other.status, other.code) == (422, "IdempotencyKeyReused")
    assert len(await shop.pos.changes()) == 1
    assert found_in_files(shop) == []


async def test_new_sign_up_is_a_new_one(shop: Shop) -> None:
    created = await signed_up(shop)
    shop.sandbox.erase(created.body["id"])
    await erase(shop, created.body["id"])

    again = await signed_up(shop)

    assert again.body["id"] != created.body["id"]
    assert len(shop.sandbox.find("email", EMAIL)) == 1


# --- what is open ---------------------------------------------------------------------------------


@pytest.fixture
async def waiting(shop: Shop) -> Answer:
    """A sign-up that waits, on a route that stands still."""
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    return await shop.pos.create(EMAIL, VERA)


async def test_open_changes_are_not_given_up_without_being_asked(
    shop: Shop, waiting: Answer
) -> None:
    answer = await erase(shop, waiting.body["id"])

    assert (answer.status, answer.code) == (409, "OpenChanges")
    assert "Nothing was erased" in answer.body["detail"]
    assert "?open=discard" in answer.body["detail"]
    assert (await shop.pos.change(waiting))["payload"]["attributes"]["email"] == EMAIL


async def test_open_changes_are_given_up_on_request_and_never_sent(
    shop: Shop, waiting: Answer
) -> None:
    answer = await erase(shop, waiting.body["id"], "?open=discard")
    await shop.pos("POST", "/agent/v1/routes/api/resume")
    await signed_up(shop, "per@example.test", mobilePhone="+46701234568")

    change = await shop.pos.change(waiting)
    assert answer.body["discarded"] == [change["id"]]
    assert (answer.body["inEngage"], answer.body["left"]) == ("no", [])
    assert (change["state"], change["error"]["code"]) == ("discarded", "Erased")
    assert shop.sandbox.find("email", EMAIL) == []


async def test_refused_sign_up_is_open_until_it_is_given_up(tmp_path: Path) -> None:
    async with open_shop(tmp_path, required={"Member": ("city",)}) as shop:
        refused = await shop.pos.create(EMAIL, VERA)
        ref = (await shop.pos.change(refused))["contactRef"]

        first = await erase(shop, ref)
        second = await erase(shop, ref, "?open=discard")

        assert (first.status, second.status) == (409, 200)
        assert (await shop.pos.change(refused))["state"] == "discarded"
        assert found_in_files(shop) == []


async def test_change_in_a_file_names_the_file(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"fallback": {"seal_after_s": 600}}) as shop:
        shop.sandbox.down()
        await shop.pos("POST", "/agent/v1/routes/api/pause")
        created = await shop.pos.create(EMAIL, VERA)
        await shop.pos("POST", "/agent/v1/batches/seal")
        (batch,) = (await shop.pos("GET", "/agent/v1/batches")).body["items"]

        answer = await erase(shop, created.body["id"], "?open=discard")

        assert (answer.status, answer.code) == (409, "OpenChanges")
        assert batch["name"] in answer.body["detail"]


# --- whom, and how often --------------------------------------------------------------------------


async def test_it_is_safe_to_repeat(shop: Shop) -> None:
    created = await signed_up(shop)
    await erase(shop, created.body["id"])

    again = await erase(shop, created.body["id"])

    assert again.status == 200
    assert again.body["erased"] == {"changes": 0, "keys": 0, "answers": 0, "member": False}
    assert len((await shop.pos("GET", "/agent/v1/erasures")).body["items"]) == 1


@pytest.mark.parametrize(
    "public_id",
    [
        "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9",
        "019d4b5c-0000-7000-8000-000000000000",
        "vera%40example.test",
    ],
    ids=["a GUID", "a ref", "no id"],
)
async def test_whom_nobody_here_knows_is_not_found(shop: Shop, public_id: str) -> None:
    answer = await erase(shop, public_id)

    assert (answer.status, answer.code) == (404, "NotFound")


async def test_another_wish_for_what_is_open_is_malformed(shop: Shop) -> None:
    created = await signed_up(shop)

    answer = await erase(shop, created.body["id"], "?open=keep")

    assert (answer.status, answer.code) == (400, "MalformedRequest")
    assert (await shop.pos.change(created))["payload"]["attributes"]


async def test_erasing_needs_a_token(shop: Shop) -> None:
    created = await signed_up(shop)

    answer = await shop.pos("DELETE", f"/agent/v1/contacts/{created.body['id']}", token="")

    assert answer.status == 401


async def test_two_refs_of_one_person_are_erased_together(shop: Shop) -> None:
    contact_id = shop.sandbox.seed(email=EMAIL, **VERA)
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    by_key = await shop.pos.create(EMAIL, VERA)
    by_guid = await shop.pos.update(contact_id, {"lastName": VERA["lastName"]})
    await shop.pos("POST", "/agent/v1/routes/api/resume")
    await shop.pos.settled(by_key, "delivered")
    await shop.pos.settled(by_guid, "delivered")

    await erase(shop, by_key.body["id"])

    assert found_in_files(shop) == []


async def test_copy_of_an_upgrade_is_named(shop: Shop) -> None:
    created = await signed_up(shop)
    (shop.till.folder / "journal.db.before-9").write_bytes(b"an older journal")

    answer = await erase(shop, created.body["id"])

    assert "journal.db.before-9" in answer.body["left"][1]
