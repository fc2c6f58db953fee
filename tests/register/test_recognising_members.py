"""Members of Engage's export are found while the line is down: new, updated and deleted ones."""

from __future__ import annotations

from typing import Any

VERA = {
    "email": "vera@example.test",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "198112189876",
    "memberNumber": "M-1",
}
QUESTIONS = {
    "email": "email=Vera%40example.test",
    "phone": "mobilePhone=%2B46701234567",
    "phone as it is typed": "mobilePhone=070-123%2045%2067",
    "personal number": "socialSecurityNumber=811218-9876",
    "custom key": "customKey=M-1",
    "any": "any=vera%40example.test",
    "all": "email=vera%40example.test&customKey=M-1&contactType=member",
}


async def test_member_is_found_by_every_key_though_this_till_never_met_them(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()

    found = {name: await till.found(question) for name, question in QUESTIONS.items()}

    assert found == dict.fromkeys(QUESTIONS, contact_id)


async def test_it_is_said_whose_word_that_is_and_how_old(till: Any) -> None:
    till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()
    till.clock.shift_s += 3600

    _, _, headers = await till.ask("email=vera%40example.test")

    assert headers["Agent-Source"] == "register"
    assert 3600 <= int(headers["Age"]) < 3900
    assert headers["Cache-Status"].startswith("till-agent; hit; ttl=-36")
    assert headers["Cache-Status"].endswith("; detail=offline")


async def test_whom_no_export_named_nobody_can_tell(till: Any) -> None:
    till.sandbox.seed(**VERA)
    till.sandbox.seed(email="per@example.test", contactType="Contact")  # Members only
    await till.told()
    await till.cut_line()

    status, body, headers = await till.ask("email=per%40example.test")

    assert (status, body["errorCode"]) == (503, "EngageUnreachable")
    assert "Retry-After" in headers


async def test_while_the_line_is_up_engage_itself_is_asked(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    till.sandbox.erase(contact_id)

    status, body, headers = await till.ask("email=vera%40example.test")

    assert (status, body["errorCode"]) == (404, "ContactNotFound")
    assert headers["Agent-Source"] == "engage"


async def test_what_engage_itself_denied_is_believed_no_more(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    till.sandbox.erase(contact_id)
    await till.ask("email=vera%40example.test")
    till.clock.shift_s += 3600
    await till.cut_line()

    assert await till.found("email=vera%40example.test") is None


async def test_update_brings_the_new_value_and_takes_the_old_one(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    till.sandbox.change(contact_id, email="new@example.test", mobilePhone=None)
    await till.told()
    await till.cut_line()

    assert await till.found("email=new%40example.test") == contact_id
    assert await till.found("email=vera%40example.test") is None
    assert await till.found("mobilePhone=%2B46701234567") is None
    assert await till.found("customKey=M-1") == contact_id


async def test_member_who_was_deleted_is_found_no_more(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.pos.get(f"/api/v3/contacts/{contact_id}")  # known here, not by the export alone
    await till.told()
    till.sandbox.erase(contact_id)
    await till.told()
    await till.cut_line()

    assert await till.found("email=vera%40example.test") is None
    assert await till.rows("SELECT * FROM member_keys UNION ALL SELECT 1, 2, name FROM keys") == []
    assert await till.rows("SELECT * FROM served WHERE shelf = 'contact'") == []


async def test_member_who_comes_again_is_found_again(till: Any) -> None:
    till.sandbox.erase(till.sandbox.seed(**VERA))
    await till.told()
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()

    assert await till.found("email=vera%40example.test") == contact_id


async def test_two_members_with_one_phone_are_both_told(till: Any) -> None:
    ids = {
        till.sandbox.seed(email=f"{name}@example.test", mobilePhone="+46701234567")
        for name in ("vera", "per")
    }
    await till.told()
    await till.cut_line()

    status, body, _ = await till.ask("mobilePhone=%2B46701234567")

    assert (status, body["errorCode"]) == (409, "MultipleMatches")
    assert set(body["messageDetails"]["multipleMatchesFound"]) == ids


# --- this till and the export ---------------------------------------------------------------------


async def test_export_does_not_undo_what_this_till_did_since(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.export()  # made before, read after
    change = await till.pos.update(contact_id, email="new@example.test")
    await till.pos.until(change, "delivered")
    await till.read()
    await till.cut_line()

    assert await till.found("email=new%40example.test") == contact_id
    assert await till.found("email=vera%40example.test") is None


async def test_export_does_not_bring_back_what_this_till_cleared_since(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.export()
    path = f"/api/v3/contacts/{contact_id}?clear=mobilePhone"
    await till.pos.call("PATCH", path, {})
    await till.read()
    await till.cut_line()

    assert await till.found("mobilePhone=%2B46701234567") is None
    assert await till.found("email=vera%40example.test") == contact_id


async def test_change_that_waits_counts_beside_what_the_export_says(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()
    await till.pos.update(contact_id, email="new@example.test")

    assert await till.found("email=new%40example.test") == contact_id
    assert await till.found("email=vera%40example.test") == contact_id  # Engage has it still


async def test_change_elsewhere_ends_what_this_till_knew(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.pos.get(f"/api/v3/contacts/{contact_id}")
    till.sandbox.change(contact_id, email="new@example.test")
    await till.told()
    await till.cut_line()

    assert await till.found("email=new%40example.test") == contact_id
    assert await till.found("email=vera%40example.test") is None


async def test_sign_up_of_a_member_who_is_met_offline_is_the_one_that_is_found(till: Any) -> None:
    till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()
    ref = await till.pos.ref_of(await till.pos.create("vera@example.test"))

    assert await till.found("email=vera%40example.test") == ref


async def test_update_by_the_guid_from_the_register_reaches_the_member(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told()
    await till.cut_line()
    change = await till.pos.update(await till.found("customKey=M-1"), city="Lund")
    till.sandbox.up()

    await till.pos.until(change, "delivered")

    assert till.sandbox.contact(contact_id)["attributes"]["city"] == "Lund"


# --- without a GUID -------------------------------------------------------------------------------


async def test_member_without_guid_gets_a_ref_that_works(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told(with_ids=False)
    await till.cut_line()
    ref = await till.found("email=vera%40example.test")
    change = await till.pos.update(ref, city="Lund")
    till.sandbox.up()

    await till.pos.until(change, "delivered")

    assert ref != contact_id
    assert till.sandbox.contact(contact_id)["attributes"]["city"] == "Lund"


async def test_member_without_guid_has_one_ref_whatever_they_are_found_by(till: Any) -> None:
    till.sandbox.seed(**VERA)
    await till.told(with_ids=False)
    await till.cut_line()

    refs = {await till.found(question) for question in QUESTIONS.values()}

    assert len(refs) == 1


async def test_members_without_guid_are_told_apart_by_their_surest_key(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    till.sandbox.seed(email="per@example.test", mobilePhone="+46701234567")
    await till.told(with_ids=False)
    till.sandbox.change(contact_id, email="new@example.test")
    await till.told(with_ids=False)
    await till.cut_line()

    assert await till.found("email=vera%40example.test") is None
    assert await till.found("email=per%40example.test") is not None
    assert await till.found("email=new%40example.test") == await till.found("customKey=M-1")
    assert await till.rows("SELECT count(*) FROM members") == [(2,)]


async def test_guid_that_is_exported_later_belongs_to_the_same_member(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told(with_ids=False)
    await till.told(full=True)
    await till.cut_line()

    assert await till.found("email=vera%40example.test") == contact_id
    assert await till.rows("SELECT count(*) FROM members") == [(1,)]


async def test_member_without_guid_is_read_by_the_ref_once_engage_can_be_asked(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.told(with_ids=False)
    await till.cut_line()
    ref = await till.found("email=vera%40example.test")
    offline, _, _ = await till.pos.call("GET", f"/api/v3/contacts/{ref}")
    till.sandbox.up()
    await till.pos.until_link("online")

    contact = await till.pos.get(f"/api/v3/contacts/{ref}")
    purchases = await till.pos.get(f"/api/v3/contacts/transactions?contactId={ref}")

    assert offline == 503
    assert contact["id"] == contact_id
    assert purchases["totalCount"] > 0
