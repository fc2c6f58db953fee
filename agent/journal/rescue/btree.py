"""SQLite's pages → rows, past what is damaged: each bad page costs only what stood on it.

Pure: bytes in, values out. SQLite itself gives a table up at the first bad page of its tree, and
all of the table at its root; the rows stand on the leaves all the same. The format is SQLite's
("Database File Format", sqlite.org), which promises not to change it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

Value = int | float | str | bytes | None
Values = tuple[Value, ...]

_LEAF_TABLE, _INNER_TABLE, _LEAF_INDEX, _INNER_INDEX = 13, 5, 10, 2
_TABLE, _INDEX = (_LEAF_TABLE, _INNER_TABLE), (_LEAF_INDEX, _INNER_INDEX)
_INNER = (_INNER_TABLE, _INNER_INDEX)
_FILE_HEADER = 100  # on the first page, before what every page has
_DEEPEST = 40  # of a tree; SQLite's own limit is 20
_INT_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Damaged(Exception):
    """What stands there is not what SQLite writes."""


@dataclass(frozen=True)
class Row:
    """One row of a table, or one entry of an index."""

    rowid: int | None  # None in an index, and in a table without rowid, which is kept as one
    values: Values


@dataclass
class Tree:
    """What was read of one table or index."""

    rows: list[Row] = field(default_factory=list)
    pages: set[int] = field(default_factory=set)  # that belong to it, overflow pages too
    is_damaged: bool = False  # something of it could not be read


@dataclass(frozen=True)
class _Page:
    kind: int
    cells: tuple[int, ...]  # where each begins
    bad_cells: int
    right: int | None  # an inner page's last child


class Pages:
    """A database as its pages. Numbers begin with 1, as in SQLite."""

    def __init__(self, content: bytes | bytearray, size: int, reserved: int) -> None:
        """`size` is a page's, in bytes; `reserved`: those at its end that SQLite leaves alone."""
        self._content = memoryview(content)
        self.size = size
        self._usable = size - reserved
        self.count = len(content) // size

    def tree(self, root: int) -> Tree:
        """Read a table or an index from its root, leaving out what cannot be read."""
        found = Tree()
        self._visit(root, found, None, set(), _DEEPEST)
        return found

    def orphans(self, known: set[int]) -> Iterator[Row]:
        """Read the rows of all pages that are none of these: their way from a root is lost."""
        for number in range(2, self.count + 1):
            if number in known:
                continue
            try:
                page = self._page(number)
            except Damaged:
                continue
            if page.kind != _INNER_TABLE:
                yield from self._rows(number, page, Tree())

    def _visit(
        self, number: int, tree: Tree, family: tuple[int, int] | None, seen: set[int], deep: int
    ) -> None:
        if number in seen or not 1 <= number <= self.count or not deep:
            tree.is_damaged = True
            return
        seen.add(number)
        try:
            page = self._page(number)
            if family is not None and page.kind not in family:
                raise Damaged
        except Damaged:
            tree.is_damaged = True
            return
        tree.pages.add(number)
        tree.is_damaged = tree.is_damaged or page.bad_cells > 0
        if page.kind != _INNER_TABLE:
            tree.rows += self._rows(number, page, tree)
        if page.kind in _INNER:
            start, family = (number - 1) * self.size, _TABLE if page.kind in _TABLE else _INDEX
            for cell in page.cells:
                (child,) = struct.unpack_from(">I", self._content, start + cell)
                self._visit(child, tree, family, seen, deep - 1)
            self._visit(page.right or 0, tree, family, seen, deep - 1)

    def _page(self, number: int) -> _Page:
        start = (number - 1) * self.size
        head = _FILE_HEADER if number == 1 else 0
        kind, _, count = struct.unpack_from(">BHH", self._content, start + head)
        if kind not in (*_TABLE, *_INDEX):
            raise Damaged
        right, first = None, head + 8
        if kind in _INNER:
            (right,) = struct.unpack_from(">I", self._content, start + first)
            first += 4
        if first + 2 * count > self._usable:
            raise Damaged
        places = struct.unpack_from(f">{count}H", self._content, start + first)
        cells = tuple(at for at in places if first + 2 * count <= at <= self._usable - 4)
        return _Page(kind, cells, count - len(cells), right)

    def _rows(self, number: int, page: _Page, tree: Tree) -> list[Row]:
        found = []
        for cell in page.cells:
            try:
                found.append(self._row(number, page.kind, cell, tree))
            except (Damaged, struct.error, IndexError, OverflowError):
                tree.is_damaged = True
        return found

    def _row(self, number: int, kind: int, at: int, tree: Tree) -> Row:
        start = (number - 1) * self.size
        page = self._content[start : start + self._usable]
        if kind == _INNER_INDEX:
            at += 4  # the child
        length, at = _varint(page, at)
        rowid = None
        if kind == _LEAF_TABLE:
            rowid, at = _varint(page, at)
            rowid = rowid - 2**64 if rowid >= 2**63 else rowid
        if length > len(self._content):
            raise Damaged
        local = self._local(length, kind)
        payload = bytes(page[at : at + local])
        if len(payload) < local:
            raise Damaged
        if local < length:
            (follows,) = struct.unpack_from(">I", page, at + local)
            payload += self._overflow(follows, length - local, tree)
        return Row(rowid, _record(payload))

    def _local(self, length: int, kind: int) -> int:
        """Give how many bytes of a payload stand on the page itself; the rest is elsewhere."""
        usable = self._usable
        most = usable - 35 if kind == _LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return length
        least = (usable - 12) * 32 // 255 - 23
        fitting = least + (length - least) % (usable - 4)
        return fitting if fitting <= most else least

    def _overflow(self, number: int, length: int, tree: Tree) -> bytes:
        parts, room = [], self._usable - 4
        while length > 0:
            if not 1 < number <= self.count or number in tree.pages:
                raise Damaged
            tree.pages.add(number)
            start = (number - 1) * self.size
            if not any(self._content[start : start + self.size]):
                raise Damaged  # no text of ours is so many zeros
            (number,) = struct.unpack_from(">I", self._content, start)
            part = bytes(self._content[start + 4 : start + 4 + min(length, room)])
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Give a number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    return value << 8 | data[at + 8], at + 9


def _record(payload: bytes) -> Values:
    """Give the values of a record; it must fit to the byte, or it is none."""
    head, at = _varint(payload, 0)
    if not at <= head <= len(payload):
        raise Damaged
    values, place = [], head
    while at < head:
        kind, at = _varint(payload, at)
        value, place = _value(payload, kind, place)
        values.append(value)
    if at != head or place != len(payload):
        raise Damaged
    return tuple(values)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in _INT_SIZES:
        end = at + _INT_SIZES[kind]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:
        return float(struct.unpack_from(">d", payload, at)[0]), at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind < 12:
        raise Damaged
    end = at + (kind - 12) // 2
    if end > len(payload):
        raise Damaged
    piece = payload[at:end]
    # As the driver does it: a text whose bytes are none any more is damaged, and nothing else is.
    return (piece.decode("utf-8", "replace") if kind % 2 else piece), end
