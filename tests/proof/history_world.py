"""A history: a real agent with its journal on disk, a real sandbox, people, faults and kills.

What is acknowledged is written down beside the agent. In the end the world heals, everything must
drain, and what Engage holds must be what was acknowledged, once and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import structlog
from history_folder import DEAD, SANDBOXES, FolderSession
from history_steps import FAULTS, PEOPLE, SETUP, Step, numbered, step
from virtual_time import VirtualClock, VirtualLoop, sqlite_on_the_loop

from agent import config
from agent.assembly import Agent
from agent.change import Change
from agent.delivery.batch import sftp
from agent.delivery.batch.document import Element
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.writing import Writer
from agent.journal import batches, changes, journal
from agent.journal.batches import Batch
from agent.journal.driver import Connection
from agent.sandbox import Sandbox
from agent.trial import Till, write_till

CONTACTS = "/api/v3/contacts"
# Virtual. An outage's waits, a whole grace of look-ups, and a person's retries fit well into it.
DRAINS_WITHIN_S = 3 * 3600.0
_ASKS_AGAIN_S = 1.0
_PATIENCE_S = 60.0
_BUGS = ("loop_bug", "dispatcher_bug", "request_bug", "settle_failed", "journal_trouble")
# Only what the import was told to leave out may be refused: everything asked for is right.
_SKIPPED = ("ImportSkipped", "ImportDiffers", "FileSkipped")


@dataclass
class Asked:
    """One request of the POS, and what became of it."""

    kind: str
    method: str
    path: str
    body: dict[str, Any]
    key: str | None
    sets: dict[str, Any]  # attribute → value, None for cleared
    change: str | None = None  # acknowledged


@dataclass
class Person:
    """A customer as the POS knows them; one request at a time."""

    number: int
    email: str
    type: str
    asked: list[Asked] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)  # as answered, ref and GUID
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    renames: int = 0


W = TypeVar("W", bound="HistoryWorld")


class BrokenError(AssertionError):
    """A promise was broken."""


class HistoryWorld:
    """Everything of one history. All of it lives on one virtual loop."""

    def __init__(self, folder: Path, setup: Mapping[str, Any], seed: int, loop: VirtualLoop):
        self.folder = folder
        self.setup = dict(setup)
        self.seed = seed
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.boot = 0
        self.broken: list[str] = []
        self.log: list[str] = []
        self.skips = False  # the import was told to leave something out
        self.withdrawn: set[str] = set()  # files that the agent says are taken back
        self.people = [
            Person(
                number,
                f"person{number}@example.test",
                "Contact" if number == PEOPLE - 1 else "Member",
            )
            for number in range(PEOPLE)
        ]
        self._values = 0
        self._runs = 0
        self._agent: Agent | None = None
        self._is_up = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._burials: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        self.loop.set_exception_handler(self._note_exception)
        self.sandbox = await self._stack.enter_async_context(
            Sandbox(
                self.folder / "sandbox",
                import_every_s=self.setup["import_every_s"],
                rate_limit=0,
                bulk_delay_s=self.setup["bulk_delay_s"],
                seed=self.seed,
            )
        )
        SANDBOXES[self.sandbox.sftp_port] = self.sandbox
        self._stack.callback(SANDBOXES.pop, self.sandbox.sftp_port)
        self._watch_order()
        self._watch_imports()
        self._modify()
        for person in self.people[: self.setup["known"]]:
            self.sandbox.seed(email=person.email, contactType=person.type, lastName="Known")
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        )
        self._till = self._write_till()
        await self._start()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._agent is not None:
            await self._agent.stop()
        await asyncio.gather(*self._burials)
        await self._stack.aclose()

    def _write_till(self) -> Till:
        return write_till(
            self.folder / "till0",
            engage_url=self.sandbox.engage_url,
            api_key=self.sandbox.api_key,
            sftp_host=self.sandbox.sftp_host,
            sftp_port=self.sandbox.sftp_port,
            sftp_username=self.sandbox.sftp_username,
            sftp_password=self.sandbox.sftp_password,
            sftp_directory=self.sandbox.import_directory,
            host_key_line=self.sandbox.host_key_line,
            settings=self._settings(),
        )

    def _settings(self) -> dict[str, dict[str, Any]]:
        setup = self.setup
        return {
            "engage": {
                "create_timeout_s": 11,
                "timeout_s": 20,
                "max_requests_per_s": 20,
                "backlog_requests_per_s": 5,
            },
            "retry": {"waits_s": [2, 5, 10, 30], "api_attempts": setup["api_attempts"]},
            "link": {"offline_after": 3, "probe_s": 5},
            "fallback": {
                "transport": setup["transport"],
                "seal_after_s": setup["seal_after_s"],
                "api_drain_max": setup["api_drain_max"],
                "import_grace_s": setup["import_grace_s"],
                "max_contacts": min(setup["max_contacts"], 4000),
            },
            "sftp": {"poll_s": 10, "timeout_s": 15},
        }

    async def _start(self) -> None:
        self._agent = Agent(config.load(self._till.config_path), self.clock)
        await self._agent.start()
        self._is_up.set()

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    def _note_exception(self, _: Any, context: Mapping[str, Any]) -> None:
        is_task = isinstance(context.get("future"), asyncio.Task)
        if not is_task and isinstance(context.get("exception"), aiohttp.ClientError | OSError):
            return  # inside aiohttp, of a connection that a kill cut
        self.broken.append(f"{context.get('message')}: {context.get('exception')!r}")

    def note_event(self, name: str, event: Mapping[str, Any]) -> None:
        """Hear what the agent logs."""
        told = [f"{key}={value}" for key, value in event.items() if key != "exception"]
        self.tell(f"  {name} {' '.join(told)}")
        if name in _BUGS:
            self.broken.append(f"{name}: {dict(event)}")

    def tell(self, text: str) -> None:
        self.log.append(f"{self.loop.elapsed:9.3f} {text}")

    # --- the order of what arrives ------------------------------------------------------------

    def _watch_order(self) -> None:
        """Values are numbered as they are asked for; at Engage they must never go back."""
        register = self.sandbox._register
        apply = register.apply

        def watched(contact: Any, written: Any) -> Any:
            for name, value in written.attributes.items():
                before = contact.attributes.get(name)
                if _number(before) > _number(value) > 0:
                    self.broken.append(f"order: {name} went from {before} back to {value}")
            self.tell(f"    engage: {contact.contact_id[:4]} {written.attributes}")
            return apply(contact, written)

        register.apply = watched  # type: ignore[method-assign]
        add = register._add

        def added(contact_type: Any, written: Any, *rest: Any) -> Any:
            self.tell(f"    engage: new {contact_type} {written.attributes}")
            return add(contact_type, written, *rest)

        register._add = added  # type: ignore[method-assign]

    def _watch_imports(self) -> None:
        """What was taken back must not be imported, whoever is slow."""
        importer = self.sandbox._importer
        take = importer.take

        async def watched(path: Path) -> bool:
            was_withdrawn = path.name in self.withdrawn
            taken = await take(path)
            if taken:
                self.tell(f"    engage: imported {path.name}")
                if was_withdrawn:
                    self.broken.append(f"imported although it was taken back: {path.name}")
            return taken

        importer.take = watched  # type: ignore[method-assign]

    def _modify(self) -> None:
        if self.setup["not_unique"]:
            self.sandbox.set_fault("not_unique")

    # --- steps --------------------------------------------------------------------------------

    async def do(self, step: Step) -> None:
        self.tell(repr(step))
        await getattr(self, f"_{step.name}")(**step.given)

    async def _sign_up(
        self,
        person: int,
        names: Sequence[str],
        keyed: bool,
        wait: str,
        patient: bool,
        loud: bool,
        unapproved: bool,
    ) -> None:
        async def ask(who: Person) -> None:
            sets = self._new_values(names)
            body = {"email": who.email.upper() if loud else who.email, "contactType": who.type}
            path = CONTACTS + ("?createAsUnapproved=true" if unapproved else "")
            asked = Asked("create", "POST", path, {**body, **sets}, self._key(keyed), sets)
            await self._ask(who, asked, wait)

        await self._begin(person, ask, patient)

    async def _update(
        self, person: int, names: Sequence[str], keyed: bool, wait: str, patient: bool, by: int
    ) -> None:
        async def ask(who: Person) -> None:
            if who.ids:
                sets = self._new_values(names)
                asked = Asked("update", "PATCH", _path(who, by), sets, self._key(keyed), sets)
                await self._ask(who, asked, wait)

        await self._begin(person, ask, patient)

    async def _clear(self, person: int, names: Sequence[str], by: int) -> None:
        async def ask(who: Person) -> None:
            if who.ids:
                path = f"{_path(who, by)}?clear={','.join(names)}"
                sets = dict.fromkeys(names)
                await self._ask(who, Asked("update", "PATCH", path, {}, self._key(True), sets))

        await self._begin(person, ask, True)

    async def _rename(self, person: int, patient: bool, by: int) -> None:
        async def ask(who: Person) -> None:
            if who.ids:
                who.renames += 1
                email = f"person{who.number}.{who.renames}@example.test"
                sets = {"email": email}
                asked = Asked("update", "PATCH", _path(who, by), sets, self._key(True), sets)
                await self._ask(who, asked)
                who.email = email

        await self._begin(person, ask, patient)

    async def _upgrade(self, person: int, names: Sequence[str], patient: bool, by: int) -> None:
        async def ask(who: Person) -> None:
            if who.ids:
                sets = self._new_values(names)
                path = f"{_path(who, by)}/updateContactType?contactTypeId=Member"
                await self._ask(who, Asked("upgrade", "POST", path, sets, self._key(True), sets))
                who.type = "Member"

        await self._begin(person, ask, patient)

    async def _look_up(self, person: int) -> None:
        async def ask(who: Person) -> None:
            known = [each for each in who.asked if each.change]
            status, body, _ = await self._call("GET", f"{CONTACTS}/id?email={who.email}")
            if status == 404 and known and not await self._has_rejected(known):
                self.broken.append(f"404 for {who.email}, which was signed up: {body}")
            if status == 200 and body not in who.ids:
                who.ids.append(body)

        await self._begin(person, ask, False)

    async def _repeat(self, person: int) -> None:
        async def ask(who: Person) -> None:
            if not who.asked or (last := who.asked[-1]).change is None:
                return
            status, _, headers = await self._call(
                last.method, last.path, last.body, key=last.key, wait="0"
            )
            replayed = headers.get("Agent-Change") == last.change
            if last.key is not None and not replayed:
                self.broken.append(f"a repeat with the same key was answered {status} as another")

        await self._begin(person, ask, True)

    async def _elapse(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _fault(self, which: int) -> None:
        kind, given = FAULTS[which]
        self.tell(f"  {kind} {given}")
        self.skips |= kind in ("skips", "skips_file")
        self.sandbox.set_fault(kind, **given)

    async def _heal(self) -> None:
        self.sandbox.clear_faults()
        self._modify()

    async def _line(self, up: bool) -> None:
        if up:
            self.sandbox.up()
        else:
            self.sandbox.down()

    async def _stop(self, down_s: float) -> None:
        agent, self._agent = self.agent, None
        self._is_up.clear()
        await agent.stop()
        await asyncio.sleep(down_s)
        await self._start()

    async def _leap(self, seconds: float) -> None:
        self.clock.leap(seconds)

    async def _pause(self, route: str) -> None:
        await self._call("POST", f"/agent/v1/routes/{route}/pause")

    async def _resume(self, route: str) -> None:
        await self._call("POST", f"/agent/v1/routes/{route}/resume")

    async def _seal(self) -> None:
        await self._call("POST", "/agent/v1/batches/seal")

    async def _import_now(self) -> None:
        await self.sandbox.import_now()

    async def _withdraw(self, which: int) -> None:
        under_way = [
            each
            for each in (await self._call("GET", "/agent/v1/batches?limit=200"))[1]["items"]
            if each["state"] in ("sealed", "written", "uploaded")
        ]
        if not under_way:
            return
        name = under_way[which % len(under_way)]["name"]
        path = f"/agent/v1/batches/{name}/withdraw"
        status, body, _ = await self._call("POST", path, once=True)
        self.tell(f"  withdrawn: {status}")
        if status == 200:
            self.withdrawn.add(name)
        elif body and body["errorCode"] not in ("Conflict", "NotWithdrawn"):
            self.broken.append(f"withdrawing was answered {status} {body}")

    async def _retry_file(self, which: int) -> None:
        skipped = [
            each
            for each in (await self._call("GET", "/agent/v1/batches?limit=200"))[1]["items"]
            if each["skippedAt"]
        ]
        if skipped:
            name = skipped[which % len(skipped)]["name"]
            await self._call("POST", f"/agent/v1/batches/{name}/retry")

    async def _kill(self, after_s: float, power: bool, down_s: float) -> None:
        await asyncio.sleep(after_s)
        self._die()
        if power:
            self.boot += 1
            self.clock.boot()
        await asyncio.sleep(down_s)
        await self._start()

    def _die(self) -> None:
        """Between two turns of the loop: nothing goes out any more, and the disk is as it is."""
        agent, self._agent = self.agent, None
        self._is_up.clear()
        runner = agent.server._runner
        for site in runner.sites:
            site._server.close()  # type: ignore[attr-defined]
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        session, agent.client._session = agent.client._session, None
        assert session is not None and session.connector is not None
        session.connector._close()
        if hasattr(agent.uploader, "_server"):
            DEAD.append(agent.uploader._server._account)
        self._runs += 1
        left = self._till.folder
        folder = self.folder / f"till{self._runs}"
        shutil.copytree(left, folder, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self._till = Till(folder, folder / "agent.toml", self._till.token)
        self._burials.append(asyncio.create_task(self._bury(agent, session, left)))

    async def _bury(self, agent: Agent, session: aiohttp.ClientSession, left: Path) -> None:
        with contextlib.suppress(Exception):
            await agent.stop()
        await session.close()
        shutil.rmtree(left, ignore_errors=True)

    # --- the POS ------------------------------------------------------------------------------

    def _new_values(self, names: Sequence[str]) -> dict[str, Any]:
        self._values += 1
        return {name: f"{self._values:05d} {name}" for name in names}

    def _key(self, keyed: bool) -> str | None:
        self._values += 1
        return f"key-{self._values}" if keyed else None

    async def _begin(self, person: int, ask: Any, patient: bool) -> None:
        who = self.people[person]

        async def in_turn() -> None:
            async with who.turn:
                await ask(who)

        task = asyncio.create_task(in_turn())
        self._asking.add(task)
        task.add_done_callback(self._asked)
        if patient:
            await asyncio.wait({task}, timeout=_PATIENCE_S)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.append(f"the POS: {error!r}")

    async def _ask(self, who: Person, asked: Asked, wait: str = "0") -> None:
        """Ask until it is acknowledged, as POS software does."""
        who.asked.append(asked)
        status, body, headers = await self._call(
            asked.method, asked.path, asked.body, key=asked.key, wait=wait
        )
        if status >= 300:
            if not self.skips and "Agent-Change" in headers:
                self.broken.append(f"refused: {status} {body}")
            if "Agent-Change" not in headers:
                self.broken.append(f"not taken: {status} {body}")
                return
        asked.change = headers["Agent-Change"]
        self.tell(f"  answered {status} {asked.change[-4:]} for {asked.sets}")
        for each in (body.get("agent", {}).get("ref"), body.get("id")):
            if status < 300 and each and each not in who.ids:
                who.ids.append(each)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        wait: str = "0",
        once: bool = False,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Call until there is an answer; an agent that died meanwhile is asked again.

        `once`: a person asks, who takes any answer, and none too (0), as long as it takes.
        """
        headers = {"apikey": self._till.token}
        headers["Prefer"] = "respond-async" if wait == "0" else f"wait={wait}"
        if key is not None:
            headers["Idempotency-Key"] = key
        while True:
            await self._is_up.wait()
            agent = self._agent
            if agent is None:
                continue
            began = self.loop.time()
            try:
                async with self._session.request(
                    method, agent.url + path, json=body, headers=headers
                ) as response:
                    text = await response.text()
                    took_s = self.loop.time() - began
                    if took_s > float(wait) + 5.0 and method != "GET" and not once:
                        self.broken.append(f"answered only after {took_s:.1f} s")
                    if response.status != 503 or method == "GET" or once:
                        return response.status, json.loads(text or "null"), response.headers
            except (aiohttp.ClientError, OSError):
                if once:
                    return 0, None, {}
            await asyncio.sleep(_ASKS_AGAIN_S)

    async def _has_rejected(self, asked: Sequence[Asked]) -> bool:
        found = [await self.change(each.change) for each in asked if each.change]
        return any(change.state in ("rejected", "discarded") for change in found)

    async def change(self, change_id: str) -> Change:
        return await self.agent.journal.read(partial(changes.find, change_id=change_id))

    # --- the end ------------------------------------------------------------------------------

    async def heal_and_check(self) -> None:
        """Let the world heal, wait until everything is where it belongs, and compare."""
        self.tell("--- the world heals")
        await self._heal()
        self.sandbox.up()
        for route in ("api", "file"):
            await self._resume(route)
        while self._asking:
            await asyncio.wait(self._asking)
        await self._drain()
        await self._check_changes()
        for person in self.people:
            await self._check_person(person)
        duplicates = self.sandbox.counts()["duplicates"]
        if duplicates:
            self.broken.append(f"{duplicates} duplicates at Engage")
        self.raise_broken()

    def raise_broken(self) -> None:
        if self.broken:
            raise BrokenError("; ".join(dict.fromkeys(self.broken)))

    async def _drain(self) -> None:
        retried: dict[str, int] = {}
        began = self.loop.time()
        while True:
            everything = await self.agent.journal.read(_all)
            still = [change for change in everything if not _is_settled(change)]
            if not still:
                self.tell(f"drained after {self.loop.time() - began:.0f} s")
                return
            for change in still:
                if change.state == "rejected" and retried.get(change.id, 0) < 5:
                    retried[change.id] = retried.get(change.id, 0) + 1
                    self._note_rejected(change)
                    await self._call("POST", f"/agent/v1/changes/{change.id}/retry")
            if self.loop.time() - began > DRAINS_WITHIN_S or any(n >= 5 for n in retried.values()):
                self.broken.append(f"never drains: {[_said(change) for change in still]}")
                return
            await asyncio.sleep(5.0)

    def _note_rejected(self, change: Change) -> None:
        code = change.error.code if change.error else None
        if not (self.skips and code in _SKIPPED):
            self.broken.append(f"rejected without a cause: {_said(change)}")

    async def _check_changes(self) -> None:
        """I1: whatever was acknowledged is there."""
        there = {change.id for change in await self.agent.journal.read(_all)}
        for person in self.people:
            for asked in person.asked:
                if asked.change is None:
                    self.broken.append(f"never answered: {asked}")
                elif asked.change not in there:
                    self.broken.append(f"gone: {asked}")

    async def _check_person(self, person: Person) -> None:
        """I2 and I3: one contact, with what was asked for last."""
        if not person.asked:
            return
        expected: dict[str, Any] = {}
        for asked in person.asked:
            expected.update(asked.sets)
        found = self.sandbox.find("email", person.email)
        if len(found) != 1:
            self.broken.append(f"{len(found)} contacts for {person.email}")
            return
        expected.pop("email", None)  # by that it was found
        got = {name: found[0]["attributes"].get(name) for name in expected}
        if got != expected:
            self.broken.append(f"{person.email}: Engage has {got}, asked for was {expected}")
        if found[0]["meta"]["contactType"] != person.type:
            self.broken.append(f"{person.email} is not a {person.type}")


