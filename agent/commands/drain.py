"""`drain`: send what waits now, and wait until all of it is in Engage."""

from __future__ import annotations

import argparse
import time
from typing import Any

from agent.commands.parts import (
    BAD_CONFIG,
    FAILED,
    NOT_RUNNING,
    OK,
    TIME_OVER,
    add_asking,
    print_json,
)
from agent.commands.progress import ProgressLine, Rate, span
from agent.commands.running_agent import RunningAgent

_LOOK_EVERY_S = 1.0


def add_drain(commands: Any) -> None:
    """Add `drain`."""
    parser = add_asking(
        commands,
        "drain",
        "send what waits now, and wait until all of it is in Engage",
        _drain,
        about="Send what waits now instead of at its next try. With --wait, show how it goes until "
        "nothing waits any more, uploaded files included: before an upgrade, or before a till is "
        "taken away. Refused changes do not wait; they need a person. A paused route stays paused.",
        example="till-agent drain --wait --timeout 600",
        codes=(
            (OK, "asked for; with --wait: nothing waits any more"),
            FAILED,
            BAD_CONFIG,
            NOT_RUNNING,
            (TIME_OVER, "the time of --timeout is over and something still waits; it is kept"),
        ),
    )
    parser.add_argument("--wait", action="store_true", help="wait until nothing waits any more")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="wait so long at most (default: for ever)"
    )


def _drain(options: argparse.Namespace) -> int:
    agent = RunningAgent(options)
    began = time.monotonic()
    picture = agent.ask("POST", "/agent/v1/drain")
    if options.wait:
        picture = _watched(agent, options.timeout, began)
    return _report(options, picture, time.monotonic() - began)


def _watched(agent: RunningAgent, timeout_s: float | None, began: float) -> Any:
    """Show how it goes until nothing waits or the time is over; gives the last picture."""
    line, rate = ProgressLine(), Rate()
    try:
        while True:
            picture = agent.ask("GET", "/agent/v1/status", public=True)
            now = time.monotonic()
            if _is_drained(picture):
                return picture
            if timeout_s is not None and now - began >= timeout_s:
                return picture
            if picture["unsent"] is not None:
                rate.note(now, picture["unsent"])
            line.show(progress_words(picture, rate))
            time.sleep(_LOOK_EVERY_S)
    finally:
        line.end()


def _is_drained(picture: Any) -> bool:
    return bool(picture["unsent"] == 0)


def progress_words(picture: Any, rate: Rate) -> str:
    """Say how much waits, how quickly it becomes less, and what stands in the way."""
    left = picture["unsent"]
    if left is None:
        return "How much waits is not known: the journal cannot be read."
    words = f"{left:,} {'waits' if left == 1 else 'wait'}"
    if rate.per_s is None:
        return f"{words}."
    if rate.seconds_left is not None:
        return f"{words}, {rate.per_s:.1f} a second, about {span(rate.seconds_left)} to go."
    return f"{words}; nothing moves: {_obstacle(picture)}"


def _obstacle(picture: Any) -> str:
    for name, route in picture["routes"].items():
        if route["state"] != "running":
            return f"route {name} is {route['state']}."
    if picture["link"]["state"] != "online":
        return f"the line to Engage is {picture['link']['state']}."
    if any(batch["state"] == "uploaded" for batch in picture["batches"]):
        return "Engage has not imported the uploaded files yet."
    return "see till-agent status."


def _report(options: argparse.Namespace, picture: Any, seconds: float) -> int:
    left, refused = picture["unsent"], (picture["counts"] or {}).get("rejected", 0)
    is_over = options.wait and not _is_drained(picture)
    if options.json:
        print_json(
            {
                "unsent": left,
                "rejected": refused,
                "seconds": round(seconds, 1),
                "timedOut": is_over,
            }
        )
    else:
        print("\n".join(_sentences(options, picture, refused)))
    return TIME_OVER if is_over else OK


def _sentences(options: argparse.Namespace, picture: Any, refused: int) -> list[str]:
    left = picture["unsent"]
    known = "An unknown number" if left is None else f"{left:,}"
    if _is_drained(picture):
        said = ["Nothing waits any more."]
    elif options.wait:
        said = [f"{known} still wait after {options.timeout:g} seconds. What waits is kept."]
    else:
        said = [f"{known} wait; they are tried now. See how it goes: till-agent drain --wait"]
    if refused:
        said.append(f"{refused:,} were refused and need a person: till-agent changes list")
    return said
