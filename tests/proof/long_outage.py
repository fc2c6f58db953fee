"""A till without a line for ninety days, and then drained: what must hold, and its figures.

The agent, its journal and Engage are the real ones of a history (history_world.py); time is
virtual, and looked at seldom, because ninety days of half-second ticks are fifteen million.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from history_steps import SETUP, step
from history_world import CONTACTS, Asked, HistoryWorld, Person, history

from agent.change import Change, State
from agent.delivery.batch.document import Element
from agent.demo.world import free_port
from agent.journal import batches
from agent.journal.batches import Batch
from agent.trial import write_till

ROOT = Path(__file__).parents[2]
_DAY_S = 86_400.0
_TICK_S = 6 * 3600.0
_LOOKS = 10  # at the memory, on the way
_NEW_SHARE = 0.6  # of the changes; the others are updates of known customers
# Virtual: each customer of a file is looked up, and what waited behind it follows.
_DRAINS_WITHIN_S = 60 * _DAY_S
_NOT_SETTLED = (State.WAITING, State.SENDING, State.BATCHED, State.UPLOADED, State.IMPORTED)
_READY_WITHIN_S = 60.0


@dataclass
class Figures:
    """What came of it."""

    changes: int
    customers: int = 0
    days: float = 0.0
    sizes: list[int] = field(default_factory=list)  # contacts of each file
    spool_files: int = 0  # at the end of the outage
    spool_mb: float = 0.0
    journal_mb: float = 0.0
    in_memory: int = 0  # changes and contacts that the agent held at once, at most
    drained_h: float = 0.0  # virtual
    settled: dict[str, int] = field(default_factory=dict)
    real_s: float = 0.0
    started: dict[str, Started] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """An agent as a process of its own, on a copy of the journal."""

    ready_s: float
    memory_mb: float


class OutageWorld(HistoryWorld):
    """A history's world that is large, patient and silent."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.log = deque(maxlen=500)  # type: ignore[assignment]
        self.people = []

    def _settings(self) -> dict[str, dict[str, Any]]:
        settings = super()._settings()
        settings["fallback"]["max_contacts"] = self.setup["max_contacts"]
        settings["engage"] |= {"max_requests_per_s": 50, "backlog_requests_per_s": 50}
        settings["retry"]["waits_s"] = [10, 60, 6 * 3600]
        settings["link"]["probe_s"] = 3600
        settings["sftp"]["poll_s"] = 3600
        settings["server"] = {"wait_s": 0}
        return settings

    def values(self) -> dict[str, str]:
        self._values += 1
        return {"city": f"{self._values:07d} city"}

    async def sign_up(self) -> None:
        """Let a new customer sign up."""
        number = len(self.people)
        who = Person(number, f"person{number}@example.test", "Member")
        self.people.append(who)
        sets = self.values()
        body = {"email": who.email, "firstName": "Vera", "lastName": "Lind", **sets}
        await self._ask(who, Asked("create", "POST", CONTACTS, body, f"new-{number}", sets))

    async def update(self, who: Person) -> None:
        """Let a customer who is known move."""
        sets = self.values()
        key = f"update-{self._values}"
        await self._ask(who, Asked("update", "PATCH", f"{CONTACTS}/{who.ids[0]}", sets, key, sets))

    async def counts(self) -> Counter[State]:
        return Counter((await self.agent.journal.totals()).counts)

    async def batches(self) -> list[Batch]:
        found = await self.agent.journal.read(partial(batches.listing, limit=100_000))
        return sorted(found, key=lambda batch: batch.number)

    def files(self) -> list[Path]:
        """Give what lies in the till's spool."""
        folder = self._till.folder / "spool"
        return list(folder.iterdir()) if folder.is_dir() else []

    def copy_to(self, folder: Path) -> None:
        """Copy journal and spool as they are now."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._till.folder.glob("journal.db*"):
            if not path.name.endswith((".lock", "-shm")):
                shutil.copy2(path, folder / path.name)
        shutil.copytree(self._till.folder / "spool", folder / "spool", dirs_exist_ok=True)


# --- the story ------------------------------------------------------------------------------------


def play_outage(
    folder: Path, changes: int, days: float, max_contacts: int, *, processes: bool
) -> Figures:
    """Play the outage and its end. Raises BrokenError when a promise was broken."""
    began = time.monotonic()
    figures = Figures(changes, days=days)
    setup = {name: values[0] for name, values in SETUP.items()}
    setup |= {"max_contacts": max_contacts, "seal_after_s": 300, "import_every_s": 3600.0}
    if processes:
        figures.started["nothing"] = started(folder / "empty")
    with _seldom_ticks(), history(folder / "world", setup, 1, OutageWorld) as (loop, world):
        run = loop.run_until_complete
        run(world.do(step("line", up=False)))
        for part in range(10):
            run(_sell(world, figures, changes // 10, days / 10))
            if processes and part in (0, 9):
                copy = folder / f"copy{part}"
                world.copy_to(copy)
                figures.started[f"{changes // 10 * (part + 1):,} changes"] = started(copy)
        figures.spool_files = len(world.files())
        figures.spool_mb = _megabytes(world.files())
        figures.journal_mb = _megabytes(world._till.folder.glob("journal.db*"))
        run(world.do(step("kill", power=True)))
        run(world.do(step("line", up=True)))
        run(_drain(world, figures))
        run(_compare(world, figures))
        world.raise_broken()
    figures.real_s = time.monotonic() - began
    return figures


@contextlib.contextmanager
def _seldom_ticks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("dispatcher", "batch.sealer", "batch.uploader", "batch.verify"):
            patch.setattr(f"agent.delivery.{name}._TICK_S", _TICK_S)
        patch.setattr("agent.assembly._STATUS_EVERY_S", _TICK_S)
        patch.setattr("agent.lookup.cache._TIDY_EVERY_S", _DAY_S)
        yield


async def _sell(world: OutageWorld, figures: Figures, count: int, days: float) -> None:
    """Take changes, spread over some days."""
    chance = random.Random(f"customers {len(world.people)}")
    for number in range(count):
        await asyncio.sleep(days * _DAY_S / count)
        if not world.people or chance.random() < _NEW_SHARE:
            await world.sign_up()
        else:
            await world.update(chance.choice(world.people))
        if number % max(1, count * 10 // _LOOKS) == count // 2:
            figures.in_memory = max(figures.in_memory, _held())
        world.raise_broken()


async def _drain(world: OutageWorld, figures: Figures) -> None:
    began = world.loop.time()
    while True:
        counts = await world.counts()
        figures.in_memory = max(figures.in_memory, _held())
        world.raise_broken()
        if not any(counts[state] for state in _NOT_SETTLED):
            break
        if world.loop.time() - began > _DRAINS_WITHIN_S:
            world.broken.append(f"never drains: {dict(counts)}")
            break
        await asyncio.sleep(3600.0)
    figures.drained_h = (world.loop.time() - began) / 3600
    figures.settled = {str(state): n for state, n in (await world.counts()).items() if n}


async def _compare(world: OutageWorld, figures: Figures) -> None:
    """Every change is settled, and Engage holds each customer once, as asked for last."""
    figures.customers = len(world.people)
    figures.sizes = [batch.contacts for batch in await world.batches() if batch.contacts]
    counts = await world.counts()
    if counts[State.DELIVERED] + counts[State.CONFIRMED] != figures.changes:
        world.broken.append(f"not all arrived: {dict(counts)}")
    found: dict[str, list[dict[str, Any]]] = {}
    for contact in world.sandbox.contacts():
        found.setdefault(contact["attributes"]["email"], []).append(contact["attributes"])
    if len(found) != len(world.people):
        world.broken.append(f"{len(found)} customers at Engage, {len(world.people)} were signed up")
    for who in world.people:
        last = who.asked[-1].sets["city"]
        cities = [attributes["city"] for attributes in found.get(who.email, [])]
        if cities != [last]:
            world.broken.append(f"{who.email}: {cities}, asked for last was {last}")
    if duplicates := world.sandbox.counts()["duplicates"]:
        world.broken.append(f"{duplicates} duplicates")


def _held() -> int:
    """Count what the agent holds of customers: rows, elements of a file."""
    return sum(isinstance(each, Change | Element) for each in gc.get_objects())


def _megabytes(paths: Any) -> float:
    return sum(path.stat().st_size for path in paths) / 1e6


# --- as a process ---------------------------------------------------------------------------------


def started(folder: Path) -> Started:
    """Start an agent on the journal of a folder, far from any network, and end it again."""
    closed, port = free_port(), free_port()
    till = write_till(
        folder,
        engage_url=f"http://127.0.0.1:{closed}",
        api_key="none",
        sftp_host="127.0.0.1",
        sftp_port=closed,
        sftp_username="none",
        sftp_password="none",
        sftp_directory="/",
        host_key_line="127.0.0.1 ssh-ed25519 none",
        settings={"server": {"port": port}, "log": {"level": "warning"}},
    )
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "--config", str(till.config_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
            ready_s = time.monotonic() - began
            time.sleep(3)  # long enough for every loop to have looked around
            status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        finally:
            process.terminate()
    return Started(ready_s, int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            opener.open(url, timeout=5).close()
            return
        time.sleep(0.01)
    raise RuntimeError("the agent is never ready")


# --- printing -------------------------------------------------------------------------------------


def show(figures: Figures) -> None:
    """Print the figures."""
    full = max(figures.sizes, default=0)
    rest = [size for size in figures.sizes if size < full]
    print(
        f"{figures.changes:,} changes of {figures.customers:,} customers in {figures.days:g} days "
        f"without a line, then drained in {figures.drained_h:.0f} h of virtual time "
        f"({figures.real_s / 60:.1f} minutes).\n"
        f"  Lost 0, doubled 0, out of order 0; {figures.settled}.\n"
        f"  Files: {len(figures.sizes)}, of which {figures.sizes.count(full)} with {full:,} "
        f"contacts; the others have {rest}.\n"
        f"  At the end of the outage: {figures.spool_files} files with {figures.spool_mb:.1f} MB "
        f"in the spool, a journal of {figures.journal_mb:.1f} MB.\n"
        f"  Customers' data that the agent held at once: at most {figures.in_memory} changes and "
        "contacts."
    )
    for waiting, start in figures.started.items():
        print(
            f"  As a process with {waiting} in the journal: ready after {start.ready_s:.2f} s, "
            f"{start.memory_mb:.0f} MB at most."
        )


def main(changes: int, days: float) -> None:
    """Play it at full size and print the figures."""
    folder = Path(tempfile.mkdtemp(prefix="outage-", dir=os.environ.get("TMPDIR")))
    try:
        show(play_outage(folder, changes, days, 5000, processes=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
