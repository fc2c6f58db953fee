"""How the loops of delivery sleep: until somebody rings, or a slow tick comes."""

from __future__ import annotations

import asyncio


async def until_rung(bell: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, at most so long, and clear it for the next time."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        pass
    bell.clear()
