"""`token`: who may call the agent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agent import config, tokens
from agent.commands.parts import FAILED, OK, add


def add_tokens(commands: Any) -> None:
    """Add `token new`, `list` and `revoke`."""
    parser = commands.add_parser("token", help="make, list or revoke tokens for POS software")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, text, act in (
        ("new", "make a token and print it once", _token_new),
        ("list", "list the names of all tokens", _token_list),
        ("revoke", "revoke a token; it is refused at once", _token_revoke),
    ):
        verb = add(verbs, name, text, act)
        if name != "list":
            verb.add_argument("name", help="whose token it is, for example pos-1")


def _tokens_file(options: argparse.Namespace) -> Path:
    return config.load(options.config).server.tokens_file


def _token_new(options: argparse.Namespace) -> int:
    token = tokens.new(_tokens_file(options), options.name)
    print(token)
    print("Give it to the POS as apikey; it is not shown again.", file=sys.stderr)
    return OK


def _token_list(options: argparse.Namespace) -> int:
    for name in tokens.names(_tokens_file(options)):
        print(name)
    return OK


def _token_revoke(options: argparse.Namespace) -> int:
    path = _tokens_file(options)
    if tokens.revoke(path, options.name):
        print(f"{options.name} is revoked.")
        return OK
    print(f"till-agent: there is no token named {options.name} in {path}.", file=sys.stderr)
    return FAILED
