"""Yesterday's backup is put back, or the journal is gone: the mark beside it tells."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from journal_helpers import Book, FakeClock
from patience import eventually
from world import World, lay_till

from agent.clock import to_text
from agent.errors import JournalUnavailable
from agent.journal import batches, changes, marker
from agent.journal.batches import Member
from agent.sandbox import Sandbox


async def test_what_waits_in_a_restored_backup_is_unknown(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        change = await book.create()
    backup = shutil.copy(path, path.with_name("backup.db"))
    async with Book(path, clock) as book:
        await book.deliver(change)

    shutil.copy(backup, path)

    async with Book(path, clock) as book:
        assert book.taken_over == 1
        assert (await book.now(change)).unknown


@pytest.mark.parametrize("more", [True, False])
async def test_a_batch_of_a_restored_backup_may_have_been_uploaded(
    path: Path, clock: FakeClock, more: bool
) -> None:
    async with Book(path, clock) as book:
        change = await book.create()
        member = Member(change.contact.lane, None, "Member", None, (change,))
        seal = partial(
            batches.seal,
            number=1,
            name="1_contacts.xml",
            with_id=False,
            members=[member],
            now="",
            more=more,  # still being filled when the backup was made
        )
        await book.journal.write(seal)
    backup = shutil.copy(path, path.with_name("backup.db"))
    async with Book(path, clock) as book:
        await book.create()

    shutil.copy(backup, path)

    async with Book(path, clock) as book:
        batch = await book.journal.read(partial(batches.get, name="1_contacts.xml"))
    assert batch.full_size


async def test_restored_backup_is_doubted_once_and_not_at_every_start(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        await book.create()
    backup = shutil.copy(path, path.with_name("backup.db"))
    async with Book(path, clock) as book:
        await book.create()
    shutil.copy(backup, path)
    async with Book(path, clock) as book:
        later = await book.create()

    async with Book(path, clock) as book:
        assert book.taken_over == 0
        assert not (await book.now(later)).unknown


async def test_ordinary_restart_doubts_nothing(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        change = await book.create()

    async with Book(path, clock) as book:
        assert book.taken_over == 0
        assert not (await book.now(change)).unknown


@pytest.mark.parametrize("settled", [1, 3])
async def test_pruned_journal_is_not_taken_for_a_restored_one(
    path: Path, clock: FakeClock, settled: int
) -> None:
    async with Book(path, clock) as book:
        for _ in range(settled):
            await book.deliver(await book.create(), contact_id=None)
    mark = marker.path_of(path).read_bytes()
    async with Book(path, clock) as book:
        before = to_text(clock.now() + timedelta(days=1))
        assert await book.journal.write(partial(changes.prune, before=before, limit=9)) == settled
        waits = await book.create()
    marker.path_of(path).write_bytes(mark)  # as if killed before it was written anew

    async with Book(path, clock) as book:
        assert book.taken_over == 0
        assert not (await book.now(waits)).unknown


async def test_missing_journal_with_a_mark_is_refused_and_no_empty_one_is_made(
    path: Path, clock: FakeClock
) -> None:
    async with Book(path, clock) as book:
        await book.create()
    path.unlink()

    with pytest.raises(JournalUnavailable) as refused:
        await Book(path, clock).open()

    assert f"{path} is gone" in refused.value.message
    assert "Put the file or a backup back" in refused.value.message
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"[]", b'{"journal": "x"}'])
async def test_journal_starts_without_a_mark_that_can_be_read(
    path: Path, clock: FakeClock, content: bytes | None
) -> None:
    async with Book(path, clock) as book:
        change = await book.create()
    mark = marker.path_of(path)
    mark.unlink()
    if content is not None:
        mark.write_bytes(content)

    async with Book(path, clock) as book:
        assert not (await book.now(change)).unknown
        assert marker.read(mark) is not None  # and it is whole again


async def test_unreadable_mark_beside_no_journal_begins_a_new_one(
    path: Path, clock: FakeClock
) -> None:
    marker.path_of(path).write_bytes(b"torn")

    async with Book(path, clock) as book:
        await book.create()


# --- the whole agent ----------------------------------------------------------------------------


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            Sandbox(tmp_path / "sandbox", import_every_s=0, rate_limit=0, seed=1)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        till = lay_till(sandbox, tmp_path / "till", {"fallback": {"seal_after_s": 3600}})
        world = World(sandbox, till, session)
        stack.push_async_callback(world.stop)
        yield world


async def test_sign_up_of_a_restored_backup_makes_no_second_contact(world: World) -> None:
    world.sandbox.set_fault("not_unique")
    world.sandbox.down()
    await world.start()
    change_id = await world.pos.create(city="Lund")
    await world.stop()
    journal = world.till.folder / "journal.db"
    backup = shutil.copy(journal, journal.with_name("yesterday.db"))
    world.sandbox.up()
    await world.start()
    await world.pos.until(change_id, "delivered")
    await world.stop()

    shutil.copy(backup, journal)
    await world.start()
    await world.pos.until(change_id, "delivered")

    assert len(world.calls("POST", "/contacts")) == 1
    assert len(world.sandbox.find("email", "vera@example.test")) == 1
    assert await eventually(lambda: not world.sandbox.counts()["duplicates"])
