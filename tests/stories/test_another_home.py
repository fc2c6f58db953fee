"""A till whose settings name another Engage, or whose disk was copied: it asks before it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from world import World

from agent.journal import origin
from agent.journal.origin import Machine
from agent.sandbox import Sandbox
from agent.trial import Till

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
EMAIL = "vera@example.test"


@pytest.fixture
async def other_engage(sandbox: Sandbox, tmp_path: Path) -> Any:
    """Run a second Engage beside the usual one."""
    other = Sandbox(tmp_path / "other", required={"Member": ()})
    await other.start()
    yield other
    await other.stop()


def point_to(till: Till, old: Sandbox, new: Sandbox) -> None:
    text = till.config_path.read_text("utf-8")
    till.config_path.write_text(text.replace(old.engage_url, new.engage_url), "utf-8")


async def question(world: World) -> str:
    """Give what the page asks; both routes stand still for it."""
    status = await world.pos.status()
    assert [route["state"] for route in status["routes"].values()] == ["halted", "halted"]
    (need,) = status["needsPerson"]
    return f"{need['what']} {need['whatToDo']}"


async def taken_while_paused(world: World) -> str:
    """Take a sign-up that is still there at the next start."""
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    change = await world.pos.create(EMAIL)
    await world.stop()
    return change


async def test_what_was_taken_for_one_engage_is_sent_to_another_only_when_confirmed(
    start: Start, other_engage: Sandbox
) -> None:
    world = await start()
    change = await taken_while_paused(world)
    point_to(world.till, world.sandbox, other_engage)
    await world.start()

    asked = await question(world)
    _, drained, _ = await world.pos.call("POST", "/agent/v1/drain")
    newer = await world.pos.create("per@example.test")

    assert world.sandbox.engage_url in asked
    assert other_engage.engage_url in asked
    assert drained["routes"]["api"]["state"] == "halted"
    assert other_engage.counts()["creates"] == world.sandbox.counts()["creates"] == 0
    await world.pos.call("POST", "/agent/v1/routes/api/resume")
    await world.pos.until(change, "delivered")
    await world.pos.until(newer, "delivered")
    assert other_engage.counts()["creates"] == 2
    assert world.sandbox.counts()["creates"] == 0


async def test_with_the_settings_put_right_it_goes_on_without_a_word(
    start: Start, other_engage: Sandbox
) -> None:
    world = await start()
    change = await taken_while_paused(world)
    point_to(world.till, world.sandbox, other_engage)
    await world.start()
    await question(world)
    await world.stop()
    point_to(world.till, other_engage, world.sandbox)
    await world.start()

    await world.pos.call("POST", "/agent/v1/routes/api/resume")

    await world.pos.until(change, "delivered")
    assert other_engage.counts()["creates"] == 0


async def test_a_copied_disk_sends_nothing_until_somebody_says_that_it_is_the_only_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "machine_here", lambda: Machine(frozenset({"a card"})))
    world = await start()
    change = await taken_while_paused(world)
    monkeypatch.setattr(origin, "machine_here", lambda: Machine(frozenset({"another card"})))
    await world.start()

    asked = await question(world)

    assert "was written on another machine" in asked
    await world.pos.call("POST", "/agent/v1/routes/api/resume")
    await world.pos.until(change, "delivered")
    # The other one may have sent it: it was looked up before it was sent.
    assert [each.path for each in world.calls("GET", "/contacts/id")]
    assert world.sandbox.counts()["duplicates"] == 0
