"""Cuts the power of a till at every system call of a recorded story, and judges what is left.

A simulation of the disk (lost_power.py), with the system calls of a real process
(system_calls.py) and the real journal, sealer and spool before and after the cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import power_cut_stories
import structlog
from journal_helpers import Book, FakeClock
from lost_power import Disk, State
from power_cut_stories import AGENT_SETTINGS, Standing
from sealing import SealingTill
from system_calls import Event, Noted, Renamed, injecting, record
from world import World, lay_till

from agent.change import Kind, Payload
from agent.journal import changes, migrating
from agent.sandbox import Sandbox

STORY = Path(power_cut_stories.__file__)
_ROOT = Path(__file__).parents[2]
_IN_MEMORY = Path("/dev/shm")  # where there is one: each disk is looked at once


class Lost(AssertionError):
    """A cut that took what was promised, or left something half done."""


# --- what was promised ------------------------------------------------------------------------


@dataclass
class Promises:
    """What a story has told so far."""

    # By Idempotency-Key: how a change stands, or, while something is under way, may stand.
    allowed: dict[str, list[Standing | None]] = field(default_factory=dict)
    asked: dict[str, tuple[str, dict[str, Any], str | None]] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)  # to the id of the change
    made: list[str] = field(default_factory=list)  # who is in Engage, by e-mail

    def take(self, note: str) -> None:
        words = json.loads(note)
        if "asked" in words:
            key, *asked = words["asked"]
            self.asked[key] = tuple(asked)
            self.allowed.setdefault(key, [None])
        if "answered" in words:
            key, change_id = words["answered"]
            self.answered[key] = change_id
        if "made" in words:
            self.made.append(words["made"])
        for key, standing in words.get("may", {}).items():
            self.allowed.setdefault(key, [None]).append(_standing(standing))
        for key, standing in words.get("now", {}).items():
            self.allowed[key] = [_standing(standing)]


def _standing(words: Any) -> Standing | None:
    return None if words is None else (str(words[0]), bool(words[1]))


# --- recording --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """A story as it was played: what stood there before, what was done, which files came out."""

    name: str
    folder: Path
    before: Mapping[str, bytes]
    events: Sequence[Event]

    def play(self) -> Iterator[tuple[Disk, Promises]]:
        """Give disk and promises after each system call."""
        disk, promises = Disk(self.folder, self.before), Promises()
        for event in self.events:
            disk.take(event)
            if isinstance(event, Noted):
                promises.take(event.text)
            yield disk, promises

    def batches(self) -> dict[str, bytes]:
        """Give the batch files of the story, as they were when they got their names."""
        disk = Disk(self.folder, self.before)
        found = {}
        for event in self.events:
            disk.take(event)
            if isinstance(event, Renamed) and event.new.endswith(".xml"):
                found[Path(event.new).name] = disk.live()[event.new]
        return found


def recorded(story: str, folder: Path, seed: int) -> Recording:
    """Play a story in a process of its own, in a new folder, and record it."""
    folder = folder.resolve()
    folder.mkdir()
    if story == "files":
        SealingTill(folder)
    if story == "upgrade":
        write_first_version(folder / "journal.db", seed)
    before = {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    environment = f"PYTHONPATH={_ROOT}:{_ROOT / 'tests/support'}:{STORY.parent}"
    events = record(
        ("env", environment, sys.executable, str(STORY), story, str(folder), str(seed)),
        folder,
        folder.with_suffix(".strace"),
        files={path: number for number, path in enumerate(before, start=1)},
        failing=(injecting(*FAILING),) if story == "failing" else (),
    )
    recording = Recording(story, folder, before, events)
    _check_model(recording)
    return recording


FAILING = ("fdatasync", "EIO", "12..14")  # of each connection's syncs; the closing's with them


def judge_of(recording: Recording) -> Judge:
    """Give the judge of a story."""
    if recording.name == "files":
        return judge_files(recording.batches())
    if recording.name == "upgrade":
        return judge_upgrade
    if recording.name == "agent":
        return judge_agent
    return judge_shop("sqlcipher" if recording.name == "encrypted" else "sqlite")


def _check_model(recording: Recording) -> None:
    """See to it that the model's files are those which the process really left."""
    disk = Disk(recording.folder, recording.before)
    for event in recording.events:
        disk.take(event)
    real = {
        str(path): path.read_bytes()
        for path in recording.folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }
    assert disk.live() == real, "the model of the disk missed a system call"


