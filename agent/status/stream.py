"""`GET /agent/v1/events`: who listens hears at once when the picture changes (server-sent events).

Two kinds of events (WHATWG, "Server-sent events"):

- `status`: the body of `GET /agent/v1/status`, whole, when a listener comes and whenever something
  in it changed that is more than time passing. Its id names this picture: who comes again with it
  as `Last-Event-ID` hears nothing until there is a newer one, and misses nothing, because each
  picture is whole.
- `beat`: every few seconds, `{now, clock}`: the agent lives. `clock` is the till's own time.

It needs no token and holds nobody's data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agent.contact import new_id
from agent.errors import Overloaded
from agent.status.program import to_json
from agent.status.snapshot import Observer, Snapshot

MOST_LISTENERS = 32
BEAT_S = 5.0
_LOOK_EVERY_S = 0.5
_SEND_S = 10.0  # who does not read for so long does not listen any more
_END_S = 0.5
_COME_AGAIN_MS = 2000
# What changes by itself all the time.
_FLEETING = ("now", "uptimeSeconds", "oldestWaitingSeconds", "clockAheadSeconds")


@dataclass(frozen=True)
class _Picture:
    id: str
    essence: dict[str, Any]
    body: str
    snapshot: Snapshot


class Stream:
    """Everybody who listens, and one task that looks for all of them."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._run = new_id()  # an id of an earlier run of the agent means nothing now
        self._number = 0
        self._picture: _Picture | None = None
        self._changed = asyncio.Event()
        self._listeners: set[asyncio.Task[Any]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        """Give `GET /agent/v1/events`; a HEAD would never end."""
        return [web.get("/agent/v1/events", self._listen, allow_head=False)]

    async def close(self) -> None:
        """Let every listener go, at once: they come again by themselves."""
        self._closing = True
        self._changed.set()
        if self._listeners:
            _, late = await asyncio.wait(self._listeners, timeout=_END_S)
            for task in late:  # does not read what it is sent
                task.cancel()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if self._closing or len(self._listeners) >= MOST_LISTENERS:
            raise Overloaded("Too many listen already. Ask for /agent/v1/status now and then.")
        # Here, not above: an agent whose page nobody opens keeps the memory.
        from aiohttp_sse import sse_response

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler always runs in one
        self._listeners.add(task)
        try:
            await self._look()
            self._keep_looking()
            async with sse_response(request) as answer:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await self._tell(answer, request.headers.get("Last-Event-ID"))
        finally:
            self._listeners.discard(task)
        return answer

    async def _tell(self, answer: Any, heard: str | None) -> None:
        """Send every new picture, and a beat in between, until either side ends."""
        retry: int | None = _COME_AGAIN_MS
        while not self._closing:
            picture, changed = self._picture, self._changed
            assert picture is not None  # noqa: S101 - looked before the first turn
            async with asyncio.timeout(_SEND_S):
                if picture.id != heard:
                    heard = picture.id
                    await answer.send(picture.body, id=heard, event="status", retry=retry)
                else:
                    await answer.send(_beat(picture.snapshot), event="beat", retry=retry)
            retry = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await changed.wait()

    # --- looking ------------------------------------------------------------------------------

    def _keep_looking(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._look_for_all(), name="page-stream")

    async def _look_for_all(self) -> None:
        while self._listeners:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        snapshot = await self._observer.look()
        body = to_json(snapshot)
        essence = {name: value for name, value in body.items() if name not in _FLEETING}
        # A byte more or less on the disk is no news.
        essence["journal"] = {**body["journal"], "freeBytes": None}
        if self._picture is not None and self._picture.essence == essence:
            self._picture = _Picture(self._picture.id, essence, self._picture.body, snapshot)
            return
        self._number += 1
        picture_id = f"{self._run}-{self._number}"
        self._picture = _Picture(picture_id, essence, json.dumps(body), snapshot)
        self._changed.set()
        self._changed = asyncio.Event()


def _beat(snapshot: Snapshot) -> str:
    now = snapshot.now
    return json.dumps({"now": now.isoformat(), "clock": f"{now.astimezone():%H:%M:%S}"})
