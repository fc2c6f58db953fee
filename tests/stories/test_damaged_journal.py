"""The disk destroys a part of the journal in mid-outage: the till goes on with the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from command_line import till_agent
from damaged import PAGE, spoil, uses
from patience import eventually
from world import World, run_once

from agent.commands.parts import INCOMPLETE, NO_JOURNAL, OK
from agent.errors import JournalUnavailable
from agent.journal.rescue.reminder import LOST

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
HELD = {"fallback": {"seal_after_s": 3600}}  # nothing goes by file meanwhile


def leaf_of_changes(journal: Path) -> int:
    pages = uses(journal).items()
    leaves = [page for page, use in pages if (use.name, use.kind) == ("changes", "leaf")]
    return leaves[len(leaves) // 2]


async def sign_up(world: World, first: int, count: int) -> dict[str, str]:
    """Sign customers up; gives their e-mails by the change's id."""
    emails = [f"person{number}@example.test" for number in range(first, first + count)]
    return {await world.pos.create(email, city="Lund"): email for email in emails}


async def all_settled(world: World) -> None:
    async def settled() -> bool:
        return (await world.pos.status())["unsent"] == 0

    await eventually(settled, "nothing waits any more")


async def test_till_goes_on_after_a_rescue_and_doubles_nobody(start: Start) -> None:
    world = await start(**HELD)
    world.sandbox.set_fault("not_unique")  # a second create would make a second contact
    done = await sign_up(world, 0, 15)
    await all_settled(world)
    world.sandbox.down()
    waiting = await sign_up(world, 100, 25)
    await world.stop()
    journal, settings = world.till.folder / "journal.db", str(world.till.config_path)
    spoil(journal, leaf_of_changes(journal), b"\xff" * PAGE)
    with pytest.raises(JournalUnavailable, match="till-agent journal rescue"):
        await world.start()

    rescued = await till_agent("journal", "rescue", "--config", settings)

    assert rescued.code == INCOMPLETE, rescued.err
    lost = {each for each in waiting if each in rescued.out}
    assert 0 < len(lost) < len(waiting)
    world.sandbox.up()
    await world.start()
    await all_settled(world)
    in_engage = {each: world.sandbox.find("email", email) for each, email in waiting.items()}
    assert {each for each, found in in_engage.items() if not found} == lost
    assert not world.sandbox.counts()["duplicates"]
    assert [len(world.sandbox.find("email", email)) for email in done.values()] == [1] * len(done)
    (need,) = (await world.pos.status())["needsPerson"]
    assert "changes were lost" in need["what"]
    assert LOST in need["what"]

    for report in journal.parent.glob(f"*{LOST}"):
        report.unlink()

    async def is_quiet() -> bool:
        return not (await world.pos.status())["needsPerson"]

    await eventually(is_quiet, "nothing needs a person any more")


async def test_backup_of_the_pages_is_older_than_engage_and_nothing_is_sent_twice(
    start: Start,
) -> None:
    """A card that lost its last writes: what was delivered meanwhile is taken for waiting."""
    world = await start(**HELD)
    world.sandbox.set_fault("not_unique")
    world.sandbox.down()
    made = await sign_up(world, 0, 20)
    await world.stop()
    journal, settings = world.till.folder / "journal.db", str(world.till.config_path)
    older = journal.read_bytes()
    world.sandbox.up()
    await world.start()
    await all_settled(world)
    await world.stop()
    content = bytearray(journal.read_bytes())
    for page, use in uses(journal).items():
        if use.name in ("changes", "contacts") and page * PAGE <= len(older):
            content[(page - 1) * PAGE : page * PAGE] = older[(page - 1) * PAGE : page * PAGE]
    journal.write_bytes(content)

    rescued = await till_agent("journal", "rescue", "--config", settings)

    assert rescued.code in (OK, INCOMPLETE), rescued.err
    assert "Saved:" in rescued.out  # it was not taken for whole
    await world.start()
    await all_settled(world)
    assert not world.sandbox.counts()["duplicates"]
    assert all(len(world.sandbox.find("email", email)) == 1 for email in made.values())


@pytest.mark.parametrize("lost", ["batches", "batch_contacts", "changes"])
async def test_file_that_lies_on_the_server_is_waited_for_and_nobody_is_doubled(
    start: Start, lost: str
) -> None:
    world = await start(**HELD)
    world.sandbox.set_fault("not_unique")
    world.sandbox.set_fault("refuse", target="engage")
    made = await sign_up(world, 0, 12)
    await world.pos.until_link("offline")
    await world.pos.call("POST", "/agent/v1/batches/seal")
    for change_id in made:
        await world.pos.until(change_id, "uploaded")
    await world.stop()
    journal, settings = world.till.folder / "journal.db", str(world.till.config_path)
    leaves = [page for page, use in uses(journal).items() if (use.name, use.kind) == (lost, "leaf")]
    spoil(journal, leaves[0], bytes(PAGE))

    rescued = await till_agent("journal", "rescue", "--config", settings)

    assert rescued.code == INCOMPLETE, rescued.err
    gone = {each for each in made if each in rescued.out}
    assert bool(gone) == (lost == "changes")
    await world.start()
    assert {(await world.pos.change(each))["state"] for each in made.keys() - gone} == {"uploaded"}
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    for change_id in made.keys() - gone:
        await world.pos.until(change_id, "confirmed")
    # What is lost stood in the file all the same.
    assert [len(world.sandbox.find("email", email)) for email in made.values()] == [1] * len(made)
    assert not world.sandbox.counts()["duplicates"]


async def test_rescue_is_refused_beside_a_running_agent_and_does_nothing_to_a_whole_journal(
    start: Start,
) -> None:
    world = await start()
    settings = str(world.till.config_path)

    beside = await till_agent("journal", "rescue", "--config", settings)
    await world.stop()
    whole = await till_agent("journal", "rescue", "--config", settings)

    assert (beside.code, whole.code) == (NO_JOURNAL, OK)
    assert "systemctl stop till-agent" in beside.err
    assert "is whole. Nothing was changed." in whole.out


async def test_the_start_of_a_damaged_journal_names_the_command(start: Start) -> None:
    world = await start()
    await sign_up(world, 0, 25)
    await world.stop()
    journal = world.till.folder / "journal.db"
    spoil(journal, leaf_of_changes(journal), bytes(PAGE))

    code, said = await run_once(world.till)

    assert code == NO_JOURNAL
    assert "till-agent journal rescue" in said
