"""How long what waits must wait before it is put into a file because of its age. Pure.

Neither a line that flaps nor attempts that are used up one by one may make a stream of tiny files,
and a long outage not thousands of them (docs/decisions/0012).
"""

from __future__ import annotations

from datetime import datetime

from agent.change import Change

_MOST_DOUBLINGS = 30  # more than a till's life
_LEAST_DOUBLED_S = 1.0  # twice nothing is nothing


def age_needed_s(seal_after_s: float, unsent: int) -> float:
    """Give how old the oldest change must be: twice as old for each file that still lies here.

    What is sealed while nothing can be uploaded gains no time, and cannot go by the API any more.
    """
    if not unsent:
        return seal_after_s
    return max(seal_after_s, _LEAST_DOUBLED_S) * (1 << min(unsent, _MOST_DOUBLINGS))


class Ripeness:
    """Since when the oldest change waits that a file could take, and when the last was sealed."""

    def __init__(self) -> None:
        self._oldest: int | None = None  # its sequence number
        self._since = 0.0  # monotonic
        self._sealed_at = float("-inf")  # monotonic
        self._returned_at = float("-inf")  # monotonic: when a return of the line made files

    def note_oldest(self, change: Change, now: datetime, monotonic: float) -> None:
        """Tell which change is the oldest.

        Its age by the wall clock counts only up to where it is first seen: from then on a jump
        changes nothing.
        """
        if self._oldest != change.seq:
            age_s = (now - datetime.fromisoformat(change.created_at)).total_seconds()
            self._oldest, self._since = change.seq, monotonic - max(0.0, age_s)

    def note_sealed(self, monotonic: float) -> None:
        """Tell that what could go was sealed; what was left then waits from now on."""
        self._oldest, self._sealed_at = None, monotonic

    def takes_return(self, monotonic: float, age_needed: float) -> bool:
        """Say whether what a return of the line finds may be sealed: a line that flaps returns
        often. True counts as sealed."""
        if monotonic - self._returned_at < age_needed:
            return False
        self._returned_at = monotonic
        return True

    def is_ripe(self, monotonic: float, age_needed: float) -> bool:
        """Say whether the oldest one is old enough, and the file before it as well."""
        return monotonic - max(self._since, self._sealed_at) >= age_needed
