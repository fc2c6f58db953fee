"""Our opinion of the line to Engage: online, suspect or offline. Pure, fed with what happened.

Only transport failures move it: a 4xx proves that the line is up. From offline it takes a probe and
then one real answer to be online again, so a line that flaps does not make the agent flap with it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from agent.clock import Clock


class LinkState(StrEnum):
    """What we think of the line."""

    ONLINE = "online"
    SUSPECT = "suspect"
    OFFLINE = "offline"


class Link:
    """One line, as seen by everybody who uses it."""

    def __init__(self, clock: Clock, *, offline_after: int) -> None:
        self._clock = clock
        self._offline_after = offline_after
        self._failures = 0
        self.state = LinkState.ONLINE
        self.since: datetime = clock.now()
        self.reason: str | None = None  # why it is not online, without personal data
        self.heard_at: datetime | None = None  # when Engage last answered
        self.on_trial = False  # a probe got through; one real answer decides
        self._offline_from: float | None = None
        self.last_outage_s = 0.0  # how long it was offline before it came back
        self.returns = 0  # how often it came back from offline

    def heard(self) -> None:
        """Engage answered, whatever it said."""
        self.heard_at = self._clock.now()
        self._failures = 0
        self.on_trial = False
        if self._offline_from is not None:
            self.last_outage_s = self._clock.monotonic() - self._offline_from
            self._offline_from = None
            self.returns += 1
        self._become(LinkState.ONLINE, None)

    def failed(self, reason: str) -> None:
        """A call failed for a reason that is the line's."""
        self._failures += 1
        if self.on_trial or self._failures >= self._offline_after:
            self.on_trial = False
            if self._offline_from is None:
                self._offline_from = self._clock.monotonic()
            self._become(LinkState.OFFLINE, reason)
        elif self.state is LinkState.ONLINE:
            self._become(LinkState.SUSPECT, reason)

    def probe_succeeded(self) -> None:
        """A connection could be made again; the next real call decides."""
        if self.state is LinkState.OFFLINE:
            self.on_trial = True

    def _become(self, state: LinkState, reason: str | None) -> None:
        if state is not self.state:
            self.state = state
            self.since = self._clock.now()
        self.reason = reason
