"""`journal`: the journal's own file, while no agent runs."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from agent import config
from agent.commands.parts import BAD_CONFIG, NO_JOURNAL, OK, add, add_group
from agent.errors import JournalInUse
from agent.secrets import read_secret


def add_journal(commands: Any) -> None:
    """Add `journal waiting`."""
    verbs = add_group(
        commands,
        "journal",
        "look into the journal while no agent runs",
        "till-agent journal waiting",
    )
    _add_waiting(verbs)


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
    key_file = settings.journal.key_file
    way = driver.encrypted(partial(read_secret, key_file)) if key_file else driver.plain()
    _become_owner(path)
    try:
        print(remains.unsettled(path, way, verifies=settings.fallback.verify != "none"))
    except JournalInUse as error:
        raise JournalInUse(
            f"An agent runs and uses {path}. Nothing was changed. Ask it: till-agent status"
        ) from error
    return OK


def _become_owner(path: Path) -> None:
    """Be the journal's owner from here on: a file of root's beside it would lock the agent out."""
    if path.exists() and os.geteuid() == 0:
        facts = path.stat()
        os.setgroups([])
        os.setegid(facts.st_gid)
        os.seteuid(facts.st_uid)
