"""For how long each uploaded file lies on the server, whoever sets the clock meanwhile. Pure.

Seconds are counted by the clock that does not jump. The time of day says only how old a file was
when this process began, as for sealing (delivery/batch/ripeness.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


class UploadAges:
    """Since when each of the uploaded files lies there; told of all of them, again and again."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # monotonic, by the file's name
        self._told: float | None = None  # monotonic: when it was told of them last

    def told(
        self, uploaded: Mapping[str, datetime], now: datetime, monotonic: float
    ) -> Mapping[str, float]:
        """Give each file's age in seconds; `uploaded` is every file that lies there, and when.

        One uploaded at a moment that is yet to come counts from now: the clock was wrong then.
        """
        since = {
            name: self._since.get(name, monotonic - self._age_s(at, now, monotonic))
            for name, at in uploaded.items()
        }
        self._since, self._told = since, monotonic
        return {name: monotonic - began for name, began in since.items()}

    def _age_s(self, at: datetime, now: datetime, monotonic: float) -> float:
        age_s = max(0.0, (now - at).total_seconds())
        # What was not there at the last look was uploaded since.
        return age_s if self._told is None else min(age_s, monotonic - self._told)
