"""The log as JSON lines, caught while an agent of this process runs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import structlog

from agent import events


class LogLines:
    """What was logged so far."""

    def __init__(self) -> None:
        self._stream = io.StringIO()

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, **fields: Any) -> list[dict[str, Any]]:
        """Give the lines that have these fields."""
        return [
            line
            for line in self.all()
            if all(line.get(name) == value for name, value in fields.items())
        ]

    def naming(self, word: str) -> list[dict[str, Any]]:
        """Give the lines that `grep word` would give."""
        return [json.loads(line) for line in self.text.splitlines() if word in line]


@contextlib.contextmanager
def caught(level: str = "debug") -> Iterator[LogLines]:
    """Log as a shop does, into memory."""
    lines = LogLines()
    events.set_up(level, "json", lines._stream)
    try:
        yield lines
    finally:
        structlog.reset_defaults()
        events.recent.clear()
