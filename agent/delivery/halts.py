"""Why a route stands still: a halt has a cause that must be cured, a question waits for a person's
answer, a pause is a person's wish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agent.change import Route
from agent.clock import Clock


@dataclass(frozen=True)
class Halt:
    """A cause that stops a whole route; no change is rejected for it."""

    cause: str
    since: datetime


class RouteGate:
    """Whether a route may be used now. Halted, it lets one probe through now and then."""

    def __init__(
        self,
        route: Route,
        clock: Clock,
        *,
        probe_s: float,
        spread: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """`spread` gives a factor for each interval: a chain's tills do not all probe at once."""
        self.route = route
        self.halt: Halt | None = None
        self.question: Halt | None = None  # only a person ends it; no probe could answer it
        self.paused = False
        self._clock = clock
        self._probe_s = probe_s
        self._spread = spread
        self._next_probe = 0.0

    @property
    def state(self) -> str:
        """Give running, paused or halted."""
        # A question first: whoever resumes a paused route must have read it.
        if self.question is None and self.paused:
            return "paused"
        return "halted" if self.question or self.halt else "running"

    @property
    def reason(self) -> str | None:
        """Give why it does not run, for a person."""
        if self.question is None and self.paused:
            return "Paused by hand. Nothing is lost; resume it when you are ready."
        stop = self.question or self.halt
        return stop.cause if stop else None

    @property
    def since(self) -> datetime | None:
        """Give since when it is halted; None when it is not."""
        stop = self.question or self.halt
        return stop.since if stop else None

    @property
    def asks(self) -> bool:
        """Say whether it waits for a person's word."""
        return self.question is not None

    def ask(self, question: str) -> None:
        """Send nothing until a person has confirmed something."""
        self.question = Halt(question, self._clock.now())

    def stop(self, cause: str) -> None:
        """Halt, or note that the cause still stands; the next probe comes after the interval."""
        since = self.halt.since if self.halt else self._clock.now()
        self.halt = Halt(cause, since)
        self._next_probe = self._clock.monotonic() + self._probe_s * self._spread()

    def cured(self) -> None:
        """A try got past the cause."""
        self.halt = None

    def resume(self) -> None:
        """A person says: go on, and do not wait for the next probe."""
        self.paused = False
        self.question = None
        self._next_probe = 0.0

    def hurry(self) -> None:
        """A person asked: try a halted route now; a pause stays."""
        self._next_probe = 0.0

    def takes_probe(self) -> bool:
        """Say whether a halted route's next probe is due; it is taken by asking."""
        if self.paused or self.question or self.halt is None:
            return False
        if self._clock.monotonic() < self._next_probe:
            return False
        self._next_probe = self._clock.monotonic() + self._probe_s * self._spread()
        return True

    @property
    def is_open(self) -> bool:
        """Say whether the route runs freely."""
        return not self.paused and self.question is None and self.halt is None
