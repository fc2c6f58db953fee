"""The command line. What asks a running agent speaks HTTP to it and never opens its journal.

A group of commands is a module of its own; this one puts them together and says how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agent import __version__
from agent.commands.batches import add_batches
from agent.commands.changes import add_changes
from agent.commands.contacts import add_contacts
from agent.commands.host_key import add_host_key
from agent.commands.journal import add_journal
from agent.commands.parts import BAD_CONFIG, FAILED, NO_JOURNAL, NOT_RUNNING, OK
from agent.commands.running_agent import NotRunning
from agent.commands.service import add_service, report_problems
from agent.commands.setup import add_setup
from agent.commands.status import add_status
from agent.commands.tokens import add_tokens
from agent.commands.trying import add_trying
from agent.errors import AgentError, ConfigError, JournalError

_EPILOG = """
exit codes: 0 done, 1 failed, 2 the settings are wrong, 3 the journal or the port cannot be used,
4 no agent answers. Every command takes --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    options = parser().parse_args(arguments)
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
        return 130


def parser() -> argparse.ArgumentParser:
    """Give all commands with their options; completions and the man page are made from it."""
    root = argparse.ArgumentParser(
        prog="till-agent",
        description="Takes customer changes at the till and delivers them to Voyado Engage.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"till-agent {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_service(commands)
    add_setup(commands)
    add_status(commands)
    add_changes(commands)
    add_contacts(commands)
    add_batches(commands)
    add_tokens(commands)
    add_host_key(commands)
    add_journal(commands)
    add_trying(commands)
    return root
