"""Who is found while the line is down: whom this till signed up, looked up or read."""

from __future__ import annotations

from typing import Any

VERA = {
    "email": "vera@example.test",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "198112189876",
}
# Each of Engage's parameters, as a POS may write the value.
QUESTIONS = {
    "email": "email=Vera%40example.test",
    "phone": "mobilePhone=%2B46701234567",
    "phone as it is typed": "mobilePhone=070-123%2045%2067",
    "personal number": "socialSecurityNumber=198112189876",
    "personal number as it is typed": "socialSecurityNumber=811218-9876",
    "custom key": "customKey=M-1",
    "any": "any=070-123%2045%2067",
    "any custom key": "any=M-1",
    "all of them": "email=vera%40example.test&mobilePhone=%2B46701234567&customKey=M-1",
}


async def ask(till: Any, question: str) -> tuple[int, Any, Any]:
    answer: tuple[int, Any, Any] = await till.pos.call("GET", f"/api/v3/contacts/id?{question}")
    return answer


async def is_unknown(till: Any, question: str) -> bool:
    """Say whether nobody can tell just now; a "not found" would be a lie."""
    status, body, headers = await ask(till, question)
    return (status, body["errorCode"]) == (503, "EngageUnreachable") and "Retry-After" in headers


# --- whom this till has had to do with ------------------------------------------------------------


async def found_by_each(till: Any) -> dict[str, Any]:
    """Give who is found by each of the questions, and whose word that is."""
    answers = {name: await ask(till, question) for name, question in QUESTIONS.items()}
    return {name: (body, headers["Agent-Source"]) for name, (_, body, headers) in answers.items()}


async def test_customer_who_was_signed_up_here_is_found_by_every_key(till: Any) -> None:
    contact_id = await till.signed_up(**VERA, memberNumber="M-1")
    await till.cut_line()

    found = await found_by_each(till)

    assert found == dict.fromkeys(QUESTIONS, (contact_id, "journal"))


async def test_customer_is_found_by_the_member_number_that_engage_gave(till: Any) -> None:
    contact_id = await till.signed_up(**VERA)
    number = till.attributes()["memberNumber"]
    await till.cut_line()

    status, body, _ = await ask(till, f"customKey={number}")

    assert (status, body) == (200, contact_id)


async def test_customer_who_was_read_here_is_found_by_every_key(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA, memberNumber="M-1")
    await till.read(contact_id)
    await till.cut_line()

    found = await found_by_each(till)

    assert found == dict.fromkeys(QUESTIONS, (contact_id, "journal"))