def _all(db: Connection) -> list[Change]:
    found: list[Change] = []
    after: str | None = None
    while True:
        page = changes.listing(db, None, 200, after)
        found += page.items
        if page.next is None:
            return found
        after = page.next


def _is_settled(change: Change) -> bool:
    return change.state in ("delivered", "confirmed", "discarded")


def _said(change: Change) -> str:
    error = change.error.code if change.error else None
    return f"{change.kind} {change.id[-4:]} {change.state} {error} unknown={change.unknown}"


def _path(who: Person, by: int) -> str:
    return f"{CONTACTS}/{who.ids[by % len(who.ids)]}"


def _number(value: Any) -> int:
    head = str(value).partition(" ")[0] if value is not None else ""
    return int(head) if len(head) >= 5 and head.isdigit() else 0


def _elements(self: Writer, batch: Batch, _: Any) -> Iterator[Element]:
    """Give a batch's elements at once: there is no thread that could wait for the loop."""
    reader = self._journal.database._reader
    assert reader is not None
    for entry in batches.entries(reader._conn, batch.number, 0, batch.contacts):
        yield element_of(entry, self._config.engage.contact_key)


# --- running ------------------------------------------------------------------------------------


@contextlib.contextmanager
def history(
    folder: Path,
    setup: Mapping[str, Any],
    seed: int = 0,
    world_type: type[W] = HistoryWorld,  # type: ignore[assignment]
) -> Iterator[tuple[VirtualLoop, W]]:
    """Give a loop and an open world on it; both are gone afterwards, whatever happened."""
    state = random.getstate()
    random.seed(seed)  # the agent's jitter
    loop = VirtualLoop(seed)
    asyncio.set_event_loop(loop)
    configured = structlog.get_config()
    with pytest.MonkeyPatch.context() as patch, sqlite_on_the_loop():
        world = world_type(folder, setup, seed, loop)

        def hear(_: Any, __: str, event: Any) -> Any:
            world.note_event(event.pop("event"), event)
            raise structlog.DropEvent

        structlog.configure(processors=[hear])
        patch.setattr(sftp, "_Session", FolderSession)
        patch.setattr(Writer, "_elements", _elements)
        patch.setattr(journal, "_machine_boot", lambda: f"boot {world.boot}")
        try:
            loop.run_until_complete(world.open())
            yield loop, world
        finally:
            try:
                loop.run_until_complete(world.close())
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
                structlog.configure(**configured)
                random.setstate(state)


