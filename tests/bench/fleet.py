"""What a chain does to Engage when its line comes back: `python -m tests.bench.fleet`.

Thousands of tills, each with a backlog and now and then a person, against one Engage that takes so
many requests a second and answers 429 to the rest. What decides is the product's own code: Pace,
Link, the waits and the start of `retry`, the numbers of the dispatcher. Time is virtual, so that an
hour takes seconds, and chance is seeded.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import random
import selectors
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.config import Engage, Link, Retry
from agent.delivery.dispatcher import BACKLOG_AT_ONCE
from agent.delivery.engage.pace import Pace
from agent.delivery.link import Link as Line
from agent.delivery.link import LinkState
from agent.delivery.retry import backlog_after, next_wait

_CALLS_PER_CHANGE = 2  # a sign-up is looked up, then made
_ANSWER_S = 0.15  # how long Engage takes
_OUTAGE_S = 8 * 3600.0


# --- virtual time -------------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing to do instead of waiting for it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.seconds


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("Nothing is left to happen: somebody waits for ever.")
        self._loop.seconds += max(0.0, timeout)
        return []


class VirtualClock:
    """The product's clock on a virtual loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()


# --- Engage -------------------------------------------------------------------------------------


class SharedEngage:
    """Takes so many requests in each second and refuses the rest with 429."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken: Counter[int] = Counter()  # second → requests answered
        self.refused: Counter[int] = Counter()  # second → requests refused
        self.order: list[str] = []  # whose calls were taken: "person" or "backlog"

    async def ask(self, who: str) -> bool:
        """Answer one request; says whether it was taken."""
        second = int(asyncio.get_running_loop().time())
        free = self.taken[second] < self._limit
        (self.taken if free else self.refused)[second] += 1
        if free:
            self.order.append(who)
        await asyncio.sleep(_ANSWER_S)
        return free


# --- a till -------------------------------------------------------------------------------------


class HeedlessPace(Pace):
    """For comparison: at full rate from the first moment, whatever Engage says."""

    def throttled(self, **_: Any) -> None:
        """Go on."""

    def answered(self) -> None:
        """Go on."""

    def begin_slowly(self) -> None:
        """Go on."""


@dataclass(order=True)
class _Change:
    due: float
    number: int
    person_since: float | None = field(compare=False, default=None)
    tries: int = field(compare=False, default=0)


class FleetTill:
    """One agent as Engage sees it, from the moment the line can be used again."""

    def __init__(
        self, fleet: Fleet, engage: SharedEngage, chance: random.Random, backlog: int
    ) -> None:
        self._fleet = fleet
        self._engage = engage
        self._chance = chance
        self._clock = VirtualClock(asyncio.get_running_loop())
        make = Pace if fleet.heeds else HeedlessPace
        self.pace = make(
            self._clock, per_s=fleet.max_requests_per_s, backlog_per_s=fleet.backlog_requests_per_s
        )
        self.link = Line(self._clock, offline_after=fleet.offline_after)
        self._changes = [_Change(0.0, number) for number in range(backlog)]
        self._made = backlog
        self._more = asyncio.Event()
        self.delivered = 0
        self.expected = self.backlog_left = backlog
        self.drained_at: float | None = None
        self.told_s: list[float] = []  # until a person's change was in Engage, or the POS had 202
        self.throttled_people = 0

    async def live(self) -> None:
        """Notice that the line is back, then send what waits."""
        for _ in range(self._fleet.offline_after):
            self.link.failed("The line is down.")
        probe_s = self._fleet.probe_s
        await asyncio.sleep(self._chance.uniform(0, probe_s * 1.5))  # where its probing stands
        # The outage ended for all at once; each had been offline for hours.
        self.link._offline_from = self._clock.monotonic() - _OUTAGE_S
        self.link.probe_succeeded()
        while self.link.state is LinkState.OFFLINE:
            await self._deliver(heapq.heappop(self._changes))
        if self._fleet.heeds:
            self.pace.begin_slowly()
            await asyncio.sleep(
                backlog_after(self.link.last_outage_s, probe_s, self._chance.uniform)
            )
        async with asyncio.TaskGroup() as group:
            for _ in range(BACKLOG_AT_ONCE):
                group.create_task(self._send_backlog())

    async def sign_up(self) -> None:
        """Let a person sign up, who goes before all backlog."""
        self.expected += 1
        self._made += 1
        await self._deliver(_Change(0.0, self._made, person_since=self._clock.monotonic()))
        self._more.set()

    async def _send_backlog(self) -> None:
        while True:
            wait_s = self._changes[0].due - self._clock.monotonic() if self._changes else None
            if wait_s is None or wait_s > 1e-6:  # below what the clock can tell apart
                self._more.clear()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._more.wait()
                except TimeoutError:
                    pass
                continue
            await self._deliver(heapq.heappop(self._changes))

    async def _deliver(self, change: _Change) -> None:
        fresh = change.person_since is not None and not change.tries
        change.tries += 1
        for _ in range(_CALLS_PER_CHANGE):
            await self.pace.turn(person=fresh)
            taken = await self._engage.ask("person" if fresh else "backlog")
            self.link.heard()
            if not taken:
                self.pace.throttled()
                wait_s = next_wait(self._fleet.waits_s, 0, self._chance.uniform)
                change.due = self._clock.monotonic() + wait_s
                break
            self.pace.answered()
        else:
            self.delivered += 1
            self.backlog_left -= change.person_since is None
            if not self.backlog_left and self.drained_at is None:
                self.drained_at = self._clock.monotonic()
        if fresh:
            assert change.person_since is not None
            self.told_s.append(self._clock.monotonic() - change.person_since)
            self.throttled_people += not taken
        if not taken:
            heapq.heappush(self._changes, change)
            self._more.set()


# --- the fleet ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fleet:
    """How many of what; what concerns one till is what the product ships with."""

    tills: int = 2000
    limit: int = 50
    backlog: tuple[int, int] = (5, 50)
    person_every_s: float = 600.0  # per till
    heeds: bool = True  # False: without slow start, moment of one's own and halving
    seed: int = 1
    until_s: float = float("inf")  # stop there, drained or not
    max_requests_per_s: float = Engage.__dataclass_fields__["max_requests_per_s"].default
    backlog_requests_per_s: float = Engage.__dataclass_fields__["backlog_requests_per_s"].default
    probe_s: float = Link().probe_s
    offline_after: int = Link().offline_after
    waits_s: tuple[float, ...] = Retry().waits_s


@dataclass(frozen=True)
class Report:
    """What Engage and the people saw."""

    fleet: Fleet
    seconds: float  # until all was drained, or until the end that was set
    drained_by: Mapping[int, float]  # per cent of the tills → when so many were drained
    taken: Mapping[int, int]
    refused: Mapping[int, int]
    order: list[str]
    told_s: list[float]  # sorted
    throttled_people: int
    expected: int
    delivered: int

    @property
    def refused_share(self) -> float:
        """Give which part of the requests got a 429."""
        refused = sum(self.refused.values())
        return refused / max(1, refused + sum(self.taken.values()))

    def utilisation(self, until_s: float | None = None) -> float:
        """Give which part of Engage's limit was used, to the end or up to a moment."""
        until_s = until_s or self.seconds
        taken = sum(count for second, count in self.taken.items() if second < until_s)
        return taken / (self.fleet.limit * until_s)

    def told_within(self, share: float) -> float:
        """Give the time within which so many of the people had their answer."""
        if not self.told_s:
            return 0.0
        return self.told_s[min(len(self.told_s) - 1, int(len(self.told_s) * share))]


