"""`completion`: let a shell complete commands, options and file names."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from agent.commands.parts import OK, help_of


def add_completion(commands: Any, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Add `completion`; `whole` gives the parser of the whole command line."""
    parser = commands.add_parser(
        "completion",
        help="print what a shell needs to complete commands",
        **help_of(
            "Print a script that lets a shell complete commands, options and file names.",
            'eval "$(till-agent completion bash)"\n'
            "till-agent completion bash > /etc/bash_completion.d/till-agent\n"
            'till-agent completion zsh > "${fpath[1]}/_till-agent"',
            (OK,),
        ),
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    parser.set_defaults(act=lambda options: _complete(whole(), options.shell))


def _complete(parser: argparse.ArgumentParser, shell: str) -> int:
    import shtab

    print(shtab.complete(parser, shell))
    return OK