def play(folder: Path, setup: Mapping[str, Any], steps: Sequence[Step], seed: int = 0) -> list[str]:
    """Play a history to its end and give its log. Raises BrokenError, with the log as a note."""
    with history(folder, setup, seed) as (loop, world):
        try:
            for each in steps:
                loop.run_until_complete(world.do(each))
                world.raise_broken()
            loop.run_until_complete(world.heal_and_check())
        except BaseException as error:
            error.add_note("\n".join(world.log))
            raise
        return world.log


def play_number(folder: Path, number: int) -> list[str]:
    """Play a numbered history."""
    setup, steps = numbered(number)
    try:
        return play(folder, setup, steps, number)
    except BaseException as error:
        error.add_note(f"To play it again: python tests/proof --play {number}")
        raise


def outcome_of(number: int) -> tuple[int, str | None]:
    """Play a numbered history in a folder of its own; gives what broke, or None."""
    with tempfile.TemporaryDirectory(prefix="history-") as folder:
        try:
            play_number(Path(folder), number)
        except Exception as error:
            return number, f"{type(error).__name__}: {error}"
    return number, None


# --- telling ------------------------------------------------------------------------------------

Tell = Callable[[HistoryWorld], Awaitable[None]]


def told(folder: Path, tell: Tell, **setup: Any) -> None:
    """Tell a story in a history's world; then the world heals, and everything must be right."""
    usual = {name: values[0] for name, values in SETUP.items()}
    with history(folder, {**usual, **setup}) as (loop, world):
        loop.run_until_complete(tell(world))
        loop.run_until_complete(world.heal_and_check())


async def offline(world: HistoryWorld) -> None:
    """Take the line down and let the agent notice."""
    await world.do(step("line", up=False))
    for _ in range(3):
        await world.do(step("look_up", person=2))
        await world.do(step("elapse", seconds=0.3))
