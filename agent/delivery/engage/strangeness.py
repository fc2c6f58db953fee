"""Whether Engage keeps answering in a form that nobody here can read: then its API has changed.

Pure. One such answer is a portal or a proxy, and the link judges it. Many, with no good one in
between, over a connection whose certificate was accepted, need a person: waiting mends nothing.
"""

from __future__ import annotations

from agent.errors import RouteError

_AT_LEAST = 5  # answers
_FOR_AT_LEAST_S = 120.0


class Strangeness:
    """Counts answers of success that could not be read."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0  # monotonic: the first of them

    def note(self, error: RouteError | None, monotonic: float) -> None:
        """Take how a call ended; None is an answer as it should be."""
        if error is None:
            self._count = 0
        elif error.status is not None and 200 <= error.status < 300:
            self._since = self._since if self._count else monotonic
            self._count += 1
            # Other failures say nothing: a line that breaks in between changes no API.

    def problem(self, monotonic: float) -> str | None:
        """Say for a person that it goes on."""
        if self._count < _AT_LEAST or monotonic - self._since < _FOR_AT_LEAST_S:
            return None
        return (
            "Engage's answers have changed: they say that a call worked, in a form that this "
            "program does not know. What was accepted is safe, and waits. Tell Voyado and whoever "
            "looks after till-agent; if a proxy inspects TLS, look at what it answers."
        )