async def test_customer_who_was_looked_up_here_is_found_by_that_key_only(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await ask(till, "mobilePhone=%2B46701234567")
    await till.cut_line()

    status, body, _ = await ask(till, "any=%2B46701234567")

    assert (status, body) == (200, contact_id)
    assert await is_unknown(till, "email=vera%40example.test")


async def test_customer_who_is_on_the_way_to_engage_is_found_by_the_ref(till: Any) -> None:
    await till.cut_line()
    ref = await till.pos.ref_of(await till.pos.create(mobilePhone="+46701234567"))

    status, body, headers = await ask(till, "mobilePhone=%2B46701234567")

    assert (status, body) == (200, ref)
    assert headers["Agent-Source"] == "journal"
    assert "Age" not in headers  # it is so now


# --- how that is said -----------------------------------------------------------------------------


async def test_answer_from_memory_tells_its_age_and_why_it_had_to_do(till: Any) -> None:
    await till.signed_up(**VERA)
    await till.cut_line()
    till.clock.shift_s += 120

    _, _, headers = await ask(till, "email=vera%40example.test")

    assert 120 <= int(headers["Age"]) < 180
    assert headers["Cache-Status"].startswith("till-agent; hit; ttl=-1")
    assert headers["Cache-Status"].endswith("; detail=offline")


async def test_answer_of_engage_has_no_age(till: Any) -> None:
    till.sandbox.seed(**VERA)

    _, _, headers = await ask(till, "email=vera%40example.test")

    assert (headers["Agent-Source"], headers["Age"]) == ("engage", "0")
    assert headers["Cache-Status"] == "till-agent; fwd=uri-miss"


async def test_engage_that_fails_is_told_from_a_line_that_is_down(till: Any) -> None:
    contact_id = await till.signed_up(**VERA)
    till.sandbox.set_fault("status", status=500, path="/contacts/id")

    status, body, headers = await ask(till, "email=vera%40example.test")

    assert (status, body) == (200, contact_id)
    assert headers["Cache-Status"].endswith("; detail=engage-failed")


# --- whom nobody can tell -------------------------------------------------------------------------


async def test_another_contact_type_than_the_known_one_is_not_guessed_at(till: Any) -> None:
    contact_id = await till.signed_up(**VERA)
    await till.cut_line()

    status, body, _ = await ask(till, "email=vera%40example.test&contactType=member")

    assert (status, body) == (200, contact_id)
    assert await is_unknown(till, "email=vera%40example.test&contactType=Contact")


async def test_keys_of_two_customers_are_nobodys(till: Any) -> None:
    await till.signed_up(email="vera@example.test", mobilePhone="+46701234567")
    await till.signed_up(email="per@example.test", mobilePhone="+46701234568")
    await till.cut_line()

    assert await is_unknown(till, "email=vera%40example.test&mobilePhone=%2B46701234568")


async def test_key_that_is_not_known_of_a_customer_rules_nobody_out(till: Any) -> None:
    contact_id = await till.signed_up(email="vera@example.test")
    await till.cut_line()

    status, body, _ = await ask(till, "email=vera%40example.test&mobilePhone=%2B46701234568")

    assert (status, body) == (200, contact_id)


async def test_phone_that_relatives_share_is_told_with_all_who_have_it(till: Any) -> None:
    ids = {
        await till.signed_up(email=f"{name}@example.test", mobilePhone="+46701234567")
        for name in ("vera", "per")
    }
    await till.cut_line()

    status, body, _ = await ask(till, "mobilePhone=%2B46701234567")

    assert (status, body["errorCode"]) == (409, "MultipleMatches")
    assert set(body["messageDetails"]["multipleMatchesFound"]) == ids


async def test_sign_up_that_engage_refused_is_no_customer(till: Any) -> None:
    change = await till.pos.create("vera@example.test", contactType="NoSuchType")
    await till.pos.until(change, "rejected")
    await till.cut_line()

    assert await is_unknown(till, "email=vera%40example.test")


async def test_value_that_was_replaced_or_cleared_finds_nobody(till: Any) -> None:
    contact_id = await till.signed_up(**VERA)
    await till.pos.until(await till.pos.update(contact_id, email="new@example.test"), "delivered")
    path = f"/api/v3/contacts/{contact_id}?clear=mobilePhone"
    _, _, cleared = await till.pos.call("PATCH", path, {})
    await till.cut_line()

    status, body, _ = await ask(till, "email=new%40example.test")

    assert cleared["Agent-State"] == "delivered"
    assert (status, body) == (200, contact_id)
    assert await is_unknown(till, "email=vera%40example.test")
    assert await is_unknown(till, "mobilePhone=%2B46701234567")


async def test_value_that_engage_has_replaced_finds_nobody(till: Any) -> None:
    contact_id = await till.signed_up(**VERA)
    till.sandbox.erase(contact_id)
    moved = till.sandbox.seed(email="vera@example.test")
    await ask(till, "email=vera%40example.test")
    await till.cut_line()

    status, body, _ = await ask(till, "email=vera%40example.test")

    assert (status, body) == (200, moved)


async def test_number_that_could_be_a_phone_is_taken_for_one_as_engage_does(till: Any) -> None:
    await till.signed_up(email="vera@example.test", memberNumber="0701234567")
    await till.cut_line()

    assert await is_unknown(till, "any=0701234567")
    assert (await ask(till, "customKey=0701234567"))[0] == 200


async def test_what_was_learnt_survives_a_restart(till: Any) -> None:
    contact_id = till.sandbox.seed(**VERA)
    await till.read(contact_id)
    await till.restart()
    await till.cut_line()

    status, body, _ = await ask(till, "socialSecurityNumber=198112189876")

    assert (status, body) == (200, contact_id)
