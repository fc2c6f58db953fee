"""The export's files: which are meant, in which order, and of what moment each is. Pure.

Facts: a file is named `[timestamp]_[filenumber]_[filename].xml` with a timestamp of 14 digits and
filenumbers from 0 (Engage's docs, "Contact XML export"). Of which zone the timestamp is, they do
not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_NAME = re.compile(r"(\d{14})_(\d{1,9})_.*\.xml\Z", re.IGNORECASE | re.DOTALL)
_NAME_MAX = 200  # more would be no name that Engage gives


@dataclass(frozen=True)
class ExportFile:
    """One file in the export's folder."""

    name: str
    bytes: int
    modified: int  # by the server's clock, seconds since 1970; 0: it does not say


def is_meant(name: str) -> bool:
    """Say whether a file of this name belongs to the export: XML, and no upload under way."""
    return (
        name.lower().endswith(".xml")
        and not name.startswith(".")
        and len(name) <= _NAME_MAX
        and name.isprintable()
        and "/" not in name
    )


def in_order(files: Iterable[ExportFile]) -> list[ExportFile]:
    """Sort files as they were made: by timestamp, then by number, 2 before 16.

    A file with another kind of name goes by when the server got it.
    """
    return sorted(files, key=_place)


def _place(file: ExportFile) -> tuple[datetime, int, str]:
    match = _NAME.match(file.name)
    stamp = _stamp(file.name)
    if match is None or stamp is None:
        return _modified(file), 0, file.name
    return stamp, int(match[2]), file.name


def moment_of(file: ExportFile, now: datetime) -> datetime:
    """Give the moment of which a file tells; never one that is still to come.

    The earlier one of its timestamp, read as UTC, and of when the server got it: a zone that was
    guessed wrong must not make a file newer than it is, or it would undo what the till did since.
    """
    known = [now]
    if (stamp := _stamp(file.name)) is not None:
        known.append(stamp)
    if file.modified > 0:
        known.append(_modified(file))
    return min(known)


def _stamp(name: str) -> datetime | None:
    match = _NAME.match(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _modified(file: ExportFile) -> datetime:
    try:
        return datetime.fromtimestamp(max(0, file.modified), UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)
