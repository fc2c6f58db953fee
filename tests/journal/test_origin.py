"""Where a journal belongs: for which Engage its changes were taken, and on which machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from journal_helpers import GUID, Book

from agent.journal import origin
from agent.journal.origin import Machine

ACME, OTHER = "https://acme.voyado.com", "https://other.voyado.com"
HERE = Machine(frozenset({"card one", "card two"}), "this installation")
THERE = Machine(frozenset({"another card"}), "this installation")


async def enter(book: Book, base_url: str = ACME, machine: Machine = HERE) -> str:
    return await book.journal.write(partial(origin.enter, base_url=base_url, machine=machine)) or ""


async def confirm(book: Book, machine: Machine = HERE) -> int:
    return await book.journal.write(partial(origin.confirm, machine=machine))


# --- the Engage -----------------------------------------------------------------------------------


async def test_changes_that_were_taken_for_another_engage_are_asked_about(book: Book) -> None:
    await enter(book)
    await book.create()
    await book.create()

    question = await enter(book, OTHER)

    assert question.startswith(
        f"The settings name {OTHER}, but open changes (2) were taken for {ACME}."
    )
    assert "nothing is lost" in question


async def test_nothing_is_asked_where_the_engage_is_the_same(book: Book) -> None:
    await enter(book)
    await book.create()

    assert not await enter(book)


async def test_nothing_is_asked_where_all_was_settled_before(book: Book) -> None:
    await enter(book)
    await book.deliver(await book.create(), contact_id=GUID)

    assert not await enter(book, OTHER)


async def test_with_the_settings_put_right_only_what_came_meanwhile_is_asked_about(
    book: Book,
) -> None:
    await enter(book)
    await book.create()
    await enter(book, OTHER)
    await book.create()

    question = await enter(book)

    assert f"The settings name {ACME}, but open changes (1) were taken for {OTHER}." in question


async def test_what_was_confirmed_is_not_asked_again(book: Book) -> None:
    await enter(book)
    await book.create()
    await enter(book, OTHER)

    assert await confirm(book) == 1

    assert not await enter(book, OTHER)


async def test_changes_of_an_older_version_belong_to_the_engage_of_the_upgrade(book: Book) -> None:
    await book.create()  # before it was told of any
    assert not await enter(book)

    assert f"taken for {ACME}" in await enter(book, OTHER)


# --- the machine ----------------------------------------------------------------------------------


async def test_a_journal_with_open_changes_on_another_machine_is_asked_about(book: Book) -> None:
    await enter(book)
    await book.create()

    question = await enter(book, machine=THERE)

    assert question.startswith(
        "The journal with its open changes (1) was written on another machine."
    )
    assert await enter(book, machine=THERE) == question  # until somebody answers


async def test_an_empty_journal_moves_without_a_word(book: Book) -> None:
    await enter(book)
    await book.deliver(await book.create(), contact_id=GUID)

    assert not await enter(book, machine=THERE)
    await book.create()
    assert not await enter(book, machine=THERE)


async def test_confirmed_on_another_machine_what_waits_is_looked_up_first(book: Book) -> None:
    await enter(book)
    change = await book.create()
    await enter(book, machine=THERE)

    await confirm(book, THERE)

    assert not await enter(book, machine=THERE)
    assert (await book.now(change)).unknown


@pytest.mark.parametrize(
    ("known", "here", "is_other"),
    [
        (HERE, HERE, False),
        (HERE, Machine(frozenset({"card two", "new card"}), "new installation"), False),
        (HERE, THERE, True),
        (Machine(), HERE, False),  # nothing was known of it
        (HERE, Machine(frozenset(), "this installation"), False),  # its card is not plugged in
        (HERE, Machine(frozenset(), "another installation"), True),
        (HERE, Machine(), False),
    ],
)
def test_a_machine_is_known_by_any_card_that_it_had(
    known: Machine, here: Machine, is_other: bool
) -> None:
    assert here.is_other_than(known) is is_other


def test_only_real_cards_with_their_own_address_count(tmp_path: Path) -> None:
    def card(name: str, address: str, assigned: str, *, has_device: bool) -> None:
        folder = tmp_path / "net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(address + "\n")
        (folder / "addr_assign_type").write_text(assigned + "\n")
        if has_device:
            (folder / "device").mkdir()

    card("lo", "00:00:00:00:00:00", "0", has_device=False)
    card("eth0", "02:00:00:00:00:01", "0", has_device=True)
    card("wlan0", "02:00:00:00:00:02", "3", has_device=True)  # one that changes
    card("docker0", "02:00:00:00:00:03", "0", has_device=False)
    (tmp_path / "machine-id").write_text("0123456789abcdef\n")

    machine = origin.machine_here(tmp_path / "net", tmp_path / "machine-id")

    assert len(machine.cards) == 1
    assert machine.id
    assert "02:00" not in str(machine)


def test_a_machine_that_tells_nothing_is_none_in_particular(tmp_path: Path) -> None:
    assert origin.machine_here(tmp_path / "net", tmp_path / "machine-id") == Machine()
