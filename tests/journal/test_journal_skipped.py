"""What an import made of a file: some contacts left out, or the whole file skipped."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from journal_helpers import GUID, Book

from agent.change import Change, Fault, State
from agent.journal import batches, skipped
from agent.journal.batches import Batch, Member, Unverified
from agent.journal.skipped import Settled, SkippedFile

NOW = "2026-11-21T11:00:00.000Z"
LEFT_OUT = Fault("ImportSkipped", "The import left it out.")


async def imported(book: Book, *asked: Change, number: int = 1) -> str:
    """Put each change into a file as one contact, and let Engage take it away; gives its name."""
    name = f"{number}_contacts.xml"
    members = [
        Member(change.contact.lane, change.contact.contact_id, "Member", None, (change,))
        for change in asked
    ]

    def work(db: Any) -> None:
        batches.seal(db, number, name, with_id=False, members=members, now=NOW)
        batches.note_written(db, number)
        batches.note_uploaded(db, name, NOW)
        batches.note_imported(db, name, NOW, verify="all")

    await book.journal.write(work)
    return name


async def due(book: Book) -> tuple[Unverified, ...]:
    now = book.clock.monotonic()
    return await book.journal.read(partial(batches.unverified, now=now, limit=1000))


async def missed(book: Book, item: Unverified) -> Settled:
    work = partial(skipped.settle_missed, item=item, fault=LEFT_OUT, now=NOW, verifies=True)
    return await book.journal.write(work)


async def found(book: Book, item: Unverified, guid: str | None = None) -> Settled:
    work = partial(
        skipped.settle,
        item=item,
        fault=None,
        contact_id=guid,
        contact_type="Member",
        now=NOW,
        verifies=True,
    )
    return await book.journal.write(work)


async def mended(book: Book, item: Unverified) -> Batch | None:
    due_at = book.clock.monotonic()
    return await book.journal.write(partial(skipped.note_mended, item=item, due=due_at, now=NOW))


async def batch(book: Book, name: str) -> Batch:
    return await book.journal.read(partial(batches.get, name=name))


async def states(book: Book, *asked: Change) -> list[State]:
    return [await book.state(change) for change in asked]


async def skipped_files(book: Book) -> tuple[SkippedFile, ...]:
    return await book.journal.read(skipped.skipped_files)


async def skip_whole(book: Book) -> None:
    for item in await due(book):
        await missed(book, item)


async def test_when_none_is_found_the_file_was_skipped_and_its_changes_wait_again(
    each_book: Book,
) -> None:
    made = [await each_book.create() for _ in range(3)]
    name = await imported(each_book, *made)
    first, second, third = await due(each_book)

    early = [(await missed(each_book, each)).skipped for each in (first, second)]
    last = await missed(each_book, third)

    assert early == [None, None]
    assert last.skipped is not None and last.skipped.name == name
    assert await states(each_book, *made) == [State.WAITING] * 3
    assert (await batch(each_book, name)).state == "skipped"
    assert [each.code for each in await each_book.attempts(made[0])] == ["FileSkipped"]
    assert await each_book.claim(made[0]) is not None


async def test_a_contact_that_is_missing_waits_for_the_others_before_it_is_judged(
    book: Book,
) -> None:
    made = [await book.create() for _ in range(2)]
    await imported(book, *made)
    first, _ = await due(book)

    await missed(book, first)

    assert await states(book, *made) == [State.IMPORTED] * 2
    assert len(await due(book)) == 1


async def test_once_another_is_found_the_missing_one_is_looked_at_again_and_rejected_alone(
    book: Book,
) -> None:
    gone, there = [await book.create() for _ in range(2)]
    name = await imported(book, gone, there)
    first, second = await due(book)
    await missed(book, first)

    await found(book, second, GUID)
    (again,) = await due(book)
    await missed(book, again)

    assert await states(book, gone, there) == [State.REJECTED, State.CONFIRMED]
    assert (await batch(book, name)).state == "settled"
    assert await skipped_files(book) == ()


@pytest.mark.parametrize(("there", "whole"), [(0, True), (1, True), (2, False)])
async def test_of_twenty_contacts_one_that_was_there_before_does_not_prove_an_import(
    book: Book, there: int, whole: bool
) -> None:
    made = [await book.create() for _ in range(20)]
    name = await imported(book, *made)
    items = await due(book)

    for item in items[:there]:
        await found(book, item)
    for item in items[there:]:
        await missed(book, item)

    assert ((await batch(book, name)).skipped_at is not None) == whole
    expected = State.WAITING if whole else State.REJECTED
    assert await states(book, *made[there:]) == [expected] * (20 - there)


async def test_a_file_of_which_every_contact_had_to_be_mended_was_skipped_too(book: Book) -> None:
    made = [await book.update(GUID), await book.create()]
    name = await imported(book, *made)
    first, second = await due(book)

    early = await mended(book, first)
    told_of = await mended(book, second)

    assert early is None
    assert told_of is not None and told_of.name == name
    assert await states(book, *made) == [State.IMPORTED] * 2
    (told,) = await skipped_files(book)
    assert (told.name, told.contacts, told.accepted, told.rejected) == (name, 2, 0, 0)
    for item in await due(book):
        assert (await found(book, item)).skipped is None
    assert await states(book, *made) == [State.CONFIRMED] * 2
    assert await skipped_files(book) == ()


async def test_what_is_skipped_a_second_time_is_rejected_for_a_person(book: Book) -> None:
    made = [await book.create() for _ in range(2)]
    await imported(book, *made)
    await skip_whole(book)
    fresh = await book.create()
    name = await imported(book, *made, fresh, number=2)

    await skip_whole(book)

    assert await states(book, *made, fresh) == [State.REJECTED, State.REJECTED, State.WAITING]
    error = (await book.now(made[0])).error
    assert error is not None and error.code == "FileSkipped"
    (told,) = await skipped_files(book)
    assert (told.name, told.rejected) == (name, 2)


async def test_a_file_is_told_until_its_changes_have_arrived(book: Book) -> None:
    change = await book.create()
    name = await imported(book, change)
    await skip_whole(book)

    (told,) = await skipped_files(book)
    await book.deliver(change)

    assert (told.name, told.contacts, told.rejected) == (name, 1, 0)
    assert await skipped_files(book) == ()


async def test_all_of_a_file_is_sent_again_at_once(book: Book) -> None:
    made = [await book.create() for _ in range(2)]
    await imported(book, *made)
    await skip_whole(book)
    name = await imported(book, *made, number=2)
    await skip_whole(book)

    first = await book.journal.write(partial(skipped.send_again, name=name, after=0, limit=1))
    rest = await book.journal.write(
        partial(skipped.send_again, name=name, after=first.last, limit=2)
    )

    assert (first.count, rest.count, rest.last) == (1, 1, None)
    assert await states(book, *made) == [State.WAITING] * 2
    assert all([(await book.now(change)).retried for change in made])
    assert await book.claim(made[0]) is not None


async def test_waits_that_are_forgotten_do_not_judge_a_contact_early(book: Book) -> None:
    made = [await book.create() for _ in range(2)]
    await imported(book, *made)
    await missed(book, (await due(book))[0])
    await book.journal.write(batches.forget_waits)

    first = (await due(book))[0]
    await missed(book, first)

    assert await states(book, *made) == [State.IMPORTED] * 2
