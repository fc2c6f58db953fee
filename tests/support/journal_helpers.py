"""What the journal's tests say over and over: a clock by hand, requests, outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from agent.change import Change, Fault, Kind, Payload, Route, State
from agent.clock import to_text
from agent.intake.payload import request_fingerprint
from agent.journal import changes, driver, states
from agent.journal.changes import Attempt, Claim, Settlement
from agent.journal.database import Database
from agent.journal.journal import Journal

GUID = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
GUID_2 = "1b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"

_numbers = itertools.count(1)


class FakeClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


def raw_key() -> str:
    """Give a key that is taken as it is; to make one from a password takes a third of a second."""
    return f"x'{'5e' * 32}'"


def make_driver(name: str) -> driver.Driver:
    return driver.plain() if name == "sqlite" else driver.encrypted(raw_key)


class Book:
    """A journal with short words for what the tests do to it."""

    def __init__(
        self, path: Path, clock: FakeClock, driver_name: str = "sqlite", **options: Any
    ) -> None:
        self.path = path
        self.clock = clock
        self.driver = make_driver(driver_name)
        options.setdefault("min_free_mb", 1)
        self.journal = Journal(Database(path, self.driver), clock, **options)
        self.taken_over = 0

    async def open(self) -> Book:
        self.taken_over = await self.journal.open()
        return self

    async def close(self) -> None:
        await self.journal.close()

    async def __aenter__(self) -> Book:
        return await self.open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # --- as intake does -----------------------------------------------------------------------

    def request(
        self,
        kind: Kind,
        attributes: Mapping[str, Any],
        *,
        target: str | None = None,
        key: str | None = None,
        token: str = "pos",
        window_s: float = 600,
        **payload: Any,
    ) -> changes.Request:
        path = f"/api/v3/contacts/{target}" if target else "/api/v3/contacts"
        method = "PATCH" if kind is Kind.UPDATE else "POST"
        now = self.clock.now()
        return changes.Request(
            kind=kind,
            payload=Payload(attributes, **payload),
            target=target,
            contact_key="email",
            fingerprint=request_fingerprint(method, path, (), {**attributes}),
            token_name=token,
            idempotency_key=key,
            dedupe_window_s=window_s,
            now=now,
            now_text=to_text(now),
        )

    async def record(self, kind: Kind, attributes: Mapping[str, Any], **more: Any) -> Any:
        return await self.journal.record(self.request(kind, attributes, **more))

    async def create(self, email: str | None = None, **more: Any) -> Change:
        number = next(_numbers)
        attributes = {"email": email or f"person{number}@example.test", "firstName": f"N{number}"}
        payload = {"contact_type": "Member", **more}
        return (await self.record(Kind.CREATE, attributes, **payload)).change

    async def update(
        self, target: str, attributes: Mapping[str, Any] | None = None, **more: Any
    ) -> Change:
        attributes = {"city": f"Town{next(_numbers)}"} if attributes is None else attributes
        return (await self.record(Kind.UPDATE, attributes, target=target, **more)).change

    async def upgrade(self, target: str) -> Change:
        made = await self.record(
            Kind.UPGRADE, {"city": f"T{next(_numbers)}"}, target=target, contact_type="Member"
        )
        return made.change

    # --- as the dispatcher does ---------------------------------------------------------------

    async def claim(self, lane: int | Change) -> Claim | None:
        number = lane if isinstance(lane, int) else lane.contact.lane
        return await self.journal.claim(number)

    async def due(self, limit: int = 100) -> tuple[int, ...]:
        return await self.journal.due_lanes(limit)

    async def settle(
        self, claim: Claim | None, move: states.Move, **more: Any
    ) -> tuple[Change, ...]:
        assert claim is not None, "nothing could be claimed"
        outcomes = {"deliver": "delivered", "reject": "rejected", "lose": "unknown"}
        now = to_text(self.clock.now())
        attempt = Attempt(Route.API, outcomes.get(move.name, "deferred"), now, now)
        settlement = Settlement(move, attempt, **more)
        return await self.journal.settle(claim, settlement)

    async def deliver(self, lane: int | Change, contact_id: str | None = GUID) -> Claim:
        claim = await self.claim(lane)
        await self.settle(claim, states.DELIVER, contact_id=contact_id)
        assert claim is not None
        return claim

    async def reject(self, lane: int | Change, **more: Any) -> Claim:
        claim = await self.claim(lane)
        fault = Fault("ValidationError", "Engage says no.", 422)
        await self.settle(claim, states.REJECT, fault=fault, **more)
        assert claim is not None
        return claim

    async def defer(self, lane: int | Change, wait_s: float) -> Claim:
        claim = await self.claim(lane)
        await self.settle(claim, states.DEFER, due=self.clock.monotonic() + wait_s)
        assert claim is not None
        return claim

    async def retry(self, change: Change) -> Change:
        return await self.journal.write(partial(changes.retry, change_id=change.id))

    async def discard(self, change: Change) -> Change:
        return await self.journal.write(
            partial(
                changes.discard,
                change_id=change.id,
                reason="left the shop",
                now_text=to_text(self.clock.now()),
            )
        )

    # --- looking ------------------------------------------------------------------------------

    async def now(self, change: Change) -> Change:
        return await self.journal.read(partial(changes.find, change_id=change.id))

    async def state(self, change: Change) -> State:
        return (await self.now(change)).state

    async def attempts(self, change: Change) -> tuple[Attempt, ...]:
        return await self.journal.read(partial(changes.attempts, seq=change.seq))

    async def counts(self) -> dict[str, int]:
        return {str(state): n for state, n in (await self.journal.totals()).counts.items()}

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return await self.journal.read(
            lambda db: [tuple(row) for row in db.execute(query).fetchall()]
        )
