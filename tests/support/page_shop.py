"""A shop in the afternoon: an agent with a day behind it, run in a thread of its own.

Playwright's plain functions and the agent's loop then do not get in each other's way. The agent's
clock says 14:28 in Stockholm whenever the tests run, so the page looks nearly the same every time;
the sandbox's Engage has the same time.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web
from shifted_clock import ShiftedClock
from world import PATIENCE_S, Pos, eventually, lay_till

from agent import config
from agent.assembly import Agent
from agent.change import Change, Fault, Kind, Payload, Route
from agent.clock import Clock, to_text
from agent.contact import new_id
from agent.journal import changes, driver, states
from agent.journal.database import Database
from agent.journal.journal import Journal
from agent.sandbox import Sandbox
from agent.trial import Till

T = TypeVar("T")

AFTERNOON = datetime(2026, 11, 21, 13, 28, tzinfo=UTC)  # 14:28 in Stockholm
# Hours before now, sign-ups in that hour, and what was delivered: this morning the line was down.
DAY = (
    *((22, 11, 11), (21, 18, 18), (20, 23, 23), (19, 14, 14), (18, 5, 5)),
    *((5, 6, 6), (4, 13, 13), (3, 17, 5), (2, 24, 0), (1, 19, 46), (0, 8, 17)),
)

SETTINGS: dict[str, dict[str, Any]] = {
    "store": {"id": "0042", "till": "3"},
    "link": {"offline_after": 1, "probe_s": 0.2},
    "fallback": {"seal_after_s": 600, "api_drain_max": 500},
    "server": {"wait_s": 0.5},
}


class PastClock:
    """A clock that history is written with."""

    def __init__(self) -> None:
        self.wall = AFTERNOON
        self.ticks = 1.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        self.ticks += 1
        return self.ticks


async def live_through_a_day(path: Path) -> None:
    """Write a day of sign-ups into a till's journal."""
    clock = PastClock()
    journal = Journal(Database(path, driver.plain()), clock, min_free_mb=0)
    await journal.open()
    chance, waiting = random.Random(7), []
    for hours_ago, accepted, delivered in DAY:
        begins_at = AFTERNOON.replace(minute=0) - timedelta(hours=hours_ago)
        for minute in sorted(chance.uniform(0, 59 if hours_ago else 26) for _ in range(accepted)):
            clock.wall = begins_at + timedelta(minutes=minute)
            waiting.append(await sign_up(journal, clock))
        for _ in range(delivered):
            await settle(journal, clock, waiting.pop(0), states.DELIVER)
    assert not waiting
    await journal.close()


async def sign_up(journal: Journal, clock: Clock, kind: Kind = Kind.CREATE) -> Change:
    """Record a sign-up of nobody in particular."""
    number = new_id()
    request = changes.Request(
        kind=kind,
        payload=Payload({"email": somebody()}, contact_type="Member"),
        target=None,
        contact_key="email",
        fingerprint=number,
        token_name="pos",
        idempotency_key=None,
        dedupe_window_s=0,
        now=clock.now(),
        now_text=to_text(clock.now()),
    )
    return (await journal.record(request)).change


async def settle(
    journal: Journal, clock: Clock, change: Change, move: states.Move, fault: Fault | None = None
) -> None:
    """Claim and settle a change, as the dispatcher does."""
    claim = await journal.claim(change.contact.lane)
    assert claim is not None
    now = to_text(clock.now())
    attempt = changes.Attempt(Route.API, "rejected" if fault else "delivered", now, now)
    await journal.settle(
        claim, changes.Settlement(move, attempt, fault=fault, contact_id=None if fault else guid())
    )


def somebody() -> str:
    """Make the address of a customer whom Engage does not know yet."""
    return f"{new_id()}@example.test"


def guid() -> str:
    """Make a GUID as Engage would."""
    number = new_id()
    return f"{number[:14]}4{number[15:]}"


