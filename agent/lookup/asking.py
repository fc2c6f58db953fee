"""Questions to Engage: asked only while the line allows, and by one for all who want the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, TypeVar

from agent.delivery.engage.answers import Answer
from agent.delivery.engage.client import EngageClient
from agent.delivery.link import LinkState
from agent.errors import NotEngage, Refused, RouteError

T = TypeVar("T")


class EngageOffline(RouteError):
    """Engage is not asked while the line is down."""

    code = "EngageOffline"


class EngageSilent(RouteError):
    """Engage did not answer in time for somebody who waits."""


def refuse_offline(client: EngageClient) -> None:
    """Raise EngageOffline while the line is down, so that nobody waits for nothing.

    Once a probe got through, one real answer decides; it may be the answer to a question.
    """
    if client.link.state is LinkState.OFFLINE and not client.link.on_trial:
        raise EngageOffline


async def ask(
    client: EngageClient, path: str, read: Callable[[Answer], T], query: Mapping[str, str] | None
) -> T:
    """Make one call for a person. Raises what the client raises.

    A 404 that is not `ContactNotFound`, such as one for a wrong path, is no answer to the question:
    handed on, a POS would read it as "no such customer". It raises NotEngage.
    """
    try:
        return await client.call("GET", path, read, query=query)
    except Refused as error:
        if error.status == 404:
            raise NotEngage("Engage does not know this call.") from error
        raise


class Flights:
    """Work under way that many may wait for: nobody who leaves takes it from the others."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    async def join(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], wait_s: float
    ) -> tuple[T, bool]:
        """Wait for the work under this key, begun now unless it is under way already.

        Gives its result, and whether somebody else had begun it. Raises what the work raises, and
        EngageSilent when it takes longer than `wait_s`; the work goes on then.
        """
        task = self._under_way.get(key)
        collapsed = task is not None
        if task is None:
            task = asyncio.create_task(work())
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(task), collapsed
        except TimeoutError as error:
            raise EngageSilent from error

    def _landed(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # all who waited may have left

    async def close(self) -> None:
        """End what is under way: the agent is stopping."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
