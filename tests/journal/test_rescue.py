"""A damaged journal is rescued: what can be read goes on, what is lost is listed, nothing is sent
twice."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from damaged import ENGAGE, PAGE, Lived, lived, opened, rows_of, save, spoil, uses
from journal_helpers import Book, FakeClock

from agent.change import State
from agent.contact import Key, new_id
from agent.errors import JournalInUse, JournalUnavailable, SchemaTooNew
from agent.journal import changes, contacts, marker, origin
from agent.journal.migrating import migrations
from agent.journal.rescue.rescue import Rescued

pytestmark = pytest.mark.system

DRIVERS = ["sqlite", "sqlcipher"]
OPEN = ("waiting", "sending", "batched", "uploaded", "imported")
# What a change is, whatever becomes of it; the rest is where it stands.
SEQ, ID, LANE, KIND, STATE, UNKNOWN, BATCH = 0, 1, 2, 3, 4, 6, 26
ASKED = (SEQ, ID, LANE, KIND, *range(8, 13))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived(tmp_path_factory.mktemp("lived"))


@pytest.fixture(scope="module")
def uses_of_pages(whole: Lived, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    path = tmp_path_factory.mktemp("uses") / "journal.db"
    whole.lay(path)
    return uses(path)


@pytest.fixture
def pages(uses_of_pages: dict[int, Any]) -> Any:
    """Give the pages of a table or index: `pages("changes", "leaf")`."""

    def found(name: str, kind: str) -> list[int]:
        return [page for page, use in uses_of_pages.items() if (use.name, use.kind) == (name, kind)]

    return found


def saved(path: Path, driver_name: str = "sqlite") -> Rescued:
    done = save(path, driver_name)
    assert done is not None, "it was taken for whole"
    return done


def lost_of(done: Rescued) -> set[int]:
    return {each.seq for each in (*done.losses.open, *done.losses.settled)}


def in_gaps(done: Rescued) -> set[int]:
    return {seq for first, last in done.losses.gaps for seq in range(first, last + 1)}


def digests(folder: Path) -> dict[str, str]:
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in folder.iterdir()
        if not each.name.endswith((".lock", "-shm"))
    }


def check_kept(before: Lived, path: Path) -> set[int]:
    """Hold every change of a rescued journal against what it was; gives which there are."""
    former = {row[SEQ]: row for row in before.rows["changes"]}
    after = rows_of(path, before.driver_name)
    numbers = {row[0]: row for row in after["batches"]}
    for row in after["changes"]:
        was = former[row[SEQ]]
        assert [row[place] for place in ASKED] == [was[place] for place in ASKED]
        if was[STATE] in OPEN:
            check_open(row, was, numbers)
        else:
            assert row[STATE] == was[STATE]
    lanes = {row[0] for row in after["contacts"]}
    assert {row[LANE] for row in after["changes"]} <= lanes
    counted = {state: n for state, n in after["counts"] if n}
    states = [row[STATE] for row in after["changes"]]
    assert counted == {state: states.count(state) for state in set(states)}
    return {row[SEQ] for row in after["changes"]}


def check_open(row: Any, was: Any, numbers: dict[int, Any]) -> None:
    """Nothing that is open may be sent without a look, nor wait for a file that never comes."""
    if row[STATE] == "waiting":
        assert row[UNKNOWN] == 1
    elif row[STATE] == "sending":
        assert was[STATE] == "sending"  # the next start takes it over, as unknown
    else:
        assert row[STATE] == was[STATE]
        assert numbers[row[BATCH]][2] in ("filling", "sealed", "written", "uploaded", "imported")


# --- what is lost, and what is not --------------------------------------------------------------


@pytest.mark.parametrize("noise", [False, True])
def test_one_leaf_of_changes_costs_the_changes_on_it_and_each_is_listed(
    path: Path, whole: Lived, uses_of_pages: dict[int, Any], pages: Any, noise: bool
) -> None:
    leaf = pages("changes", "leaf")[7]
    whole.lay_spoilt(path, leaf, noise=noise)

    done = saved(path)

    kept = check_kept(whole, path)
    assert len(whole.seqs - kept) == uses_of_pages[leaf].cells
    assert lost_of(done) == whole.seqs - kept
    listed = {each.seq: each for each in (*done.losses.open, *done.losses.settled)}
    for row in whole.rows["changes"]:
        if (lost := listed.get(row[SEQ])) is not None:
            assert (lost.id, lost.lane, lost.state) == (row[ID], row[LANE], row[STATE])
            assert row[ID] in done.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("changes", "internal"),
        ("contacts", "internal"),
        ("keys", "internal"),
        ("sqlite_schema", "internal"),  # the first page of all
        ("sqlite_schema", "leaf"),
        ("sqlite_sequence", "leaf"),
        ("sqlite_autoindex_changes_1", "internal"),
        ("changes_by_state", "leaf"),
        ("contacts", "leaf"),
    ],
)
def test_what_leads_to_changes_may_be_destroyed_and_costs_none(
    path: Path, whole: Lived, pages: Any, name: str, kind: str
) -> None:
    for page in pages(name, kind):
        whole.lay_spoilt(path, page, noise=page % 2 == 0)

        done = saved(path)

        assert check_kept(whole, path) == whole.seqs
        assert lost_of(done) == set()
        assert in_gaps(done) & whole.seqs == set()  # pruned ones, if any


def test_damage_to_an_index_loses_nothing_at_all(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, *pages("changes_by_state", "leaf"), *pages("keys_by_lane", "leaf"))

    done = saved(path)

    assert done.losses.are_none
    assert "Nothing is lost." in done.text
    assert done.report.name.endswith(".saved.txt")


def test_ref_and_guid_of_a_lost_contact_stay_as_they_were(
    path: Path, whole: Lived, pages: Any
) -> None:
    whole.lay_spoilt(path, *pages("contacts", "leaf"))

    saved(path)

    assert {row[:3] for row in rows_of(path)["contacts"]} == {
        row[:3] for row in whole.rows["contacts"]
    }


async def test_contact_whose_every_trace_is_lost_gets_a_new_ref_for_its_changes(
    path: Path, whole: Lived, pages: Any, clock: FakeClock
) -> None:
    whole.lay_spoilt(
        path,
        *pages("contacts", "leaf"),
        *pages("sqlite_autoindex_contacts_1", "leaf"),
        *pages("contacts_by_contact_id", "leaf"),
    )

    saved(path)

    assert check_kept(whole, path) == whole.seqs
    async with Book(path, clock) as book:
        contact = await book.journal.read(lambda db: contacts.get(db, 1))
        assert contact.contact_id is None
        assert await book.journal.read(lambda db: contacts.find(db, contact.ref)) == contact


@pytest.mark.parametrize("with_index", [False, True])
async def test_for_which_engage_a_change_was_taken_is_known_or_asked(
    path: Path, whole: Lived, pages: Any, clock: FakeClock, with_index: bool
) -> None:
    index = pages("sqlite_autoindex_engages_1", "leaf") if with_index else []
    whole.lay_spoilt(path, *pages("engages", "leaf"), *index)

    saved(path)

    enter = partial(origin.enter, base_url=ENGAGE, machine=origin.Machine(id="till"))
    async with Book(path, clock) as book:
        question = await book.journal.write(enter)
    assert (question is None) != with_index
    if question:
        assert "whose address is lost" in question


async def test_customer_is_recognised_though_the_keys_are_lost(
    path: Path, whole: Lived, pages: Any, clock: FakeClock
) -> None:
    # What brought the others was erased by age.
    keys = {(row[2], row[0], row[1]) for row in whole.rows["keys"] if row[3] in whole.seqs}
    whole.lay_spoilt(path, *pages("keys", "leaf"), *pages("keys", "internal"))

    done = saved(path)

    assert "keys" in dict(done.losses.tables)
    async with Book(path, clock) as book:
        for lane, name, value in sorted(keys):
            key = Key(name, value)
            found = await book.journal.read(lambda db, key=key: contacts.find_by_key(db, key))
            assert found is not None, (lane, name, value)
            assert found.lane == lane


def test_row_that_breaks_the_tables_rules_is_listed_as_lost(path: Path, whole: Lived) -> None:
    whole.lay(path)
    with opened(path) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("UPDATE changes SET route = 'pigeon' WHERE seq = 60")
    at = path.read_bytes().index(b"changes_by_lane")
    with path.open("r+b") as file:  # or else it passes for whole
        file.seek(at)
        file.write(b"changes_by_lame")

    done = saved(path)

    assert lost_of(done) == {60}


def test_damaged_payload_is_kept_and_told(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, *pages("changes_by_state", "leaf"))
    content = path.read_bytes()
    email = b"new3@example.test"
    path.write_bytes(content.replace(email, b"old3@example.test"))

    done = saved(path)

    assert {row[SEQ] for row in rows_of(path)["changes"]} == whole.seqs
    assert "1 of these changes have damaged data" in done.text


def test_block_that_the_disk_does_not_give_is_a_damaged_page(
    path: Path, whole: Lived, uses_of_pages: dict[int, Any], pages: Any
) -> None:
    leaf = pages("changes", "leaf")[3]
    whole.lay(path)

    def read(descriptor: int, size: int, offset: int) -> bytes:
        if offset == (leaf - 1) * PAGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.pread(descriptor, size, offset)

    done = save(path, read=read)

    assert done is not None
    assert lost_of(done) == whole.seqs - check_kept(whole, path)
    assert len(lost_of(done)) == uses_of_pages[leaf].cells


@pytest.mark.parametrize("share", [0.95, 0.85, 0.75])
def test_what_a_truncated_file_still_has_goes_on(path: Path, whole: Lived, share: float) -> None:
    whole.lay(path)
    os.truncate(path, int(len(whole.content) * share))

    done = saved(path)

    missing = whole.seqs - check_kept(whole, path)
    assert missing
    assert lost_of(done) == missing


# --- the -wal -----------------------------------------------------------------------------------


@pytest.fixture
async def with_wal(path: Path, whole: Lived, clock: FakeClock, tmp_path: Path) -> Path:
    """A journal whose newest changes stand in its -wal, as after a kill; give a copy's path."""
    running = tmp_path / "running.db"
    whole.lay(running)
    async with Book(running, clock) as book:
        for _ in range(12):
            await book.create()
        for end in ("", "-wal", ".mark"):
            shutil.copy(f"{running}{end}", f"{path}{end}")
    return path


