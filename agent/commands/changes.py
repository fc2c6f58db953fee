"""`changes`: what the till was told, and what became of it."""

from __future__ import annotations

import argparse
import json
import urllib.parse
from typing import Any

from agent.commands.export import add_export
from agent.commands.parts import OK, add_asking, print_json, table
from agent.commands.running_agent import RunningAgent, quoted
from agent.errors import AgentError


def add_changes(commands: Any) -> None:
    """Add `changes list`, `show`, `retry`, `mend`, `discard` and `export`."""
    parser = commands.add_parser("changes", help="list, show, retry, mend, discard, export changes")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = add_asking(verbs, "list", "list changes, the newest first", _changes_list)
    listing.add_argument("--state", help="only those in this state, for example rejected")
    listing.add_argument("--limit", type=int, default=50, help="at most so many (%(default)s)")
    for name, text, act in (
        ("show", "show one change with all its attempts", _changes_show),
        ("retry", "send a rejected or waiting change again now", _changes_retry),
        ("mend", "put corrected data into a rejected change and send it again", _changes_mend),
        ("discard", "give a rejected change up for good", _changes_discard),
    ):
        verb = add_asking(verbs, name, text, act)
        verb.add_argument("id", help="the change's id")
        if name == "mend":
            verb.add_argument(
                "file",
                type=argparse.FileType("r", encoding="utf-8"),
                help="the body as the POS would send it now, as JSON; - for standard input",
            )
        if name == "discard":
            verb.add_argument("--reason", default="", help="why, kept with the change")
    add_export(verbs)


def _changes_mend(options: argparse.Namespace) -> int:
    try:
        corrected = json.load(options.file)
    except ValueError as error:
        raise AgentError(
            f"{options.file.name} is not JSON: {error}. Nothing was changed."
        ) from error
    change = RunningAgent(options).ask(
        "PUT", f"/agent/v1/changes/{quoted(options.id)}/payload", corrected
    )
    return _moved(options, change)


def _changes_list(options: argparse.Namespace) -> int:
    query = {"limit": str(options.limit)} | ({"state": options.state} if options.state else {})
    page = RunningAgent(options).ask("GET", f"/agent/v1/changes?{urllib.parse.urlencode(query)}")
    if options.json:
        print_json(page)
        return OK
    table(
        ("CHANGE", "KIND", "STATE", "ROUTE", "TRIES", "CREATED", "ERROR"),
        [
            (
                item["id"],
                item["kind"],
                item["state"] + (" (unknown)" if item["unknown"] else ""),
                item["route"],
                len(item["attempts"]),
                item["createdAt"],
                (item["error"] or {}).get("code"),
            )
            for item in page["items"]
        ],
    )
    if page["next"]:
        print(f"There are more; the last one shown is {page['next']}.")
    return OK


def _changes_show(options: argparse.Namespace) -> int:
    change = RunningAgent(options).ask("GET", f"/agent/v1/changes/{quoted(options.id)}")
    if options.json:
        print_json(change)
        return OK
    for label, key in (
        ("change", "id"),
        ("kind", "kind"),
        ("state", "state"),
        ("route", "route"),
        ("ref", "contactRef"),
        ("contactId", "contactId"),
        ("batch", "batch"),
        ("taken", "createdAt"),
        ("next try", "dueAt"),
        ("settled", "settledAt"),
        ("waits for", "waitsFor"),
    ):
        if change[key]:
            print(f"{label + ':':<11} {change[key]}")
    if change["unknown"]:
        print("It may have happened in Engage; it is looked up before anything else.")
    if error := change["error"]:
        print(f"wrong:      {error['code']}: {error['message']}")
    for number, attempt in enumerate(change["attempts"], 1):
        words = " ".join(str(attempt[key]) for key in ("status", "code", "message") if attempt[key])
        print(f"try {number}: {attempt['endedAt']} {attempt['route']} {attempt['outcome']} {words}")
    return OK


def _changes_retry(options: argparse.Namespace) -> int:
    change = RunningAgent(options).ask("POST", f"/agent/v1/changes/{quoted(options.id)}/retry")
    return _moved(options, change)


def _changes_discard(options: argparse.Namespace) -> int:
    change = RunningAgent(options).ask(
        "POST", f"/agent/v1/changes/{quoted(options.id)}/discard", {"reason": options.reason}
    )
    return _moved(options, change)


def _moved(options: argparse.Namespace, change: Any) -> int:
    if options.json:
        print_json(change)
    else:
        print(f"{change['id']} is {change['state']}.")
    return OK
