"""Look-ups after an import that Engage does not answer: of whom, since when, why, and how long
nobody is looked up because of them. Pure.

One contact that fails must not hold up the others, and an Engage that fails for all must not be
asked for one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_IN_A_ROW = 3  # so many fail for a reason that is not the contact's
Place = tuple[int, int]  # a batch's number, and a contact's position in it


@dataclass(frozen=True)
class Unanswered:
    """A contact that Engage has not answered for since it was looked up first."""

    change: str  # id of the oldest of its changes
    since: float  # monotonic
    cause: str  # of the last failure, a sentence


class Failures:
    """What failed and is not answered yet; `wait_s` gives the rest after so many in a row."""

    def __init__(self, wait_s: Callable[[int], float]) -> None:
        self._wait_s = wait_s
        self._found: dict[Place, Unanswered] = {}
        self._in_a_row = 0
        self._rests_until = 0.0  # monotonic

    def failed(self, place: Place, change: str, cause: str, now: float) -> None:
        """Note a look-up that was not answered; `now` is monotonic."""
        before = self._found.get(place)
        self._found[place] = Unanswered(change, before.since if before else now, cause)
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            self._rests_until = now + self._wait_s(self._in_a_row - _IN_A_ROW + 1)

    def answered(self, place: Place) -> None:
        """Note a look-up that was answered, whatever was said."""
        self._found.pop(place, None)
        self._in_a_row = 0

    def rests(self, now: float) -> bool:
        """Say whether nobody is to be looked up yet."""
        return now < self._rests_until

    def rest_no_more(self) -> None:
        """Look up again at once: a person wishes it."""
        self._rests_until = 0.0

    @property
    def oldest(self) -> Unanswered | None:
        """Give the one that has been so for the longest time."""
        return min(self._found.values(), key=lambda each: each.since, default=None)
