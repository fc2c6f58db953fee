"""`token`: who may call the agent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agent import config, tokens
from agent.commands.parts import FAILED, OK, add, add_group, add_json, print_json


def add_tokens(commands: Any) -> None:
    """Add `token new`, `list` and `revoke`."""
    verbs = add_group(
        commands,
        "token",
        "make, list or revoke tokens for POS software",
        "till-agent token new pos-1",
        "Each POS has a token of its own and sends it as apikey. Only its hash is kept. Works "
        "whether the agent runs or not.",
    )
    for name, text, example, act in (
        ("new", "make a token and print it once", "till-agent token new pos-1", _token_new),
        ("list", "list the names of all tokens", "till-agent token list", _token_list),
        (
            "revoke",
            "revoke a token; it is refused at once",
            "till-agent token revoke pos-1",
            _token_revoke,
        ),
    ):
        verb = add(verbs, name, text, act, example=example)
        add_json(verb)
        if name != "list":
            verb.add_argument("name", help="whose token it is, for example pos-1")


def _tokens_file(options: argparse.Namespace) -> Path:
    return config.load(options.config).server.tokens_file


def _token_new(options: argparse.Namespace) -> int:
    token = tokens.new(_tokens_file(options), options.name)
    if options.json:
        print_json({"name": options.name, "token": token})
        return OK
    print(token)
    print("Give it to the POS as apikey; it is not shown again.", file=sys.stderr)
    return OK


def _token_list(options: argparse.Namespace) -> int:
    names = tokens.names(_tokens_file(options))
    if options.json:
        print_json([{"name": name} for name in names])
        return OK
    for name in names:
        print(name)
    return OK


def _token_revoke(options: argparse.Namespace) -> int:
    path = _tokens_file(options)
    if tokens.revoke(path, options.name):
        if options.json:
            print_json({"name": options.name, "revoked": True})
        else:
            print(f"{options.name} is revoked.")
        return OK
    print(f"till-agent: there is no token named {options.name} in {path}.", file=sys.stderr)
    return FAILED
