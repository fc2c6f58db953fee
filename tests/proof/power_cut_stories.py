"""What a till does while its power may fail: stories played in a process that is recorded.

`python tests/proof/power_cut_stories.py STORY FOLDER SEED`. The journal, the sealer and the spool
are the real ones. Each step is announced on standard output before it begins, and told when it has
ended: what was told is a promise.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from journal_helpers import Book, FakeClock
from sealing import SealingTill
from system_calls import NOTE
from world import World, lay_till

from agent.change import Change, Kind, State
from agent.errors import AgentError, JournalError
from agent.journal import changes, states
from agent.sandbox import Sandbox

# A few pages, so that a short story has many checkpoints; usually it is a thousand.
_CHECKPOINT_PAGES = 24
_STEPS = 28
_LIVES = 4

# As a change stands after the next start: state, and whether it may have happened at Engage.
Standing = tuple[str, bool]
WAITING, UNKNOWN = ("waiting", False), ("waiting", True)
DELIVERED, REJECTED, DISCARDED = ("delivered", False), ("rejected", False), ("discarded", False)


def say(**words: Any) -> None:
    """Tell whoever records this; a whole line in one call."""
    os.write(1, (NOTE + json.dumps(words) + "\n").encode())


def will(standings: Mapping[str, Standing | None]) -> None:
    """Announce how changes, by their Idempotency-Keys, may stand from now on; None is gone."""
    say(may=standings)


def did(standings: Mapping[str, Standing | None]) -> None:
    """Promise how changes stand from now on."""
    say(now=standings)


async def _prepare(book: Book) -> None:
    await _set(book, f"wal_autocheckpoint = {_CHECKPOINT_PAGES:d}")


async def _set(book: Book, pragma: str) -> None:
    await book.journal.database._writer.run(lambda db: db.execute(f"PRAGMA {pragma}").fetchall())


class Shop:
    """Customers come, a dispatcher works, a caretaker tidies up: chance says who is next."""

    def __init__(self, folder: Path, seed: int, driver: str = "sqlite") -> None:
        self.driver = driver
        self.chance = random.Random(seed)
        self.clock = FakeClock()
        self.path = folder / "journal.db"
        self.book = Book(self.path, self.clock, self.driver)
        self.known: dict[str, Change] = {}  # by Idempotency-Key
        self.stands: dict[str, Standing] = {}
        self.count = 0
        self.failed = False  # to store what a customer asked for

    async def open(self) -> None:
        self.book = await Book(self.path, self.clock, self.driver).open()
        await _prepare(self.book)
        for key, standing in self.stands.items():  # taken over as after any other end
            if standing == ("sending", True):
                self.stands[key] = UNKNOWN

    # --- customers ------------------------------------------------------------------------------

    async def sign_ups(self) -> None:
        await asyncio.gather(*(self._sign_up() for _ in range(self.chance.choice((1, 1, 2, 5)))))

    async def _sign_up(self) -> None:
        key = self._next()
        given = {"email": f"{key}@example.test", "note": "x" * self.chance.choice((5, 700, 4500))}
        await self._record(key, Kind.CREATE, given, None)

    async def updates(self) -> None:
        settled = [k for k, s in self.stands.items() if s == DELIVERED]
        if settled:
            contact = self.known[self.chance.choice(settled)].contact
            if not any(self._is_open(k) for k in self.known if self._lane(k) == contact.lane):
                key = self._next()
                await self._record(key, Kind.UPDATE, {"city": f"Town {key}"}, contact.ref)

    def _next(self) -> str:
        self.count += 1
        return f"key{self.count}"

    async def _record(
        self, key: str, kind: Kind, given: dict[str, Any], target: str | None
    ) -> None:
        say(asked=[key, kind, given, target])
        will({key: WAITING})
        try:
            recorded = await self.book.record(kind, given, target=target, key=key)
        except AgentError as error:
            say(failed=error.code)
            self.failed = True
            return
        self.known[key] = recorded.change
        self._did({key: WAITING})

    # --- the dispatcher -------------------------------------------------------------------------

    def _lane(self, key: str) -> int:
        return self.known[key].contact.lane

    def _is_open(self, key: str) -> bool:
        return self.stands.get(key, DELIVERED) not in (DELIVERED, DISCARDED)

    def _did(self, standings: Mapping[str, Standing]) -> None:
        self.stands.update(standings)
        did(standings)

    async def delivers(self) -> None:
        waiting = [k for k, s in self.stands.items() if s[0] == "waiting"]
        if not waiting:
            return
        key = self.chance.choice(waiting)
        will({key: UNKNOWN})
        claim = await self.book.claim(self._lane(key))
        assert claim is not None and [each.id for each in claim.changes] == [self.known[key].id]
        self._did({key: UNKNOWN})  # from here on it may be at Engage
        move, then = self.chance.choice(
            (
                (states.DELIVER, DELIVERED),
                (states.DELIVER, DELIVERED),
                (states.DEFER, WAITING),
                (states.LOSE, UNKNOWN),
                (states.REJECT, REJECTED),
            )
        )
        will({key: then})
        more = {"contact_id": _guid(key)} if move is states.DELIVER else {}
        if self.known[key].kind is not Kind.CREATE:
            more = {}
        await self.book.settle(claim, move, unknown=then == UNKNOWN, **more)
        self._did({key: then})

    async def gives_up(self) -> None:
        if rejected := [k for k, s in self.stands.items() if s == REJECTED]:
            key = self.chance.choice(rejected)
            again = self.chance.random() < 0.5
            then = WAITING if again else DISCARDED
            will({key: then})
            await (self.book.retry if again else self.book.discard)(self.known[key])
            self._did({key: then})

    # --- the caretaker --------------------------------------------------------------------------

    async def marks(self) -> None:
        await self.book.journal.leave_mark()

    async def scrubs(self) -> None:
        await self.book.journal.scrub()

    async def vacuums(self) -> None:
        assert await self.book.journal.database.rewrite()

    async def prunes(self) -> None:
        final = [k for k, s in self.stands.items() if s in (DELIVERED, DISCARDED)]
        will(dict.fromkeys(final))
        await self.book.journal.write(partial(changes.prune, before="2027", limit=3))
        rows = await self.book.rows("SELECT idempotency_key FROM changes")
        left = {str(row[0]) for row in rows}
        for key in set(final) - left:
            del self.stands[key]
        did({key: self.stands.get(key) for key in final})

    async def restarts(self) -> None:
        await self.book.close()
        await self.open()

    # --- all of it ------------------------------------------------------------------------------

    async def play(self, steps: int) -> None:
        """Open the journal, do something many times, and stop as if killed."""
        doings: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self.sign_ups),
            (4, self.updates),
            (9, self.delivers),
            (2, self.gives_up),
            (1, self.marks),
            (1, self.scrubs),
            (1, self.vacuums),
            (1, self.prunes),
            (1, self.restarts),
        ]
        weights, works = zip(*doings, strict=True)
        await self.open()
        # Each of them at least once, whatever chance says.
        plan = [*works, *self.chance.choices(works, weights, k=steps)]
        for work in (self.sign_ups, self.delivers, *plan):
            await work()


def _guid(key: str) -> str:
    return f"0b1c2d3e-4f50-4617-8293-{int(key.removeprefix('key')):012x}"


async def shop(folder: Path, seed: int) -> None:
    """Take, deliver and tidy up."""
    await Shop(folder, seed).play(_STEPS)


class FailingShop(Shop):
    """A shop whose disk fails now and then: the same process goes on, or is killed for it."""

    def __init__(self, folder: Path, seed: int, life: int) -> None:
        super().__init__(folder, seed)
        self.chance.seed(seed * _LIVES + life)
        self.count = 1000 * life  # keys that no earlier life used
        self._seed, self._life = seed, life

    async def open(self) -> None:
        while True:
            try:
                await super().open()
                break
            except JournalError as error:
                say(failed=error.code)
                await self.book.close()
        await self._look()

    async def sign_ups(self) -> None:
        await self._whatever_happens(super().sign_ups)

    async def updates(self) -> None:
        await self._whatever_happens(super().updates)

    async def delivers(self) -> None:
        await self._whatever_happens(super().delivers)

    async def _whatever_happens(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
            failed = False
        except AgentError as error:
            failed = True
            say(failed=error.code)
        if (failed or self.failed) and self._life < _LIVES and self.chance.random() < 0.6:
            # As a kill: nothing is closed, and what the kernel has in memory stays as it is.
            again = (*sys.argv[:4], str(self._life + 1))
            os.execv(sys.executable, (sys.executable, *again))
        if failed:
            await self._look()
        self.failed = False

    async def _look(self) -> None:
        """See how everything stands that is not known after a failure."""

        def look(db: Any) -> list[tuple[str, Change]]:
            rows = db.execute("SELECT idempotency_key, id FROM changes").fetchall()
            return [(key, changes.find(db, change_id)) for key, change_id in rows]

        while True:
            try:
                found = await self.book.journal.write(look)  # which opens it anew, where need be
                break
            except JournalError as error:
                say(failed=error.code)
        for key, change in found:
            self.known[key] = change
            self.stands[key] = (str(change.state), change.unknown)

    async def play(self, steps: int) -> None:
        """Open the journal, and sign up and deliver many times."""
        await self.open()
        for _ in range(steps):
            await self.chance.choice((self.sign_ups, self.delivers, self.updates))()


async def failing(folder: Path, seed: int) -> None:
    """Take and deliver while syncs fail now and then, in several lives."""
    life = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    await FailingShop(folder, seed, life).play(_STEPS)


async def encrypted(folder: Path, seed: int) -> None:
    """The same with a journal that is encrypted."""
    await Shop(folder, seed, "sqlcipher").play(_STEPS // 2)


class CarelessShop(Shop):
    """A shop whose journal does not sync."""

    async def open(self) -> None:
        await super().open()
        await _set(self.book, "synchronous = OFF")


async def careless(folder: Path, seed: int) -> None:
    """What must be found out, or else the judges are blind."""
    await CarelessShop(folder, seed).play(_STEPS)


async def files(folder: Path, seed: int) -> None:
    """Seal batches, write their files, and take them to the server."""
    chance = random.Random(seed)
    till = SealingTill(folder)
    await till.book.open()
    await _prepare(till.book)
    ready: list[str] = []  # their files are not uploaded yet
    for _ in range(3):
        made: dict[str, Change] = {}
        for number in range(chance.randint(1, 6)):
            key = f"key{till.clock.seconds:.0f}-{number}"
            given = {"email": f"{key}@example.test", "note": "x" * chance.choice((5, 3000))}
            say(asked=[key, Kind.CREATE, given, None])
            will({key: WAITING})
            recorded = await till.book.record(
                Kind.CREATE, given, key=key, contact_type="Member", source="POS"
            )
            made[key] = recorded.change
            did({key: WAITING})
        batched = dict.fromkeys(made, (str(State.BATCHED), False))
        will(batched)
        await till.seal_only()
        did(batched)
        await till.turn(after_s=20)
        ready += made
        if chance.random() < 0.7:
            uploaded = dict.fromkeys(ready, (str(State.UPLOADED), False))
            will(uploaded)
            await till.upload()
            did(uploaded)
            ready.clear()
        till.clock.pass_s(7)


async def upgrade(folder: Path, seed: int) -> None:
    """Open a journal of the first version."""
    book = await Book(folder / "journal.db", FakeClock()).open()
    say(upgraded=True)
    await book.close()


# After a restart the agent trusts no "not found" before create_timeout_s is over.
AGENT_SETTINGS = {"engage": {"create_timeout_s": 1.0, "timeout_s": 5.0}}


async def agent(folder: Path, seed: int) -> None:
    """Sign customers up at a whole agent, which delivers them to an Engage in the same process."""
    chance = random.Random(seed)
    async with (
        Sandbox(folder.with_name("sandbox"), import_every_s=0, rate_limit=0) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        tell_of_contacts(sandbox)
        world = await World(sandbox, lay_till(sandbox, folder, AGENT_SETTINGS), session).start()
        for number in range(8):
            await asyncio.gather(
                *(_ask(world, f"key{number}-{each}") for each in range(chance.choice((1, 1, 3))))
            )


def tell_of_contacts(sandbox: Sandbox) -> None:
    """Tell of each contact that Engage makes, before it answers."""
    create = sandbox._register.create

    def telling(*args: Any, **more: Any) -> Any:
        contact = create(*args, **more)
        say(made=contact.attributes["email"])
        return contact

    sandbox._register.create = telling  # type: ignore[method-assign]


async def _ask(world: World, key: str) -> None:
    given = {"email": f"{key}@example.test", "city": f"Town {key}"}
    say(asked=[key, Kind.CREATE, given, None])
    will({key: WAITING})
    status, answer, headers = await world.pos.call(
        "POST", "/api/v3/contacts", given, Idempotency_Key=key, Prefer="wait=2"
    )
    assert status in (200, 201, 202), answer
    say(answered=[key, headers["Agent-Change"]])


STORIES = {
    "agent": agent,
    "shop": shop,
    "encrypted": encrypted,
    "failing": failing,
    "files": files,
    "upgrade": upgrade,
    "careless": careless,
}


def main() -> None:
    """Play a story and end as a kill does."""
    name, folder, seed = sys.argv[1:4]
    asyncio.run(_play_and_die(STORIES[name](Path(folder), int(seed))))


async def _play_and_die(story: Awaitable[None]) -> None:
    try:
        await story
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # connections that are open would hold it up for ever
    os._exit(0)


if __name__ == "__main__":
    main()
