"""Requests that come twice, people who are known already, and keys that move with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from journal_helpers import GUID, GUID_2, Book, FakeClock

from agent.change import Kind, State
from agent.contact import Key
from agent.errors import IdempotencyKeyReused, NotFound
from agent.journal import contacts, served

VERA = {"email": "vera@example.test", "firstName": "Vera"}
PER = {"email": "per@example.test", "firstName": "Per"}


async def known_by(book: Book, email: str) -> str | None:
    """Give the ref of who is found by an e-mail address."""
    found = await book.journal.read(partial(contacts.find_by_key, key=Key("email", email)))
    return found.ref if found else None


async def changes_count(book: Book) -> int:
    return sum((await book.counts()).values())


# --- with an Idempotency-Key ----------------------------------------------------------------------


async def test_the_same_key_and_request_is_the_same_change(each_book: Book) -> None:
    first = await each_book.record(Kind.CREATE, VERA, key="k1")

    again = await each_book.record(Kind.CREATE, VERA, key="k1")

    assert (again.replayed, again.is_new) == (True, False)
    assert again.change.id == first.change.id
    assert await changes_count(each_book) == 1


async def test_a_replay_shows_the_change_as_it_stands_now(book: Book) -> None:
    first = await book.record(Kind.CREATE, VERA, key="k1")
    await book.deliver(first.change)

    again = await book.record(Kind.CREATE, VERA, key="k1")

    assert again.change.state is State.DELIVERED
    assert again.change.contact.contact_id == GUID


async def test_the_same_key_for_another_request_is_refused_and_stores_nothing(
    each_book: Book,
) -> None:
    await each_book.record(Kind.CREATE, VERA, key="k1")

    with pytest.raises(IdempotencyKeyReused):
        await each_book.record(Kind.CREATE, PER, key="k1")

    assert await changes_count(each_book) == 1
    assert await known_by(each_book, "per@example.test") is None


async def test_two_tokens_may_use_the_same_key(book: Book) -> None:
    first = await book.record(Kind.CREATE, VERA, key="k1", token="till 1")

    other = await book.record(Kind.CREATE, PER, key="k1", token="till 2")

    assert other.is_new
    assert other.change.id != first.change.id


async def test_a_key_holds_over_a_restart_and_for_longer_than_the_window(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        first = await book.record(Kind.CREATE, VERA, key="k1")
    clock.pass_s(86_400 * 7)

    async with Book(path, clock) as book:
        again = await book.record(Kind.CREATE, VERA, key="k1")

    assert again.replayed
    assert again.change.id == first.change.id


async def test_two_keys_make_two_changes_of_one_request(book: Book) -> None:
    await book.record(Kind.CREATE, VERA, key="k1")

    assert (await book.record(Kind.CREATE, VERA, key="k2")).is_new


# --- without one ----------------------------------------------------------------------------------


async def test_an_identical_request_without_a_key_is_the_same_change_and_is_counted(
    each_book: Book,
) -> None:
    first = await each_book.record(Kind.CREATE, VERA)

    again = await each_book.record(Kind.CREATE, VERA)

    assert (again.repeated, again.is_new) == (True, False)
    assert again.change.id == first.change.id
    assert (await each_book.now(first.change)).repeated == 1


async def test_city_a_then_b_then_a_again_are_three_changes(book: Book) -> None:
    made = [await book.record(Kind.UPDATE, {"city": city}, target=GUID) for city in ("A", "B", "A")]

    assert [each.is_new for each in made] == [True, True, True]


async def test_another_contacts_change_in_between_does_not_matter(book: Book) -> None:
    first = await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)
    await book.record(Kind.UPDATE, {"city": "B"}, target=GUID_2)

    again = await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)

    assert again.change.id == first.change.id


@pytest.mark.parametrize("action", ["reject", "discard"])
async def test_a_refused_request_may_be_sent_again(book: Book, action: str) -> None:
    first = await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)
    await book.reject(first.change)
    if action == "discard":
        await book.discard(first.change)

    again = await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)

    assert again.is_new


@pytest.mark.parametrize(("later_s", "is_new"), [(599, False), (601, True), (-601, True)])
async def test_only_within_the_window_is_it_a_repeat(
    book: Book, clock: FakeClock, later_s: float, is_new: bool
) -> None:
    await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)

    clock.pass_s(later_s)

    again = await book.record(Kind.UPDATE, {"city": "A"}, target=GUID)
    assert again.is_new is is_new


async def test_a_repeat_of_what_was_delivered_is_not_sent_again(book: Book) -> None:
    first = await book.record(Kind.CREATE, VERA)
    await book.deliver(first.change)

    again = await book.record(Kind.CREATE, VERA)

    assert again.change.state is State.DELIVERED
    assert await book.due() == ()


# --- who is it ------------------------------------------------------------------------------------


async def test_a_second_sign_up_with_the_same_e_mail_joins_the_lane(each_book: Book) -> None:
    first = await each_book.create("vera@example.test")

    second = await each_book.create("  VERA@Example.test")

    assert second.contact == first.contact
    assert second.id != first.id


async def test_only_the_contact_key_makes_two_sign_ups_one_person(book: Book) -> None:
    phone = {"mobilePhone": "+46700000001"}
    first = await book.record(Kind.CREATE, {**VERA, **phone})

    second = await book.record(Kind.CREATE, {**PER, **phone})

    assert second.change.contact.ref != first.change.contact.ref


async def test_a_sign_up_of_somebody_who_is_known_already_knows_the_guid(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))

    again = await book.create("vera@example.test")

    assert again.contact.contact_id == GUID


@pytest.mark.parametrize("form", [str.lower, str.upper])
async def test_refs_and_guids_work_in_either_case(book: Book, form: Any) -> None:
    change = await book.create()
    await book.deliver(change)

    by_ref = await book.update(form(change.contact.ref))
    by_guid = await book.update(form(GUID))

    assert by_ref.contact == by_guid.contact


@pytest.mark.parametrize("public_id", ["01890000-0000-7000-8000-000000000000", "42", "", "å"])
async def test_an_id_that_leads_nowhere_is_not_found_and_stores_nothing(
    book: Book, public_id: str
) -> None:
    with pytest.raises(NotFound):
        await book.update(public_id)

    assert await changes_count(book) == 0
    assert await book.rows("SELECT count(*) FROM contacts") == [(0,)]


async def test_a_guid_that_is_new_to_this_till_gets_a_lane_of_its_own(book: Book) -> None:
    change = await book.update(GUID.upper())

    assert change.contact.contact_id == GUID
    assert change.contact.public_id == GUID


# --- keys that change -----------------------------------------------------------------------------


async def test_a_new_e_mail_is_known_at_once_and_the_old_one_until_it_is_delivered(
    each_book: Book,
) -> None:
    create = await each_book.create("old@example.test")
    await each_book.deliver(create)
    change = await each_book.update(GUID, {"email": "new@example.test"})

    assert await known_by(each_book, "old@example.test") == create.contact.ref
    assert await known_by(each_book, "new@example.test") == create.contact.ref

    await each_book.deliver(change)

    assert await known_by(each_book, "old@example.test") is None
    assert await known_by(each_book, "new@example.test") == create.contact.ref


async def test_a_rejected_new_e_mail_leaves_the_old_one_known(book: Book) -> None:
    create = await book.create("old@example.test")
    await book.deliver(create)

    await book.reject(await book.update(GUID, {"email": "new@example.test"}))

    assert await known_by(book, "old@example.test") == create.contact.ref


async def test_a_discarded_new_e_mail_is_forgotten(book: Book) -> None:
    create = await book.create("old@example.test")
    await book.deliver(create)
    change = await book.update(GUID, {"email": "new@example.test"})
    await book.reject(change)

    await book.discard(change)

    assert await known_by(book, "new@example.test") is None
    assert await known_by(book, "old@example.test") == create.contact.ref


async def test_delivering_an_older_change_keeps_what_a_later_open_one_brings(book: Book) -> None:
    create = await book.create("old@example.test")
    await book.upgrade(create.contact.ref)
    await book.update(create.contact.ref, {"email": "new@example.test"})

    await book.deliver(create)

    assert await known_by(book, "old@example.test") == create.contact.ref
    assert await known_by(book, "new@example.test") == create.contact.ref


async def test_a_contact_is_looked_for_first_by_what_engage_holds(book: Book) -> None:
    create = await book.create("old@example.test")
    await book.deliver(create)
    await book.update(GUID, {"email": "new@example.test"})

    claim = await book.claim(create)

    assert claim is not None
    assert [key.value for key in claim.keys] == ["old@example.test", "new@example.test"]


# --- what a look-up found -------------------------------------------------------------------------


async def remember(
    book: Book, value: str, contact_id: str, *, name: str = "email", asked_after: int | None = None
) -> None:
    if asked_after is None:
        asked_after = await book.journal.read(served.last_attempt)
    await book.journal.write(
        partial(
            contacts.remember,
            key=Key(name, value),
            contact_id=contact_id,
            contact_type=None,
            contact_key="email",
            asked_after=asked_after,
            now="2026-11-21T10:00:00.000Z",
        )
    )


async def test_a_look_up_gives_a_waiting_sign_up_its_guid(book: Book) -> None:
    create = await book.create("vera@example.test")

    await remember(book, "vera@example.test", GUID)

    assert (await book.now(create)).contact.contact_id == GUID


async def test_a_look_up_knows_better_than_what_this_till_delivered_once(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"), contact_id=GUID)

    await remember(book, "vera@example.test", GUID_2)

    assert (await book.create("vera@example.test")).contact.contact_id == GUID_2


async def test_a_look_up_does_not_take_a_key_from_a_change_on_its_way(book: Book) -> None:
    change = await book.update(GUID, {"email": "new@example.test"})

    await remember(book, "new@example.test", GUID_2)

    found = await book.journal.read(
        partial(contacts.find_all_by_key, key=Key("email", "new@example.test"))
    )
    assert {contact.contact_id for contact in found} == {GUID, GUID_2}
    assert found[0].ref == change.contact.ref


async def test_a_look_up_repeated_makes_one_contact(book: Book) -> None:
    for _ in range(3):
        await remember(book, "vera@example.test", GUID.upper())

    assert await book.rows("SELECT contact_id FROM contacts") == [(GUID,)]


async def test_a_shared_phone_does_not_make_a_sign_up_its_owner(book: Book) -> None:
    per = await book.record(
        Kind.CREATE, {"email": "per@example.test", "mobilePhone": "+46701234567"}
    )

    await remember(book, "+46701234567", GUID, name="mobilePhone")

    assert (await book.now(per.change)).contact.contact_id is None


async def test_an_answer_that_a_change_has_overtaken_is_not_believed(book: Book) -> None:
    await book.deliver(await book.create("old@example.test"))
    asked_after = await book.journal.read(served.last_attempt)
    await book.deliver(await book.update(GUID, {"email": "new@example.test"}))

    await remember(book, "old@example.test", GUID, asked_after=asked_after)

    assert await known_by(book, "old@example.test") is None
    assert await known_by(book, "new@example.test") is not None
