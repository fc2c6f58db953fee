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
    holds: Callable[[], Any | Awaitable[Any]], what: str = "it", within_s: float = PATIENCE_S
) -> Any:
    """Wait until a condition holds and give its value; fails after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)
