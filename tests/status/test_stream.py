"""The stream of events: whole pictures, a beat in between, bounded, resumed, and ended at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.status import stream
from agent.status.stream import Stream

from .conftest import Client, Till

PATIENCE_S = 10.0


@dataclass
class Event:
    """One server-sent event."""

    kind: str = ""
    id: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def data(self) -> Any:
        return json.loads("\n".join(self.lines))


async def events(answer: Any) -> AsyncIterator[Event]:
    """Read events as a browser does."""
    event = Event()
    async for line in answer.content:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name == "event":
            event.kind = value
        elif name == "id":
            event.id = value
        elif name == "data":
            event.lines.append(value)
        elif not name and event.kind:
            yield event
            event = Event()


async def next_of(kind: str, found: AsyncIterator[Event]) -> Event:
    async with asyncio.timeout(PATIENCE_S):
        async for event in found:
            if event.kind == kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BEAT_S", 0.05)
    monkeypatch.setattr(stream, "_LOOK_EVERY_S", 0.01)


async def listen(client: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.get("/agent/v1/events", headers=named)


async def test_who_comes_hears_the_whole_status_at_once(till: Till, serve: Client) -> None:
    client = await serve(till.observer())

    answer = await listen(client)
    first = await next_of("status", events(answer))

    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert first.data == await (await client.get("/agent/v1/status")).json()
    answer.close()


async def test_a_change_is_told_and_passing_time_is_not(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    answer = await listen(client)
    heard = events(answer)
    before = await next_of("status", heard)

    till.clock.pass_by(5)  # seconds pass
    await next_of("beat", heard)
    till.clock.pass_by(5)
    till.link.state, till.link.reason = "offline", "No answer."
    after = await next_of("status", heard)

    assert after.data["link"]["state"] == "offline"
    number = int(before.id.rpartition("-")[2])
    assert after.id == f"{before.id.rpartition('-')[0]}-{number + 1}"
    answer.close()


async def test_a_beat_says_the_time(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    answer = await listen(client)

    beat = await next_of("beat", events(answer))

    assert beat.data == {"now": "2026-11-21T11:00:00+00:00", "clock": "12:00:00"}
    assert beat.id == ""
    answer.close()


async def test_who_comes_again_hears_only_what_is_newer(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    answer = await listen(client)
    known = (await next_of("status", events(answer))).id
    answer.close()

    same = await listen(client, Last_Event_ID=known)
    first = await anext(events(same))
    same.close()
    till.clock.pass_by(5)
    till.link.state = "offline"
    newer = await listen(client, Last_Event_ID=known)
    second = await anext(events(newer))
    newer.close()

    assert first.kind == "beat"
    assert (second.kind, second.data["link"]["state"]) == ("status", "offline")


async def test_an_id_of_an_earlier_run_means_nothing(till: Till, serve: Client) -> None:
    client = await serve(till.observer())

    answer = await listen(client, Last_Event_ID="01a20000-0000-7000-8000-000000000000-1")

    assert (await anext(events(answer))).kind == "status"
    answer.close()


async def test_no_more_than_so_many_may_listen(
    till: Till, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_LISTENERS", 2)
    client = await serve(till.observer())
    answers = [await listen(client) for _ in range(2)]
    for answer in answers:
        await next_of("status", events(answer))

    refused = await listen(client)

    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert (await refused.json())["errorCode"] == "Overloaded"
    for answer in answers:
        answer.close()


async def test_who_left_makes_room(
    till: Till, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_LISTENERS", 1)
    client = await serve(till.observer())
    first = await listen(client)
    await next_of("status", events(first))
    first.close()

    async with asyncio.timeout(PATIENCE_S):
        while (again := await listen(client)).status != 200:
            await asyncio.sleep(0.01)

    assert (await next_of("status", events(again))).data["store"] == "0042"
    again.close()


async def test_closing_lets_everybody_go_at_once(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    answers = [await listen(client) for _ in range(3)]
    heard = [events(answer) for answer in answers]
    for each in heard:
        await next_of("status", each)

    for each in serve.streams:  # type: ignore[attr-defined]
        await each.close()
    for each in heard:
        async with asyncio.timeout(PATIENCE_S):
            async for _ in each:
                pass

    assert (await listen(client)).status != 200


async def test_nobody_listening_means_that_nobody_looks(
    till: Till, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = till.observer()
    client = await serve(observer)
    answer = await listen(client)
    await next_of("status", events(answer))
    (only,) = serve.streams  # type: ignore[attr-defined]

    answer.close()
    async with asyncio.timeout(PATIENCE_S):
        while not idle(only):
            await asyncio.sleep(0.01)

    assert idle(only)


def idle(listened: Stream) -> bool:
    return listened._pump is not None and listened._pump.done() and not listened._listeners
