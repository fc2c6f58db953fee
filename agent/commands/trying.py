"""`try`, `demo` and `sandbox`: the agent without an Engage of one's own."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.parts import FAILED, OK, help_of


def add_trying(commands: Any) -> None:
    """Add `try`, `demo` and `sandbox`."""
    _add_try_and_demo(commands)
    _add_sandbox(commands)


def _add_try_and_demo(commands: Any) -> None:
    attempt = commands.add_parser(
        "try",
        help="start a sandbox and an agent in front of it",
        **help_of(
            "Start a sandbox and an agent in front of it, on free ports of this machine, and print "
            "what to type. Ctrl-C ends both and leaves nothing behind.",
            "till-agent try",
            ((OK, "ended with Ctrl-C"), (FAILED, "the agent ended by itself")),
        ),
    )
    attempt.set_defaults(act=_try)
    demo = commands.add_parser(
        "demo",
        help="tell the story of an outage, in under a minute",
        **help_of(
            "Customers sign up, the line is cut, the agent is killed, the line returns: at the end "
            "the sandbox's contacts are compared with what was acknowledged.",
            "till-agent demo --customers 100",
            ((OK, "nothing is lost and nobody doubled"), (FAILED, "something is wrong")),
        ),
    )
    demo.add_argument("--customers", type=int, default=60, help="how many sign up (%(default)s)")
    demo.add_argument("--seed", type=int, default=1, help="for the moments of chance")
    demo.add_argument("--keep", action="store_true", help="leave it running at the end")
    demo.set_defaults(act=_demo)


def _try(_: argparse.Namespace) -> int:
    from agent import demo

    return demo.try_it()


def _demo(options: argparse.Namespace) -> int:
    from agent import demo

    return demo.tell(customers=options.customers, seed=options.seed, keep=options.keep)


def _add_sandbox(commands: Any) -> None:
    from agent.sandbox import commands as sandbox

    parser = sandbox.add_parser(commands)
    parser.set_defaults(act=sandbox.run)
