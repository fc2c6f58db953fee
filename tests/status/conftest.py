"""A real journal on disk, clocks that stand still, and fakes for what delivery hands in."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent import config as configuration
from agent.change import Change, Fault, Kind, Payload, Route, State
from agent.clock import to_text
from agent.errors import AgentError
from agent.intake.guard import WrongTokens
from agent.intake.server import ON_ANSWER, answer_problems
from agent.journal import changes, driver, states
from agent.journal.changes import Attempt, Request, Settlement
from agent.journal.database import Database
from agent.journal.journal import Journal
from agent.status.acting import Acting
from agent.status.calls import routes
from agent.status.page import Page
from agent.status.session import Sessions
from agent.status.signing import Signing
from agent.status.snapshot import Observer
from agent.status.stream import Stream

NOON = datetime(2026, 11, 21, 11, 0, tzinfo=UTC)  # 12:00 in Stockholm
TOML = """
[store]
id = "0042"
till = "3"
[engage]
base_url = "https://acme.voyado.com"
[journal]
path = "journal.db"
[sftp]
host = "ftp.voyado.com"
username = "acme"
password_file = "sftp_password"
known_hosts_file = "known_hosts"
directory = "/import"
"""


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.wall = NOON
        self.ticks = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.ticks += seconds


@dataclass
class FakeLink:
    state: str = "online"
    since: datetime = NOON
    reason: str | None = None
    heard_at: datetime | None = None


@dataclass
class FakeGate:
    state: str = "running"
    reason: str | None = None
    since: datetime | None = None
    asks: bool = False


@dataclass
class Till:
    """What a test turns: the parts around an observer."""

    config: configuration.Config
    clock: FakeClock
    journal: Journal
    link: FakeLink = field(default_factory=FakeLink)
    sftp: FakeLink = field(default_factory=FakeLink)
    gates: dict[Route, FakeGate] = field(
        default_factory=lambda: {route: FakeGate() for route in Route}
    )
    problems: list[str] = field(default_factory=list)
    last_delivery: str | None = None
    clock_ahead_s: float | None = None

    def observer(self) -> Observer:
        return Observer(
            self.config,
            self.journal,
            self.clock,
            self.link,
            self.sftp,
            self.gates,
            problems=lambda: self.problems,
            last_delivery=lambda: self.last_delivery,
            clock_ahead_s=lambda: self.clock_ahead_s,
        )

    async def sign_up(self, email: str) -> Change:
        request = Request(
            kind=Kind.CREATE,
            payload=Payload({"email": email, "firstName": "Sigrid"}, contact_type="Member"),
            target=None,
            contact_key="email",
            fingerprint=email,
            token_name="pos",
            idempotency_key=None,
            dedupe_window_s=0,
            now=self.clock.now(),
            now_text=to_text(self.clock.now()),
        )
        return (await self.journal.record(request)).change

    async def settle(self, change: Change, move: states.Move, fault: Fault | None = None) -> None:
        claim = await self.journal.claim(change.contact.lane)
        assert claim is not None
        now = to_text(self.clock.now())
        outcome = "delivered" if fault is None else "rejected"
        attempt = Attempt(Route.API, outcome, now, now, code=fault and fault.code)
        await self.journal.settle(claim, Settlement(move, attempt, fault=fault))

    async def deliver(self, change: Change) -> None:
        await self.settle(change, states.DELIVER)

    async def reject(self, change: Change, message: str, **more: Any) -> None:
        await self.settle(change, states.REJECT, Fault("ValidationError", message, **more))

    async def seal(self, name: str, sealed: Change) -> None:
        await self.journal.write(partial(_seal, name=name, change=sealed, now=self._now()))

    async def upload(self, name: str) -> None:
        from agent.journal import batches

        await self.journal.write(partial(batches.note_uploaded, name=name, now=self._now()))

    async def take_in(self, name: str, verify: str) -> None:
        from agent.journal import batches

        await self.journal.write(
            partial(batches.note_imported, name=name, now=self._now(), verify=verify)
        )

    def _now(self) -> str:
        return to_text(self.clock.now())


def _seal(db: Any, *, name: str, change: Change, now: str) -> None:
    from agent.journal import batches

    number = batches.next_number(db)
    member = batches.Member(
        lane=change.contact.lane,
        contact_id=None,
        contact_type="Member",
        key_value=None,
        changes=changes.open_of_lane(db, change.contact.lane),
    )
    batches.seal(db, number, name, with_id=False, members=[member], now=now)
    batches.note_written(db, number)


@pytest.fixture(autouse=True)
def stockholm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the till a time zone that is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Stockholm")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    (tmp_path / "agent.toml").write_text(TOML)
    config = configuration.load(tmp_path / "agent.toml")
    clock = FakeClock()
    database = Database(config.journal.path, driver.plain())
    # A test machine's disk may be fuller than the default allows.
    journal = Journal(database, clock, min_free_mb=0)
    await journal.open()
    yield Till(config, clock, journal)
    await journal.close()


Client = Callable[[Observer], Awaitable[Any]]
TOKEN = "the token of a POS"


class FakeTokens:
    """A tokens file with one token, until it is revoked."""

    def __init__(self) -> None:
        self.revoked = False

    def name_for(self, token: str) -> str | None:
        return self.name_for_digest(hashlib.sha256(token.encode()).hexdigest())

    def name_for_digest(self, digest: str) -> str | None:
        known = digest == hashlib.sha256(TOKEN.encode()).hexdigest()
        return "pos-1" if known and not self.revoked else None


@dataclass
class FakeDesk:
    """What a signed-in person does, noted; the journal stays as it is."""

    journal: Journal
    done: list[tuple[Any, ...]] = field(default_factory=list)
    error: AgentError | None = None

    async def rejected(self, limit: int, after: str | None) -> tuple[list[Change], str | None]:
        page = await self.journal.read(
            partial(changes.listing, state=State.REJECTED, limit=limit, after=after)
        )
        return list(page.items), page.next

    async def find(self, change_id: str) -> Change:
        return await self.journal.read(partial(changes.find, change_id=change_id))

    async def retry_change(self, change_id: str) -> Change:
        return await self._note("retry", change_id)

    async def discard_change(self, change_id: str, reason: str) -> Change:
        return await self._note("discard", change_id, reason)

    async def mend_change(self, change_id: str, data: Any, language: str) -> Change:
        return await self._note("mend", change_id, data, language)

    async def _note(self, what: str, change_id: str, *more: Any) -> Change:
        if self.error:
            raise self.error
        self.done.append((what, change_id, *more))
        return await self.find(change_id)

    async def seal(self) -> int:
        self.done.append(("seal",))
        return 1

    async def withdraw(self, name: str) -> None:
        if self.error:
            raise self.error
        self.done.append(("withdraw", name))

    async def send_again(self, name: str) -> int:
        self.done.append(("send again", name))
        return 2

    async def pause_route(self, route: str) -> None:
        self.done.append(("pause", route))

    async def resume_route(self, route: str) -> None:
        self.done.append(("resume", route))


@pytest.fixture
def tokens() -> FakeTokens:
    return FakeTokens()


@pytest.fixture
def desk(till: Till) -> FakeDesk:
    return FakeDesk(till.journal)


@pytest.fixture
async def serve(
    till: Till, tokens: FakeTokens, desk: FakeDesk, aiohttp_client: Any
) -> AsyncIterator[Client]:
    """Give a client of an application with the calls of an observer."""
    streams: list[Stream] = []

    wrong_tokens = WrongTokens(till.clock.monotonic)

    async def start(observer: Observer, *more: web.RouteDef) -> Any:
        sessions = Sessions(tokens, till.clock)
        page = Page(observer, sessions, till.config.store)
        signing = Signing(page, sessions, status_of=status_of, wrong_token=wrong_tokens.one_more)
        acting = Acting(page, sessions, signing, desk, till.clock.now)
        streams.append(Stream(observer))
        application = web.Application(middlewares=[answer_problems])
        application[ON_ANSWER] = lambda call, status, seconds: None
        application.add_routes([*routes(observer, page, signing, acting, streams[-1]), *more])
        return await aiohttp_client(application)

    start.streams = streams  # type: ignore[attr-defined]
    yield start
    for stream in streams:
        await stream.close()


def status_of(error: AgentError) -> int:
    return {"NotFound": 404, "Conflict": 409, "TooManyWrongTokens": 429}.get(error.code, 503)
