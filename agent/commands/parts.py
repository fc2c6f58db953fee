"""What the commands have in common: their options, exit codes and how they print."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DEFAULT_CONFIG = Path("/etc/till-agent/agent.toml")

OK, FAILED, BAD_CONFIG, NO_JOURNAL, NOT_RUNNING = range(5)


def add(
    commands: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command that reads the settings; `act` gives its exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("TILL_AGENT_CONFIG", DEFAULT_CONFIG)),
        metavar="FILE",
        help="the settings (default: $TILL_AGENT_CONFIG, else %(default)s)",
    )
    parser.set_defaults(act=act)
    return parser


def add_asking(
    commands: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command that asks a running agent."""
    parser = add(commands, name, text, act)
    parser.add_argument("--url", metavar="URL", help="where the agent listens, instead of --config")
    parser.add_argument("--json", action="store_true", help="print what the agent answered")
    return parser


def print_json(data: Any) -> None:
    """Print what an agent answered, for scripts."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns, for people."""
    cells = [list(titles), *([str("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def agreed(question: str) -> bool:
    """Ask a person; anything but yes is no, and so is nobody there."""
    try:
        return input(question).strip().lower() == "yes"
    except EOFError:
        return False
