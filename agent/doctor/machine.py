"""The till itself: journal, port, agent and service."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from agent.config import Config
from agent.doctor.rows import Row, aside, failed, ok, warning
from agent.errors import JournalError
from agent.journal import driver, inspection, lock
from agent.journal.database import LARGE_WAL
from agent.journal.inspection import Condition

JOURNAL, PORT, AGENT, SERVICE = "journal", "port", "agent", "service"

_UNIT = "till-agent.service"
_SYSTEMD_S = 5.0
# journal_size_limit is 16 MiB: what is much larger has not been written back for long.
_MIB = 1024 * 1024
# As many as this since the machine's start are no upgrades any more.
_MANY_RESTARTS = 3
_AS_ROOT = "Look as root, or as the agent's user: runuser -u till-agent -- till-agent doctor"


class MachineCheck:
    """Looks at what the agent stands on. `port` is the running agent's; None where it looks from
    outside."""

    def __init__(self, config: Config, port: int | None, limit_s: float) -> None:
        self._config = config
        self._port = port
        self._limit_s = limit_s

    # --- journal ----------------------------------------------------------------------------------

    async def journal(self) -> Sequence[Row]:
        """Give the row of JOURNAL."""
        path = self._config.journal.path
        try:
            process = None if self._port else await aside(partial(lock.holder, path))
            if process is not None:
                words = f"Not examined. Process {process} has {path} open."
                return [warning(JOURNAL, words, "Ask that agent, or stop it and look again.")]
            # A little less than the row's own limit, so that it can still say what it found.
            work = partial(inspection.look, path, self._way(), self._limit_s * 0.8)
            found = await aside(work)
        except JournalError as error:
            what, _, remedy = error.message.partition(". ")
            return [failed(JOURNAL, f"{what.rstrip('.')}.", remedy)]
        except OSError as error:
            return [failed(JOURNAL, f"{path} cannot be read ({error.strerror}).", _AS_ROOT)]
        if found is None:
            return [ok(JOURNAL, f"There is none at {path} yet; the first start makes it.")]
        return [judged(path, found)]

    def _way(self) -> driver.Driver:
        return driver.with_key(self._config.journal.key_file)

    # --- port, agent, service ---------------------------------------------------------------------

    async def port(self) -> Sequence[Row]:
        """Give the row of PORT."""
        host, port = self._config.server.host, self._config.server.port
        if self._port is not None:
            return [ok(PORT, f"The agent listens on {host}:{self._port}.")]
        try:
            _take_for_a_moment(host, port)
        except OSError as error:
            words = f"The agent cannot listen on {host}:{port} ({error.strerror})."
            if error.errno == errno.EADDRINUSE:
                words = f"Another program listens on {host}:{port}."
            remedy = f"Find it with: ss -ltnp 'sport = :{port}'. Stop it, or set server.port."
            return [failed(PORT, words, remedy)]
        return [ok(PORT, f"{host}:{port} is free." if port else "Any free port will do.")]

    async def agent(self) -> Sequence[Row]:
        """Give the row of AGENT: whether one runs, and whether it is the only one."""
        if self._port is not None:
            return [ok(AGENT, f"One runs, as process {os.getpid()}, and the journal is its alone.")]
        try:
            process = await aside(partial(lock.holder, self._config.journal.path))
        except OSError as error:
            return [warning(AGENT, f"Nobody can tell ({error.strerror}).", _AS_ROOT)]
        if process is not None:
            return [
                failed(
                    AGENT,
                    f"Process {process} has the journal open, but nobody answers where the "
                    "settings say.",
                    "It may just be starting; else look at its log. A restart loses nothing: "
                    "systemctl restart till-agent",
                )
            ]
        return [
            warning(
                AGENT,
                "None runs. The other rows show what it would find.",
                "Start it: systemctl start till-agent",
            )
        ]


def judged(path: Path, found: Condition) -> Row:
    """Say what was found in a journal, and what it means."""
    size = f"{path} is {found.size_bytes / _MIB:,.1f} MiB"
    if found.is_whole is None:
        return warning(
            JOURNAL,
            f"{size}, too large to be checked in the time there is.",
            "At its next start the agent checks all of it.",
        )
    if not found.is_whole:
        return failed(
            JOURNAL,
            f"{path} is damaged ({found.words}).",
            "Stop the agent and run: till-agent journal rescue. It saves what can be read and "
            "lists the rest.",
        )
    if found.wal_bytes > LARGE_WAL:
        return warning(
            JOURNAL,
            f"{size} and whole, but its -wal has grown to {found.wal_bytes // _MIB:,} MiB.",
            "Something reads the journal for too long; close what else has it open.",
        )
    return ok(JOURNAL, f"{size} and whole.")


def _take_for_a_moment(host: str, port: int) -> None:
    """Take the port as the agent would. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


# --- systemd ------------------------------------------------------------------------------------

_PROPERTIES = "LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts"


async def service() -> Sequence[Row]:
    """Give the row of SERVICE: what systemd says of the unit."""
    program = _systemctl()
    if program is None:
        return [
            warning(
                SERVICE,
                "systemd does not run here, so nothing that is known starts the agent.",
                "See that something starts it at boot and after a crash.",
            )
        ]
    try:
        return [service_row(await _unit_state(program))]
    except (OSError, TimeoutError) as error:
        words = f"systemd does not say how the service is ({type(error).__name__})."
        return [warning(SERVICE, words, f"Ask it by hand: systemctl status {_UNIT}")]


def _systemctl() -> str | None:
    """Give the program that asks systemd; None where systemd does not run (sd_booted(3))."""
    return shutil.which("systemctl") if os.path.isdir("/run/systemd/system") else None


async def _unit_state(program: str) -> dict[str, str]:
    """Ask systemd for the unit's properties. Raises OSError, TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        program,
        *("show", _UNIT, f"--property={_PROPERTIES}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SYSTEMD_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = output.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def service_row(unit: Mapping[str, str]) -> Row:
    """Say what the unit's properties mean (systemctl(1), `show`)."""
    active, sub = unit.get("ActiveState", "unknown"), unit.get("SubState", "unknown")
    if unit.get("LoadState") != "loaded":
        return warning(
            SERVICE,
            f"systemd does not know {_UNIT}, so nothing starts the agent at boot.",
            "Install the unit: docs/operating.md says how.",
        )
    words = f"{_UNIT} is {active} ({sub})."
    if active not in ("active", "activating", "reloading"):
        why = f" Its last run ended with: {unit.get('Result', 'unknown')}."
        return failed(
            SERVICE, words + why, f"See why: journalctl -u {_UNIT} -n 50; then systemctl start it."
        )
    if unit.get("UnitFileState") not in ("enabled", "enabled-runtime", "static"):
        return warning(
            SERVICE, f"{words} It is not started at boot.", f"Run: systemctl enable {_UNIT}"
        )
    restarts = int(unit.get("NRestarts") or 0)
    if restarts > _MANY_RESTARTS:
        return warning(
            SERVICE,
            f"{words} systemd had to start it {restarts} times again.",
            f"See why it ended: journalctl -u {_UNIT}",
        )
    return ok(SERVICE, f"{words} It is started at boot.")
