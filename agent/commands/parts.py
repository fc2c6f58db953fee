"""What the commands have in common: their options, exit codes, help and how they print."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

DEFAULT_CONFIG = Path("/etc/till-agent/agent.toml")

OK, FAILED, BAD_CONFIG, NO_JOURNAL, NOT_RUNNING, TIME_OVER, INCOMPLETE = range(7)
CODES = {
    OK: "done",
    FAILED: "it did not work out; the message says why",
    BAD_CONFIG: "the settings or the command line are wrong",
    NO_JOURNAL: "the journal or the port cannot be used",
    NOT_RUNNING: "no agent answers",
    TIME_OVER: "the time of --timeout is over",
    INCOMPLETE: "something of the journal is lost; the report lists it",
}

_WIDTH = 78
_COLOURS = {"ok": "32", "warning": "33", "failed": "31"}

Act = Callable[[argparse.Namespace], int]


# --- options and help -----------------------------------------------------------------------------


def help_of(
    about: str, example: str, codes: Iterable[int | tuple[int, str]] = ()
) -> dict[str, Any]:
    """Give a parser its description, an example and its exit codes, as `--help` shows them.

    A code comes alone, with its usual words, or with words of its own.
    """
    words = [(each, CODES[each]) if isinstance(each, int) else each for each in codes]
    parts = []
    if example:
        parts.append("example:\n" + textwrap.indent(example, "  "))
    if words:
        parts.append(
            "exit codes:\n" + "\n".join(f"  {number:>3}  {text}" for number, text in words)
        )
    return {
        "description": textwrap.fill(about, _WIDTH),
        "epilog": "\n\n".join(parts),
        "formatter_class": _Help,
    }


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps paths whole, which have dashes in them."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def add_group(commands: Any, name: str, text: str, example: str, about: str = "") -> Any:
    """Add a command that is divided into verbs; gives where to add these."""
    parser = commands.add_parser(name, help=text, **help_of(about or _sentence(text), example))
    return parser.add_subparsers(title="verbs", metavar="VERB", required=True)


def add(
    commands: Any,
    name: str,
    text: str,
    act: Act,
    *,
    about: str = "",
    example: str = "",
    codes: Iterable[int | tuple[int, str]] = (OK, FAILED, BAD_CONFIG),
) -> argparse.ArgumentParser:
    """Add a command that reads the settings; `act` gives its exit code.

    `text` is its line in the list of commands; `about` teaches what it does, where that line does
    not say it all.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, **help_of(about or _sentence(text), example, codes)
    )
    option = parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("TILL_AGENT_CONFIG", DEFAULT_CONFIG)),
        metavar="FILE",
        help="the settings (default: $TILL_AGENT_CONFIG, else %(default)s)",
    )
    completes_files(option)
    parser.set_defaults(act=act)
    return parser


def add_asking(
    commands: Any,
    name: str,
    text: str,
    act: Act,
    *,
    about: str = "",
    example: str = "",
    codes: Iterable[int | tuple[int, str]] = (OK, FAILED, BAD_CONFIG, NOT_RUNNING),
) -> argparse.ArgumentParser:
    """Add a command that asks a running agent."""
    parser = add(commands, name, text, act, about=about, example=example, codes=codes)
    parser.add_argument("--url", metavar="URL", help="where the agent listens, instead of --config")
    parser.add_argument("--json", action="store_true", help="print what the agent answered")
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command that does not ask an agent."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def completes_files(option: argparse.Action) -> None:
    """Let a shell complete file names for this option or argument."""
    option.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --- printing ---------------------------------------------------------------------------------


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


def width() -> int:
    """Give how many columns there are to print in: the terminal's, else 80; 100 at most."""
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def coloured(word: str, as_: str = "") -> str:
    """Give a word in the colour of ok, warning or failed, on a terminal that is to have colours.

    The word itself says it all; colour only helps the eye.
    """
    number = _COLOURS.get(as_ or word.strip())
    if number is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return word
    return f"\033[{number}m{word}\033[0m"


def agreed(question: str) -> bool:
    """Ask a person; anything but yes is no, and so is nobody there."""
    try:
        return input(question).strip().lower() == "yes"
    except EOFError:
        return False
