"""Agents to be measured: the real command in a process, its journal on the disk, its line off."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agent import config
from agent.change import Kind, Payload, Route
from agent.clock import SystemClock, to_text
from agent.demo.world import free_port
from agent.journal import changes, driver, meta
from agent.journal.database import Database
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.trial import Till, write_till
from tests.bench.load import Target

_START_S = 120.0
_AT_ONCE = 2000


@dataclass(frozen=True)
class RunningTill:
    """An agent that serves."""

    target: Target
    start_s: float  # from the start of the process to its first answer

    def memory_mb(self) -> float:
        """Give the memory of its own, in megabytes."""
        text = Path(f"/proc/{self.target.pid}/status").read_text("ascii")
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def make_till(folder: Path, *, waiting: int = 0) -> Till:
    """Write an agent's files, and a journal in which so many changes wait; its API is paused."""
    closed = free_port()
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
        settings={
            "server": {"port": free_port()},
            "fallback": {"spool": "spool", "seal_after_s": 86400},
            "log": {"level": "warning"},
        },
    )
    asyncio.run(_prefill(config.load(till.config_path).journal.path, waiting))
    return till


async def _prefill(path: Path, waiting: int) -> None:
    journal = Journal(Database(path, driver.plain()), SystemClock())
    await journal.open()
    try:
        # From the start, so that delivery costs nothing: only accepting is measured.
        await journal.write(partial(meta.pause, route=Route.API))
        for start in range(0, waiting, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, waiting))
            await journal.write(partial(_record_all, numbers=numbers))
    finally:
        await journal.close()


def _record_all(db: Connection, numbers: range) -> None:
    now = datetime.now(UTC)
    for number in numbers:
        attributes = {"email": f"waiting.{number}@example.test", "firstName": "Nils"}
        changes.record(
            db,
            changes.Request(
                kind=Kind.CREATE,
                payload=Payload(attributes, contact_type="Member", source="POS"),
                target=None,
                contact_key="email",
                fingerprint=f"prefilled-{number}",
                token_name="pos",
                idempotency_key=None,
                dedupe_window_s=0,
                now=now,
                now_text=to_text(now),
            ),
        )


@contextlib.contextmanager
def running(till: Till, name: str) -> Iterator[RunningTill]:
    """Run an agent until the block ends."""
    port = config.load(till.config_path).server.port
    began = time.perf_counter()
    log_path = till.folder / "log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--config", str(till.config_path)],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_it_serves(port, process, log_path)
        start_s = time.perf_counter() - began
        yield RunningTill(Target(name, port, process.pid, till.token), start_s)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process; hard if it does not go."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_serves(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            opener.open(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"The agent does not serve:\n{log_path.read_text()[-2000:]}")
