"""Erasing a person from the journal: what goes, what is refused, and the bytes in its files."""

from __future__ import annotations

from functools import partial

import pytest
from journal_helpers import GUID, Book, FakeClock

from agent.change import Kind, State
from agent.contact import Key
from agent.errors import NotFound, OpenChanges
from agent.journal import contacts, erasure, recognising, register, states
from agent.journal.erasure import Erased
from agent.journal.recognising import Asked
from agent.journal.register import Entry

NOW = "2026-11-21T10:00:00.000Z"
VERA = Key("email", "vera@example.test")


def digest(key: Key) -> int:
    """Give what stands for a key here."""
    return sum(f"{key.name} {key.value}".encode())


async def erase(book: Book, public_id: str, *, give_up_open: bool = False) -> Erased:
    erased = await book.journal.write(
        partial(
            erasure.erase,
            public_id=public_id,
            give_up_open=give_up_open,
            token_name="pos",
            digest=digest,
            now=NOW,
        )
    )
    assert await book.journal.remove_traces(erased.traces)
    return erased


def bytes_of(book: Book) -> bytes:
    """Give all that the journal's files hold."""
    folder = book.path.parent
    return b"".join(path.read_bytes() for path in folder.glob(f"{book.path.name}*"))


# --- what is refused ------------------------------------------------------------------------------


async def test_change_that_is_just_being_sent_is_waited_for(book: Book) -> None:
    change = await book.create()
    await book.claim(change)

    with pytest.raises(OpenChanges, match="in a moment"):
        await erase(book, change.contact.ref, give_up_open=True)

    assert (await book.now(change)).payload.attributes["email"]


async def test_change_that_may_have_happened_is_given_up_and_said(book: Book) -> None:
    change = await book.create()
    await book.settle(await book.claim(change), states.LOSE, unknown=True)

    erased = await erase(book, change.contact.ref, give_up_open=True)

    assert erased.in_engage == "maybe"
    assert await book.state(change) is State.DISCARDED


async def test_refusal_of_one_change_erases_nothing_of_the_others(book: Book) -> None:
    settled = await book.create()
    await book.deliver(settled)
    await book.update(settled.contact.ref)

    with pytest.raises(OpenChanges):
        await erase(book, settled.contact.ref)

    assert (await book.now(settled)).payload.attributes
    assert await book.rows("SELECT * FROM erasures") == []


async def test_sign_up_that_is_given_up_frees_its_lane(book: Book) -> None:
    refused = await book.create("vera@example.test")
    await book.reject(refused)
    await book.update(refused.contact.ref)
    await erase(book, refused.contact.ref, give_up_open=True)

    again = await book.create("vera@example.test")

    assert again.contact.ref != refused.contact.ref
    assert await book.claim(again) is not None


async def test_words_of_a_refusal_go_as_well(book: Book) -> None:
    change = await book.create()
    await book.reject(change)
    await book.discard(change)

    await erase(book, change.contact.ref)

    assert {attempt.message for attempt in await book.attempts(change)} == {None}
    error = (await book.now(change)).error
    assert error is not None
    assert error.code == "Erased"


# --- the export -----------------------------------------------------------------------------------


async def take(book: Book, *entries: Entry, told_at: str = "2026-11-22") -> None:
    await book.journal.write(partial(register.take, entries=entries, told_at=told_at, room=10))


async def recognised(book: Book) -> int:
    asked = (Asked(VERA, digest(VERA)),)
    return len(await book.journal.read(partial(recognising.recognise, asked=asked)))


async def test_no_later_export_brings_back_who_was_erased(book: Book) -> None:
    entry = Entry(False, GUID, "Member", {"email": digest(VERA)})
    await take(book, entry)
    before = await recognised(book)

    erased = await erase(book, GUID)
    await take(book, entry, told_at="2027")

    assert (before, await recognised(book)) == (1, 0)
    assert (erased.held.is_member, erased.in_engage) == (True, "yes")
    assert await book.rows("SELECT contact_id, gone FROM members") == [(GUID, "erased")]


