"""What a lane gives out, in which order, and how a claimed change leaves `sending`."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from journal_helpers import GUID, GUID_2, Book, FakeClock

from agent.change import Fault, Route, State
from agent.errors import Conflict, ForbiddenMove
from agent.journal import changes, meta, states


async def test_a_new_change_waits_and_its_lane_is_due_at_once(book: Book) -> None:
    change = await book.create()

    assert change.state is State.WAITING
    assert await book.due() == (change.contact.lane,)


async def test_a_claim_takes_the_change_and_gives_it_a_lease(book: Book) -> None:
    change = await book.create()

    claim = await book.claim(change)

    assert claim is not None
    assert claim.head.id == change.id
    assert claim.lease
    assert await book.state(change) is State.SENDING


async def test_a_lane_gives_out_nothing_while_one_of_its_changes_is_under_way(
    book: Book,
) -> None:
    create = await book.create()
    await book.update(create.contact.ref)
    await book.claim(create)

    assert await book.claim(create) is None
    assert await book.due() == ()


async def test_a_paused_route_gives_out_nothing_whoever_asked_before(book: Book) -> None:
    change = await book.create()
    await book.journal.write(partial(meta.pause, route=Route.API))
    paused = await book.claim(change)
    await book.journal.write(partial(meta.resume, route=Route.API))

    assert paused is None
    assert await book.claim(change)


async def test_a_lane_gives_out_its_changes_in_the_order_of_capture(each_book: Book) -> None:
    create = await each_book.create()
    upgrade = await each_book.upgrade(create.contact.ref)
    update = await each_book.update(create.contact.ref)

    heads = [(await each_book.deliver(create)).head.id for _ in range(3)]

    assert heads == [create.id, upgrade.id, update.id]


async def test_the_order_is_that_of_capture_when_the_clock_goes_back(
    book: Book, clock: FakeClock
) -> None:
    first = await book.create()
    clock.wall = clock.wall.replace(year=2016)
    second = await book.upgrade(first.contact.ref)

    heads = [(await book.deliver(first)).head.id for _ in range(2)]

    assert heads == [first.id, second.id]


async def test_lanes_do_not_wait_for_one_another(book: Book) -> None:
    first, second = await book.create(), await book.create()
    await book.claim(first)

    assert await book.due() == (second.contact.lane,)


async def test_the_longest_waiting_lanes_come_first_and_only_as_many_as_asked_for(
    book: Book,
) -> None:
    lanes = [(await book.create()).contact.lane for _ in range(5)]

    assert await book.due(3) == tuple(lanes[:3])


async def test_a_deferred_change_is_not_due_before_its_time(
    each_book: Book, clock: FakeClock
) -> None:
    change = await each_book.create()
    await each_book.defer(change, 30)

    clock.pass_s(29)

    assert await each_book.due() == ()
    assert await each_book.claim(change) is None

    clock.pass_s(1)

    assert await each_book.due() == (change.contact.lane,)


async def test_a_jump_of_the_wall_clock_makes_nothing_due(book: Book, clock: FakeClock) -> None:
    change = await book.create()
    await book.defer(change, 30)

    clock.wall = clock.wall.replace(year=2036)

    assert await book.due() == ()


async def test_what_follows_a_deferred_change_waits_with_it(book: Book) -> None:
    create = await book.create()
    follower = await book.update(create.contact.ref)

    await book.defer(create, 30)

    assert await book.due() == ()
    assert await book.claim(follower) is None


# --- neighbours that go together ------------------------------------------------------------------


async def test_updates_that_stand_next_to_each_other_are_claimed_together(
    each_book: Book,
) -> None:
    updates = [await each_book.update(GUID) for _ in range(3)]

    claim = await each_book.deliver(updates[0])

    assert [change.id for change in claim.changes] == [change.id for change in updates]
    assert [await each_book.state(change) for change in updates] == [State.DELIVERED] * 3


async def test_an_upgrade_parts_the_updates_before_and_after_it(book: Book) -> None:
    first = await book.update(GUID)
    second = await book.upgrade(GUID)
    third = await book.update(GUID)

    claims = [await book.deliver(first) for _ in range(3)]

    assert [[change.id for change in claim.changes] for claim in claims] == [
        [first.id],
        [second.id],
        [third.id],
    ]


async def test_a_clearing_update_goes_alone(book: Book) -> None:
    first = await book.update(GUID)
    clearing = await book.update(GUID, {}, clear=("street",))
    third = await book.update(GUID)

    claims = [await book.deliver(first) for _ in range(3)]

    assert [[change.id for change in claim.changes] for claim in claims] == [
        [first.id],
        [clearing.id],
        [third.id],
    ]


async def test_a_retried_update_goes_alone(book: Book) -> None:
    refused = await book.update(GUID)
    await book.reject(refused)
    later = await book.update(GUID)
    await book.retry(refused)

    claim = await book.claim(refused)

    assert claim is not None
    assert [change.id for change in claim.changes] == [refused.id]
    assert await book.state(later) is State.WAITING


async def test_updates_that_were_refused_together_go_alone_the_next_time(book: Book) -> None:
    first, second = await book.update(GUID), await book.update(GUID)
    await book.settle(await book.claim(first), states.DEFER, alone=True)

    claim = await book.claim(first)

    assert claim is not None
    assert [change.id for change in claim.changes] == [first.id]
    assert await book.state(second) is State.WAITING


# --- settling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("move", "state", "unknown"),
    [
        (states.DELIVER, State.DELIVERED, False),
        (states.DEFER, State.WAITING, False),
        (states.LOSE, State.WAITING, True),
        (states.REJECT, State.REJECTED, False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
async def test_every_way_out_of_sending_keeps_its_attempt(
    each_book: Book, move: states.Move, state: State, unknown: bool
) -> None:
    change = await each_book.create()

    (settled,) = await each_book.settle(await each_book.claim(change), move, unknown=unknown)

    assert (settled.state, settled.unknown, settled.attempts) == (state, unknown, 1)
    assert len(await each_book.attempts(change)) == 1


async def test_only_counted_attempts_lead_towards_the_file_route(book: Book) -> None:
    change = await book.create()
    await book.settle(await book.claim(change), states.DEFER, counts=True)
    await book.settle(await book.claim(change), states.DEFER)

    settled = await book.now(change)

    assert (settled.attempts, settled.api_attempts) == (2, 1)


async def test_a_stale_lease_moves_nothing_and_stores_nothing(each_book: Book) -> None:
    change = await each_book.create()
    stale = await each_book.claim(change)
    await each_book.settle(stale, states.DEFER)
    await each_book.claim(change)

    with pytest.raises(ForbiddenMove):
        await each_book.settle(stale, states.DELIVER, contact_id=GUID)

    after = await each_book.now(change)
    assert (after.state, after.contact.contact_id) == (State.SENDING, None)
    assert len(await each_book.attempts(change)) == 1


async def test_a_change_is_settled_once(book: Book) -> None:
    change = await book.create()
    claim = await book.deliver(change)

    with pytest.raises(ForbiddenMove):
        await book.settle(claim, states.REJECT)

    assert await book.state(change) is State.DELIVERED


async def test_when_one_of_a_claim_was_moved_none_of_it_is_settled(book: Book) -> None:
    first, second = await book.update(GUID), await book.update(GUID)
    claim = await book.claim(first)
    await book.journal.write(
        lambda db: db.execute(
            "UPDATE changes SET state = 'waiting', lease = NULL WHERE seq = ?", (second.seq,)
        )
    )

    with pytest.raises(ForbiddenMove):
        await book.settle(claim, states.DELIVER)

    assert await book.state(first) is State.SENDING
    assert await book.attempts(first) == ()


async def test_of_many_claims_of_one_lane_at_once_one_gets_it(book: Book) -> None:
    change = await book.create()

    claims = await asyncio.gather(*[book.claim(change) for _ in range(20)])

    assert len([claim for claim in claims if claim is not None]) == 1


async def test_a_waiting_caller_hears_what_settled_its_change(book: Book) -> None:
    change = await book.create()
    waiting = asyncio.create_task(book.journal.news.wait_for(change.id, 5))
    claim = await book.claim(change)

    await book.settle(claim, states.DELIVER, contact_id=GUID)

    settled = await waiting
    assert settled is not None
    assert settled.change.state is State.DELIVERED


# --- what is refused ------------------------------------------------------------------------------


async def test_a_rejected_create_holds_its_lane(each_book: Book) -> None:
    create = await each_book.create()
    follower = await each_book.update(create.contact.ref)

    await each_book.reject(create)

    assert await each_book.due() == ()
    assert await each_book.claim(follower) is None
    assert await each_book.state(follower) is State.WAITING


async def test_a_rejected_create_of_a_contact_that_engage_has_holds_nothing(book: Book) -> None:
    create = await book.create()
    await book.reject(create, contact_id=GUID)

    update = await book.update(GUID)

    assert await book.due() == (update.contact.lane,)
    assert (await book.deliver(update)).head.id == update.id


async def test_a_corrected_sign_up_does_not_wait_for_the_rejected_one(book: Book) -> None:
    refused = await book.create("vera@example.test")
    await book.reject(refused)

    corrected = await book.create("vera@example.test")

    assert corrected.contact.ref == refused.contact.ref
    assert (await book.deliver(corrected)).head.id == corrected.id
    assert await book.state(refused) is State.REJECTED


async def test_a_rejected_sign_up_can_still_be_retried_after_a_corrected_one(book: Book) -> None:
    refused = await book.create("vera@example.test")
    await book.reject(refused)
    await book.deliver(await book.create("vera@example.test"))

    await book.retry(refused)

    claim = await book.deliver(refused)
    assert claim.head.id == refused.id
    assert claim.superseded == {"email", "firstName"}


async def test_what_waited_for_a_corrected_sign_up_undoes_nothing_and_loses_nothing(
    book: Book,
) -> None:
    refused = await book.create("vera@example.test")
    older = await book.update(refused.contact.ref, {"firstName": "Old", "city": "Lund"})
    await book.reject(refused)
    corrected = await book.create("vera@example.test")
    newer = await book.update(refused.contact.ref, {"firstName": "New"})

    claims = [await book.deliver(refused) for _ in range(3)]

    assert [[change.id for change in claim.changes] for claim in claims] == [
        [corrected.id],
        [older.id],
        [newer.id],
    ]
    assert "firstName" in claims[1].superseded
    assert claims[2].superseded == frozenset()


async def test_a_rejected_update_does_not_hold_its_lane(book: Book) -> None:
    refused = await book.update(GUID)
    await book.reject(refused)

    later = await book.update(GUID)

    assert (await book.deliver(later)).head.id == later.id


async def test_a_retried_update_leaves_alone_what_later_changes_have_set(book: Book) -> None:
    refused = await book.update(GUID, {"city": "Lund", "street": "Storgatan 1"})
    await book.reject(refused)
    await book.deliver(await book.update(GUID, {"city": "Malmö"}))
    await book.reject(await book.update(GUID, {"street": "Never sent"}))

    await book.retry(refused)

    claim = await book.claim(refused)
    assert claim is not None
    assert claim.superseded == {"city"}


async def test_a_retried_update_leaves_alone_what_a_later_change_has_cleared(book: Book) -> None:
    refused = await book.update(GUID, {"city": "Lund"})
    await book.reject(refused)
    await book.deliver(await book.update(GUID, {}, clear=("city",)))

    await book.retry(refused)

    claim = await book.claim(refused)
    assert claim is not None
    assert claim.superseded == {"city"}


async def test_discarding_a_create_rejects_what_waited_for_it(each_book: Book) -> None:
    create = await each_book.create()
    follower = await each_book.update(create.contact.ref)
    await each_book.reject(create)

    await each_book.discard(create)

    assert await each_book.state(create) is State.DISCARDED
    orphan = await each_book.now(follower)
    assert orphan.state is State.REJECTED
    assert orphan.error is not None
    assert orphan.error.code == "CreateDiscarded"


async def test_discarding_a_create_lets_another_sign_up_in_its_lane_go(book: Book) -> None:
    refused = await book.create("vera@example.test")
    follower = await book.update(refused.contact.ref)
    await book.reject(refused)
    again = await book.create("vera@example.test")

    await book.discard(refused)

    assert await book.state(follower) is State.WAITING
    assert again.contact.ref == refused.contact.ref


async def test_what_waits_for_another_change_says_for_which(book: Book) -> None:
    create = await book.create()
    follower = await book.update(create.contact.ref)
    await book.reject(create)

    head = await book.journal.read(lambda db: changes.blocker(db, follower))

    assert head is not None
    assert head.id == create.id


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_a_delivered_change_can_neither_be_retried_nor_discarded(
    book: Book, action: str
) -> None:
    change = await book.create()
    await book.deliver(change)

    with pytest.raises(Conflict):
        await getattr(book, action)(change)

    assert await book.state(change) is State.DELIVERED


async def test_a_discarded_change_cannot_be_retried(book: Book) -> None:
    change = await book.create()
    await book.reject(change)
    await book.discard(change)

    with pytest.raises(Conflict):
        await book.retry(change)


async def test_a_person_retries_a_waiting_change_without_its_wait(
    book: Book, clock: FakeClock
) -> None:
    change = await book.create()
    await book.defer(change, 3600)

    await book.retry(change)

    assert await book.due() == (change.contact.lane,)


async def test_the_reason_of_a_rejection_is_kept_as_engage_said_it(book: Book) -> None:
    change = await book.create()
    fault = Fault(
        "ValidationError",
        "Förnamn saknas",
        422,
        fields=({"field": "firstName", "code": "Required", "message": "Förnamn saknas"},),
        request_id="req-1",
    )
    await book.settle(await book.claim(change), states.REJECT, fault=fault)

    assert (await book.now(change)).error == fault


# --- two refs, one person -------------------------------------------------------------------------


async def test_two_lanes_of_one_person_become_one_and_both_refs_go_on_working(
    each_book: Book,
) -> None:
    by_guid = await each_book.update(GUID)
    by_key = await each_book.create()
    after = await each_book.update(by_key.contact.ref)

    await each_book.deliver(by_key, contact_id=GUID.upper())

    lanes = {(await each_book.now(change)).contact.lane for change in (by_guid, by_key, after)}
    assert lanes == {by_guid.contact.lane}
    for name in (GUID, by_guid.contact.ref, by_key.contact.ref):
        assert (await each_book.update(name)).contact.contact_id == GUID


async def test_joined_lanes_keep_the_order_of_capture(book: Book) -> None:
    create = await book.create()
    first = await book.upgrade(GUID)
    second = await book.upgrade(create.contact.ref)
    third = await book.upgrade(GUID)

    await book.deliver(create, contact_id=GUID)

    heads = [(await book.deliver(first)).head.id for _ in range(3)]
    assert heads == [first.id, second.id, third.id]


async def test_three_refs_of_one_person_lead_to_one_contact(book: Book) -> None:
    creates = [await book.create() for _ in range(3)]
    await book.deliver(creates[0], contact_id=GUID_2)
    await book.deliver(creates[1], contact_id=GUID)
    await book.deliver(creates[2], contact_id=GUID)

    updated = [await book.update(create.contact.ref) for create in creates]

    assert [change.contact.contact_id for change in updated] == [GUID_2, GUID, GUID]
