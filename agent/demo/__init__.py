"""`till-agent try` and `till-agent demo`: an agent in front of a sandbox, in a temporary folder.

Both run the sandbox in this process and the agent as a child, as a till would; whatever ends them,
nothing is left behind.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.sandbox import Sandbox

# The story's acts need so many, so that each has somebody to tell of.
FEWEST_CUSTOMERS = 12

_NEEDS_SANDBOX = (
    "This needs the sandbox, and asyncssh is not installed. "
    "Install it with: pip install 'till-agent[sandbox]'"
)


def try_it() -> int:
    """Run `till-agent try` until Ctrl-C or SIGTERM; gives the exit code."""
    if not _has_sandbox():
        return 2
    from agent.demo import attempt

    code = _run(attempt.run)
    return 0 if code is None else code


def tell(
    *,
    customers: int = 60,
    seed: int = 1,
    keep: bool = False,
    before_count: Callable[[Sandbox], None] | None = None,
) -> int:
    """Run `till-agent demo`; gives 0 if Engage holds exactly what was acknowledged, else 1.

    `before_count` may spoil the result just before it is counted: that is how the count is tested.
    """
    if customers < FEWEST_CUSTOMERS:
        print(f"The story needs at least {FEWEST_CUSTOMERS} customers.", file=sys.stderr)
        return 1
    if not _has_sandbox():
        return 2
    from agent.demo import story

    code = _run(
        lambda: story.run(customers=customers, seed=seed, keep=keep, before_count=before_count)
    )
    return 130 if code is None else code


def _has_sandbox() -> bool:
    if importlib.util.find_spec("asyncssh") is not None:
        return True
    print(_NEEDS_SANDBOX, file=sys.stderr)
    return False


def _run(make: Callable[[], Coroutine[None, None, int]]) -> int | None:
    """Run it to its end; gives its exit code, or None if a signal ended it, all tidied up."""
    return asyncio.run(_until_signal(make()))


async def _until_signal(work: Coroutine[None, None, int]) -> int | None:
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    # A closed terminal ends it too: the agent is in a process group of its own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _cancel_once, task)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _cancel_once(task: asyncio.Task[int]) -> None:
    """End it by the first signal; impatient further ones must not interrupt the tidying up."""
    if not task.cancelling():
        task.cancel()
