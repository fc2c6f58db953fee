"""`batches`: the files of the file route."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import OK, add_asking, add_group, print_json, table
from agent.commands.running_agent import RunningAgent, quoted

# The server may be slow, and each step of a withdrawal has sftp.timeout_s of its own.
_WITHDRAWING_S = 600.0


def add_batches(commands: Any) -> None:
    """Add `batches list`, `show`, `seal`, `withdraw` and `retry`."""
    verbs = add_group(
        commands,
        "batches",
        "list, show, seal, withdraw or retry batch files",
        "till-agent batches list",
        "While Engage cannot be reached, changes go into batch files, which go up by SFTP and are "
        "imported by Engage.",
    )
    listing = add_asking(
        verbs,
        "list",
        "list batches, the newest first",
        _batches_list,
        example="till-agent batches list --json",
    )
    listing.add_argument("--limit", type=int, default=50, help="at most so many (%(default)s)")
    add_asking(
        verbs,
        "seal",
        "put what waits into files now",
        _batches_seal,
        about="Put what waits into files now instead of after fallback.seal_after_s. They are "
        "uploaded as soon as the SFTP server can be reached.",
        example="till-agent batches seal",
    )
    for name, text, about, act in _VERBS:
        verb = add_asking(
            verbs, name, text, act, about=about, example=f"till-agent batches {name} {_NAME}"
        )
        verb.add_argument("name", help="the file's name")
        if name == "withdraw":
            verb.add_argument(
                "--removed",
                action="store_true",
                help="you have removed it by hand from the server or folder of former settings",
            )


def _batches_list(options: argparse.Namespace) -> int:
    page = RunningAgent(options).ask("GET", f"/agent/v1/batches?limit={options.limit}")
    if options.json:
        print_json(page)
        return OK
    table(
        ("BATCH", "STATE", "CONTACTS", "BYTES", "TRIES", "SEALED", "WHERE"),
        [
            tuple(
                item[key]
                for key in ("name", "state", "contacts", "bytes", "attempts", "sealedAt", "where")
            )
            for item in page["items"]
        ],
    )
    if page["next"]:
        print(f"There are more; the last one shown is {page['next']}.")
    return OK


def _show(options: argparse.Namespace) -> int:
    batch = RunningAgent(options).ask("GET", f"/agent/v1/batches/{quoted(options.name)}")
    if options.json:
        print_json(batch)
        return OK
    for label, key in (
        ("batch", "name"),
        ("state", "state"),
        ("where", "where"),
        ("contacts", "contacts"),
        ("bytes", "bytes"),
        ("sha256", "sha256"),
        ("sealed", "sealedAt"),
        ("tries", "attempts"),
        ("uploaded", "uploadedAt"),
        ("imported", "importedAt"),
        ("withdrawn", "withdrawnAt"),
        ("skipped", "skippedAt"),
        ("settled", "settledAt"),
        ("receipt", "receipt"),
        ("trouble", "error"),
    ):
        if batch[key] not in (None, ""):
            print(f"{label + ':':<11} {batch[key]}")
    return OK


def _batches_seal(options: argparse.Namespace) -> int:
    answer = RunningAgent(options).ask("POST", "/agent/v1/batches/seal")
    if options.json:
        print_json(answer)
    else:
        made = answer["sealed"]
        print(f"{made:,} {'batch' if made == 1 else 'batches'} sealed.")
    return OK


def _withdraw(options: argparse.Namespace) -> int:
    path = f"/agent/v1/batches/{quoted(options.name)}/withdraw"
    batch = RunningAgent(options).ask(
        "POST", path + ("?file=removed" if options.removed else ""), timeout_s=_WITHDRAWING_S
    )
    if options.json:
        print_json(batch)
    else:
        print(
            f"{batch['name']} is withdrawn; it will not be imported. Its changes wait again "
            f"({batch['contacts']} contacts)."
        )
    return OK


def _retry(options: argparse.Namespace) -> int:
    answer = RunningAgent(options).ask("POST", f"/agent/v1/batches/{quoted(options.name)}/retry")
    if options.json:
        print_json(answer)
    else:
        print(f"{answer['retried']} changes wait again.")
    return OK


_NAME = "20261121101500_0042-1-000001_contacts.xml"
_VERBS = (
    (
        "show",
        "show one batch: how much it holds, where it is, how far it has come",
        "Show one batch: where its file is, how large, how often it was tried, and what is wrong "
        "with it.",
        _show,
    ),
    (
        "withdraw",
        "take a file back from the server: its changes wait again",
        "Take a file back that Engage does not import: it is renamed on the server, which no "
        "import notices, then removed, and its changes wait again. Do it while the import stands "
        "still. Where Engage has taken the file already, nothing is changed.",
        _withdraw,
    ),
    (
        "retry",
        "send everything of a file again that its import left out",
        "Send everything of a file again that its import left out, by the API or in another file, "
        "once the cause is cured.",
        _retry,
    ),
)
