"""The command line, called in this process beside an agent that runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import structlog
from world import World

from agent import events
from agent.commands import main


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def call(*arguments: str, terminal: bool = False) -> Said:
    """Run `till-agent …`."""
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    # The agent of this process logs, too; never into what the command prints.
    events.set_up("error", "text", io.StringIO())
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as ended:  # argparse's own end
        code = int(ended.code or 0)
    finally:
        structlog.reset_defaults()
    return Said(code, out.getvalue(), err.getvalue())


async def till_agent(*arguments: str, terminal: bool = False) -> Said:
    """Run a command while the agent of this process goes on."""
    return await asyncio.to_thread(call, *arguments, terminal=terminal)


def write_port(world: World) -> str:
    """Write the port that the agent got into its settings, for commands; gives their path."""
    assert world.agent is not None
    path = world.till.config_path
    path.write_text(
        re.sub(r"(?m)^port = 0$", f"port = {world.agent.server.port}", path.read_text())
    )
    return str(path)