def write_first_version(path: Path, count: int) -> None:
    """Make a journal as the first version did, with changes that wait."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    number, text = migrating.migrations()[0]
    migrating._apply(db, number, text)
    for each in range(1, count + 1):
        payload = Payload({"email": f"vera{each}@example.test", "note": "x" * 300}).to_json()
        db.execute(
            "INSERT INTO contacts (lane, ref, created_at) VALUES (?, ?, '2026-11-21')",
            (each, f"ref-{each}"),
        )
        db.execute(
            "INSERT INTO changes (id, lane, kind, state, payload, payload_sha256, fingerprint,"
            " token_name, created_at) VALUES (?, ?, 'create', 'waiting', ?, ?, 'f', 'pos', ?)",
            (f"change-{each}", each, payload, changes.digest(payload), "2026-11-21T10:00:00.000Z"),
        )
    db.close()


# --- cutting ----------------------------------------------------------------------------------

Judge = Callable[[Path, State, Promises], Awaitable[None]]


async def cut_everywhere(
    recording: Recording, judge: Judge, *, seed: int, about: int, more: int = 2
) -> int:
    """Cut after each system call in `more` ways beside the two extremes, and judge what is left.

    Chance picks about so many of all these disks, or all of them; gives how many were judged, each
    a different one. Raises Lost.
    """
    share = about / (len(recording.events) * (more + 1))
    chance = random.Random(seed)
    cuts, seen = 0, set[bytes]()
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as scratch:
        for number, (disk, promises) in enumerate(recording.play()):
            for state in disk.states(chance, more):
                if chance.random() > share or (made := _fingerprint(state, promises)) in seen:
                    continue
                seen.add(made)
                till = Path(scratch) / "till"
                state.lay(recording.folder, till)
                try:
                    await judge(till, state, promises)
                except Exception as error:
                    kept = Path(tempfile.mkdtemp(prefix="lost-")) / "till"
                    state.lay(recording.folder, kept)
                    raise Lost(
                        f"cut after system call {number} of {recording.name} "
                        f"({recording.events[number]!r:.200}): {error!r:.1000}; left in {kept}"
                    ) from error
                shutil.rmtree(till)
                cuts += 1
    return cuts


def _fingerprint(state: State, promises: Promises) -> bytes:
    digest = hashlib.blake2b(repr((promises.allowed, state.folders)).encode())
    for path, content in state.files.items():
        digest.update(f"\0{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


_IN_TURN = ("shop", "failing", "files", "encrypted", "shop", "failing", "files", "upgrade", "agent")
_CUTS_EACH = 500


def play_cuts(number: int) -> tuple[int, int, str | None]:
    """Play a story of this number and cut its power; gives the number, the cuts, what broke."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    story = _IN_TURN[number % len(_IN_TURN)]
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as folder:
        recording = recorded(story, Path(folder) / "till", 1 + number)
        judge = judge_of(recording)
        try:
            cutting = cut_everywhere(recording, judge, seed=number, about=_CUTS_EACH)
            return number, asyncio.run(cutting), None
        except Lost as error:
            return number, 0, str(error)


# --- judging ----------------------------------------------------------------------------------

_CHANGES = """
SELECT idempotency_key, id, state, unknown, payload, payload_sha256 FROM changes"""


def judge_shop(driver: str = "sqlite") -> Judge:
    """Give a judge to whom what was answered must be there as it was promised, whole and once."""

    async def judge(till: Path, state: State, promises: Promises) -> None:
        async with Book(till / "journal.db", FakeClock(), driver) as book:
            rows = await book.journal.read(_whole_rows)
            _check_promises(rows, promises)
            await _ask_again(book, rows, promises)

    return judge


def _whole_rows(db: Any) -> list[tuple[Any, ...]]:
    """Give all changes of a journal that is sound."""
    assert [tuple(row) for row in db.execute("PRAGMA integrity_check")] == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    counts = db.execute("SELECT state, n FROM counts WHERE n > 0 ORDER BY 1").fetchall()
    found = db.execute("SELECT state, count(*) FROM changes GROUP BY 1 ORDER BY 1").fetchall()
    assert [tuple(row) for row in counts] == [tuple(row) for row in found]
    return [tuple(row) for row in db.execute(_CHANGES)]


def _check_promises(rows: Sequence[tuple[Any, ...]], promises: Promises) -> None:
    found: dict[str, Standing] = {}
    for key, _, state, unknown, payload, digest in rows:
        assert key not in found, f"{key} is there twice"
        found[key] = (state, bool(unknown))
        assert changes.digest(payload) == digest, f"{key} is damaged"
        asked = promises.asked[key][1]
        assert Payload.from_json(payload).attributes == asked, f"{key} has another payload"
    for key, allowed in promises.allowed.items():
        assert found.get(key) in allowed, f"{key}: {found.get(key)} is none of {allowed}"
    assert found.keys() <= promises.allowed.keys()


