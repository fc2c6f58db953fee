"""`routes`: pause and resume the ways to Engage."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from agent.change import Route
from agent.commands.parts import OK, add_asking, add_group, print_json, table
from agent.commands.running_agent import RunningAgent


def add_routes(commands: Any) -> None:
    """Add `routes list`, `pause` and `resume`."""
    verbs = add_group(
        commands,
        "routes",
        "list, pause or resume the routes to Engage",
        "till-agent routes pause api",
        "There are two: api, Engage's calls, and file, batch files by SFTP. A paused route sends "
        "nothing until it is resumed, also after a restart; sign-ups are taken all the same.",
    )
    add_asking(
        verbs, "list", "say how both routes are", _list, example="till-agent routes list --json"
    )
    for verb, text in (
        ("pause", "send nothing on a route until it is resumed"),
        ("resume", "go on with a paused or halted route, without waiting for its next probe"),
    ):
        parser = add_asking(
            verbs, verb, text, partial(_switch, verb), example=f"till-agent routes {verb} api"
        )
        parser.add_argument("route", choices=[str(route) for route in Route], help="which")


def _list(options: argparse.Namespace) -> int:
    routes = RunningAgent(options).ask("GET", "/agent/v1/status", public=True)["routes"]
    if options.json:
        print_json(routes)
    else:
        rows = [(name, route["state"], route["reason"]) for name, route in routes.items()]
        table(("ROUTE", "STATE", "REASON"), rows)
    return OK


def _switch(verb: str, options: argparse.Namespace) -> int:
    route = RunningAgent(options).ask("POST", f"/agent/v1/routes/{options.route}/{verb}")
    if options.json:
        print_json(route)
    else:
        reason = f" {route['reason']}" if route["reason"] else ""
        print(f"Route {options.route} is {route['state']}.{reason}")
    return OK
