"""Waiting for what will happen, with one deadline for all tests.

It is long because a busy machine may be slow, and costs nothing where all is well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE_S = 60.0


async def eventually(
    holds: Callable[[], Any | Awaitable[Any]],
    what: str | Callable[[], str] = "it",
    within_s: float = PATIENCE_S,
) -> Any:
    """Wait until a condition holds and give its value; fails after the deadline, saying `what`."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"never: {what() if callable(what) else what}")
        await asyncio.sleep(0.005)
