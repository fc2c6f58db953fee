"""Plays what takes minutes: a long outage, then many histories on all processors.

`python tests/proof` plays both; `--changes 100000 --days 90` only the outage, `--histories 20000
--first 1` only histories, `--cuts 10000` only power cuts (simulated; needs strace). Goes on after a
history that fails and lists the numbers in the end; `--play <number>` plays one again and shows its
log.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import long_outage
from history_steps import numbered
from history_world import BrokenError, outcome_of, play_number

_EVERY_S = 30.0
_ENOUGH = 10  # broken stories; more say nothing new


def _show(number: int) -> int:
    setup, steps = numbered(number)
    print(f"setup = {setup}", *steps, sep="\n")
    with tempfile.TemporaryDirectory(prefix="history-") as folder:
        try:
            print("\n".join(play_number(Path(folder), number)))
        except BrokenError as error:
            print("\n".join(getattr(error, "__notes__", ())), f"broken: {error}", sep="\n")
            return 1
    return 0


def main() -> int:
    """Play, and say what broke; the exit code is 1 if anything did."""
    chooser = argparse.ArgumentParser(prog="python tests/proof", description=__doc__)
    chooser.add_argument("--changes", type=int, help="taken without a line (100,000)")
    chooser.add_argument("--days", type=float, default=90, help="without a line (90)")
    chooser.add_argument("--histories", type=int, help="how many (2,000)")
    chooser.add_argument("--cuts", type=int, help="simulated power cuts, at least so many")
    chooser.add_argument("--first", type=int, default=int(time.time()) * 100_000)
    chooser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    chooser.add_argument("--play", type=int, help="only this one, with its log")
    given = chooser.parse_args()
    if given.play is not None:
        return _show(given.play)
    if given.changes is None and given.histories is None and given.cuts is None:
        given.changes, given.histories = 100_000, 2000
    codes = [_play_outage(given.changes, given.days) if given.changes else 0]
    codes.append(_play_all(given) if given.histories else 0)
    codes.append(_cut_power(given) if given.cuts else 0)
    return max(codes)


def _play_outage(changes: int, days: float) -> int:
    print(f"{changes:,} changes in {days:g} days without a line", flush=True)
    try:
        long_outage.main(changes, days)
    except BrokenError as error:
        print(f"broken: {str(error)[:1000]}", flush=True)
        return 1
    return 0


def _play_all(given: argparse.Namespace) -> int:
    print(f"Histories {given.first} to {given.first + given.histories - 1}", flush=True)
    numbers = range(given.first, given.first + given.histories)
    broken: list[int] = []
    began = said = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(given.workers, maxtasksperchild=200) as pool:
        for done, (number, problem) in enumerate(pool.imap_unordered(outcome_of, numbers), start=1):
            if problem is not None:
                broken.append(number)
                print(f"{number}: {problem[:1000]}", flush=True)
            if time.monotonic() - said > _EVERY_S:
                said = time.monotonic()
                print(f"{done} played, {len(broken)} broken", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{given.histories} histories in {minutes:.1f} minutes, {len(broken)} broken: "
        f"{sorted(broken)}"
    )
    return 1 if broken else 0


def _cut_power(given: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    from power_cuts import play_cuts

    cuts, broken, began = 0, [], time.monotonic()
    numbers = itertools.count(given.first)
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        while cuts < given.cuts:
            stories = itertools.islice(numbers, given.workers)
            for number, done, problem in pool.imap_unordered(play_cuts, stories):
                cuts += done
                if problem is not None:
                    broken.append(number)
                    print(f"{number}: {problem[:1000]}", flush=True)
            if len(broken) > _ENOUGH:
                break
    minutes = (time.monotonic() - began) / 60
    print(
        f"{cuts:,} simulated power cuts in {minutes:.1f} minutes, {len(broken)} stories broken: "
        f"{sorted(broken)}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
