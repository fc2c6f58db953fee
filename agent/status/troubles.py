"""What went wrong, without anybody's data: refused changes and failed tries by their codes. Pure.

Engage's own words may quote a customer; they stay with the change. A code or a field's name comes
from Engage too, so it is shown only where it cannot be anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from agent.change import Change, Route
from agent.journal.failures import Failure
from agent.status.facts import RefusedChange, Trouble
from agent.status.words import words_of

_KINDS_SHOWN = 6
_UNNAMED = "Refused"  # as where Engage gave no code
_CODE = re.compile(r"[A-Z][A-Za-z0-9]{2,59}")


def refused(changes: Sequence[Change]) -> tuple[RefusedChange, ...]:
    """Give what may be shown of rejected changes, in their order."""
    return tuple(
        RefusedChange(
            id=change.id,
            kind=change.kind,
            code=safe_code(change.error.code if change.error else _UNNAMED),
            fields=tuple(dict.fromkeys(_names(change))),
            since=datetime.fromisoformat(change.settled_at or change.created_at),
        )
        for change in changes
    )


def grouped(failures: Sequence[Failure], *, most: int) -> tuple[Trouble, ...]:
    """Group failed tries, given the newest first and at most `most`, by code and route."""
    groups: dict[tuple[str, Route], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((safe_code(failure.code), failure.route), []).append(failure)
    return tuple(
        Trouble(code, route, len(found), len(failures) >= most, found[0].at)
        for (code, route), found in list(groups.items())[:_KINDS_SHOWN]
    )


def safe_code(code: str) -> str:
    """Give a code that is certainly one; Engage's may be anything."""
    return code if _CODE.fullmatch(code) else _UNNAMED


def _names(change: Change) -> Iterator[str]:
    """Give the attributes that were found wrong: known ones, or those that the POS named itself."""
    fields = change.error.fields if change.error else ()
    given = {name.lower(): name for name in change.payload.names()}
    for field in fields:
        name = field.get("field", "")
        if words_of("en").has(f"attribute.{name}"):
            yield name
        elif name.lower() in given:
            yield given[name.lower()]
