"""`changes export`: what is not in Engage yet, written to a file that a person can carry away."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from agent.commands.parts import OK, add_asking, print_json
from agent.commands.running_agent import RunningAgent
from agent.errors import AgentError

_EVERY_S = 1.0


def add_export(verbs: Any) -> None:
    """Add `export` to the verbs of `changes`."""
    verb = add_asking(
        verbs,
        "export",
        "write what is not in Engage yet to a file, as a last resort; marks and changes nothing",
        _export,
    )
    verb.add_argument("file", type=Path, help="a new file; one that exists is never overwritten")


def _export(options: argparse.Namespace) -> int:
    agent = RunningAgent(options)
    states: Counter[str] = Counter()
    with agent.lines("/agent/v1/changes/export") as answer, _new_private_file(options.file) as file:
        progress = Progress("changes", answer.about)
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
    print("The agent goes on sending them. The file holds personal data: keep it, then destroy it.")
    if os.stat(options.file).st_mode & 0o077:
        print("Others can read it: this disk does not keep who may.")
    return OK


def _listed(states: Counter[str]) -> str:
    return f" ({', '.join(f'{n:,} {state}' for state, n in states.items())})" if states else ""


@contextlib.contextmanager
def _new_private_file(place: Path) -> Iterator[BinaryIO]:
    """Write a file that only its owner may read; it has its name once it is whole, and on disk.

    The name is taken first, with nothing in it: that works on the disks that people carry, which
    know no links. Raises AgentError where the name is taken, or the disk does not do it.
    """
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


class Progress:
    """Says once a second how much is done and about how long it takes; nothing in the first one."""

    def __init__(
        self,
        what: str,
        total: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what`: the plural of what is counted; `total`: about how many there are."""
        self._what = what
        self._total = total
        self._stream = stream or sys.stderr  # what the command answers stays readable by programs
        self._clock = clock
        self._began = self._said = clock()
        self._has_spoken = False

    def reached(self, done: int) -> None:
        """Note how many are done."""
        now = self._clock()
        if now - self._said < _EVERY_S:
            return
        self._said = now
        self._say(f"{done:,} of about {max(done, self._total):,} {self._what}{self._left(done)}")

    def _left(self, done: int) -> str:
        if not 0 < done < self._total:
            return ""
        seconds = (self._clock() - self._began) * (self._total - done) / done
        return f", about {seconds:.0f} s left"

    def _say(self, text: str) -> None:
        # On a terminal the line is written over; in a file each stands for itself.
        end = "\r" if self._stream.isatty() else "\n"
        print(f"{text:<70}" if end == "\r" else text, end=end, file=self._stream, flush=True)
        self._has_spoken = True

    def end(self) -> None:
        """Leave a terminal's line, so that what follows does not write over it."""
        if self._has_spoken and self._stream.isatty():
            print(file=self._stream)
