"""A line that comes and goes all the time: no stream of tiny files, and everything arrives once."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from history_steps import SETUP, step
from history_world import HistoryWorld, Person, history

from agent.journal import batches

AGE_S = 300.0
SPAN_S = 1800.0
UP_S, DOWN_S = 5.0, 20.0
SIGN_UPS = 40


def down(world: HistoryWorld, how: str) -> None:
    if how == "line":
        world.sandbox.down()
    elif how == "timeouts":
        world.sandbox.set_fault("rollback_504", method="POST", path="/contacts$")
    else:
        world.sandbox.set_fault(how)


async def flap(world: HistoryWorld, how: str) -> None:
    while True:
        world.sandbox.up()
        await world.do(step("heal"))
        await asyncio.sleep(UP_S)
        down(world, how)
        await asyncio.sleep(DOWN_S)


async def sign_ups_on_a_flapping_line(world: HistoryWorld, how: str) -> None:
    world.people = [Person(n, f"person{n}@example.test", "Member") for n in range(SIGN_UPS)]
    flapping = asyncio.create_task(flap(world, how))
    for number in range(SIGN_UPS):
        await world.do(step("sign_up", person=number, wait="0", patient=False))
        await asyncio.sleep(SPAN_S / SIGN_UPS)
    flapping.cancel()


@pytest.mark.system  # half an hour of virtual time
@pytest.mark.parametrize("how", ["line", "timeouts", "hang"])
def test_a_flapping_line_makes_few_files_and_loses_nothing(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dispatcher", "batch.sealer", "batch.uploader", "batch.verify"):
        monkeypatch.setattr(f"agent.delivery.{name}._TICK_S", 2.0)  # virtual time costs ticks
    usual = {name: values[0] for name, values in SETUP.items()}

    with history(tmp_path, {**usual, "seal_after_s": AGE_S}) as (loop, world):
        loop.run_until_complete(sign_ups_on_a_flapping_line(world, how))
        made = loop.run_until_complete(
            world.agent.journal.read(partial(batches.listing, limit=1000))
        )
        loop.run_until_complete(world.heal_and_check())

    files = [batch.contacts for batch in made if batch.contacts]
    assert len(files) <= SPAN_S / AGE_S
