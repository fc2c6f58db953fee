"""Random histories of an agent end as promised: nothing lost, nothing doubled, in order, drained.

A few are played in the quick suite and a hundred with the marker `system`; `python tests/proof`
(make soak) plays as many as are wanted, or one of them again by its number. TILL_AGENT_HISTORIES
and TILL_AGENT_SEED say how many numbered ones the system test plays and from which number on.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from history_steps import SETUP, STEPS, Step
from history_world import history, play_number
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

HISTORIES = int(os.environ.get("TILL_AGENT_HISTORIES", "60"))
FIRST = int(os.environ.get("TILL_AGENT_SEED", "1000"))

_STEPS = st.one_of(
    [
        st.builds(
            Step,
            st.just(name),
            st.fixed_dictionaries({each: st.sampled_from(of) for each, of in values.items()}),
        )
        for name, (weight, values) in STEPS.items()
        for _ in range(max(1, weight // 3))
    ]
)
_SETUPS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SETUP.items()})


class Histories(RuleBasedStateMachine):
    """Hypothesis chooses what happens; after every history the world heals and must be right."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.failed = False

    @initialize(setup=_SETUPS)
    def begin(self, setup: dict[str, Any]) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.loop, self.world = self.stack.enter_context(history(folder, setup))

    @rule(step=_STEPS)
    def happens(self, step: Step) -> None:
        with self._noting_failure():
            self.loop.run_until_complete(self.world.do(step))
            self.world.raise_broken()

    def teardown(self) -> None:
        with self.stack, self._noting_failure():
            if not self.failed and hasattr(self, "world"):
                self.loop.run_until_complete(self.world.heal_and_check())

    @contextlib.contextmanager
    def _noting_failure(self) -> Any:
        try:
            yield
        except BaseException:
            self.failed = True
            raise


# A kill may leave a connection that was taken from the port and given to nobody yet.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _played_by_hypothesis(histories: int, steps: int, **more: Any) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_a_few_histories_keep_every_promise() -> None:
    _played_by_hypothesis(10, 15, derandomize=True, phases=[Phase.generate])  # in bounded time


@pytest.mark.system
def test_histories_that_hypothesis_makes_up_keep_every_promise() -> None:
    _played_by_hypothesis(40, 40, phases=[Phase.generate, Phase.shrink])


@pytest.mark.system
def test_numbered_histories_keep_every_promise() -> None:
    print(f"TILL_AGENT_SEED={FIRST} TILL_AGENT_HISTORIES={HISTORIES}")
    for number in range(FIRST, FIRST + HISTORIES):
        with tempfile.TemporaryDirectory() as folder:
            play_number(Path(folder), number)
