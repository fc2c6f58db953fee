"""Whatever is sent: a refusal in our own shape, within moments, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from bad_requests import Bad, Wire, at_random, by_hand
from hypothesis import HealthCheck, given, settings
from running_agent import Pos, Shop

GOOD_MOST = 150


@pytest.fixture
def wire(shop: Shop) -> Wire:
    return Wire(urlsplit(shop.agent.url).netloc, shop.till.token)


def why_not_refused(wire: Wire, bad: Bad) -> str:
    """Send it; says what is wrong with the answer, nothing if it is a proper refusal."""
    try:
        answer = wire.send(bad)
    except TimeoutError:
        return "no answer"
    if answer is None:
        return "closed without an answer"
    if not 400 <= answer.status < 500:
        return f"answered with {answer.status}"
    if not answer.headers["content-type"].startswith("application/problem+json"):
        return f"answered with {answer.headers['content-type']}"
    problem = json.loads(answer.body)
    if problem["status"] != answer.status or not problem["errorCode"] or not problem["detail"]:
        return f"no problem: {problem}"
    if "agent-change" in answer.headers:
        return "names a change"
    return "repeats the token" if wire.token.encode() in answer.body else ""


async def beside_a_good_client(pos: Pos, work: Callable[[], int]) -> int:
    """Do the work in a thread while a sound client goes on signing up; gives what it gave."""
    working = asyncio.create_task(asyncio.to_thread(work))
    good = 0
    while not working.done() or not good:
        if good < GOOD_MOST:
            answer = await pos.create(f"good{good}@example.test", Prefer="respond-async")
            assert answer.status == 202
            good += 1
        await asyncio.wait([working], timeout=0.02)
    done = await working
    assert len(await pos.changes()) == good, "a fragment was stored"
    return done


async def test_what_is_known_to_break_servers_is_refused(shop: Shop, wire: Wire) -> None:
    wrong: dict[str, str] = {}

    def send_all() -> int:
        cases = list(by_hand(wire))
        wrong.update({bad.what: why for bad in cases if (why := why_not_refused(wire, bad))})
        return len(cases)

    sent = await beside_a_good_client(shop.pos, send_all)

    assert wrong == {}
    assert sent > 140


@pytest.mark.parametrize("count", [320, pytest.param(2000, marks=pytest.mark.system)])
async def test_what_chance_makes_is_refused(
    shop: Shop, wire: Wire, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[str] = []

    @settings(
        max_examples=count,
        derandomize=True,  # the same requests in every run
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(at_random(wire))
    def send(bad: Bad) -> None:
        sent.append(bad.what)
        assert why_not_refused(wire, bad) == ""

    def send_all() -> int:
        send()
        return len(sent)

    assert await beside_a_good_client(shop.pos, send_all) >= 300
    logged = capsys.readouterr()
    assert "request_bug" not in logged.out
    assert logged.err == ""
