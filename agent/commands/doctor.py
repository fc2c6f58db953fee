"""`doctor`: examine the till, a row each, whether the agent runs or not."""

from __future__ import annotations

import argparse
import asyncio
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from agent import config
from agent.commands.parts import (
    BAD_CONFIG,
    FAILED,
    NOT_RUNNING,
    OK,
    add_asking,
    coloured,
    print_json,
    width,
)
from agent.commands.running_agent import NotRunning, RunningAgent
from agent.errors import AgentError, ConfigError

# A running agent examines with its own limits; the answer comes after the slowest of them.
_PATIENCE_S = 90.0

Rows = Sequence[dict[str, str]]


def add_doctor(commands: Any) -> None:
    """Add `doctor`."""
    add_asking(
        commands,
        "doctor",
        "examine settings, disk, line, Engage and SFTP server",
        _doctor,
        about="Examine the till: settings, files, disk, journal, name, connection, TLS, API key, "
        "clock, rate, SFTP server, port and service. Each row says ok, warning or failed, what it "
        "means and what to do. Where the agent runs, it looks itself, with its own rights; where "
        "it does not, this command does. Only small temporary files are made, and removed.",
        example="till-agent doctor\ntill-agent doctor --json",
        codes=(
            (OK, "nothing failed; warnings are no failure"),
            (FAILED, "at least one row failed"),
            (BAD_CONFIG, "the command line is wrong"),
            (NOT_RUNNING, "no agent answers at --url"),
        ),
    )


def _doctor(options: argparse.Namespace) -> int:
    rows = examined(options)
    if options.json:
        print_json({"rows": rows})
    else:
        print("\n".join(lines(rows, width())))
    return FAILED if any(row["result"] == "failed" for row in rows) else OK


def examined(options: argparse.Namespace) -> Rows:
    """Give the rows: of the agent where one answers, else of this process."""
    try:
        settings = None if options.url else config.load(options.config)
    except ConfigError as error:
        from agent.doctor.doctor import without_settings

        return [row.to_json() for row in asyncio.run(without_settings(error.problems))]
    try:
        agent = RunningAgent(options)
        rows = agent.ask("GET", "/agent/v1/doctor", timeout_s=_PATIENCE_S)["rows"]
        status = agent.ask("GET", "/agent/v1/status", public=True)
    except (NotRunning, AgentError) as error:
        if settings is None:
            raise
        if isinstance(error, AgentError):
            print(f"till-agent: the agent was not asked: {error.message}", file=sys.stderr)
        return _examined_here(settings)
    return rows if settings is None else _compared(rows, settings, status["configHash"])


def _examined_here(settings: config.Config) -> Rows:
    from agent.clock import SystemClock
    from agent.doctor.doctor import Doctor
    from agent.doctor.rows import Daemons

    async def examine() -> Rows:
        # A resolver that hangs keeps its thread for long; the command must end all the same.
        asyncio.get_running_loop().set_default_executor(Daemons())
        return [row.to_json() for row in await Doctor(settings, SystemClock()).examine()]

    return asyncio.run(examine())


def _compared(rows: Rows, settings: config.Config, running: str) -> Rows:
    """Say so where the running agent has other settings than its file by now."""
    on_disk = config.config_hash(settings)
    if on_disk == running:
        return rows
    changed = {
        "check": "settings",
        "result": "warning",
        "meaning": f"The file was changed ({on_disk}) since the agent was started ({running}).",
        "whatToDo": "Let it take them: systemctl restart till-agent. Nothing is lost by that.",
    }
    return [changed if row["check"] == "settings" else row for row in rows]


# --- printing ---------------------------------------------------------------------------------


def lines(rows: Rows, columns: int) -> list[str]:
    """Give a table of rows whose texts are wrapped to fit."""
    longest = max(len(row["check"]) for row in rows)
    indent = len("warning") + 2 + longest + 2
    printed = [f"{'RESULT':<9}{'CHECK':<{longest + 2}}WHAT IT MEANS"]
    for row in rows:
        texts = [*_wrapped(row["meaning"], columns - indent)]
        if row["whatToDo"]:
            texts += _wrapped(f"→ {row['whatToDo']}", columns - indent)
        result = coloured(f"{row['result']:<7}")
        printed.append(f"{result}  {row['check']:<{longest + 2}}{texts[0]}".rstrip())
        printed += [" " * indent + text for text in texts[1:]]
    counts = {result: sum(row["result"] == result for row in rows) for result in _RESULTS}
    printed += ["", ", ".join(f"{count} {result}" for result, count in counts.items())]
    return printed


_RESULTS = ("ok", "warning", "failed")


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, max(20, columns), break_long_words=True, break_on_hyphens=False) or [
        ""
    ]