def test_what_stands_in_the_wal_alone_is_saved(with_wal: Path, whole: Lived, pages: Any) -> None:
    spoil(with_wal, pages("changes_by_end", "leaf")[0], bytes(PAGE))

    done = save(with_wal)

    if done is None:  # the -wal held that page anew
        return
    assert len(rows_of(with_wal)["changes"]) == len(whole.seqs) + 12
    assert done.losses.are_none


@pytest.mark.parametrize("place", [0, 12, 32 + 24 + 100, 32 + (24 + PAGE) * 10])
def test_what_stands_behind_damage_in_the_wal_is_told(
    with_wal: Path, whole: Lived, place: int
) -> None:
    wal = with_wal.with_name(with_wal.name + "-wal")
    content = bytearray(wal.read_bytes())
    content[place : place + 8] = b"\xaa" * 8
    wal.write_bytes(content)

    done = saved(with_wal)

    kept = {row[SEQ] for row in rows_of(with_wal)["changes"]}
    assert whole.seqs <= kept
    assert done.losses.lost_frames > 0
    assert "of the -wal stand behind a damaged one" in done.text
    assert done.aside.with_name(done.aside.name + "-wal").read_bytes() == bytes(content)


def test_torn_end_of_the_wal_is_what_a_power_cut_leaves(with_wal: Path) -> None:
    wal = with_wal.with_name(with_wal.name + "-wal")
    os.truncate(wal, wal.stat().st_size - 1000)

    assert save(with_wal) is None


