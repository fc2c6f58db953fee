"""Engage that answers success in another form: after a while that is no portal any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from patience import eventually
from shifted_clock import ShiftedClock
from world import World

from agent.delivery.engage.strangeness import Strangeness
from agent.errors import EngageFailed, NotEngage, RouteError

Start = Callable[..., Awaitable[World]]
STRANGE = NotEngage("Another shape.", status=200)
BROKEN = EngageFailed("It fell over.", status=500)


def seen(*ends: RouteError | None, every_s: float = 30.0) -> str | None:
    """Give what is said after these calls, one each so many seconds."""
    strangeness, second = Strangeness(), 0.0
    for end in ends:
        second += every_s
        strangeness.note(end, second)
    return strangeness.problem(second)


@pytest.mark.parametrize(
    ("ends", "is_said"),
    [
        ([STRANGE] * 4, False),  # too few
        ([STRANGE] * 5, True),
        ([STRANGE, STRANGE, None, STRANGE, STRANGE, STRANGE], False),  # a good one in between
        ([STRANGE, BROKEN, STRANGE, BROKEN, STRANGE, STRANGE, STRANGE], True),
        ([BROKEN] * 9, False),
        ([STRANGE] * 9 + [None], False),
    ],
)
def test_only_many_answers_of_success_that_nobody_can_read_are_a_change(
    ends: list[RouteError | None], is_said: bool
) -> None:
    assert (seen(*ends) is not None) is is_said


def test_many_at_once_are_not_yet_a_change() -> None:
    assert seen(*[STRANGE] * 9, every_s=1) is None


async def test_engage_that_keeps_answering_in_another_form_is_named_until_it_does_not(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ShiftedClock()
    monkeypatch.setattr("agent.assembly.SystemClock", lambda: clock)
    world = await start()
    world.sandbox.set_fault("wrong_shape", target="engage")
    change_id = await world.pos.create()

    async def told() -> bool:
        clock.shift_s += 60
        await world.pos.call("POST", "/agent/v1/drain")
        needs = (await world.pos.status())["needsPerson"]
        return any("answers have changed" in need["what"] for need in needs)

    await eventually(told, "Engage's change is named")
    await world.pos.until(change_id, "waiting")
    world.sandbox.clear_faults()

    await world.pos.call("POST", "/agent/v1/drain")
    await world.pos.until(change_id, "delivered")
    needs = (await world.pos.status())["needsPerson"]
    assert not any("answers have changed" in need["what"] for need in needs)
