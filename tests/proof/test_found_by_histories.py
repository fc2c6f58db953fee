"""What random histories found, told in a few steps each, so that it stays found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from history_steps import step
from history_world import HistoryWorld, offline, told

from agent.status import snapshot


def test_a_person_signed_up_twice_and_renamed_is_found_after_the_import(tmp_path: Path) -> None:
    # The second sign-up brought the same address again, so it was taken for one that is not in
    # Engage yet, and the import was looked up by the address that was still to come.
    async def tell(world: HistoryWorld) -> None:
        await offline(world)
        await world.do(step("sign_up", person=1, wait="0"))
        await world.do(step("seal"))
        await world.do(step("sign_up", person=1, names=("street",), wait="0"))
        await world.do(step("rename", person=1))

    told(tmp_path, tell)


@pytest.mark.parametrize("transport", ["sftp", "bulk"])
def test_a_halt_ends_by_itself_when_all_that_waits_is_in_files(
    tmp_path: Path, transport: str
) -> None:
    # Only a change that was due probed a halted API: without one, imports were never verified.
    async def tell(world: HistoryWorld) -> None:
        world.sandbox.set_fault("unauthorised")
        await world.do(step("sign_up", person=1, wait="3"))
        await world.do(step("heal"))
        await world.do(step("seal"))

    told(tmp_path, tell, transport=transport)


def test_what_waits_in_engages_queue_does_not_overtake_later_changes(tmp_path: Path) -> None:
    # A bulk call was looked up while it was still queued; the lane went on, and then it came.
    async def tell(world: HistoryWorld) -> None:
        await world.do(step("sign_up", person=1, wait="3"))
        await world.do(step("pause", route="api"))
        await world.do(step("update", person=1, wait="0"))
        await world.do(step("seal"))
        await world.do(step("update", person=1, wait="0"))
        await world.do(step("resume", route="api"))
        await world.do(step("elapse", seconds=40.0))

    told(tmp_path, tell, transport="bulk", bulk_delay_s=8.0)


@pytest.mark.parametrize("is_refused_first", [True, False])
def test_an_address_that_a_refused_update_asked_for_still_leads_to_its_owner(
    tmp_path: Path, is_refused_first: bool
) -> None:
    # The owner's next sign-up went to the contact that had only asked for the address.
    async def tell(world: HistoryWorld) -> None:
        for person in (0, 1):
            await world.do(step("sign_up", person=person, wait="3"))
        if not is_refused_first:
            await world.do(step("pause", route="api"))
        wanted = {"email": world.people[1].email}
        status, _, headers = await world._call(
            "PATCH", f"/api/v3/contacts/{world.people[0].ids[0]}", wanted, wait="3"
        )
        assert status == (409 if is_refused_first else 202)
        await world.do(step("sign_up", person=1, wait="0"))
        await world.do(step("resume", route="api"))
        await world.do(step("elapse", seconds=15.0))
        assert (await world.change(headers["Agent-Change"])).state == "rejected"
        await world._call("POST", f"/agent/v1/changes/{headers['Agent-Change']}/discard")

    told(tmp_path, tell)


def test_a_look_up_while_the_sign_up_arrives_never_says_that_nobody_is_there(
    tmp_path: Path,
) -> None:
    # Engage was asked before it had the contact, and the journal after it was delivered.
    async def tell(world: HistoryWorld) -> None:
        identifier = world.agent.lookups._identifier
        ask_engage = identifier._ask_engage

        async def ask_over_a_slow_line(*question: Any) -> str | None:
            found = await ask_engage(*question)
            await asyncio.sleep(1.0)
            return found

        identifier._ask_engage = ask_over_a_slow_line
        await world.do(step("pause", route="api"))
        await world.do(step("sign_up", person=1, wait="0"))
        await world.do(step("look_up", person=1))
        await world.do(step("elapse", seconds=0.1))
        await world.do(step("resume", route="api"))

    told(tmp_path, tell)


async def test_a_look_at_the_journal_that_is_cancelled_as_it_is_answered_ends() -> None:
    # asyncio.wait_for() of Python 3.11 loses that cancellation, and an agent never stopped.
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    looking = asyncio.create_task(snapshot._asked(answer))
    await asyncio.sleep(0)

    answer.set_result("there it is")
    looking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await looking
