"""The command line. What asks a running agent speaks HTTP to it and never opens its journal.

A group of commands is a module of its own; this one puts them together and says how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agent import __version__, events
from agent.commands.batches import add_batches
from agent.commands.changes import add_changes
from agent.commands.completion import add_completion
from agent.commands.contacts import add_contacts
from agent.commands.doctor import add_doctor
from agent.commands.drain import add_drain
from agent.commands.host_key import add_host_key
from agent.commands.journal import add_journal
from agent.commands.parts import (
    BAD_CONFIG,
    CODES,
    FAILED,
    NO_JOURNAL,
    NOT_RUNNING,
    OK,
    help_of,
)
from agent.commands.routes import add_routes
from agent.commands.running_agent import NotRunning
from agent.commands.service import add_service, report_problems
from agent.commands.setup import add_setup
from agent.commands.status import add_status
from agent.commands.support import add_support
from agent.commands.tokens import add_tokens
from agent.commands.trying import add_trying
from agent.errors import AgentError, ConfigError, JournalError

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    root = parser()
    options = root.parse_args(arguments)
    if options.version:
        return _print_version(options)
    if options.act is None:
        root.error("name a command; --help lists them")
    # What a command prints is for people and scripts; only `run` has a log of its own.
    events.set_up("error", "text", sys.stderr)
    try:
        return int(options.act(options))
    except ConfigError as error:
        report_problems("The settings cannot be used:", error.problems)
        return BAD_CONFIG
    except JournalError as error:
        print(f"till-agent: {error.message}", file=sys.stderr)
        return NO_JOURNAL
    except AgentError as error:
        print(f"till-agent: {error.message}", file=sys.stderr)
        return FAILED
    except NotRunning as error:
        print(f"till-agent: {error}", file=sys.stderr)
        return NOT_RUNNING
    except BrokenPipeError:
        # Whoever read our output has seen enough; closing it again must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return _INTERRUPTED


def _print_version(options: argparse.Namespace) -> int:
    print(f"till-agent {__version__}")
    if options.verbose:
        from agent.status.versions import versions

        for name, version in versions().items():
            print(f"  {name:<20} {version}")
    return OK


def parser() -> argparse.ArgumentParser:
    """Give all commands with their options; completions and the man page are made from it."""
    root = argparse.ArgumentParser(
        prog="till-agent",
        **help_of(
            "Takes customer changes at the till and delivers them to Voyado Engage.",
            "till-agent check\ntill-agent run\ntill-agent status\ntill-agent doctor",
            (*CODES, (_INTERRUPTED, "interrupted with Ctrl-C")),
        ),
    )
    root.add_argument("--version", action="store_true", help="print the version")
    root.add_argument(
        "--verbose", action="store_true", help="with --version: of everything that it stands on"
    )
    root.set_defaults(act=None)
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    add_service(commands)
    add_setup(commands)
    add_status(commands)
    add_doctor(commands)
    add_changes(commands)
    add_contacts(commands)
    add_batches(commands)
    add_routes(commands)
    add_drain(commands)
    add_tokens(commands)
    add_host_key(commands)
    add_support(commands)
    add_journal(commands)
    add_trying(commands)
    add_completion(commands, parser)
    return root
