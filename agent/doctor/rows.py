"""Rows of an examination, and how checks are run so that none hides another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from agent import events

T = TypeVar("T")


class Result(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # it works, or nobody could tell; a person should know
    FAILED = "failed"  # it will not work like this


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. Holds no personal data and no secret."""

    check: str  # which, in a word or two; stable
    result: Result
    meaning: str  # what was found
    what_to_do: str = ""  # empty where nothing is to be done

    def to_json(self) -> dict[str, str]:
        """Give the row as the HTTP call and `--json` show it."""
        return {
            "check": self.check,
            "result": str(self.result),
            "meaning": self.meaning,
            "whatToDo": self.what_to_do,
        }


def ok(check: str, meaning: str) -> Row:
    """Give a row for what is in order."""
    return Row(check, Result.OK, meaning)


def warning(check: str, meaning: str, what_to_do: str = "") -> Row:
    """Give a row for what a person should know."""
    return Row(check, Result.WARNING, meaning, what_to_do)


def failed(check: str, meaning: str, what_to_do: str = "") -> Row:
    """Give a row for what will not work."""
    return Row(check, Result.FAILED, meaning, what_to_do)


def not_examined(check: str, because: str) -> Row:
    """Give a row for what could not be looked at, because something before it failed."""
    return warning(check, f"Not examined. {because}", "Cure that first, then look again.")


@dataclass(frozen=True)
class Check:
    """Something to look at; gives the rows that it names."""

    names: tuple[str, ...]
    look: Callable[[], Awaitable[Sequence[Row]]]
    limit_s: float


async def examine(checks: Sequence[Check]) -> tuple[Row, ...]:
    """Run all checks at once and give their rows in order; one that hangs or breaks hides none."""
    return tuple(
        row for rows in await asyncio.gather(*(_run(check) for check in checks)) for row in rows
    )


async def _run(check: Check) -> Sequence[Row]:
    try:
        async with asyncio.timeout(check.limit_s):
            return await check.look()
    except TimeoutError:
        words = f"This did not end within {check.limit_s:g} seconds."
        return [
            failed(name, words, "Look at what it needs: disk or network.") for name in check.names
        ]
    except Exception as error:
        events.log().error("doctor_bug", error=type(error).__name__, exception=error)
        words = f"The doctor itself failed here ({type(error).__name__})."
        return [failed(name, words, "Report it with the log's lines.") for name in check.names]


# --- what may hang ----------------------------------------------------------------------------


async def aside(work: Callable[[], T]) -> T:
    """Run blocking work on a thread that nobody waits for at the end, should it hang."""
    return await asyncio.wrap_future(_in_daemon(work))


def _in_daemon(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return future


class Daemons(ThreadPoolExecutor):
    """A loop's executor whose threads do not hold up the end of the process: resolvers hang."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run on a daemon thread of its own."""
        return _in_daemon(lambda: fn(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nobody."""