# --- what goes on -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("batches", "leaf"), ("batch_contacts", "leaf"), ("changes", "leaf")]
)
async def test_no_file_is_made_of_a_part_and_none_is_waited_for_in_vain(
    path: Path, whole: Lived, pages: Any, clock: FakeClock, name: str, kind: str
) -> None:
    for page in pages(name, kind)[::5]:
        whole.lay_spoilt(path, page)

        done = saved(path)

        check_kept(whole, path)
        check_files(path)
        assert "Files that are given up" in done.text


def check_files(path: Path) -> None:
    """Each open change of a file is in one that will be made, or looked up after its import."""
    with opened(path) as db:
        stranded = db.execute(
            """SELECT ch.seq FROM changes ch LEFT JOIN batches b ON b.number = ch.batch
                WHERE ch.holds = 1 AND ch.state IN ('batched', 'uploaded', 'imported')
                  AND (b.state IS NULL OR b.state = 'settled' OR NOT EXISTS
                    (SELECT 1 FROM batch_contacts bc WHERE bc.batch = ch.batch
                        AND bc.lane = ch.lane AND bc.settled = 0))"""
        ).fetchall()
        parts = db.execute(
            """SELECT b.number FROM batches b WHERE b.state IN ('filling', 'sealed', 'written')
                  AND (b.contacts <> (SELECT count(*) FROM batch_contacts WHERE batch = b.number)
                    OR b.full_size = 0)"""
        ).fetchall()
    assert [tuple(row) for row in stranded] == []
    assert [tuple(row) for row in parts] == []


