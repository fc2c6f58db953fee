"""Readers who come, leave and change contacts at random: the last word is always Engage's."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from patience import eventually


async def test_after_a_storm_every_contact_reads_as_engage_has_it(till: Any) -> None:
    # Chance for a test, repeatable.
    chance = random.Random(7)
    ids = [till.sandbox.seed(email=f"c{n}@example.test", city="Malmö") for n in range(6)]
    till.sandbox.set_fault("slow", method="GET", share=0.3, delay_s=0.05)
    till.sandbox.set_fault("status", method="GET", share=0.1, status=500)

    async def one(number: int) -> None:
        contact_id = chance.choice(ids)
        if number % 4 == 0:
            await till.pos.update(contact_id, city=f"City {number}")
        else:
            status, _, _ = await till.read(contact_id)
            assert status in (200, 503)

    tasks = [asyncio.create_task(one(number)) for number in range(120)]
    for task in chance.sample(tasks, 30):
        asyncio.get_running_loop().call_later(chance.random() / 4, task.cancel)
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(each) for each in ended} <= {type(None), asyncio.CancelledError}
    till.sandbox.clear_faults()
    await eventually(lambda: _nothing_is_open(till), "everything is delivered")
    for contact_id in ids:
        _, body, _ = await till.read(contact_id)
        assert body["attributes"] == till.sandbox.contact(contact_id)["attributes"]


async def _nothing_is_open(till: Any) -> bool:
    assert till.agent
    return not (await till.agent.journal.totals()).open