async def _ask_again(book: Book, rows: Sequence[tuple[Any, ...]], promises: Promises) -> None:
    """A POS that got no answer asks again, and so does one that got one: it is one change."""
    before = {key: change_id for key, change_id, *_ in rows}
    open_ = [key for key, allowed in promises.allowed.items() if len(allowed) > 1]
    for key in dict.fromkeys([*open_, *list(promises.allowed)[-2:]]):
        if promises.allowed[key] == [None]:
            continue  # was erased after its time, key and all
        kind, given, target = promises.asked[key]
        recorded = await book.record(Kind(kind), given, target=target, key=key)
        assert recorded.change.id == before.get(key, recorded.change.id)
        assert recorded.replayed is (key in before), f"{key} was taken for a new one"
    twice = await book.rows(
        "SELECT value FROM keys WHERE name = 'email' GROUP BY value HAVING count(DISTINCT lane) > 1"
    )
    assert twice == [], "one customer became two"


def judge_files(batches: Mapping[str, bytes]) -> Judge:
    """Give a judge who knows the files of the story."""

    async def judge(till: Path, state: State, promises: Promises) -> None:
        for path, content in state.files.items():
            if path.endswith(".xml"):
                assert content == batches[Path(path).name], "a final name stands on a part"
        async with SealingTill(till) as again:
            _check_promises(await again.book.journal.read(_whole_rows), promises)
            whole = {b.name for b in await again.batches() if b.state in ("sealed", "written")}
            for batch in await again.in_state("written"):
                assert batch.name in again.files(), "a batch without the file that it had"
            again.clock.pass_s(86_400)
            await again.turn()
            files = again.files()
            assert files.keys() == {b.name for b in await again.in_state("written")}
            for batch in await again.in_state("written"):
                content = files[batch.name]
                assert batch.sha256 == hashlib.sha256(content).hexdigest()
                assert batch.name not in whole or content == batches[batch.name]

    return judge


async def judge_upgrade(till: Path, state: State, promises: Promises) -> None:
    """The journal is of the old version or the new one, with all that waits; so is its copy."""
    path = till / "journal.db"
    version, ids = await asyncio.to_thread(_look, path)
    newest = migrating.migrations()[-1][0]
    copy = path.with_name(f"{path.name}.before-{newest}")
    if version > 1 or copy.exists():
        assert await asyncio.to_thread(_look, copy) == (1, ids), "the copy is not whole"
    async with Book(path, FakeClock()) as book:
        assert [row[1] for row in await book.journal.read(_whole_rows)] == ids
        assert await book.rows("PRAGMA user_version") == [(newest,)]


async def judge_agent(till: Path, state: State, promises: Promises) -> None:
    """A whole agent goes on from there: each customer is in Engage in the end, and once."""
    async with (
        Sandbox(till.with_name("sandbox"), import_every_s=0, rate_limit=0) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        for email in promises.made:
            sandbox.seed(email=email)
        sandbox.set_fault("not_unique")  # a second sign-up would be a second contact
        # The same till with settings and secrets that lead to this sandbox.
        laid = lay_till(sandbox, till.with_name("again"), AGENT_SETTINGS)
        for each in till.glob("journal.db*"):
            shutil.copy(each, laid.folder)
        world = World(sandbox, laid, session)
        try:
            await world.start()
            # For the agent it is another Engage, at another address: a person says that it is not.
            await world.pos.call("POST", "/agent/v1/routes/api/resume")
            for key, (_, given, _) in promises.asked.items():
                status, answer, headers = await world.pos.call(
                    "POST", "/api/v3/contacts", given, Idempotency_Key=key, Prefer="respond-async"
                )
                assert status in (200, 201, 202), answer
                if key in promises.answered:
                    assert headers["Idempotent-Replay"] == "true", f"{key} is lost"
                    assert headers["Agent-Change"] == promises.answered[key]
                await world.pos.until(headers["Agent-Change"], "delivered")
            for _, given, _ in promises.asked.values():
                assert len(sandbox.find("email", given["email"])) == 1, given["email"]
            assert sandbox.counts()["duplicates"] == 0
        finally:
            await world.stop()
    for name in ("sandbox", "again"):
        shutil.rmtree(till.with_name(name))


def _look(path: Path) -> tuple[int, list[str]]:
    assert path.exists(), f"{path.name} is not there"
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return version, [row[0] for row in db.execute("SELECT id FROM changes ORDER BY seq")]
    finally:
        db.close()
