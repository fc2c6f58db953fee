"""`till-agent demo`: the story of an outage, told with real parts, and counted at its end.

The POS talks to the agent over HTTP, the agent to the sandbox over HTTP and SFTP, and the agent
is a process of its own that is really killed. Only the waits are shorter than in a shop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent.demo.pos import Pos, plural
from agent.demo.table import Evidence, count, shown
from agent.demo.world import World, WorldProblem, world
from agent.sandbox import Sandbox

_SETTINGS: dict[str, dict[str, Any]] = {
    "server": {"wait_s": 1},
    "engage": {"create_timeout_s": 2, "timeout_s": 1},
    "retry": {"waits_s": [0.2, 0.4]},
    "link": {"probe_s": 0.4},
    "fallback": {"seal_after_s": 2},
    "sftp": {"timeout_s": 1, "poll_s": 0.5},
}
_OPEN = ("waiting", "sending", "batched", "uploaded", "imported")
_LAST_ACT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How many customers sign up in each act; half as many are updated."""

    online: int
    lost: int
    refused: int
    killed: int
    hanging: int

    @classmethod
    def of(cls, customers: int) -> Plan:
        """Share customers among the acts; each gets two at least."""
        lost, refused, killed, hanging = (max(2, customers * n // 20) for n in (1, 4, 6, 3))
        return cls(customers - lost - refused - killed - hanging, lost, refused, killed, hanging)


async def run(
    *,
    customers: int,
    seed: int,
    keep: bool = False,
    before_count: Callable[[Sandbox], None] | None = None,
) -> int:
    """Tell the story, show the table; gives the exit code."""
    began = time.monotonic()
    try:
        async with world(import_every_s=0.5, settings=_SETTINGS) as shop, _pos(shop, seed) as pos:
            print(f"Till at {shop.url}/, sandbox at {shop.sandbox.control_url}/\n", flush=True)
            story = Story(shop, pos, Plan.of(customers), random.Random(seed))  # noqa: S311
            problem = await story.tell()
            if before_count is not None:
                before_count(shop.sandbox)
            result = count(await story.evidence())
            print("\n" + shown(result))
            print(f"It took {time.monotonic() - began:.0f} s.", flush=True)
            if problem is not None:
                print(problem.message, file=sys.stderr)
            if keep:
                await _keep(shop)
            return 0 if result.is_right and problem is None else 1
    except WorldProblem as problem:
        print(problem.message, file=sys.stderr)
        return 1


@contextlib.asynccontextmanager
async def _pos(shop: World, seed: int) -> AsyncIterator[Pos]:
    headers = {"apikey": shop.till.token}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(shop.url, headers=headers, connector=connector) as session:
        yield Pos(session, seed)


async def _keep(shop: World) -> None:
    print(f"\nIt goes on running at {shop.url}/ (token {shop.till.token}). Ctrl-C ends it.")
    sys.stdout.flush()
    await shop.agent_ended()


class Story:
    """The acts, in their order."""

    def __init__(self, shop: World, pos: Pos, plan: Plan, chance: random.Random) -> None:
        self._shop = shop
        self._sandbox = shop.sandbox
        self._pos = pos
        self._plan = plan
        self._chance = chance

    async def tell(self) -> WorldProblem | None:
        """Play all acts; gives what kept the story from its end, so that it is counted anyway."""
        acts: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("The line is up.", self._line_is_up),
            ("Engage does the work, but its answers get lost.", self._answers_get_lost),
            ("The line is cut: every connection is refused.", self._line_is_refused),
            ("The agent is killed in the middle of its work (SIGKILL).", self._agent_is_killed),
            ("The line hangs: connections open, and nothing answers.", self._line_hangs),
            ("The line is back.", self._line_returns),
        ]
        for number, (title, act) in enumerate(acts, 1):
            print(f"{number}. {title}", flush=True)
            try:
                async with _spinner():
                    text = await act()
            except WorldProblem as problem:
                return problem
            print(textwrap.indent(text, "   "), flush=True)
        return None

    # --- the acts -----------------------------------------------------------------------------

    async def _line_is_up(self) -> str:
        new = await self._pos.serve(sign_ups=self._plan.online)
        known = await self._pos.serve(updates=self._plan.online // 2)
        await self._nothing_is_open()
        return f"{new.what}: {new.times}\n{known.what}: {known.times}\nAll are in Engage."

    async def _answers_get_lost(self) -> str:
        self._sandbox.set_fault(
            "lose_answer", method="POST", path="/contacts$", times=self._plan.lost
        )
        seen = await self._pos.serve(sign_ups=self._plan.lost)
        await self._nothing_is_open()
        counts = self._sandbox.counts()
        return (
            f"{seen.what}: looked up, not sent again. "
            f"Engage made {counts['creates']} contacts for {self._pos.customers} customers."
        )

    async def _line_is_refused(self) -> str:
        self._sandbox.down()
        first = await self._pos.serve(sign_ups=1)
        await self._link_is("offline")
        more = self._plan.refused - 1
        seen = await self._pos.serve(sign_ups=more, updates=self._plan.refused // 2)
        return (
            f"The first sign-up hoped for Engage and took {first.seconds[0]:.1f} s.\n"
            f"{seen.what}: {seen.times}"
        )

    async def _agent_is_killed(self) -> str:
        sign_ups, updates = self._plan.killed, self._plan.killed // 2
        answers = self._kill_after(self._chance.randint(1, max(1, sign_ups // 3)))
        serving = asyncio.create_task(
            self._pos.serve(sign_ups=sign_ups, updates=updates, at_once=sign_ups + updates)
        )
        try:
            await self._shop.agent_ended()
            died_at = time.monotonic()
            await self._shop.start_agent()
            back_s = time.monotonic() - died_at
            seen = await serving
        finally:
            serving.cancel()
        await self._link_is("offline")
        return (
            f"{seen.what} were sent at once, and {answers} answered when it died; "
            f"it was back after {back_s:.1f} s.\n"
            f"{seen.sent_again} got no answer and were sent again with the same Idempotency-Key; "
            f"stored already: {seen.stored_before}."
        )

    def _kill_after(self, answers: int) -> int:
        seen = itertools.count(1)

        def note() -> None:
            if next(seen) == answers:
                self._shop.kill_agent()

        self._pos.on_answer = note
        return answers

    async def _line_hangs(self) -> str:
        self._sandbox.set_fault("hang", target="engage")
        self._sandbox.set_fault("hang_kex", target="sftp")
        self._sandbox.up()
        await self._shop.until(self._has_batches, "a batch is sealed")
        seen = await self._pos.serve(sign_ups=self._plan.hanging, updates=self._plan.hanging // 2)
        batches = await self._batches()
        contacts = sum(batch["contacts"] for batch in batches)
        files = plural(len(batches), "file")
        return f"{seen.what}: {seen.times}\n{contacts} contacts are sealed in {files}."

    async def _line_returns(self) -> str:
        began = time.monotonic()
        self._sandbox.clear_faults()
        await self._nothing_is_open(within_s=_LAST_ACT_S)
        batches = await self._batches()
        contacts = sum(batch["contacts"] for batch in batches)
        return (
            f"{plural(len(batches), 'file')} with {contacts} contacts uploaded, imported and "
            f"looked up; the rest sent by API.\n"
            f"Nothing waits any more after {time.monotonic() - began:.1f} s."
        )

    # --- looking ------------------------------------------------------------------------------

    async def evidence(self) -> Evidence:
        """Collect what the POS, the agent and Engage say at the end."""
        return Evidence(
            self._pos.acknowledged,
            await self._changes(),
            self._sandbox.contacts(),
            self._sandbox.counts(),
        )

    async def _changes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await self._shop.ask(f"/agent/v1/changes?limit=200{after}")
            found += page["items"]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    async def _batches(self) -> list[dict[str, Any]]:
        page = await self._shop.ask("/agent/v1/batches?limit=200")
        return list(page["items"])

    async def _has_batches(self) -> bool:
        return bool(await self._batches())

    async def _nothing_is_open(self, *, within_s: float = 30.0) -> None:
        async def is_true() -> bool:
            counts = (await self._shop.ask("/agent/v1/status"))["counts"]
            return not any(counts[state] for state in _OPEN)

        await self._shop.until(is_true, "nothing waits any more", within_s=within_s)

    async def _link_is(self, state: str) -> None:
        async def is_true() -> bool:
            return bool((await self._shop.ask("/agent/v1/status"))["link"]["state"] == state)

        await self._shop.until(is_true, f"the agent thinks that the line is {state}")


@contextlib.asynccontextmanager
async def _spinner() -> AsyncIterator[None]:
    """Show on a terminal that something goes on; elsewhere print nothing."""
    if not sys.stdout.isatty():
        yield
        return
    turning = asyncio.create_task(_turn())
    try:
        yield
    finally:
        turning.cancel()
        print("\r    \r", end="", flush=True)


async def _turn() -> None:
    for sign in itertools.cycle("|/-\\"):
        print(f"\r   {sign}", end="", flush=True)
        await asyncio.sleep(0.1)
