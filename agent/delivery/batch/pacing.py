"""When one kind of work at the SFTP server is due again, and what stands against it.

Uploading, looking and removing go at paces of their own: that one works says nothing of the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from agent.clock import Clock
from agent.delivery.retry import next_wait


class Pacing:
    """One kind of work: due at once, until it fails; then slower with every failure."""

    def __init__(self, clock: Clock, waits_s: Sequence[float], *, least_s: float = 0.0) -> None:
        """`waits_s`: as `retry.waits_s`; `least_s`: no wait after a failure is shorter."""
        self._clock = clock
        self._waits_s = waits_s
        self._least_s = least_s
        self._tries = 0  # since the last success
        self._due = 0.0
        self.problem: str | None = None  # what only a person can cure

    @property
    def is_due(self) -> bool:
        """Say whether it may be tried now."""
        return self._clock.monotonic() >= self._due

    def hurry(self) -> None:
        """Do not wait: a person asked, or there is something new to do."""
        self._due = 0.0

    def rest(self, wait_s: float) -> None:
        """Let it be due again after about so long."""
        self._due = self._clock.monotonic() + wait_s * spread()

    def failed(self, problem: str | None, *, soon: bool = False) -> None:
        """It did not work: the next try comes after the next wait, or much sooner."""
        self._tries += 1
        self.problem = problem
        wait_s = next_wait(self._waits_s, self._tries, random.uniform, soon=soon)
        self._due = self._clock.monotonic() + max(wait_s, self._least_s * spread())

    def succeeded(self) -> None:
        """It worked."""
        self._tries = 0
        self.problem = None


def spread() -> float:
    """Give a factor for a regular wait, so that a chain's tills do not all come in one second."""
    return random.uniform(0.8, 1.2)  # noqa: S311
