"""The loop of the API route: claim → deliver → settle.

Fresh lanes, in which a person waits, go at once; what waits from an outage goes behind them and at
its own pace. Runs on the monotonic clock only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial

from agent import events
from agent.change import Change, Route
from agent.clock import Clock, to_text
from agent.config import Config
from agent.contact import Key, keys_told
from agent.delivery.engage import answers
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.steps import Courier
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link, LinkState
from agent.delivery.outcome import Outcome, Result
from agent.delivery.retry import backlog_after, next_wait
from agent.delivery.ring import until_rung
from agent.errors import AgentError, ForbiddenMove, JournalError, NotAuthorised, RouteError
from agent.journal import changes, states
from agent.journal.changes import Attempt, Claim, Settlement
from agent.journal.journal import Journal

# Calls under way at the same time. A slow line does not get faster by asking more of it.
_FRESH_AT_ONCE = 8
BACKLOG_AT_ONCE = 4
# How often due times are looked at when nobody rings.
_TICK_S = 0.5
# At the end calls under way get so long: a clear answer now saves a look-up after the next start.
_LAST_CALLS_S = 4.0
# After a journal that cannot be written: long enough not to spin, short enough not to be noticed.
_JOURNAL_REST_S = 1.0
# Where a lane's number stands for a question that belongs to none.
_NO_LANE = 0

_MOVES = {
    Result.DELIVERED: states.DELIVER,
    Result.DEFERRED: states.DEFER,
    Result.HALTED: states.DEFER,
    Result.UNKNOWN: states.LOSE,
    Result.REJECTED: states.REJECT,
}


class Dispatcher:
    """Takes changes from the journal to Engage for as long as it runs."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        client: EngageClient,
        gate: RouteGate,
        clock: Clock,
        backlog_waits: Callable[[], bool] = lambda: False,
        on_attempt: Callable[[str, str], None] = lambda route, outcome: None,
    ) -> None:
        """`on_attempt` gets route and outcome of each attempt of a change."""
        self._config = config
        self._journal = journal
        self._client = client
        self._gate = gate
        self._clock = clock
        self._on_attempt = on_attempt
        self._backlog_waits = backlog_waits  # while it is decided what goes by file
        self._started = clock.monotonic()
        self._lost_at: dict[str, float] = {}  # change id → when its create may have been sent
        self._courier = Courier(
            client,
            config.engage,
            api_attempts=config.retry.api_attempts,
            trusts_not_found=self._trusts_not_found,
            note_step=self._note_step,
        )
        self._busy: dict[int, asyncio.Task[None]] = {}  # lane → its delivery
        self._again: set[int] = set()
        self._fresh_count = 0
        self._stopping = False
        self._backlog_from = 0.0  # after an outage the backlog starts at a moment of its own
        self._returns = 0
        self.last_delivery_at: str | None = None
        self.beat = clock.monotonic()  # when the loop last turned; the watchdog looks at it

    @property
    def link(self) -> Link:
        """Give the line to Engage as it is seen now."""
        return self._client.link

    async def run(self) -> None:
        """Dispatch until cancelled; then no new claim is made, and what is under way gets a moment.

        Whatever is `sending` even then is settled as unknown by the next start.
        """
        self._stopping = False
        probing = asyncio.create_task(self._probe_while_offline(), name="link-probe")
        try:
            while True:
                self.beat = self._clock.monotonic()
                try:
                    await self._turn()
                except JournalError as error:
                    events.log().error("journal_trouble", where="dispatcher", error=error.message)
                    await asyncio.sleep(_JOURNAL_REST_S)
                await until_rung(self._journal.news.recorded, _TICK_S)
        finally:
            probing.cancel()
            self._stopping = True
            if self._busy:
                await asyncio.wait(self._busy.values(), timeout=_LAST_CALLS_S)
            tasks = [probing, *self._busy.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn(self) -> None:
        self._note_return()
        if not self._gate.is_open:
            if self._gate.takes_probe():
                await self._start_backlog(1)
                if not self._busy:  # what waits may be in files, and they wait for the API too
                    self._watch_over(_NO_LANE, self._ask_if_cured(), person=False)
            return
        if self.link.state is LinkState.OFFLINE:
            self._journal.news.fresh.clear()  # they are backlog now, and the journal knows them
            if self.link.on_trial and not self._busy:
                await self._start_backlog(1)
            return
        while self._journal.news.fresh and self._fresh_count < _FRESH_AT_ONCE:
            self._start(self._journal.news.fresh.popleft(), person=True)
        if self._clock.monotonic() >= self._backlog_from and not self._backlog_waits():
            await self._start_backlog(BACKLOG_AT_ONCE - (len(self._busy) - self._fresh_count))

    def _note_return(self) -> None:
        """After an outage begin at a random moment: thousands of tills share one key."""
        if self.link.returns != self._returns:
            self._returns = self.link.returns
            self._client.pace.begin_slowly()
            self._backlog_from = self._clock.monotonic() + backlog_after(
                self.link.last_outage_s, self._config.link.probe_s, random.uniform
            )

    async def _start_backlog(self, room: int) -> None:
        if room <= 0:
            return
        for lane in await self._journal.due_lanes(room + len(self._busy)):
            if lane not in self._busy and room > 0:
                room -= 1
                self._start(lane, person=False)

    def _start(self, lane: int, *, person: bool) -> None:
        if lane in self._busy:
            # Its delivery may be past its last look at the lane; it is looked at once more then.
            self._again.add(lane)
            return
        self._fresh_count += person
        self._watch_over(lane, self._serve_lane(lane, person=person), person=person)

    def _watch_over(self, lane: int, work: Coroutine[None, None, None], *, person: bool) -> None:
        task = asyncio.create_task(work, name=f"lane-{lane}")
        self._busy[lane] = task
        task.add_done_callback(partial(self._ended, lane, person))

    def _ended(self, lane: int, person: bool, task: asyncio.Task[None]) -> None:
        del self._busy[lane]
        self._fresh_count -= person
        if lane in self._again:
            self._again.discard(lane)
            self._journal.news.fresh.append(lane)
        self._journal.news.recorded.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug. The change stays `sending` until the next start takes it over as unknown.
            events.log().error("dispatcher_bug", error=type(error).__name__, exception=error)

    async def _serve_lane(self, lane: int, *, person: bool) -> None:
        try:
            while (claim := await self._journal.claim(lane)) is not None:
                if not await self._deliver(claim, person=person):
                    return
                offline = self.link.state is LinkState.OFFLINE
                if self._stopping or offline or not self._gate.is_open:
                    return
        except JournalError as error:
            events.log().error("journal_trouble", where="dispatcher", error=error.message)

    # --- one claim ----------------------------------------------------------------------------

    async def _deliver(self, claim: Claim, *, person: bool) -> bool:
        """Deliver and settle one claim; says whether the lane may go on at once."""
        began = to_text(self._clock.now())
        awaited = any(self._journal.news.is_awaited(change.id) for change in claim.changes)
        if claim.head.damaged:
            outcome = Outcome(Result.REJECTED, code=changes.DAMAGED.code, fault=changes.DAMAGED)
        else:
            outcome = await self._courier.deliver(claim, person=person or awaited)
        self._apply_to_route(outcome)
        settlement = self._settlement(claim, outcome, began)
        try:
            settled = await self._journal.settle(claim, settlement, outcome.body)
        except AgentError as error:
            # Stored or not, it was sent: the lease is given back as unknown, never as undone.
            events.log().error("settle_failed", change=claim.head.id, error=error.message)
            await self._give_back(claim)
            return False
        self._note(settled, outcome)
        if self.link.state is LinkState.OFFLINE:
            self._journal.news.dismiss()  # nobody's answer can come any more while they wait
        return outcome.result in (Result.DELIVERED, Result.REJECTED) or outcome.split

    async def _give_back(self, claim: Claim) -> None:
        """Record as unknown what could not be recorded, as soon as the journal lets us."""
        now = to_text(self._clock.now())
        attempt = Attempt(
            Route.API, "unknown", now, now, "NotRecorded", message="The outcome was not recorded."
        )
        self._lost(claim)
        settlement = Settlement(states.LOSE, attempt, unknown=True)
        while True:
            await asyncio.sleep(_JOURNAL_REST_S)
            try:
                await self._journal.settle(claim, settlement)
                return
            except ForbiddenMove:
                return
            except AgentError:
                continue

    def _apply_to_route(self, outcome: Outcome) -> None:
        if outcome.result is Result.HALTED:
            first = self._gate.halt is None
            self._gate.stop(outcome.message or "Engage refuses the API key.")
            if first:
                events.log().error("route_halted", route=Route.API, status=outcome.status)
        elif self._gate.halt is not None and outcome.status is not None:
            self._note_cured()

    def _note_cured(self) -> None:
        self._gate.cured()
        events.log().info("route_resumed", route=Route.API)

    def _settlement(self, claim: Claim, outcome: Outcome, began: str) -> Settlement:
        unknown = outcome.result is Result.UNKNOWN
        if outcome.sent:
            self._lost(claim)
        # A halt keeps what was unknown unknown; a success or a refusal settles it.
        still_unknown = unknown or (claim.head.unknown and outcome.result is Result.HALTED)
        wait_s = self._wait_s(claim, outcome)
        return Settlement(
            move=_MOVES[outcome.result],
            attempt=Attempt(
                route=Route.API,
                outcome=outcome.result,
                started_at=began,
                ended_at=to_text(self._clock.now()),
                code=outcome.code,
                status=outcome.status,
                message=outcome.message or (outcome.fault.message if outcome.fault else None),
                request_id=outcome.request_id,
                steps=outcome.steps,
            ),
            unknown=still_unknown,
            counts=outcome.counts,
            due=self._clock.monotonic() + wait_s if wait_s else 0.0,
            due_at=to_text(self._clock.now() + timedelta(seconds=wait_s)) if wait_s else None,
            fault=outcome.fault,
            contact_id=outcome.contact_id,
            contact_type=outcome.contact_type,
            contact_gone=outcome.contact_gone,
            keys=_keys_beside(claim, outcome),
            alone=outcome.split,
            existed=outcome.existed,
        )

    def _wait_s(self, claim: Claim, outcome: Outcome) -> float:
        if outcome.split or outcome.result not in (Result.DEFERRED, Result.UNKNOWN):
            return 0.0
        return next_wait(
            self._config.retry.waits_s,
            claim.head.api_attempts + outcome.counts,
            random.uniform,
            retry_after_s=outcome.retry_after_s,
            soon=outcome.soon,
        )

    def _lost(self, claim: Claim) -> None:
        for change in claim.changes:
            self._lost_at[change.id] = self._clock.monotonic()

    def _trusts_not_found(self, change: Change) -> bool:
        """After a lost create Engage may still commit it: until its own limit is over."""
        lost_at = self._lost_at.get(change.id, self._started)
        return self._clock.monotonic() - lost_at >= self._config.engage.create_timeout_s

    async def _note_step(self, claim: Claim, step: int) -> None:
        await self._journal.write(partial(changes.note_step, claim=claim, step=step))

    def _note(self, settled: tuple[Change, ...], outcome: Outcome) -> None:
        for change in settled:
            self._on_attempt(Route.API, outcome.result)
            if not change.unknown:
                self._lost_at.pop(change.id, None)
            if change.state is states.DELIVER.target:
                self.last_delivery_at = change.settled_at
            events.log().info(
                "change_tried",
                change=change.id,
                request=change.request_id,
                kind=change.kind,
                route=Route.API,
                outcome=outcome.result,
                state=change.state,
                code=outcome.code,
                status=outcome.status,
                engage_request=outcome.request_id,
            )

    # --- the line -----------------------------------------------------------------------------

    async def _probe_while_offline(self) -> None:
        """Connect now and then while the line is down; the next real call decides."""
        while True:
            await asyncio.sleep(min(_TICK_S, self._config.link.probe_s))
            if self.link.state is not LinkState.OFFLINE or self.link.on_trial:
                continue
            probe_s = self._config.link.probe_s
            await asyncio.sleep(random.uniform(probe_s / 2, probe_s * 1.5))  # noqa: S311
            try:
                await self._client.probe()
            except RouteError as error:
                self.link.failed(error.message)
            else:
                self.link.probe_succeeded()
                self._journal.news.recorded.set()
                await self._ask_if_idle()

    async def _ask_if_cured(self) -> None:
        """With nothing to send, a harmless question tells whether a halt's cause still stands."""
        try:
            await self._client.call("GET", "/api/v2/contacts/count", answers.read_any, person=False)
        except NotAuthorised as error:
            self._gate.stop(error.message)
        except RouteError as error:
            if error.status is not None:
                self._note_cured()
        else:
            self._note_cured()

    async def _ask_if_idle(self) -> None:
        """With nothing to send, a harmless question tells whether Engage itself answers."""
        try:
            if await self._journal.due_lanes(1):
                return
        except JournalError:
            pass  # said elsewhere; the line is asked all the same
        with contextlib.suppress(RouteError):  # the link was told already
            await self._client.call("GET", "/api/v2/contacts/count", answers.read_any, person=False)


def _keys_beside(claim: Claim, outcome: Outcome) -> tuple[Key, ...]:
    """Give the keys that Engage's answer tells and the changes did not set: its member number."""
    if outcome.result is not Result.DELIVERED:
        return ()
    given = frozenset[str]().union(*(change.payload.names() for change in claim.changes))
    return keys_told(outcome.body, without=given)
