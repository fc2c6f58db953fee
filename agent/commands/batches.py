"""`batches`: the files of the file route."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import OK, add_asking, add_group, print_json, table
from agent.commands.running_agent import RunningAgent, quoted


def add_batches(commands: Any) -> None:
    """Add `batches list`, `show` and `seal`."""
    verbs = add_group(
        commands,
        "batches",
        "list, show or seal batch files",
        "till-agent batches list",
        "While Engage cannot be reached, changes go into batch files, which go up by SFTP and are "
        "imported by Engage.",
    )
    add_asking(
        verbs,
        "list",
        "list batches, the newest first",
        _batches_list,
        example="till-agent batches list --json",
    )
    show = add_asking(
        verbs,
        "show",
        "show one batch",
        _batches_show,
        about="Show one batch: where its file is, how large, how often it was tried, and what is "
        "wrong with it.",
        example="till-agent batches show 20261121101500_0042-1-000001_contacts.xml",
    )
    show.add_argument("name", help="the file's name")
    add_asking(
        verbs,
        "seal",
        "put what waits into files now",
        _batches_seal,
        about="Put what waits into files now instead of after fallback.seal_after_s. They are "
        "uploaded as soon as the SFTP server can be reached.",
        example="till-agent batches seal",
    )


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
    batch = RunningAgent(options).ask("GET", f"/agent/v1/batches/{quoted(options.name)}")
    if options.json:
        print_json(batch)
        return OK
    for label, key in (
        ("batch", "name"),
        ("state", "state"),
        ("contacts", "contacts"),
        ("bytes", "bytes"),
        ("sha256", "sha256"),
        ("tries", "attempts"),
        ("wrong", "error"),
        ("sealed", "sealedAt"),
        ("uploaded", "uploadedAt"),
        ("imported", "importedAt"),
        ("settled", "settledAt"),
    ):
        if batch[key]:
            print(f"{label + ':':<10} {batch[key]}")
    return OK


def _batches_seal(options: argparse.Namespace) -> int:
    answer = RunningAgent(options).ask("POST", "/agent/v1/batches/seal")
    if options.json:
        print_json(answer)
    else:
        print(f"{answer['sealed']} batches sealed.")
    return OK
