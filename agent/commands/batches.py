"""`batches`: the files of the file route."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import OK, add_asking, print_json, table
from agent.commands.running_agent import RunningAgent, quoted


def add_batches(commands: Any) -> None:
    """Add `batches list`, `show` and `seal`."""
    parser = commands.add_parser("batches", help="list, show or seal batch files")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_asking(verbs, "list", "list batches, the newest first", _batches_list)
    show = add_asking(verbs, "show", "show one batch", _batches_show)
    show.add_argument("name", help="the file's name")
    add_asking(verbs, "seal", "put what waits into files now", _batches_seal)


def _batches_list(options: argparse.Namespace) -> int:
    page = RunningAgent(options).ask("GET", "/agent/v1/batches")
    if options.json:
        print_json(page)
        return OK
    table(
        ("BATCH", "STATE", "CONTACTS", "BYTES", "TRIES", "SEALED"),
        [
            tuple(
                item[key] for key in ("name", "state", "contacts", "bytes", "attempts", "sealedAt")
            )
            for item in page["items"]
        ],
    )
    return OK


def _batches_show(options: argparse.Namespace) -> int:
    print_json(RunningAgent(options).ask("GET", f"/agent/v1/batches/{quoted(options.name)}"))
    return OK


def _batches_seal(options: argparse.Namespace) -> int:
    answer = RunningAgent(options).ask("POST", "/agent/v1/batches/seal")
    if options.json:
        print_json(answer)
    else:
        print(f"{answer['sealed']} batches sealed.")
    return OK
