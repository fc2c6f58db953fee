"""`changes export`: what is not in Engage yet, written to a file that a person can carry away."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from agent import config
from agent.commands.closed_journal import closed_journal
from agent.commands.parts import OK, add_asking, completes_files, print_json
from agent.commands.progress import Counted
from agent.commands.running_agent import Lines, NotRunning, RunningAgent
from agent.errors import AgentError


def add_export(verbs: Any) -> None:
    """Add `export` to the verbs of `changes`."""
    verb = add_asking(
        verbs,
        "export",
        "write what is not in Engage yet to a file, as a last resort; marks and changes nothing",
        _export,
        about="Write what is not in Engage yet to a file that a person can carry away, as a last "
        "resort. Marks and changes nothing. Where no agent runs, the journal itself is read.",
        example="till-agent changes export /media/stick/till-3.jsonl",
    )
    file = verb.add_argument(
        "file", type=Path, help="a new file; one that exists is never overwritten"
    )
    completes_files(file)


def _export(options: argparse.Namespace) -> int:
    states: Counter[str] = Counter()
    with _lines(options) as (answer, goes_on), _new_private_file(options.file) as file:
        progress = Counted("changes", answer.about)
        try:
            for line in answer.lines:
                file.write(line)
                states[json.loads(line)["state"]] += 1
                progress.reached(states.total())
        finally:
            progress.end()
    if options.json:
        print_json({"file": str(options.file), "written": states.total(), "states": states})
        return OK
    print(f"{states.total():,} changes written to {options.file}{_listed(states)}.")
    print(
        "The agent goes on sending them."
        if goes_on
        else "No agent runs, so they were read from the journal; the next start goes on sending."
    )
    print("The file holds personal data: keep it safe, then destroy it.")
    if os.stat(options.file).st_mode & 0o077:
        print("Others can read it: this disk does not keep who may.")
    return OK


@contextlib.contextmanager
def _lines(options: argparse.Namespace) -> Iterator[tuple[Lines, bool]]:
    """Give the lines, and whether an agent told them; else they come from its journal."""
    try:
        with RunningAgent(options).lines("/agent/v1/changes/export") as answer:
            yield answer, True
            return
    except NotRunning:
        if options.url:
            raise
    with closed_journal(config.load(options.config)) as lines:
        yield lines, False


def _listed(states: Counter[str]) -> str:
    return f" ({', '.join(f'{n:,} {state}' for state, n in states.items())})" if states else ""


@contextlib.contextmanager
def _new_private_file(place: Path) -> Iterator[BinaryIO]:
    """Write a file that only its owner may read; it has its name once it is whole, and on disk.

    The name is taken first, with nothing in it: that works on the disks that people carry, which
    know no links. Raises AgentError where the name is taken, or the disk does not do it.
    """
    if not place.name:
        raise AgentError("Name a new file to write to. Nothing was written.")
    part = place.with_name(f"{place.name}.part")
    made: list[Path] = []
    try:
        os.close(_made(place, made))
        with os.fdopen(_made(part, made), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    except BaseException as error:
        for each in made:
            each.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AgentError(
                f"{place} cannot be written: {error.strerror}. Nothing was left of it."
            ) from error
        raise


def _made(place: Path, made: list[Path]) -> int:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AgentError(
            f"{place} exists already and is not overwritten. Nothing was written; choose another."
        ) from None
    made.append(place)
    return descriptor