class PageShop:
    """A sandbox and an agent with its page, asked from an ordinary thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shop", daemon=True)
        self._stack: Any = None
        self.sandbox: Sandbox
        self.till: Till
        self.agent: Agent
        self.pos: Pos

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._open())
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.do(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE_S)
            self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the shop's loop and wait for it."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(60)

    async def _open(self) -> None:
        clock = ShiftedClock(AFTERNOON)
        self.sandbox = Sandbox(
            self._folder / "sandbox",
            import_every_s=0,
            rate_limit=0,
            create_timeout_s=0.3,
            seed=1,
            required={"Member": ("lastName",)},
        )
        await self.sandbox.start()
        self.sandbox.set_fault("clock_skew", skew_s=clock.wall_shift_s)
        self.till = lay_till(self.sandbox, self._folder / "till", SETTINGS)
        settings = config.load(self.till.config_path)
        await live_through_a_day(settings.journal.path)
        self.agent = Agent(settings, clock)
        await self.agent.start()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        self.pos = Pos(self.agent.url, self.till.token, self._session)

    async def _close(self) -> None:
        await self._session.close()
        await self.agent.stop()
        await self.sandbox.stop()

    @property
    def url(self) -> str:
        """Give where the page is."""
        return self.agent.url

    @contextmanager
    def another_site(self) -> Iterator[str]:
        """Serve an empty page from another origin of this machine; gives its address."""

        async def blank(_: web.Request) -> web.Response:
            return web.Response(text="<!DOCTYPE html><title>evil</title>", content_type="text/html")

        async def start() -> web.AppRunner:
            application = web.Application()
            application.router.add_get("/", blank)
            runner = web.AppRunner(application)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        runner = self.do(start())
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            self.do(runner.cleanup())

    # --- what happens in the shop -------------------------------------------------------------

    def calm_down(self) -> None:
        """Let the line be up, both routes run, and nothing be under way or refused."""
        self.do(self._calm_down())

    async def _calm_down(self) -> None:
        self.sandbox.up()
        for route in ("api", "file"):
            await self.pos.call("POST", f"/agent/v1/routes/{route}/resume")
        await self.sandbox.import_now()
        for change in (await self.pos.get("/agent/v1/changes?state=rejected&limit=200"))["items"]:
            await self.pos.call("POST", f"/agent/v1/changes/{change['id']}/discard", {})
        await self.pos.until_link("online")
        await eventually(self._nothing_waits, "nothing is under way")

    async def _nothing_waits(self) -> bool:
        await self.sandbox.import_now()
        return (await self.pos.status())["unsent"] == 0

    def settled(self) -> None:
        """Wait until nothing is under way any more."""
        self.do(eventually(self._nothing_waits, "nothing is under way"))

    def create(self, email: str | None = None, **attributes: Any) -> str:
        """Sign somebody up without waiting; gives the change's id."""
        return self.do(self.pos.create(email or somebody(), **attributes))

    def until(self, change_id: str, *states: str) -> dict[str, Any]:
        """Wait until a change is in one of these states."""
        return self.do(self.pos.until(change_id, *states))

    def state(self, change_id: str) -> str:
        """Give where a change stands."""
        return str(self.do(self.pos.change(change_id))["state"])

    def line_goes_down(self) -> None:
        """Cut the line, and let the agent notice."""
        self.do(self._go_down())

    async def _go_down(self) -> None:
        self.sandbox.down()
        await self.pos.create(somebody(), lastName="Lind")
        await self.pos.until_link("offline")

    def line_has_been_down_for(self, span: timedelta, waiting: int) -> None:
        """Cut the line as if that had been a while ago, and let sign-ups wait since."""
        self.line_goes_down()
        self.do(self._age(span, waiting))

    async def _age(self, span: timedelta, waiting: int) -> None:
        for _ in range(waiting):
            await self.pos.create(somebody(), lastName="Lind")
        since = self.agent.clock.now() - span
        self.agent.link.since = since
        await self.agent.journal.write(
            lambda db: db.execute(
                "UPDATE changes SET created_at = ? WHERE state = 'waiting'", (to_text(since),)
            )
        )

    def line_comes_back(self) -> None:
        """Mend the line; the agent notices by itself."""
        self.do(self._come_back())

    async def _come_back(self) -> None:
        self.sandbox.up()
        await self.pos.until_link("online")

    def status(self) -> dict[str, Any]:
        """Give what the agent tells programs."""
        return self.do(self.pos.status())

    def refused(self, email: str | None = None, **attributes: Any) -> str:
        """Sign somebody up whom Engage refuses for want of a last name; gives the change's id."""
        change_id = self.create(email, **attributes)
        self.until(change_id, "rejected")
        self.do(eventually(self._needs_a_person, "the page has heard of it"))
        return change_id

    async def _needs_a_person(self) -> bool:
        return (await self.pos.status())["counts"]["rejected"] == len(
            (await self.pos.get("/agent/v1/changes?state=rejected&limit=200"))["items"]
        )
