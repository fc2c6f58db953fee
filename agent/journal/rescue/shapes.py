"""How the rows of each table look: by that a page is known to which no tree leads any more.

Pure. Strict enough that noise is no row; a row of an older schema, which is shorter, is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.change import Kind, Route, State
from agent.contact import KEY_ATTRIBUTES, is_ref_shaped, is_uuid
from agent.journal.rescue.btree import Value, Values

LARGEST = 2**53  # no number of a journal comes near it; what is larger is none


def is_number(value: Value) -> bool:
    """Say whether it can be a number that the journal gave."""
    return isinstance(value, int) and 0 <= value < LARGEST


def _moment(value: Value) -> bool:
    return isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) is not None


def is_text(value: Value) -> bool:
    """Say whether it is a text."""
    return isinstance(value, str)


def _is_change(row: Values) -> bool:
    # The payload has a checksum of its own; of what stands behind it, times and text are enough.
    head = is_ref(row[1]) and is_number(row[2]) and row[3] in set(Kind) and row[4] in set(State)
    tail = isinstance(row[9], str) and re.fullmatch(r"[0-9a-f]{64}", row[9]) is not None
    return head and tail and _moment(row[28]) and (row[29] is None or _moment(row[29]))


def is_ref(value: Value) -> bool:
    """Say whether it can be an id that the agent issued, of a change or a contact."""
    return isinstance(value, str) and is_ref_shaped(value)


def _is_contact(row: Values) -> bool:
    return is_ref(row[1]) and (row[4] is None or is_number(row[4])) and _moment(row[5])


def _is_member(row: Values) -> bool:
    known = row[1] is None or (isinstance(row[1], str) and is_uuid(row[1]))
    return known and _moment(row[4]) and row[5] in (None, "deleted", "erased")


def _is_attempt(row: Values) -> bool:
    return is_number(row[1]) and row[2] in set(Route) and row[3] in _OUTCOMES


def _is_batch(row: Values) -> bool:
    return is_text(row[1]) and row[2] in _BATCH_STATES and row[3] in (0, 1)


def _is_key(row: Values) -> bool:
    return row[0] in KEY_ATTRIBUTES and is_text(row[1]) and all(map(is_number, row[2:5]))


def _is_batch_contact(row: Values) -> bool:
    return all(map(is_number, row[:3])) and is_text(row[4])


def _is_meta(row: Values) -> bool:
    name = row[0]
    return isinstance(name, str) and is_text(row[1]) and re.fullmatch(_META, name) is not None


def _is_engage(row: Values) -> bool:
    return isinstance(row[1], str) and row[1].startswith("http")


_OUTCOMES = ("delivered", "deferred", "unknown", "rejected", "halted")
_BATCH_STATES = ("filling", "sealed", "written", "uploaded", "imported", "settled")
_META = r"[a-z][a-z0-9_]{2,40}"


@dataclass(frozen=True)
class Shape:
    """How the rows of a table look, those of older schemas too."""

    least: int  # columns
    most: int
    fits: Callable[[Values], bool]
    has_rowid: bool = True
    numbered: bool = True  # its first column is the rowid, which is not kept with the row
    index: str | None = None  # names every row once
    alone: bool = True  # no other table or index has entries of this shape
    key: int = 1  # so many of its first columns name a row


SHAPES = {
    "meta": Shape(2, 2, _is_meta, has_rowid=False),
    "contacts": Shape(6, 6, _is_contact, index="sqlite_autoindex_contacts_1"),
    "keys": Shape(5, 6, _is_key, has_rowid=False, index="keys_by_lane", key=3),
    "batches": Shape(15, 30, _is_batch, index="sqlite_autoindex_batches_1"),
    "changes": Shape(30, 45, _is_change, index="changes_by_lane"),
    "attempts": Shape(11, 11, _is_attempt, index="attempts_by_change"),
    "batch_contacts": Shape(
        10, 14, _is_batch_contact, has_rowid=False, index="batch_contacts_by_lane", key=2
    ),
    "served": Shape(
        9,
        9,
        lambda row: row[0] in ("contact", "purchases", "promotions", "shown"),
        numbered=False,
        index="served_by_contact",
        key=2,
    ),
    "figures": Shape(
        6, 6, lambda row: is_text(row[0]) and all(map(is_number, row[1:5])), has_rowid=False
    ),
    "members": Shape(6, 6, _is_member, index="sqlite_autoindex_members_1"),
    "member_keys": Shape(
        3,
        3,
        lambda row: all(isinstance(each, int) for each in row) and row[2] in range(5),
        has_rowid=False,
        index="member_keys_by_member",
        alone=False,
        key=2,
    ),
    "exports": Shape(6, 6, lambda row: row[3] in ("taken", "doubted", "broken"), has_rowid=False),
    "erasures": Shape(8, 8, lambda row: row[7] in ("yes", "maybe", "no"), index="erasures_by_time"),
    "engages": Shape(2, 2, _is_engage, index="sqlite_autoindex_engages_1"),
    "sqlite_sequence": Shape(
        2, 2, lambda row: row[0] in ("changes", "attempts") and is_number(row[1]), numbered=False
    ),
}
TABLES = tuple(name for name in SHAPES if name != "sqlite_sequence")


def row_of(shape: Shape, rowid: int | None, values: Values) -> Values | None:
    """Give a row in the order of its columns, if it can be one of this table."""
    if (rowid is not None) != shape.has_rowid or not shape.least <= len(values) <= shape.most:
        return None
    if rowid is not None and shape.numbered:
        if values[0] is not None or not 0 < rowid < LARGEST:
            return None
        values = (rowid, *values[1:])
    return values if shape.fits(values) else None
