"""`journal`: the journal's own file, while no agent runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agent import config
from agent.clock import SystemClock
from agent.commands.closed_journal import as_owner_of
from agent.commands.parts import BAD_CONFIG, INCOMPLETE, NO_JOURNAL, OK, add, add_group
from agent.errors import JournalInUse


def add_journal(commands: Any) -> None:
    """Add `journal waiting` and `journal rescue`."""
    verbs = add_group(
        commands,
        "journal",
        "look into the journal, or rescue it, while no agent runs",
        "till-agent journal waiting\ntill-agent journal rescue",
    )
    _add_waiting(verbs)
    _add_rescue(verbs)


def _add_waiting(verbs: Any) -> None:
    add(
        verbs,
        "waiting",
        "count the changes that are not in Engage for good; prints the number alone",
        _waiting,
        about="Count the changes that are not in Engage for good, and print the number alone, as "
        "the package's own scripts need it. A running agent has the journal for itself; ask that "
        "one with: till-agent status.",
        example="till-agent journal waiting",
        codes=(OK, BAD_CONFIG, NO_JOURNAL),
    )


def _waiting(options: argparse.Namespace) -> int:
    from agent.journal import driver, remains

    settings = config.load(options.config)
    path = settings.journal.path
    way = driver.with_key(settings.journal.key_file)
    try:
        with as_owner_of(path):
            print(remains.unsettled(path, way, verifies=settings.fallback.verify != "none"))
    except JournalInUse as error:
        raise JournalInUse(
            f"An agent runs and uses {path}. Nothing was changed. Ask it: till-agent status"
        ) from error
    return OK


def _add_rescue(verbs: Any) -> None:
    add(
        verbs,
        "rescue",
        "put a damaged journal aside and go on with what can be read of it",
        _rescue,
        about="Put a damaged journal aside and make a new one of what can be read of it, row by "
        "row. The damaged file is kept as it is, with a report beside it that lists what is lost; "
        "what is open is looked up in Engage before anything is sent. Stop the agent before "
        "(systemctl stop till-agent). A journal that is whole is left alone, and a rescue that was "
        "cut off may be run again. Needs as much room on the disk as the journal has.",
        example="till-agent journal rescue",
        codes=(
            (OK, "the journal is whole, or all of it was saved"),
            BAD_CONFIG,
            (NO_JOURNAL, "it was left as it is; the message says why"),
            (INCOMPLETE, "it goes on, and something is lost; the report lists it"),
        ),
    )


def _rescue(options: argparse.Namespace) -> int:
    from agent.journal import driver
    from agent.journal.rescue.rescue import rescue

    settings = config.load(options.config)
    path = settings.journal.path
    way = driver.with_key(settings.journal.key_file)
    try:
        with as_owner_of(path):
            done = rescue(
                path, way, SystemClock().now(), tell=lambda step: print(step, file=sys.stderr)
            )
    except JournalInUse as error:
        raise JournalInUse(
            f"An agent runs and uses {path}. Nothing was changed. Stop it first: "
            "systemctl stop till-agent"
        ) from error
    if done is None:
        print(f"{path} is whole. Nothing was changed.")
        return OK
    print(done.text, end="")
    print(f"This report is kept as {done.report}.")
    return OK if done.losses.are_none else INCOMPLETE
