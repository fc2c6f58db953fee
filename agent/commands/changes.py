"""`changes`: what the till was told, and what became of it."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.change import State
from agent.commands.export import add_export
from agent.commands.parts import (
    OK,
    add_asking,
    add_group,
    completes_files,
    print_json,
    table,
)
from agent.commands.running_agent import RunningAgent, quoted
from agent.errors import AgentError


def add_changes(commands: Any) -> None:
    """Add `changes list`, `show`, `retry`, `mend`, `discard` and `export`."""
    verbs = add_group(
        commands,
        "changes",
        "list, show, retry, mend, discard or export changes",
        "till-agent changes list --state rejected",
        "A change is one thing that the POS asked to be made true in Engage. What it asked for "
        "stays in the journal until it is settled, and some time after.",
    )
    listing = add_asking(
        verbs,
        "list",
        "list changes, the newest first",
        _changes_list,
        example="till-agent changes list --state rejected --limit 10",
    )
    listing.add_argument(
        "--state",
        choices=[str(state) for state in State],
        metavar="STATE",
        help="only those in this state: %(choices)s",
    )
    listing.add_argument("--limit", type=int, default=50, help="at most so many (%(default)s)")
    listing.add_argument("--after", metavar="ID", help="go on after this change")
    for name, text, about, act in _VERBS:
        verb = add_asking(verbs, name, text, act, about=about, example=_EXAMPLES[name])
        verb.add_argument("id", help="the change's id")
        if name == "mend":
            file = verb.add_argument(
                "file",
                type=Path,
                help="the body as the POS would send it now, as JSON; - for standard input",
            )
            completes_files(file)
        if name == "retry":
            verb.add_argument(
                "--all",
                action="store_true",
                help="send all again that were rejected with the code in the place of the id",
            )
        if name == "discard":
            verb.add_argument("--reason", default="", help="why, kept with the change")
    add_export(verbs)


def _changes_mend(options: argparse.Namespace) -> int:
    corrected = _read(options.file)
    change = RunningAgent(options).ask(
        "PUT", f"/agent/v1/changes/{quoted(options.id)}/payload", corrected
    )
    return _moved(options, change)


def _read(path: Path) -> Any:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise AgentError(
            f"{path} cannot be read ({error.strerror}). Nothing was changed."
        ) from error
    except ValueError as error:
        # Not the parser's own words: they are about a customer's data.
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise AgentError(f"{path} is not JSON{place}. Nothing was changed.") from error


def _changes_list(options: argparse.Namespace) -> int:
    query = {"limit": str(options.limit)} | {
        name: value for name, value in (("state", options.state), ("after", options.after)) if value
    }
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
        print(f"There are more. Go on with: --after {page['next']}")
    return OK


def _changes_show(options: argparse.Namespace) -> int:
    change = RunningAgent(options).ask("GET", f"/agent/v1/changes/{quoted(options.id)}")
    if options.json:
        print_json(change)
        return OK
    for label, key in (
        ("change", "id"),
        ("request", "requestId"),
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
    agent = RunningAgent(options)
    if not options.all:
        return _moved(options, agent.ask("POST", f"/agent/v1/changes/{quoted(options.id)}/retry"))
    # All are found before the first is sent again: what moves would move the pages, too. The oldest
    # goes first.
    found = [*_rejected_with(agent, options.id)][::-1]
    moved = [agent.ask("POST", f"/agent/v1/changes/{quoted(each)}/retry") for each in found]
    if options.json:
        print_json({"items": moved})
    else:
        print(f"{len(moved)} changes with {options.id} are sent again.")
    return OK


def _rejected_with(agent: RunningAgent, code: str) -> Iterator[str]:
    query = {"state": str(State.REJECTED), "limit": "200"}
    while True:
        page = agent.ask("GET", f"/agent/v1/changes?{urllib.parse.urlencode(query)}")
        yield from (
            each["id"] for each in page["items"] if (each["error"] or {}).get("code") == code
        )
        if not page["next"]:
            return
        query["after"] = page["next"]


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


_VERBS = (
    (
        "show",
        "show one change with all its attempts",
        "Show one change: its state, what it waits for, every attempt, and what is wrong with it.",
        _changes_show,
    ),
    (
        "retry",
        "send a rejected or waiting change again now",
        "Send a rejected change again as it is, once its cause is cured; or a waiting one now "
        "instead of at its next try. With --all, every change that was rejected "
        "with one code, as in: till-agent changes retry --all StylesheetFailed.",
        _changes_retry,
    ),
    (
        "mend",
        "put corrected data into a rejected change and send it again",
        "Put corrected data into a rejected change and send it again. It is checked like the "
        "request that made the change; nothing is changed if it does not pass.",
        _changes_mend,
    ),
    (
        "discard",
        "give a rejected change up for good",
        "Give a rejected change up for good. It cannot be brought back; what waited for a "
        "sign-up that is given up is rejected, too.",
        _changes_discard,
    ),
)

_ID = "0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d"
_EXAMPLES = {
    "show": f"till-agent changes show {_ID}",
    "retry": f"till-agent changes retry {_ID}",
    "mend": f"till-agent changes mend {_ID} corrected.json",
    "discard": f"till-agent changes discard {_ID} --reason 'signed up twice'",
}
