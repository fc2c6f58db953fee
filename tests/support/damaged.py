"""Journals that have lived, and disks that spoil them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from journal_helpers import GUID, Book, FakeClock, make_driver

from agent.change import Change, Fault
from agent.journal import batches, changes, erasure, origin, register, served, skipped, states
from agent.journal.batches import Member
from agent.journal.rescue.rescue import Rescued, rescue
from agent.journal.served import Moment, Shelf

PAGE = 4096
ENGAGE = "https://engage.example.test"
NOW = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
IN_FILES = ("filling", "sealed", "written", "uploaded", "imported", "settled")


@dataclass(frozen=True)
class Lived:
    """A journal at rest: its files, and what stood in it."""

    driver_name: str
    content: bytes
    wal: bytes
    mark: bytes
    rows: dict[str, list[tuple[Any, ...]]]  # by table

    @property
    def pages(self) -> int:
        return len(self.content) // PAGE

    @property
    def seqs(self) -> set[int]:
        return {row[0] for row in self.rows["changes"]}

    def lay(self, path: Path) -> None:
        """Put it down as it was, with nothing of a former one beside it."""
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        path.write_bytes(self.content)
        path.with_name(path.name + ".mark").write_bytes(self.mark)
        if self.wal:
            path.with_name(path.name + "-wal").write_bytes(self.wal)

    def lay_spoilt(self, path: Path, *pages: int, noise: bool = False) -> None:
        """Put it down with these pages destroyed: zeros, or noise."""
        self.lay(path)
        for page in pages:
            spoil(path, page, random.Random(page).randbytes(PAGE) if noise else bytes(PAGE))


def spoil(path: Path, page: int, content: bytes) -> None:
    """Overwrite a page, the first one being 1."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def save(path: Path, driver_name: str = "sqlite", **more: Any) -> Rescued | None:
    """Rescue a journal."""
    return rescue(path, make_driver(driver_name), NOW, **more)


@contextlib.contextmanager
def opened(path: Path, driver_name: str = "sqlite") -> Iterator[sqlite3.Connection]:
    """Look into a journal by hand."""
    with contextlib.closing(make_driver(driver_name).connect(path)) as db:
        yield db


def rows_of(path: Path, driver_name: str = "sqlite") -> dict[str, list[tuple[Any, ...]]]:
    """Give what stands in a journal, by table."""
    with opened(path, driver_name) as db:
        query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        names = [row["name"] for row in db.execute(query).fetchall()]
        return {
            name: [tuple(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY 1, 2")]
            for name in names
        }


@dataclass(frozen=True)
class PageUse:
    """What SQLite's own table of its pages says of one."""

    name: str  # of the table or index
    kind: str  # leaf, internal, overflow
    cells: int


def uses(path: Path) -> dict[int, PageUse]:
    """Say of each page what stands on it (the dbstat table; plain journals only)."""
    with opened(path) as db:
        rows = db.execute("SELECT pageno, name, pagetype, ncell FROM dbstat").fetchall()
    return {row["pageno"]: PageUse(row["name"], row["pagetype"], row["ncell"]) for row in rows}


# --- a life -------------------------------------------------------------------------------------


def lived(folder: Path, driver_name: str = "sqlite", *, rounds: int = 8) -> Lived:
    """Make a journal with changes in all states, a batch in each, and pruned ones."""
    path = folder / "lived.db"
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_live(path, driver_name, rounds))
    finally:
        loop.close()
    rows = rows_of(path, driver_name)
    content = path.read_bytes()
    return Lived(driver_name, content, b"", path.with_name("lived.db.mark").read_bytes(), rows)


async def _live(path: Path, driver_name: str, rounds: int) -> None:
    async with Book(path, FakeClock(), driver_name) as book:
        for turn in range(rounds):
            await _a_round(book, turn)
        await book.journal.write(partial(changes.prune, before="2027", limit=7))
        for state in IN_FILES:
            await _a_file(book, IN_FILES.index(state) + 1, state)
        await book.journal.write(_read_and_told)
        await book.update(GUID, {"street": "x" * 9000})  # it needs pages of its own
        await book.claim(await book.create())  # being sent when the till went dark


def _read_and_told(db: sqlite3.Connection) -> None:
    """Engage's answers, members of its export, and one who was erased."""
    body, moment = {"attributes": {}}, Moment(5.0, NOW)
    origin.enter(db, ENGAGE, origin.Machine(id="till"))
    answers = [
        served.Entry(Shelf.CONTACT, _guid(number), _guid(number), body, moment)
        for number in range(30)
    ]
    served.keep(db, answers, used=(), limit=100)
    members = [
        register.Entry(False, _guid(9000 + number), "Member", {"email": number * 7919})
        for number in range(60)
    ]
    register.take(db, members, "2026-11-20T05:00:00Z", room=1000)
    note = register.FileNote("members_1.xml", 99, 1, "taken", None, "2026-11-20T05:00:00Z")
    register.note_file(db, note)
    erasure.erase(
        db,
        _guid(9007),
        give_up_open=False,
        token_name="boss",
        digest=lambda key: None,
        now="2026-11-21T05:00:00Z",
    )


async def _a_round(book: Book, turn: int) -> None:
    for number in range(5):
        delivered = await book.create()
        await book.deliver(delivered, contact_id=_guid(turn * 100 + number))
    await book.update(delivered.contact.ref)
    await book.upgrade(delivered.contact.ref)
    waiting = await book.create(key=f"order-{turn}")
    await book.update(waiting.contact.ref, {"email": f"new{turn}@example.test"})
    unknown = await book.create()
    await book.settle(await book.claim(unknown), states.LOSE, unknown=True)
    await book.reject(await book.create())
    given_up = await book.create()
    await book.reject(given_up)
    await book.discard(given_up)


async def _a_file(book: Book, number: int, state: str) -> None:
    made = [await book.create() for _ in range(6)]
    name = f"2026112105000{number}_0042-1-{number}_contacts.xml"
    members = [Member(each.contact.lane, None, "Member", None, (each,)) for each in made]
    write = book.journal.write
    seal = partial(batches.seal, number=number, name=name, with_id=False, members=members)
    await write(partial(seal, now="2026-11-21T05:00:00Z", more=state == "filling"))
    for step in IN_FILES[2 : IN_FILES.index(state) + 1]:
        await _go_on(book, number, name, step, made)


async def _go_on(book: Book, number: int, name: str, step: str, made: list[Change]) -> None:
    write, now = book.journal.write, "2026-11-21T05:01:00Z"
    if step == "written":
        await write(partial(batches.note_manifest, number=number, sha256="ab" * 32, size=9))
        await write(partial(batches.note_written, number=number))
    elif step == "uploaded":
        await write(partial(batches.note_uploaded, name=name, now=now))
    elif step == "imported":
        await write(partial(batches.note_imported, name=name, now=now, verify="all"))
    elif step == "settled":
        for place, item in enumerate(
            await book.journal.read(partial(batches.unverified, now=1e9, limit=99))
        ):
            if item.batch.number != number:
                continue
            found = {"contact_id": _guid(number * 1000 + place), "fault": None}
            if place % 3 == 2:
                found = {"fault": Fault("ImportSkipped", "It was left out.")}
            await write(partial(skipped.settle, item=item, now=now, verifies=True, **found))


def _guid(number: int) -> str:
    return f"0b1c2d3e-4f50-4617-8293-{number:012x}"
