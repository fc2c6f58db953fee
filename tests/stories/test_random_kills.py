"""Kills at random moments, under load, in a world that misbehaves; then the world heals.

The seed is printed; TILL_AGENT_SEED repeats a run, TILL_AGENT_KILLS says how many kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import eventually
from world import Pos, Process, lay_till

from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("TILL_AGENT_KILLS", "50"))
SEED = int(os.environ.get("TILL_AGENT_SEED", str(random.SystemRandom().randrange(10**6))))
CLIENTS = 4
OPEN = ("waiting", "sending", "batched", "uploaded", "imported")

SETTINGS: dict[str, dict[str, Any]] = {
    "engage": {"create_timeout_s": 1.0, "timeout_s": 0.7},
    "server": {"wait_s": 0.3},
    "retry": {"waits_s": [0.05, 0.2, 0.5], "api_attempts": 3},
    "link": {"offline_after": 2, "probe_s": 0.2},
    "fallback": {"seal_after_s": 0.5, "api_drain_max": 5, "import_grace_s": 60},
    "sftp": {"poll_s": 0.2, "timeout_s": 2},
}

# Kind and parameters; every one heals when it is switched off.
MISHAPS: list[tuple[str, dict[str, Any]]] = [
    ("refuse", {"target": "engage"}),
    ("refuse", {"target": "sftp"}),
    ("hang", {"share": 0.3}),
    ("slow", {"delay_s": 0.25, "share": 0.5}),
    ("reset", {"share": 0.4}),
    ("reset", {"when": "before", "share": 0.4}),
    ("lose_answer", {"share": 0.5}),
    ("lose_answer", {"method": "POST"}),
    ("late_commit", {"delay_s": 0.5, "method": "POST", "share": 0.5}),
    ("status", {"status": 500, "commit": True, "share": 0.5}),
    ("status", {"status": 502, "commit": True}),
    ("status", {"status": 503}),
    ("rollback_504", {"method": "POST"}),
    ("504_committed", {"method": "POST", "share": 0.5}),
    ("throttle", {"share": 0.3}),
    ("busy", {"method": "POST", "share": 0.5}),
    ("unauthorised", {"share": 0.5}),
    ("portal", {}),
    ("redirect", {"share": 0.5}),
    ("empty_201", {"method": "POST"}),
    ("not_json", {"commit": True, "share": 0.5}),
    ("cut", {"target": "sftp", "share": 0.5}),
    ("lose_rename_answer", {"target": "sftp"}),
    ("hang_write", {"target": "sftp"}),
    ("disk_full", {"target": "sftp"}),
    ("sits", {"target": "importer"}),
    ("takes_at_once", {"target": "importer"}),
]


@dataclass
class Customer:
    """What was acknowledged for one person, in order."""

    email: str
    ref: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass
class Till:
    """A POS client: asks, and repeats with the same key until it is acknowledged."""

    name: str
    pos: Pos
    chance: random.Random
    customers: list[Customer] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    repeats: int = 0
    closing: bool = False

    async def work(self) -> None:
        while not self.closing:
            if not self.customers or self.chance.random() < 0.3:
                await self._sign_up()
            elif self.chance.random() < 0.15:
                await self._sign_up_again(self.chance.choice(self.customers))
            else:
                await self._change(self.chance.choice(self.customers))
            await asyncio.sleep(self.chance.uniform(0, 0.05))

    async def _sign_up(self) -> None:
        email = f"{self.name}-{len(self.customers)}@example.test"
        answer = await self._ask("POST", "/api/v3/contacts", {"email": email, "city": "0"})
        self.customers.append(Customer(email, answer["id"], {"city": "0"}))

    async def _sign_up_again(self, customer: Customer) -> None:
        given = {"email": customer.email.upper(), **self._values()}
        await self._ask("POST", "/api/v3/contacts", given)
        customer.attributes |= {name: given[name] for name in given if name != "email"}

    async def _change(self, customer: Customer) -> None:
        given = self._values()
        await self._ask("PATCH", f"/api/v3/contacts/{customer.ref}", given)
        customer.attributes |= given

    def _values(self) -> dict[str, str]:
        name = self.chance.choice(("city", "street", "firstName"))
        return {name: f"{len(self.acknowledged)}-{self.chance.randrange(10**6)}"}

    async def _ask(self, method: str, path: str, body: dict[str, str]) -> dict[str, Any]:
        key = str(uuid.UUID(int=self.chance.getrandbits(128)))
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                status, answer, headers = await self.pos.call(
                    method, path, body, Idempotency_Key=key
                )
                if status < 300:
                    self.acknowledged.append(headers["Agent-Change"])
                    return dict(answer)
                assert status >= 500, (status, answer)
            self.repeats += 1
            await asyncio.sleep(0.05)


async def misbehave(sandbox: Sandbox, chance: random.Random) -> None:
    """Change what goes wrong, again and again."""
    while True:
        sandbox.clear_faults()
        sandbox.set_fault("not_unique")
        sandbox.up()
        if chance.random() < 0.2:
            sandbox.down()
        else:
            for kind, given in chance.sample(MISHAPS, chance.randrange(3)):
                sandbox.set_fault(kind, **given)
        await asyncio.sleep(chance.uniform(0.2, 2.0))


async def drained(pos: Pos) -> bool:
    counts = (await pos.status())["counts"]
    return not any(counts[state] for state in OPEN)


def journal_is_sound(path: Path) -> None:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = dict(db.execute("SELECT state, n FROM counts WHERE n > 0"))
        counted = dict(db.execute("SELECT state, count(*) FROM changes GROUP BY state"))
        assert kept == counted
    finally:
        db.close()


async def test_nothing_is_lost_or_doubled_when_the_agent_is_killed_at_random(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    print(f"TILL_AGENT_SEED={SEED} TILL_AGENT_KILLS={KILLS}")
    chance = random.Random(SEED)
    async with Sandbox(
        tmp_path / "sandbox", import_every_s=0.3, rate_limit=0, create_timeout_s=0.6, seed=SEED
    ) as sandbox:
        process = Process(lay_till(sandbox, tmp_path / "till", SETTINGS), session)
        tills = [
            Till(f"till{number}", process.pos, random.Random(f"{SEED}-{number}"))
            for number in range(CLIENTS)
        ]
        try:
            await process.start()
            trouble = asyncio.create_task(misbehave(sandbox, random.Random(f"{SEED}-faults")))
            work = [asyncio.create_task(till.work()) for till in tills]
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.0, 1.2))
                await process.kill()
                await process.start()
            trouble.cancel()
            sandbox.clear_faults()
            sandbox.set_fault("not_unique")
            sandbox.up()
            for till in tills:
                till.closing = True
            await asyncio.gather(*work)
            healed = time.monotonic()
            await eventually(lambda: drained(process.pos), "everything drains", 120)

            acknowledged = [each for till in tills for each in till.acknowledged]
            print(
                f"{KILLS} kills, {len(acknowledged)} acknowledged, "
                f"{sum(till.repeats for till in tills)} repeats, "
                f"drained in {time.monotonic() - healed:.1f} s, {sandbox.counts()}"
            )
            states = {each: (await process.pos.change(each))["state"] for each in acknowledged}
            assert set(states.values()) <= {"delivered", "confirmed"}, states
            assert sandbox.counts()["duplicates"] == 0
            for customer in (each for till in tills for each in till.customers):
                (contact,) = sandbox.find("email", customer.email)
                got = {name: contact["attributes"].get(name) for name in customer.attributes}
                assert got == customer.attributes, customer.email
            assert await process.terminate() == 0
            journal_is_sound(process.till.folder / "journal.db")
            assert "loop_bug" not in process.output()
            assert "dispatcher_bug" not in process.output()
        finally:
            await process.stop()
