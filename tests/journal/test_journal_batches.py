"""Batches in the journal: sealing, the file's contents, and what becomes of each contact."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from journal_helpers import GUID, GUID_2, Book, FakeClock

from agent.change import Change, Fault, Route, State
from agent.contact import Key
from agent.journal import batches, changes, contacts, migrating
from agent.journal import states as moves
from agent.journal.batches import Batch, Entry, Lane, Member, Unverified
from agent.journal.changes import Attempt

NOW = "2026-11-21T11:00:00.000Z"
NAME = "20261121110000_0042-1-000001_contacts.xml"


def member(*asked: Change) -> Member:
    contact = asked[0].contact
    return Member(contact.lane, contact.contact_id, "Member", None, asked)


async def idle(book: Book, **more: int) -> tuple[Lane, ...]:
    options = {"after": 0, "used_up": 0, "limit": 100, **more}
    return await book.journal.read(partial(batches.idle_lanes, **options))


async def seal(book: Book, *members: Member, number: int = 1, name: str = NAME) -> Batch:
    return await book.journal.write(
        partial(batches.seal, number=number, name=name, with_id=False, members=members, now=NOW)
    )


async def entries(book: Book, start: int = 0, limit: int = 100) -> tuple[Entry, ...]:
    return await book.journal.read(partial(batches.entries, number=1, start=start, limit=limit))


async def batch_now(book: Book) -> Batch:
    return await book.journal.read(partial(batches.get, name=NAME))


async def upload(book: Book) -> None:
    await book.journal.write(partial(batches.note_written, number=1))
    await book.journal.write(partial(batches.note_uploaded, name=NAME, now=NOW))


async def take_away(book: Book, verify: str = "all") -> None:
    await upload(book)
    await book.journal.write(partial(batches.note_imported, name=NAME, now=NOW, verify=verify))


async def unverified(book: Book) -> tuple[Unverified, ...]:
    now = book.clock.monotonic()
    return await book.journal.read(partial(batches.unverified, now=now, limit=100))


async def settle(book: Book, item: Unverified, fault: Fault | None = None) -> Sequence[Change]:
    return await book.journal.write(
        partial(
            batches.settle,
            item=item,
            fault=fault,
            contact_id=None if fault else GUID,
            contact_type="Member",
            now=NOW,
            verifies=True,
        )
    )


async def keys_of_lane(book: Book, change: Change) -> set[Key]:
    return set(await book.journal.read(partial(contacts.keys, lane=change.contact.lane)))


async def states(book: Book, *asked: Change) -> list[State]:
    return [await book.state(change) for change in asked]


# --- what a file may take -------------------------------------------------------------------------


async def test_a_file_may_take_lanes_that_are_idle_with_their_open_changes(book: Book) -> None:
    create = await book.create()
    update = await book.update(create.contact.ref)
    await book.claim(await book.create())

    (lane,) = await idle(book)

    assert [change.id for change in lane.changes] == [create.id, update.id]


async def test_a_file_takes_neither_upgrades_nor_what_may_have_happened(book: Book) -> None:
    await book.upgrade(GUID)
    lost = await book.create()
    await book.settle(await book.claim(lost), moves.LOSE, unknown=True)

    assert await idle(book) == ()


async def test_only_those_whose_attempts_are_used_up_while_the_line_is_up(book: Book) -> None:
    await book.create()
    tried = await book.create()
    await book.settle(await book.claim(tried), moves.DEFER, counts=True)

    lanes = await idle(book, used_up=1)

    assert [lane.head.id for lane in lanes] == [tried.id]


async def test_lanes_are_given_in_pages_and_counted_up_to_a_limit(book: Book) -> None:
    made = [await book.create() for _ in range(5)]

    first = await idle(book, limit=3)
    rest = await idle(book, limit=3, after=first[-1].head.seq)
    count = await book.journal.read(partial(batches.count_idle, used_up=0, limit=4))

    assert [lane.head.id for lane in (*first, *rest)] == [change.id for change in made]
    assert count == 4


# --- sealing --------------------------------------------------------------------------------------


async def test_sealed_changes_are_on_the_file_route_and_no_claim_gets_them(each_book: Book) -> None:
    create = await each_book.create()
    update = await each_book.update(create.contact.ref)

    batch = await seal(each_book, member(create, update))

    after = await each_book.now(create)
    assert (batch.contacts, batch.state) == (1, "sealed")
    assert (after.state, after.route, after.batch) == (State.BATCHED, "file", NAME)
    assert await each_book.due() == ()
    assert await each_book.claim(create) is None


async def test_what_follows_a_batched_change_waits_for_it(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))

    follower = await book.update(create.contact.ref)

    assert await book.claim(follower) is None
    assert await idle(book) == ()


async def test_a_lane_that_moved_on_since_it_was_read_is_left_where_it_is(book: Book) -> None:
    taken, other = await book.create(), await book.create()
    await book.claim(taken)

    batch = await seal(book, member(taken), member(other))

    assert batch.contacts == 1
    assert await states(book, taken, other) == [State.SENDING, State.BATCHED]


async def test_a_contact_whose_guid_was_learnt_since_is_left_for_another_file(book: Book) -> None:
    create = await book.create()
    await book.journal.write(
        partial(contacts.learn, lane=create.contact.lane, contact_id=GUID, contact_type=None)
    )

    batch = await seal(book, member(create))

    assert batch.contacts == 0
    assert await book.state(create) is State.WAITING


async def test_a_contact_of_which_a_single_change_moved_is_left_where_it_is(book: Book) -> None:
    create, other = await book.create(), await book.create()
    follower = await book.update(create.contact.ref)
    await book.journal.write(
        lambda db: db.execute("UPDATE changes SET unknown = 1 WHERE seq = ?", (follower.seq,))
    )

    batch = await seal(book, member(other), member(create, follower))

    assert batch.contacts == 1
    assert await states(book, create, follower) == [State.WAITING] * 2
    assert await book.state(other) is State.BATCHED


async def test_a_change_that_cannot_be_written_is_rejected_alone(book: Book) -> None:
    bad, good = await book.create(), await book.create()
    fault = Fault("CannotBeWritten", "A character cannot stand in a file.")

    await book.journal.write(partial(batches.leave_out, change=bad, fault=fault, now=NOW))

    assert await states(book, bad, good) == [State.REJECTED, State.WAITING]
    assert (await book.attempts(bad))[0].route == "file"


async def test_the_key_of_an_update_that_was_left_out_is_not_its_contacts(book: Book) -> None:
    await book.deliver(await book.create("old@example.test"))
    bad = await book.update(GUID, {"email": "new@example.test"})
    fault = Fault("CannotBeWritten", "A character cannot stand in a file.")

    await book.journal.write(partial(batches.leave_out, change=bad, fault=fault, now=NOW))

    assert await keys_of_lane(book, bad) == {Key("email", "old@example.test")}
    other = await book.create("new@example.test")
    assert other.contact.lane != bad.contact.lane


async def test_the_key_of_a_sign_up_that_was_left_out_leads_to_it_for_a_correction(
    book: Book,
) -> None:
    bad = await book.create("vera@example.test")
    fault = Fault("CannotBeWritten", "A character cannot stand in a file.")

    await book.journal.write(partial(batches.leave_out, change=bad, fault=fault, now=NOW))

    corrected = await book.create("vera@example.test")
    assert corrected.contact.lane == bad.contact.lane


async def test_a_sign_up_left_out_of_a_contact_that_engage_has_holds_nothing(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    bad = await book.create("vera@example.test")
    follower = await book.update(GUID)
    fault = Fault("CannotBeWritten", "A character cannot stand in a file.")

    await book.journal.write(partial(batches.leave_out, change=bad, fault=fault, now=NOW))

    assert await book.claim(follower) is not None


async def test_numbers_of_batches_go_up(book: Book) -> None:
    await seal(book, member(await book.create()))

    assert await book.journal.read(batches.next_number) == 2


# --- the file -------------------------------------------------------------------------------------


async def test_what_a_file_holds_is_the_same_after_a_restart(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        creates = [await book.create() for _ in range(5)]
        updates = [await book.update(create.contact.ref) for create in creates]
        await seal(book, *[member(*pair) for pair in zip(creates, updates, strict=True)])
        before = await entries(book)
        for create in creates:
            await book.update(create.contact.ref)

    async with Book(path, clock) as book:
        assert await entries(book) == before
        assert [len(entry.asked) for entry in before] == [2] * 5


async def test_a_files_contacts_are_read_in_pages(book: Book) -> None:
    creates = [await book.create() for _ in range(5)]
    await seal(book, *[member(create) for create in creates])

    pages = [await entries(book, start, 2) for start in (0, 2, 4)]

    assert [len(page) for page in pages] == [2, 2, 1]
    assert tuple(entry for page in pages for entry in page) == await entries(book)


async def test_a_damaged_change_does_not_keep_a_file_from_being_read(book: Book) -> None:
    bad, good = await book.create(), await book.create()
    await seal(book, member(bad), member(good))
    await book.journal.write(
        lambda db: db.execute("UPDATE changes SET payload = '[]' WHERE seq = ?", (bad.seq,))
    )

    found = await entries(book)

    assert [dict(entry.asked[0][1].attributes) for entry in found] == [
        {},
        dict(good.payload.attributes),
    ]


# --- uploaded, imported ---------------------------------------------------------------------------


async def test_a_batch_goes_from_sealed_to_imported_with_its_changes(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))

    await upload(book)
    uploaded = (await batch_now(book)).state, await book.state(create)
    await take_away(book)
    imported = (await batch_now(book)).state, await book.state(create)

    assert uploaded == ("uploaded", State.UPLOADED)
    assert imported == ("imported", State.IMPORTED)


async def test_a_batch_that_was_not_uploaded_cannot_have_been_imported(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))

    await book.journal.write(partial(batches.note_imported, name=NAME, now=NOW, verify="all"))

    assert await book.state(create) is State.BATCHED


async def test_an_imported_change_still_holds_its_lane(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))
    await take_away(book)

    follower = await book.update(create.contact.ref)

    assert await book.claim(follower) is None


@pytest.mark.parametrize(
    ("verify", "looked_up", "batch_state"),
    [("all", 2, "imported"), ("creates", 1, "imported"), ("none", 0, "settled")],
)
async def test_what_is_looked_up_after_an_import_is_for_the_settings_to_say(
    path: Path, clock: FakeClock, verify: str, looked_up: int, batch_state: str
) -> None:
    async with Book(path, clock, verify=verify) as book:
        create, update = await book.create(), await book.update(GUID_2)
        await seal(book, member(create), member(update))

        await take_away(book, verify)

        follower = await book.update(GUID_2)
        assert len(await unverified(book)) == looked_up
        assert (await batch_now(book)).state == batch_state
        assert (await book.claim(follower) is not None) is (verify != "all")


async def test_what_nobody_looks_up_is_pruned_in_time(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock, verify="creates") as book:
        create, update = await book.create(), await book.update(GUID_2)
        await seal(book, member(create), member(update))
        await take_away(book, "creates")

        pruned = await book.journal.write(partial(changes.prune, before="2027", limit=10))

        assert pruned == 1
        assert await book.state(create) is State.IMPORTED


# --- verified -------------------------------------------------------------------------------------


async def test_a_contact_that_is_found_is_confirmed_and_its_guid_kept(each_book: Book) -> None:
    create = await each_book.create()
    await seal(each_book, member(create))
    await take_away(each_book)
    (item,) = await unverified(each_book)

    (settled,) = await settle(each_book, item)

    assert (settled.state, settled.contact.contact_id) == (State.CONFIRMED, GUID)
    assert (await batch_now(each_book)).state == "settled"
    assert (await each_book.attempts(create))[-1].outcome == "delivered"


async def test_a_contact_that_is_not_found_is_rejected_alone(book: Book) -> None:
    missing, found = await book.create(), await book.create()
    await seal(book, member(missing), member(found))
    await take_away(book)
    first, second = await unverified(book)

    await settle(book, first, Fault("ImportSkipped", "The import skipped it."))
    half = (await batch_now(book)).state
    await settle(book, second)

    assert await states(book, missing, found) == [State.REJECTED, State.CONFIRMED]
    assert (half, (await batch_now(book)).state) == ("imported", "settled")


async def test_what_follows_a_confirmed_change_goes_on_by_the_api(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))
    follower = await book.update(create.contact.ref)
    await take_away(book)
    (item,) = await unverified(book)

    await settle(book, item)

    claim = await book.claim(follower)
    assert claim is not None
    assert claim.head.contact.contact_id == GUID


async def test_what_follows_a_skipped_sign_up_waits_for_a_person(book: Book) -> None:
    create = await book.create()
    await seal(book, member(create))
    follower = await book.update(create.contact.ref)
    await take_away(book)
    (item,) = await unverified(book)

    await settle(book, item, Fault("ImportSkipped", "The import skipped it."))

    assert await book.claim(follower) is None
    await book.retry(create)
    assert (await book.deliver(create)).head.id == create.id


async def test_a_look_up_that_missed_is_repeated_at_its_time(book: Book, clock: FakeClock) -> None:
    await seal(book, member(await book.create()))
    await take_away(book)
    (item,) = await unverified(book)
    again = partial(batches.look_again, item=item, due=clock.monotonic() + 60, missed=True)

    await book.journal.write(again)

    assert await unverified(book) == ()
    clock.pass_s(60)
    (item,) = await unverified(book)
    assert item.misses == 1


async def test_a_look_up_that_failed_is_noted_counted_and_made_again_at_its_time(
    book: Book, clock: FakeClock
) -> None:
    change = await book.create()
    await seal(book, member(change))
    await take_away(book)
    (item,) = await unverified(book)
    attempt = Attempt(Route.FILE, "deferred", NOW, NOW, code="EngageFailed", message="It fails.")
    put_off = partial(batches.put_off, item=item, due=clock.monotonic() + 60, attempt=attempt)

    await book.journal.write(put_off)

    (noted,) = await book.journal.read(partial(changes.attempts, seq=change.seq))
    assert (noted.outcome, noted.code, noted.message) == ("deferred", "EngageFailed", "It fails.")
    assert await unverified(book) == ()
    clock.pass_s(60)
    (again,) = await unverified(book)
    assert (item.failures, again.failures, again.misses) == (0, 1, 0)


async def test_a_person_hurries_what_failed_and_not_the_second_look_for_who_was_missed(
    book: Book, clock: FakeClock
) -> None:
    await seal(book, member(await book.create()), member(await book.create()))
    await take_away(book)
    failed, missed = await unverified(book)
    later = clock.monotonic() + 60
    for item, was_missed in ((failed, False), (missed, True)):
        await book.journal.write(
            partial(batches.look_again, item=item, due=later, missed=was_missed)
        )

    await book.journal.write(batches.look_up_now)

    assert [item.entry.position for item in await unverified(book)] == [failed.entry.position]


async def test_a_damaged_change_does_not_stop_the_others_from_being_verified(book: Book) -> None:
    bad, good = await book.create(), await book.create()
    await seal(book, member(bad), member(good))
    await take_away(book)
    await book.journal.write(
        lambda db: db.execute("UPDATE changes SET payload = '[]' WHERE seq = ?", (bad.seq,))
    )

    first, second = await unverified(book)
    await settle(book, first, Fault("ImportSkipped", "The import skipped it."))
    await settle(book, second)

    assert await states(book, bad, good) == [State.REJECTED, State.CONFIRMED]


async def test_a_confirmed_new_e_mail_takes_the_place_of_the_old_one(book: Book) -> None:
    await book.deliver(await book.create("old@example.test"))
    change = await book.update(GUID, {"email": "new@example.test"})
    await seal(book, member(change))
    await take_away(book)
    (item,) = await unverified(book)

    await settle(book, item)

    left = await book.journal.read(partial(contacts.keys, lane=change.contact.lane))
    assert left == (Key("email", "new@example.test"),)


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (Fault("ImportSkipped", "The import skipped it."), "old@example.test"),
        (Fault("ImportDiffers", "Not as sent.", fields=({"field": "email"},)), "old@example.test"),
        # Engage took the address; only the city is not as it was sent.
        (Fault("ImportDiffers", "Not as sent.", fields=({"field": "city"},)), "new@example.test"),
    ],
)
async def test_after_a_refusal_a_contact_has_the_key_that_engage_holds(
    book: Book, fault: Fault, left: str
) -> None:
    await book.deliver(await book.create("old@example.test"))
    change = await book.update(GUID, {"email": "new@example.test", "city": "Lund"})
    await seal(book, member(change))
    await take_away(book)
    (item,) = await unverified(book)

    await settle(book, item, fault)

    assert await keys_of_lane(book, change) == {Key("email", left)}


async def test_a_sign_up_refused_of_a_contact_that_engage_has_holds_nothing(book: Book) -> None:
    await book.deliver(await book.create("vera@example.test"))
    change = await book.create("vera@example.test")
    await seal(book, member(change))
    follower = await book.update(GUID)
    await take_away(book)
    (item,) = await unverified(book)

    await settle(book, item, Fault("ImportSkipped", "The import skipped it."))

    assert await book.claim(follower) is not None


async def test_a_change_that_was_damaged_in_its_file_is_rejected_alone(book: Book) -> None:
    damaged = await book.update(GUID, {"city": "Lund"})
    sound = await book.update(GUID, {"street": "Provgatan 1"})
    await seal(book, member(damaged, sound))
    await take_away(book)
    await book.journal.write(
        lambda db: db.execute("UPDATE changes SET payload = '[]' WHERE seq = ?", (damaged.seq,))
    )
    (item,) = await unverified(book)

    await settle(book, item)

    assert await states(book, damaged, sound) == [State.REJECTED, State.CONFIRMED]
    error = (await book.now(damaged)).error
    assert error is not None
    assert error.code == "PayloadDamaged"


async def test_a_contact_that_turns_out_to_be_known_is_joined(book: Book) -> None:
    known = await book.update(GUID)
    await book.deliver(known)
    create = await book.create()
    await seal(book, member(create))
    await take_away(book)
    (item,) = await unverified(book)

    (settled,) = await settle(book, item)

    assert settled.contact.ref == known.contact.ref
    assert (await book.update(create.contact.ref)).contact.contact_id == GUID


async def test_a_contact_that_is_joined_while_it_is_looked_up_is_confirmed(book: Book) -> None:
    await book.deliver(await book.update(GUID))
    create = await book.create()
    await seal(book, member(create))
    await take_away(book)
    (item,) = await unverified(book)
    learn = partial(
        contacts.learn, lane=create.contact.lane, contact_id=GUID, contact_type="Member"
    )

    await book.journal.write(learn)  # a POS asked for this customer meanwhile
    await settle(book, item)

    assert await book.state(create) is State.CONFIRMED
    assert (await book.deliver(await book.update(GUID))).head.contact.contact_id == GUID


# --- sealed by an older agent ---------------------------------------------------------------------


def test_of_what_an_older_agent_sealed_the_key_itself_tells_its_name() -> None:
    db = sqlite3.connect(":memory:")
    steps = migrating.migrations()
    for number, text in steps:
        if number < 9:
            db.executescript(text)
    db.execute("PRAGMA foreign_keys = OFF")
    db.executemany(
        "INSERT INTO keys (name, value, lane, seq, since) VALUES (?, ?, ?, 1, 1)",
        [
            ("email", "vera@example.test", 1),
            ("memberNumber", "77", 1),
            ("memberNumber", "88", 2),
            ("externalId", "88", 2),
        ],
    )
    db.executemany(
        """INSERT INTO batch_contacts (batch, position, lane, contact_type, key_value)
           VALUES (1, ?, ?, 'Member', ?)""",
        [(0, 1, "vera@example.test"), (1, 1, "77"), (2, 2, "88"), (3, 3, "99"), (4, 1, None)],
    )

    db.executescript(dict(steps)[9])

    names = [row[0] for row in db.execute("SELECT key_name FROM batch_contacts ORDER BY position")]
    assert names == ["email", "memberNumber", None, None, None]  # None: as the settings say