def simulate(fleet: Fleet) -> Report:
    """Let the line come back for all at once, and see what happens until all is drained."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_simulate(fleet))


async def _simulate(fleet: Fleet) -> Report:
    chance = random.Random(fleet.seed)
    loop = asyncio.get_running_loop()
    engage = SharedEngage(fleet.limit)
    tills = [
        FleetTill(fleet, engage, random.Random(chance.random()), chance.randint(*fleet.backlog))
        for _ in range(fleet.tills)
    ]
    people = asyncio.create_task(_people(fleet, tills, chance))
    lives = [asyncio.create_task(till.live()) for till in tills]
    while any(till.drained_at is None for till in tills) and loop.time() < fleet.until_s:
        await asyncio.sleep(1)
    seconds = loop.time()
    people.cancel()
    while any(till.delivered < till.expected for till in tills) and loop.time() < fleet.until_s:
        await asyncio.sleep(1)
    for task in lives:
        task.cancel()
    for outcome in await asyncio.gather(people, *lives, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    ends = sorted(till.drained_at for till in tills if till.drained_at is not None)
    return Report(
        fleet=fleet,
        seconds=seconds,
        drained_by={
            share: ends[len(tills) * share // 100 - 1]
            for share in (50, 90, 100)
            if len(ends) >= len(tills) * share // 100
        },
        taken=engage.taken,
        refused=engage.refused,
        order=engage.order,
        told_s=sorted(each for till in tills for each in till.told_s),
        throttled_people=sum(till.throttled_people for till in tills),
        expected=sum(till.expected for till in tills),
        delivered=sum(till.delivered for till in tills),
    )


async def _people(fleet: Fleet, tills: list[FleetTill], chance: random.Random) -> None:
    """Bring somebody to one of the tills now and then."""
    signing_up = []  # held, so that nobody is forgotten half-way
    while True:
        await asyncio.sleep(chance.expovariate(fleet.tills / fleet.person_every_s))
        till = chance.choice(tills)
        if till.link.state is not LinkState.OFFLINE:
            signing_up.append(asyncio.create_task(till.sign_up()))


# --- printing -----------------------------------------------------------------------------------


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--tills", type=int, default=2000)
    parser.add_argument("--limit", type=int, default=50, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    fleet = Fleet(tills=options.tills, limit=options.limit, seed=options.seed)
    heeding = simulate(fleet)
    print(f"{fleet.tills:,} tills come back at once; Engage takes {fleet.limit} requests a second.")
    _print(heeding, rows=24)
    print("\nThe same without slow start, a moment of one's own and halving; the first minute:")
    _print(simulate(Fleet(**{**vars(fleet), "heeds": False, "until_s": 60.0})), rows=6)
    print(f"\n({time.perf_counter() - began:.0f} s)")
    return 0 if heeding.delivered == heeding.expected else 1


def _print(report: Report, rows: int) -> None:
    taken, refused = sum(report.taken.values()), sum(report.refused.values())
    lost = report.expected - report.delivered
    print(f"\n  requests taken     {taken:>9,}")
    print(f"  refused with 429   {refused:>9,}  {report.refused_share:.1%} of all")
    print(f"  limit used         {report.utilisation():>9.0%}")
    for share, moment in report.drained_by.items():
        used = report.utilisation(moment)
        print(
            f"  {share:>3} % of tills drained after {moment / 60:>6.1f} min (limit used {used:.0%})"
        )
    print(f"  not delivered {'yet' if report.fleet.until_s < 1e9 else '   '}  {lost:>9,}")
    print(
        f"  people: {len(report.told_s):,}, answered by Engage within "
        f"{report.told_within(0.5):.1f} s (median), {report.told_within(0.99):.1f} s (99 %); "
        f"{report.throttled_people} met a 429 and went behind"
    )
    _print_histogram(report, rows)


def _print_histogram(report: Report, rows: int) -> None:
    step = max(1, int(report.seconds) // rows + 1)
    scale = 50 / max(report.fleet.limit, *_per_s(report, step).values())
    print("\n  requests a second (# taken, x refused with 429):")
    for start in range(0, int(report.seconds) + 1, step):
        width = min(step, int(report.seconds) + 1 - start)
        seconds = range(start, start + width)
        taken = sum(report.taken.get(second, 0) for second in seconds) / width
        refused = sum(report.refused.get(second, 0) for second in seconds) / width
        bar = "#" * round(taken * scale) + "x" * round(refused * scale)
        print(f"  {start / 60:6.1f} min {taken + refused:7.1f} {bar}")


def _per_s(report: Report, step: int) -> Mapping[int, float]:
    sums: Counter[int] = Counter()
    for counted in (report.taken, report.refused):
        for second, count in counted.items():
            sums[second // step] += count
    return {start: count / step for start, count in sums.items()}


if __name__ == "__main__":
    sys.exit(main())
