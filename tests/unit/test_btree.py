"""Pages are read as SQLite reads them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from damaged import PAGE, Lived, lived, save
from journal_helpers import make_driver

from agent.journal.rescue import image
from agent.journal.rescue.btree import Pages
from agent.journal.rescue.salvage import salvage
from agent.journal.rescue.shapes import TABLES

# Counted anew from the changes.
NOT_SAVED = {"counts"}


@pytest.fixture(scope="module", params=["sqlite", "sqlcipher"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    if request.param == "sqlcipher":
        pytest.importorskip("sqlcipher3")
    return lived(tmp_path_factory.mktemp("lived"), request.param)


def test_every_row_of_every_table_is_read_as_sqlite_reads_it(whole: Lived, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    whole.lay(path)

    taken = image.take(path, make_driver(whole.driver_name))
    found = salvage(taken.pages, None, taken.lost_frames)

    assert {*TABLES, "sqlite_sequence"} == whole.rows.keys() - NOT_SAVED
    for name, table in found.tables.items():
        assert not table.is_damaged, name
        assert sorted(table.rows, key=repr) == sorted(whole.rows[name], key=repr), name
        assert table.rows, f"{name} is empty, so nothing is proved of it"
    assert found.is_complete
    assert save(path, whole.driver_name) is None


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("length", [0, 1, 100, 470, 480, 500, 5000, 70000])
def test_values_of_every_kind_and_length_are_read(page_size: int, length: int) -> None:
    numbers = [0, 1, -1, 127, -128, 2**15, -(2**23), 2**31, 2**47, 2**63 - 1, -(2**63)]
    values = [*numbers, 0.5, -1e300, None, "é" * length, b"\x00\xff" * length]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {page_size}")
        db.execute("CREATE TABLE t (a)")
        db.execute("CREATE INDEX i ON t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        content = db.serialize()

    pages = Pages(content, page_size, 0)

    roots = {row.values[1]: row.values[3] for row in pages.tree(1).rows}
    assert [row.values for row in pages.tree(roots["t"]).rows] == [(value,) for value in values]
    assert [row.rowid for row in pages.tree(roots["t"]).rows] == list(range(1, len(values) + 1))
    assert len(pages.tree(roots["i"]).rows) == len(values)


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"\x0d", b"\x05", b"\x0a", b"\x02"])
def test_page_of_anything_ends_in_no_loop_and_no_error(filler: bytes) -> None:
    pages = Pages(filler * PAGE * 20, PAGE, 0)

    tree = pages.tree(1)

    assert tree.is_damaged or not tree.rows
    assert list(pages.orphans(set())) == []
