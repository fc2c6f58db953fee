"""`contacts`: what the till holds of a person, and how it is erased."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import FAILED, OK, add_asking, add_group, agreed, print_json, table
from agent.commands.running_agent import RunningAgent, quoted


def add_contacts(commands: Any) -> None:
    """Add `contacts show`, `erase` and `erased`."""
    verbs = add_group(
        commands,
        "contacts",
        "show what is held of a customer, or erase it",
        f"till-agent contacts show {_REF}",
        "What this till holds of a customer: changes, files, keys by which they are found, answers "
        "that are kept. Engage has its own; ask there as well.",
    )
    show = add_asking(
        verbs,
        "show",
        "say what the till holds of a customer",
        _show,
        example=f"till-agent contacts show {_REF}",
    )
    erase = add_asking(
        verbs,
        "erase",
        "erase what the till holds of a customer",
        _erase,
        about="Erase what the till holds of a customer, also the bytes in its files. Changes that "
        "wait are given up only with --discard-open; what is in a batch file has to be imported or "
        "taken back first. Engage's own data stays: erase it there.",
        example=f"till-agent contacts erase {_REF} --yes",
    )
    for verb in (show, erase):
        verb.add_argument("ref", help="the id that a sign-up or look-up answered: a ref or a GUID")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.add_argument(
        "--discard-open", action="store_true", help="give up changes that are still open as well"
    )
    add_asking(
        verbs,
        "erased",
        "list who was erased, the latest first",
        _erased,
        example="till-agent contacts erased",
    )


_REF = "0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d"


def _show(options: argparse.Namespace) -> int:
    held = RunningAgent(options).ask("GET", f"/agent/v1/contacts/{quoted(options.ref)}")
    if options.json:
        print_json(held)
        return OK
    for line in _lines(held):
        print(line)
    return OK


def _lines(held: Any) -> list[str]:
    lines = [f"ref:         {held['ref'] or 'none'}", f"contactId:   {held['contactId'] or 'none'}"]
    lines.append("found by:    " + (", ".join(held["keys"]) or "nothing"))
    lines.append(f"changes:     {len(held['openChanges'])} open, {held['settledChanges']} settled")
    lines.append(f"answers:     {held['keptAnswers']} of Engage's")
    if held["isMember"]:
        lines.append("Known from Engage's member export.")
    if held["wasErased"]:
        lines.append("Was erased here before.")
    return lines


def _erase(options: argparse.Namespace) -> int:
    agent, path = RunningAgent(options), f"/agent/v1/contacts/{quoted(options.ref)}"
    if not options.yes:
        print("\n".join(_lines(agent.ask("GET", path))))
        question = "Erase all of this on this till, for good? Type yes: "
        if not agreed(question):
            print("Nothing was erased.")
            return FAILED
    given_up = "?open=discard" if options.discard_open else ""
    answer = agent.ask("DELETE", path + given_up)
    if options.json:
        print_json(answer)
        return OK
    erased = answer["erased"]
    print(
        f"Erased: the data of {erased['changes']} changes, {erased['keys']} keys, "
        f"{erased['answers']} of Engage's answers."
    )
    for change in answer["discarded"]:
        print(f"{change} is discarded.")
    for sentence in answer["left"]:
        print(sentence)
    return OK


def _erased(options: argparse.Namespace) -> int:
    answer = RunningAgent(options).ask("GET", "/agent/v1/erasures")
    if options.json:
        print_json(answer)
        return OK
    table(
        ("ERASED", "REF", "CONTACT", "BY", "CHANGES", "IN ENGAGE"),
        [
            tuple(
                each[name] for name in ("erasedAt", "ref", "contactId", "by", "changes", "inEngage")
            )
            for each in answer["items"]
        ],
    )
    return OK