async def test_not_even_when_the_export_is_switched_off_and_on(book: Book) -> None:
    entry = Entry(False, GUID, "Member", {"email": digest(VERA)})
    await take(book, entry)
    await erase(book, GUID)
    await book.journal.write(partial(register.erase_some, limit=100))

    await take(book, entry)

    assert await recognised(book) == 0


async def test_member_without_a_guid_goes_with_the_contact_who_has_the_key(book: Book) -> None:
    await take(book, Entry(False, None, "Member", {"email": digest(VERA)}))
    await book.deliver(await book.create(VERA.value))

    await erase(book, GUID)

    assert await recognised(book) == 0
    assert await book.rows("SELECT * FROM member_keys") == []


async def test_member_without_a_guid_is_erased_by_the_ref(book: Book) -> None:
    await take(book, Entry(False, None, "Member", {"email": digest(VERA)}))
    asked = (Asked(VERA, digest(VERA)),)
    (person,) = await book.journal.read(partial(recognising.recognise, asked=asked))
    contact = await book.journal.write(
        partial(register.give_ref, member=person.member, keys=[VERA], now=NOW)
    )

    await erase(book, contact.ref)

    assert await recognised(book) == 0


# --- the bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrites", ["ON", "OFF"])
async def test_nothing_is_left_even_where_sqlite_leaves_something(
    book: Book, overwrites: str
) -> None:
    """It leaves copies of rows that it moved; here, where it does not overwrite at all."""
    people = [await book.create(f"somebody{number:03d}@example.test") for number in range(6)]
    for number, change in enumerate(people):
        await book.deliver(change, contact_id=f"{number:08d}-4f50-4617-8293-a4b5c6d7e8f9")
    pragma = f"PRAGMA secure_delete = {overwrites}"
    await book.journal.write(lambda db: db.execute(pragma).fetchall())

    for change in people[:4]:
        await erase(book, change.contact.ref)

    held = bytes_of(book)
    assert [f"somebody00{n}@".encode() in held for n in range(6)] == [False] * 4 + [True] * 2
    assert await book.rows("PRAGMA integrity_check") == [("ok",)]
    assert await book.create()


async def test_erasing_works_on_every_kind_of_journal(each_book: Book) -> None:
    change = await each_book.create("vera@example.test")
    await each_book.deliver(change)

    await erase(each_book, GUID)

    assert b"vera@example.test" not in bytes_of(each_book)
    assert (await each_book.now(change)).payload.attributes == {}


async def test_what_a_crash_left_behind_is_removed_at_the_next_start(
    book: Book, clock: FakeClock
) -> None:
    change = await book.create("vera@example.test")
    await book.deliver(change)
    erased = await book.journal.write(
        partial(
            erasure.erase,
            public_id=GUID,
            give_up_open=False,
            token_name="pos",
            digest=digest,
            now=NOW,
        )
    )
    noted = await book.rows("SELECT name FROM meta WHERE name = 'traces'")
    await book.close()

    async with Book(book.path, clock) as again:
        assert await again.rows("SELECT name FROM meta WHERE name = 'traces'") == []
        assert b"vera@example.test" not in bytes_of(again)
    assert noted == [("traces",)]
    assert b"vera@example.test" in erased.traces


async def test_refs_of_erased_people_lead_nowhere_else(book: Book) -> None:
    create = await book.create("vera@example.test")
    await book.deliver(create)
    await erase(book, GUID)

    found = await book.journal.read(partial(contacts.find, public_id=create.contact.ref))

    assert found is not None
    assert found.contact_id == GUID
    with pytest.raises(NotFound):
        await erase(book, "019d4b5c-0000-7000-8000-000000000000")


async def test_update_after_the_erasure_is_kept_like_any_other(book: Book) -> None:
    create = await book.create("vera@example.test")
    await book.deliver(create)
    await erase(book, GUID)

    recorded = await book.record(Kind.UPDATE, {"city": "Lund"}, target=GUID)

    assert recorded.is_new
    assert (await book.now(recorded.change)).payload.attributes == {"city": "Lund"}
