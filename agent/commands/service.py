"""`run` and `check`: the agent itself, and its settings."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from agent import config, events
from agent.commands.parts import (
    BAD_CONFIG,
    FAILED,
    NO_JOURNAL,
    OK,
    add,
    add_json,
    print_json,
)
from agent.delivery.batch import stylesheet
from agent.errors import ConfigError, Problem
from agent.steady import SteadyStream


def add_service(commands: Any) -> None:
    """Add `run` and `check`."""
    add(
        commands,
        "run",
        "run the agent",
        _run,
        about="Run the agent until it is told to stop (Ctrl-C, SIGTERM). What is under way then "
        "gets a few seconds; what does not end is looked up after the next start. As a service, "
        "systemd does this.",
        example="till-agent run --config /etc/till-agent/agent.toml",
        codes=((OK, "it was told to stop"), FAILED, BAD_CONFIG, NO_JOURNAL),
    )
    check = add(
        commands,
        "check",
        "check the settings and their files; starts nothing",
        _check,
        about="Check agent.toml and the files that it names: every problem at once, each with its "
        "place and what to write instead. Starts nothing and asks nobody; 'doctor' looks further.",
        example="till-agent check --config agent.toml",
        codes=((OK, "they can be used"), (BAD_CONFIG, "they cannot; every problem is named")),
    )
    add_json(check)


def _run(options: argparse.Namespace) -> int:
    settings = config.load_with_files(options.config, stylesheet.problems)
    # From here on whoever reads the log cannot end or hold up the agent.
    sys.stdout, sys.stderr = SteadyStream(sys.stdout), SteadyStream(sys.stderr)
    for note in (*_notes(settings), *stylesheet.trial(settings)):
        print(f"till-agent: note: {note}", file=sys.stderr)
    events.set_up(settings.log.level, settings.log.format)
    events.hear_libraries()
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(_serve(settings))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    # Everything is closed. A resolver that hangs in a thread must not hold up the end, and the
    # interpreter would wait for it.
    os._exit(code)


async def _serve(settings: config.Config) -> int:
    from agent.assembly import Agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    agent = Agent(settings)
    try:
        await _unless(stop, agent.start())
    except asyncio.CancelledError:
        return OK
    except OSError as error:
        place, remedy = f"{settings.server.host}:{settings.server.port}", "server.port"
        if error.filename is not None:
            place, remedy = error.filename, "server.socket"
        print(
            f"till-agent: cannot listen on {place}: {error.strerror}. Nothing is lost. Stop what "
            f"uses it, or set {remedy}.",
            file=sys.stderr,
        )
        return NO_JOURNAL
    try:
        await stop.wait()
    finally:
        await agent.stop()
    return OK


async def _unless(stop: asyncio.Event, starting: Coroutine[Any, Any, None]) -> None:
    """Start, but not any longer once a stop is asked for: a port may be taken for a while.

    Raises CancelledError then, and what the start raises.
    """
    task, stopped = asyncio.create_task(starting), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
    await task


def _check(options: argparse.Namespace) -> int:
    if options.json:
        return _check_as_json(options)
    settings = config.load_with_files(options.config, stylesheet.trial)
    for note in _notes(settings):
        print(f"note: {note}")
    if settings.fallback.xslt is not None:
        print(
            f"{settings.fallback.xslt}: turns a sample into well-formed XML that names everybody."
        )
    print(f"{options.config}: the settings are right ({config.config_hash(settings)}).")
    return OK


def _notes(settings: config.Config) -> tuple[Problem, ...]:
    return (*config.warnings(settings), *config.file_hints(settings))


def _check_as_json(options: argparse.Namespace) -> int:
    notes: Sequence[Problem] = ()
    number = None
    try:
        settings = config.load_with_files(options.config, stylesheet.trial)
        problems: Sequence[Problem] = ()
        notes, number = _notes(settings), config.config_hash(settings)
    except ConfigError as error:
        problems = error.problems
    print_json(
        {
            "usable": not problems,
            "configHash": number,
            "problems": [_as_json(problem) for problem in problems],
            "notes": [_as_json(note) for note in notes],
        }
    )
    return BAD_CONFIG if problems else OK


def _as_json(problem: Problem) -> dict[str, str]:
    return {"place": problem.place, "what": problem.what, "suggestion": problem.suggestion}


def report_problems(title: str, problems: Sequence[Problem]) -> None:
    """Say all that is wrong, each with its remedy, on standard error."""
    print(title, file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print("Nothing was started and nothing was changed.", file=sys.stderr)