async def test_everything_goes_on_in_order_after_the_start(
    path: Path, whole: Lived, pages: Any, clock: FakeClock
) -> None:
    whole.lay_spoilt(path, pages("changes", "leaf")[7])
    saved(path)
    last = max(whole.seqs)

    async with Book(path, clock) as book:
        assert book.taken_over <= 1  # what was being sent; a rescued journal is no restored one
        new = await book.create()
        for _ in range(200):
            for lane in await book.due(50):
                await book.deliver(lane, contact_id=None)
        counts = await book.counts()

    assert new.seq > last
    assert counts[State.WAITING] == counts[State.SENDING] == 0


def test_no_number_is_given_twice_even_if_nothing_tells_of_it(
    path: Path, whole: Lived, pages: Any
) -> None:
    whole.lay_spoilt(path, *pages("sqlite_sequence", "leaf"), pages("changes", "leaf")[-1])
    marker.path_of(path).unlink()
    before = dict(whole.rows["sqlite_sequence"])

    saved(path)

    after = dict(rows_of(path)["sqlite_sequence"])
    assert all(after[name] > before[name] for name in ("changes", "attempts"))


@pytest.mark.parametrize("name", ["meta", "changes_by_state"])
def test_journal_stays_the_one_that_its_mark_means(
    path: Path, whole: Lived, pages: Any, name: str
) -> None:
    whole.lay_spoilt(path, *pages(name, "leaf"))
    before = marker.read(marker.path_of(path))

    saved(path)

    after = marker.read(marker.path_of(path))
    assert before is not None
    assert after is not None
    assert after.journal == before.journal
    assert ("journal_id", before.journal) in rows_of(path)["meta"]


async def test_what_was_erased_does_not_come_back(path: Path, clock: FakeClock) -> None:
    async with Book(path, clock) as book:
        for _ in range(60):
            await book.deliver(await book.create(), contact_id=None)
        await book.journal.write(partial(changes.prune, before="2027", limit=45))
    kept = {row[SEQ] for row in rows_of(path)["changes"]}
    inner = [page for page, use in uses(path).items() if use.kind == "internal"]
    assert len(inner) > 1
    for page in inner:
        spoil(path, page, bytes(PAGE))

    saved(path)

    assert {row[SEQ] for row in rows_of(path)["changes"]} == kept


