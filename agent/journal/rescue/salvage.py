"""What can be read of a damaged journal: the rows of each table, and what its indexes know beside.

Pure. A row counts only where it has the shape of its table: a page that was overwritten may point
to another table's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.change import State
from agent.journal.marker import Mark
from agent.journal.rescue.btree import Pages, Tree, Value, Values
from agent.journal.rescue.shapes import LARGEST, SHAPES, Shape, is_number, is_ref, is_text, row_of

# What is far beyond all that is known is no number that was given either.
_LEAP = 1_000_000
# Each of them names every change.
_OF_CHANGES = ("changes_by_lane", "changes_by_state", "sqlite_autoindex_changes_1")


@dataclass
class Table:
    """The rows of one table, in the order of its columns; they may be fewer than it has."""

    rows: list[Values] = field(default_factory=list)
    is_damaged: bool = False  # something of it could not be read
    missing: int | None = 0  # rows that an index names; None: no index can tell


@dataclass(frozen=True)
class Lost:
    """A change whose row cannot be read: what indexes say of it."""

    seq: int
    id: str | None
    state: State | None  # None: not known, so it may be open
    lane: int | None

    @property
    def is_settled(self) -> bool:
        """Say whether it was at its end, so that only its record is gone."""
        return self.state in (State.DELIVERED, State.CONFIRMED, State.DISCARDED)


@dataclass
class Salvage:
    """Everything that was found."""

    tables: dict[str, Table]
    lost: list[Lost]  # by sequence number
    gaps: list[tuple[int, int]]  # numbers of changes that were pruned or lost: nobody can tell
    lost_frames: int  # of the -wal: newer changes may have stood there
    last_change: int  # highest number ever given, as far as anything tells
    last_attempt: int
    refs: Mapping[int, str]  # by lane, as the index on them has them
    contact_ids: Mapping[int, str]
    joined: Mapping[int, int]
    batch_names: Mapping[int, str]
    engages: Mapping[int, str]  # base URLs

    @property
    def is_complete(self) -> bool:
        """Say whether it is certain that every row was read."""
        is_all_there = all(table.missing == 0 for table in self.tables.values())
        return is_all_there and not (self.lost or self.gaps or self.lost_frames)


# --- reading ------------------------------------------------------------------------------------


def salvage(pages: Pages, mark: Mark | None, lost_frames: int) -> Salvage:
    """Read all that can be read. `lost_frames`: how many of the -wal could not be used."""
    schema = pages.tree(1)
    trees = _trees(pages, schema)
    # A journal of an older version lacks the tables that came later.
    absent = Table(is_damaged=schema.is_damaged)
    tables = {
        name: _table(shape, trees[name]) if name in trees else replace(absent, rows=[])
        for name, shape in SHAPES.items()
    }
    _add_orphans(pages, trees, tables)
    for name, table in tables.items():
        table.missing = _missing(SHAPES[name], table, trees, lost_frames)
    if mark is not None and mark.journal != (_id_of(tables) or mark.journal):
        mark = None  # another journal's
    last_change, last_attempt = _last(tables, mark)
    named = _named_changes(trees, last_change)
    have = {seq for row in tables["changes"].rows if isinstance(seq := row[0], int)}
    last_change = max([last_change, *named])
    unread = sorted(set(named) - have)
    lost = [Lost(seq, *named[seq]) for seq in unread]
    return Salvage(
        tables=tables,
        lost=lost + _behind_mark(tables, mark, have | set(named)),
        gaps=_gaps(tables, trees, have | set(named), last_change),
        lost_frames=lost_frames,
        last_change=last_change,
        last_attempt=last_attempt,
        refs=_pairs(trees, "sqlite_autoindex_contacts_1", is_ref),
        contact_ids=_pairs(trees, "contacts_by_contact_id", is_text),
        joined=_pairs(trees, "contacts_joined", is_number),
        batch_names=_pairs(trees, "sqlite_autoindex_batches_1", is_text),
        engages=_pairs(trees, "sqlite_autoindex_engages_1", is_text),
    )


def _trees(pages: Pages, schema: Tree) -> dict[str, Tree]:
    """Read every table and index whose root is known, by name."""
    trees = {}
    rows = schema.rows + (list(pages.orphans(schema.pages)) if schema.is_damaged else [])
    for row in rows:
        if len(row.values) != 5 or row.values[0] not in ("table", "index"):
            continue
        name, root = row.values[1], row.values[3]
        if isinstance(name, str) and isinstance(root, int) and root > 1:
            trees[name] = pages.tree(root)
    return trees


def _table(shape: Shape, tree: Tree) -> Table:
    found = [row_of(shape, row.rowid, row.values) for row in tree.rows]
    rows = [row for row in found if row is not None]
    return Table(rows, tree.is_damaged or len(rows) < len(found))


def _add_orphans(pages: Pages, trees: Mapping[str, Tree], tables: Mapping[str, Table]) -> None:
    """Add the rows of pages that no tree leads to any more, to the tables that miss some.

    What SQLite gives free is overwritten (secure_delete), so such a page is no former one.
    """
    damaged = {name: SHAPES[name] for name, table in tables.items() if table.is_damaged}
    if not damaged:
        return
    known = set().union(*(tree.pages for tree in trees.values())) if trees else set()
    for row in pages.orphans(known):
        for name, shape in damaged.items():
            fitting = row_of(shape, row.rowid, row.values) if shape.alone else None
            if fitting is not None:
                tables[name].rows.append(fitting)
                break


def _missing(shape: Shape, table: Table, trees: Mapping[str, Tree], lost_frames: int) -> int | None:
    if lost_frames:
        return None
    if not table.is_damaged:
        return 0
    index = trees.get(shape.index or "")
    if index is None or index.is_damaged:
        return None
    return max(0, len(index.rows) - len({row[: shape.key] for row in table.rows}))


def _id_of(tables: Mapping[str, Table]) -> str | None:
    ids = [row[1] for row in tables["meta"].rows if row[0] == "journal_id"]
    return str(ids[0]) if ids else None


def _last(tables: Mapping[str, Table], mark: Mark | None) -> tuple[int, int]:
    """Give the highest numbers of a change and of an attempt that anything tells of."""
    seqs: list[Value] = [_given(tables, "changes"), mark.seq if mark else 0]
    for table, column in (("changes", 0), ("attempts", 1), ("keys", 3)):
        seqs += [row[column] for row in tables[table].rows]
    numbers: list[Value] = [_given(tables, "attempts"), mark.attempt if mark else 0]
    numbers += [row[0] for row in tables["attempts"].rows]
    return _highest(seqs), _highest(numbers)


def _highest(values: Iterable[Value]) -> int:
    return max((value for value in values if isinstance(value, int)), default=0)


def _given(tables: Mapping[str, Table], table: str) -> int | None:
    """Give the highest number that the journal itself remembers to have given; None if none."""
    rows = [row[1] for row in tables["sqlite_sequence"].rows if row[0] == table]
    return _highest(rows) if rows else None


# --- what is lost -------------------------------------------------------------------------------

_Named = tuple[str | None, State | None, int | None]


def _named_changes(trees: Mapping[str, Tree], last: int) -> dict[int, _Named]:
    """Give what indexes say of each change: id, state and lane, as far as they say it."""
    ids = _by_seq(trees, "sqlite_autoindex_changes_1", is_ref, last)
    states = _by_seq(trees, "changes_by_state", lambda value: value in set(State), last)
    lanes = _by_seq(trees, "changes_by_lane", is_number, last)
    return {
        seq: (ids.get(seq), State(states[seq]) if seq in states else None, lanes.get(seq))
        for seq in ids.keys() | states.keys() | lanes.keys()
    }


def _by_seq(
    trees: Mapping[str, Tree], name: str, fits: Callable[[Value], bool], last: int
) -> dict[int, Any]:
    pairs = _pairs(trees, name, fits)
    return {seq: value for seq, value in pairs.items() if 0 < seq <= last + _LEAP}


def _pairs(trees: Mapping[str, Tree], name: str, fits: Callable[[Value], bool]) -> dict[int, Any]:
    """Give an index of one column as rowid → value."""
    found: dict[int, Any] = {}
    for row in trees[name].rows if name in trees else ():
        # An index that ends with the row's number has it there twice.
        if not 2 <= len(row.values) <= 3 or row.values[1] != row.values[-1]:
            continue
        value, rowid = row.values[:2]
        if isinstance(rowid, int) and rowid < LARGEST and fits(value):
            found[rowid] = value
    return found


def _behind_mark(tables: Mapping[str, Table], mark: Mark | None, known: set[int]) -> list[Lost]:
    """Give what only the mark beside the journal knows of: the journal is older than it."""
    given = _given(tables, "changes")
    if mark is None or given is None:
        return []
    return [
        Lost(seq, None, None, None) for seq in range(given + 1, mark.seq + 1) if seq not in known
    ]


def _gaps(
    tables: Mapping[str, Table], trees: Mapping[str, Tree], known: set[int], last: int
) -> list[tuple[int, int]]:
    """Give the numbers of which nobody can tell whether they were pruned or lost."""
    is_told = not tables["changes"].is_damaged or any(
        name in trees and not trees[name].is_damaged for name in _OF_CHANGES
    )
    if is_told and _given(tables, "changes") is not None:
        return []
    # What the table or an index tells reaches as far as what they hold.
    gaps, before = [], max(known, default=0) if is_told else 0
    for seq in (*sorted(seq for seq in known if seq > before), last + 1):
        if seq > before + 1:
            gaps.append((before + 1, seq - 1))
        before = seq
    return gaps
