"""Both routes reach for the same changes; each change is on exactly one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from patience import eventually
from world import World

from agent.journal import batches, changes
from agent.journal.batches import Batch, Member
from agent.journal.driver import Connection

Start = Callable[..., Awaitable[World]]

# What may happen to a change between the sealer's look at it and its sealing.
MOVED_ON = [
    "UPDATE changes SET state = 'delivered', holds = 0 WHERE id = ?",
    "UPDATE changes SET state = 'sending', lease = 'other' WHERE id = ?",
    "UPDATE changes SET state = 'rejected' WHERE id = ?",
    "UPDATE changes SET unknown = 1 WHERE id = ?",
]


def member_of(db: Connection, change_id: str) -> Member:
    change = changes.find(db, change_id)
    return Member(change.contact.lane, None, "Member", None, (change,))


@pytest.mark.parametrize("statement", MOVED_ON)
async def test_change_that_moved_on_is_left_out_and_its_neighbours_are_sealed(
    start: Start, statement: str
) -> None:
    world = await start()
    assert world.agent
    journal = world.agent.journal
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    await world.pos.call("POST", "/agent/v1/routes/file/pause")
    moved = await world.pos.create("moved@example.test")
    stays = await world.pos.create("stays@example.test")
    members = [await journal.read(partial(member_of, change_id=each)) for each in (moved, stays)]

    def seal_after_a_move(db: Connection) -> Batch:
        db.execute(statement, (moved,))
        return batches.seal(db, 1, "1_contacts.xml", with_id=False, members=members, now="")

    batch = await journal.write(seal_after_a_move)

    assert batch.contacts == 1
    assert (await world.pos.change(stays))["batch"] == "1_contacts.xml"
    assert (await world.pos.change(moved))["batch"] is None


async def test_sealing_by_hand_many_times_at_once_makes_each_file_once(start: Start) -> None:
    world = await start()
    world.sandbox.down()
    made = [await world.pos.create(f"vera{number}@example.test") for number in range(30)]
    await world.pos.tried(made[0])

    answers = await asyncio.gather(
        *(world.pos.call("POST", "/agent/v1/batches/seal") for _ in range(6))
    )

    assert {status for status, _, _ in answers} == {200}
    for change_id in made:
        await world.pos.until(change_id, "batched")
    names = [each["name"] for each in await world.pos.batches() if each["contacts"]]
    spool = world.till.folder / "spool"
    await eventually(lambda: sorted(path.name for path in spool.iterdir()) == sorted(names))


async def test_batch_of_which_nothing_is_left_makes_no_file(start: Start) -> None:
    world = await start()
    assert world.agent
    journal = world.agent.journal
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    moved = await world.pos.create("moved@example.test")
    member = await journal.read(partial(member_of, change_id=moved))

    def seal_after_a_move(db: Connection) -> Batch:
        db.execute(MOVED_ON[0], (moved,))
        return batches.seal(db, 1, "1_contacts.xml", with_id=False, members=[member], now="")

    batch = await journal.write(seal_after_a_move)

    assert (batch.contacts, batch.state) == (0, "settled")


async def test_one_read_of_the_journal_sees_one_moment_whatever_is_written_meanwhile(
    start: Start,
) -> None:
    world = await start()
    assert world.agent
    journal, loop = world.agent.journal, asyncio.get_running_loop()
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    change_id = await world.pos.create()

    def look_twice(db: Connection) -> tuple[bool, bool]:
        before = changes.find(db, change_id).unknown
        write = journal.write(lambda writer: writer.execute("UPDATE changes SET unknown = 1"))
        asyncio.run_coroutine_threadsafe(write, loop).result(5)
        return before, changes.find(db, change_id).unknown

    assert await journal.read(look_twice) == (False, False)
    assert (await world.pos.change(change_id))["unknown"] is True