def test_journal_of_an_older_version_is_saved_into_one_of_this(path: Path) -> None:
    version_1 = "\n".join(text for number, text in migrations() if number == 1)
    now, digest = "2026-11-01T10:00:00.000Z", hashlib.sha256(b"{}").hexdigest()
    with opened(path) as db:
        db.executescript(f"{version_1}; PRAGMA user_version = 1; PRAGMA journal_mode = WAL")
        for number in range(1, 60):
            db.execute("INSERT INTO contacts (ref, created_at) VALUES (?, ?)", (new_id(), now))
            db.execute(
                "INSERT INTO changes (id, lane, kind, state, payload, payload_sha256, fingerprint, "
                "token_name, created_at) VALUES (?, ?, 'create', 'waiting', '{}', ?, '', 'pos', ?)",
                (new_id(), number, digest, now),
            )
    index = [page for page, use in uses(path).items() if use.name == "changes_by_state"]
    spoil(path, index[0], bytes(PAGE))

    done = saved(path)

    assert done.losses.are_none, done.text
    with opened(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == migrations()[-1][0]
        (count,) = db.execute("SELECT count(*) FROM changes WHERE unknown = 1").fetchone()
    assert count == 59


def test_report_names_nobody(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, *pages("changes", "leaf")[:5], *pages("keys", "leaf"))

    done = saved(path)

    assert done.losses.open
    assert "example.test" not in done.text
    assert not [value for row in whole.rows["keys"] if (value := row[1]) in done.text]
    assert done.report.read_text("utf-8") == done.text
    assert done.report.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600


def test_encrypted_journal_is_saved_and_stays_encrypted(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    (tmp_path / "lived").mkdir()
    whole = lived(tmp_path / "lived", "sqlcipher", rounds=2)
    whole.lay(path)
    with path.open("r+b") as file:  # of the first page all but the salt of its key
        file.seek(16)
        file.write(bytes(PAGE - 16))

    done = saved(path, "sqlcipher")

    assert check_kept(whole, path) == whole.seqs
    assert lost_of(done) == set()
    assert b"example.test" not in path.read_bytes()


# --- what is left alone -------------------------------------------------------------------------


def test_whole_journal_is_left_alone(path: Path, whole: Lived) -> None:
    whole.lay(path)
    before = digests(path.parent)

    assert save(path) is None

    assert digests(path.parent) == before


def test_damaged_file_is_kept_as_it_was(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, pages("changes", "leaf")[2])
    before = path.read_bytes()

    done = saved(path)

    assert done.aside.read_bytes() == before


def test_second_run_changes_nothing(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, pages("changes", "leaf")[2])
    saved(path)
    before = digests(path.parent)

    assert save(path) is None

    assert digests(path.parent) == before


def test_second_damage_keeps_both_damaged_files(path: Path, whole: Lived, pages: Any) -> None:
    whole.lay_spoilt(path, pages("changes", "leaf")[2])
    first = saved(path)
    spoil(path, path.stat().st_size // PAGE - 1, b"\xff" * PAGE)
    spoil(path, 20, b"\xff" * PAGE)

    second = saved(path)

    assert first.aside != second.aside
    assert first.aside.exists()
    assert second.aside.exists()


async def test_running_agents_journal_is_refused(
    path: Path, whole: Lived, clock: FakeClock
) -> None:
    whole.lay(path)
    async with Book(path, clock):
        with pytest.raises(JournalInUse):
            save(path)


def test_journal_of_a_newer_program_is_left_alone(path: Path, whole: Lived) -> None:
    whole.lay(path)
    with opened(path) as db:
        db.execute("PRAGMA user_version = 9999")
    before = digests(path.parent)

    with pytest.raises(SchemaTooNew):
        save(path)

    assert digests(path.parent) == before


def test_truncated_file_without_any_customer_is_refused(path: Path, whole: Lived) -> None:
    whole.lay(path)
    os.truncate(path, 10 * PAGE)

    with pytest.raises(JournalUnavailable, match="Nothing can be read"):
        save(path)

    assert path.stat().st_size == 10 * PAGE


@pytest.mark.parametrize("content", [b"", b"no journal at all" * 500, bytes(9 * PAGE)])
def test_what_holds_nothing_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(JournalUnavailable, match="backup back"):
        save(path)

    assert path.read_bytes() == content
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_wrong_key_is_refused_and_the_journal_left_alone(path: Path, whole: Lived) -> None:
    pytest.importorskip("sqlcipher3")
    whole.lay(path)
    before = path.read_bytes()

    with pytest.raises(JournalUnavailable, match="key_file"):
        save(path, "sqlcipher")

    assert path.read_bytes() == before


def test_disk_without_room_is_refused_before_anything_is_done(
    path: Path, whole: Lived, pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.lay_spoilt(path, pages("changes", "leaf")[2])
    before = digests(path.parent)
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=9, f_frsize=PAGE))

    with pytest.raises(JournalUnavailable, match="no room"):
        save(path)

    assert digests(path.parent) == before


# --- a kill in between --------------------------------------------------------------------------


class Killed(BaseException):
    """As SIGKILL: nothing is done after it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let the nth change of the folder be the last thing that happens, or not even happen."""

    def arm(number: int, *, after: bool) -> None:
        left = [number]

        def watched(do: Any) -> Any:
            def act(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    raise Killed
                result = do(*arguments, **more)
                if left[0] == 0:
                    raise Killed
                return result

            return act

        for name in ("rename", "unlink", "replace"):
            monkeypatch.setattr(Path, name, watched(getattr(Path, name)))

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 14))
async def test_killed_at_any_moment_it_is_brought_to_its_end_by_the_next_run(
    with_wal: Path,
    whole: Lived,
    pages: Any,
    clock: FakeClock,
    kill_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    after: bool,
) -> None:
    leaf = pages("changes", "leaf")[2]
    spoil(with_wal, leaf, bytes(PAGE))
    damaged = with_wal.read_bytes()
    kill_at(number, after=after)
    try:
        save(with_wal)
    except Killed:
        was_killed = True
    else:
        was_killed = False
    monkeypatch.undo()

    if not was_killed:
        assert number > 5, "there are at least so many steps"
    if was_killed and not with_wal.exists():
        with pytest.raises(JournalUnavailable, match="till-agent journal rescue"):
            await Book(with_wal, clock).open()
        assert not with_wal.exists()
    save(with_wal)

    rows = rows_of(with_wal)["changes"]
    assert len(whole.seqs) + 12 - len(rows) < 12
    asides = [
        each
        for each in with_wal.parent.glob("journal.db.damaged-*")
        if not each.name.endswith((".txt", "-wal"))
    ]
    assert [each.read_bytes() == damaged for each in asides] == [True]
    assert asides[0].with_name(asides[0].name + "-wal").exists()
    assert save(with_wal) is None
    async with Book(with_wal, clock) as book:
        await book.create()


# --- every page, both drivers -------------------------------------------------------------------


@pytest.mark.parametrize("driver_name", DRIVERS)
def test_each_page_in_turn_costs_what_stood_on_it_and_no_more(
    path: Path, tmp_path: Path, driver_name: str
) -> None:
    (tmp_path / "lived").mkdir()
    whole = lived(tmp_path / "lived", driver_name)
    whole.lay(path)
    uses_of_pages = uses(path) if driver_name == "sqlite" else {}

    # What is decrypted is read in the same way: some pages are enough.
    for page in range(1, whole.pages + 1, 1 if driver_name == "sqlite" else 4):
        whole.lay_spoilt(path, page, noise=page % 3 > 0)
        if driver_name == "sqlcipher" and page == 1:
            with pytest.raises(JournalUnavailable):  # the salt of its key stood there
                save(path, driver_name)
            continue
        done = save(path, driver_name)
        if done is None:  # nothing that SQLite checks: the end of a long payload
            continue
        missing = whole.seqs - check_kept(whole, path)
        assert lost_of(done) == missing
        assert len(missing) < len(whole.seqs) / 8
        assert in_gaps(done) & whole.seqs == set()
        if driver_name == "sqlite":
            use = uses_of_pages.get(page)
            is_leaf = use is not None and (use.name, use.kind) == ("changes", "leaf")
            is_overflow = use is not None and use.kind == "overflow"
            assert len(missing) == (use.cells if is_leaf else len(missing) if is_overflow else 0)
            check_files(path)
