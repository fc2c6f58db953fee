"""`status`: how it goes, in a sentence and a few lines."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import BAD_CONFIG, NOT_RUNNING, OK, add_asking, print_json
from agent.commands.running_agent import RunningAgent


def add_status(commands: Any) -> None:
    """Add `status`."""
    add_asking(
        commands,
        "status",
        "say in a sentence how it goes",
        _status,
        about="Say in a sentence how it goes, as on the status page: can the shop go on, is "
        "anything lost, what has to be done. Needs no token.",
        example="till-agent status",
        codes=((OK, "the agent answered, whatever it said"), BAD_CONFIG, NOT_RUNNING),
    )


def _status(options: argparse.Namespace) -> int:
    picture = RunningAgent(options).ask("GET", "/agent/v1/status", public=True)
    if options.json:
        print_json(picture)
        return OK
    print(picture["verdict"]["sentence"])
    link = picture["link"]
    print(f"Line to Engage: {link['state']}" + (f" ({link['reason']})" if link["reason"] else ""))
    for name, route in picture["routes"].items():
        print(
            f"Route {name}: {route['state']}" + (f". {route['reason']}" if route["reason"] else "")
        )
    counts = {state: count for state, count in picture["counts"].items() if count}
    print("Changes: " + (", ".join(f"{n} {state}" for state, n in counts.items()) or "none"))
    for need in picture["needsPerson"]:
        print("Needs a person: " + " ".join(str(part) for part in _sentences(need)))
    return OK


def _sentences(need: Any) -> list[str]:
    if isinstance(need, dict):
        return [str(need[key]) for key in ("what", "whatToDo") if need.get(key)]
    return [str(need)]
