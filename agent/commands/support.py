"""`support`: a file for whoever helps from afar."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import config
from agent.commands.doctor import examined
from agent.commands.parts import (
    BAD_CONFIG,
    FAILED,
    NOT_RUNNING,
    OK,
    add_asking,
    completes_files,
    print_json,
)
from agent.commands.running_agent import NotRunning, RunningAgent
from agent.errors import AgentError, ConfigError

# The agent examines itself first, and that has its own limits.
_PATIENCE_S = 90.0


def add_support(commands: Any) -> None:
    """Add `support`, which is also called `support-bundle`."""
    for name, text in (
        ("support", "write a bundle for support: no customer's data, no secrets"),
        ("support-bundle", "the same"),
    ):
        parser = add_asking(
            commands,
            name,
            text,
            _support,
            about="Write a zip file with versions, settings, the doctor's rows, counts, the latest "
            "changes and batches (ids and codes) and the log's last lines. It holds no customer's "
            "data and no secret, and can be read before it is sent. Where the agent does not run, "
            "it is smaller.",
            example=f"till-agent {name}\ntill-agent {name} /tmp/till-12.zip",
            codes=(
                (OK, "written"),
                (FAILED, "it could not be written"),
                (BAD_CONFIG, "the command line is wrong"),
                (NOT_RUNNING, "no agent answers at --url"),
            ),
        )
        file = parser.add_argument(
            "file",
            nargs="?",
            metavar="FILE",
            help="where to write it; - for standard output (default: named after till and time)",
        )
        completes_files(file)


def _support(options: argparse.Namespace) -> int:
    name, content = _made(options)
    if options.file == "-":
        sys.stdout.buffer.write(content)
        return OK
    path = Path(options.file or name)
    _write(path, content)
    if options.json:
        print_json({"file": str(path), "bytes": len(content)})
    else:
        print(f"{path} is written ({len(content):,} bytes). Look through it before you send it.")
    return OK


def _made(options: argparse.Namespace) -> tuple[str, bytes]:
    """Give name and content: the agent's own where one answers, else what is known without it."""
    from agent.status import support

    now = datetime.now(UTC)
    try:
        settings = None if options.url else config.load(options.config)
    except ConfigError as error:
        bundle = support.without_settings(error.problems, examined(options), now)
        return support.file_name(None, now), bundle
    try:
        content = RunningAgent(options).fetch("/agent/v1/support", timeout_s=_PATIENCE_S)
    except (NotRunning, AgentError) as error:
        if settings is None:
            raise
        said = error.message if isinstance(error, AgentError) else str(error)
        print(f"till-agent: without the agent's part: {said}", file=sys.stderr)
        content = support.without_agent(settings, examined(options), now)
    return support.file_name(settings, now), content


def _write(path: Path, content: bytes) -> None:
    """Write the file, for its owner alone. Raises AgentError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise AgentError(
            f"{path} cannot be written ({error.strerror}). Name another file."
        ) from error
