"""What every command has: help that teaches, JSON, exit codes, and words where no agent runs."""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call

from agent import __version__
from agent.commands import parser
from agent.commands.parts import CODES


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Give every command that does something, with the words that call it."""
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))
    if not below:
        yield path, parser


COMMANDS = dict(leaves(parser()))
ASKING = [path for path, parser in COMMANDS.items() if "--url" in parser.format_help()]


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nobody answers, for as long as the test needs it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_it_does_shows_an_example_and_its_exit_codes(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    said = call(*path, "--help")

    about, _, rest = said.out.partition("\n\n")[2].partition("\n\n")
    assert said.code == 0
    assert about.rstrip().endswith("."), "A sentence says what it does."
    assert f"example:\n  till-agent {path[0]}" in rest or 'eval "$(till-agent' in rest
    assert "exit codes:\n    0  " in rest
    assert [
        line for line in said.out.splitlines() if len(line) > 80 and "till-agent" not in line
    ] == []


@pytest.mark.parametrize("path", ASKING, ids=" ".join)
def test_command_that_asks_says_clearly_that_no_agent_runs(
    path: tuple[str, ...], nowhere: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TILL_AGENT_TOKEN", "any")
    monkeypatch.chdir(str(tmp_path))
    arguments = [*path, "--url", nowhere, *needed(COMMANDS[path], str(tmp_path))]

    said = call(*arguments)

    assert (said.code, said.out) == (4, ""), said
    assert f"no agent answers at {nowhere}" in said.err
    assert "What it has stored is safe" in said.err


def needed(parser: argparse.ArgumentParser, folder: str) -> list[str]:
    """Give something for every argument that must be given."""
    words = []
    for action in parser._actions:
        if action.option_strings or action.nargs == "?":
            continue
        if action.dest == "file":
            path = f"{folder}/corrected.json"
            with open(path, "w") as file:
                file.write("{}")
            words.append(path)
        else:
            words.append(str(next(iter(action.choices or ["some-id"]))))
    return words


def test_commands_of_the_design_are_there() -> None:
    named = {" ".join(path) for path in COMMANDS}

    assert {
        *("run", "check", "doctor", "status", "drain", "support", "demo"),
        *("changes list", "changes show", "changes retry", "changes discard"),
        *("batches list", "batches show", "batches seal"),
        *("token new", "token list", "token revoke", "host-key show", "host-key trust"),
        *("routes pause", "routes resume", "sandbox run", "completion"),
    } <= named


@pytest.mark.parametrize("arguments", [(), ("changes",), ("nonsense",), ("changes", "list", "-x")])
def test_wrong_command_line_ends_with_2_and_says_why(arguments: tuple[str, ...]) -> None:
    said = call(*arguments)

    assert said.code == 2
    assert "usage: till-agent" in said.err


def test_version_is_one_line_and_with_verbose_of_everything_it_stands_on() -> None:
    short, long = call("--version"), call("--version", "--verbose")

    assert short.out == f"till-agent {__version__}\n"
    for name in ("Python", "SQLite", "OpenSSL", "aiohttp", "paramiko", "lxml", "structlog"):
        assert name in long.out
    assert "missing" not in long.out


# --- completion -----------------------------------------------------------------------------------


def completed(*words: str) -> set[str]:
    """Let bash complete the last of these words."""
    script = f"""
{call("completion", "bash").out}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_shtab_till_agent
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_verbs_options_and_choices() -> None:
    assert completed("till-agent", "dr") == {"drain"}
    assert {"list", "show", "retry"} <= completed("till-agent", "changes", "")
    assert completed("till-agent", "drain", "--ti") == {"--timeout"}
    assert completed("till-agent", "routes", "pause", "a") == {"api"}


def test_zsh_gets_a_script_of_its_own() -> None:
    said = call("completion", "zsh")

    assert said.out.startswith("#compdef till-agent")
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-n"], input=said.out, text=True, check=True)


def test_exit_codes_of_the_document_are_those_of_the_program() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text("utf-8")
    part = text.partition("## Exit codes")[2]

    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", part, re.MULTILINE)}

    assert documented == {*CODES, 130}
