"""What was read of a damaged journal → a new one that keeps every promise that it can.

SQL that runs on the new file alone. Whatever is open in it may have been sent since, if it was the
newest pages that were lost: so everything open is looked up before anything is sent, as after a
restored backup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent.change import Kind, Payload, State
from agent.contact import keys_of, new_id
from agent.errors import JournalUnavailable
from agent.journal import changes, marker, meta
from agent.journal.driver import Connection, Driver
from agent.journal.marker import Mark
from agent.journal.rescue import batches
from agent.journal.rescue.salvage import Lost, Salvage
from agent.journal.rescue.shapes import TABLES

# Numbers that are skipped, so that none is given twice that may have been given to what is lost.
_SKIPPED_NUMBERS = 10_000


@dataclass(frozen=True)
class Rebuilt:
    """What became of it."""

    mark: Mark
    rows: dict[str, int]  # by table
    refused: tuple[Lost, ...]  # changes that were read, and cannot be right
    sound: int  # changes whose payload fits its checksum
    given_up: tuple[str, ...]  # files that were not uploaded, as far as it is known


def rebuild(
    db: Connection, way: Driver, found: Salvage, mark: Mark | None, *, aside: str, now: str
) -> Rebuilt:
    """Fill an empty journal of this program's version.

    `aside`: the name of the damaged file, for the next start's log. Raises JournalUnavailable
    where the result does not stand up to its check.
    """
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN IMMEDIATE")
    with _without_triggers(db):
        for table in TABLES:
            _load(db, way, table, found.tables[table].rows)
        refused = _refused(db, found)
        _mend_contacts(db, found, now)
        _mend_engages(db, found)
        given_up = batches.mend(db, found, now, is_whole=found.is_complete and not refused)
        _mend_keys(db, found)
        _mend_members(db, found)
        for statement in (*_HANGING, *_COUNTING):
            db.execute(statement)
        # As after a restored backup: what waits may have been sent since.
        marker.doubt_everything(db)
    _carry_numbers(db, found)
    if mark is not None:
        db.execute("INSERT OR IGNORE INTO meta VALUES ('journal_id', ?)", (mark.journal,))
    result = marker.of(db)
    meta.note_rescue(db, aside)
    rows = {
        table: db.execute(f"SELECT count(*) AS n FROM {table}").fetchone()["n"] for table in TABLES
    }
    db.execute("COMMIT")
    _check(db)
    return Rebuilt(result, rows, refused, _sound(db), given_up)


def _refused(db: Connection, found: Salvage) -> tuple[Lost, ...]:
    stored = {row["seq"] for row in db.execute("SELECT seq FROM changes")}
    rows = {row[0]: row for row in found.tables["changes"].rows if row[0] not in stored}
    return tuple(
        Lost(seq, str(row[1]), State(str(row[4])), int(str(row[2])))
        for seq, row in sorted(rows.items())
        if isinstance(seq, int)
    )


def _sound(db: Connection) -> int:
    rows = db.execute("SELECT payload, payload_sha256 FROM changes")
    return sum(changes.digest(row["payload"]) == row["payload_sha256"] for row in rows)


@contextmanager
def _without_triggers(db: Connection) -> Iterator[None]:
    """They keep what is loaded here as it was, or is counted once at the end."""
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for trigger in triggers:
        db.execute(f'DROP TRIGGER "{trigger["name"]}"')
    yield
    for trigger in triggers:
        db.execute(trigger["sql"])


def _load(db: Connection, way: Driver, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Put rows in; one that breaks the table's own rules was damaged, and is left out."""
    if table in ("meta", "figures"):
        db.execute(f"DELETE FROM {table}")
    columns = [row["name"] for row in db.execute(f"PRAGMA table_info({table})")]
    statements: dict[int, str] = {}
    for row in rows:
        width = min(len(row), len(columns))
        if width not in statements:  # rows of an older schema are shorter
            names, marks = ", ".join(columns[:width]), ", ".join("?" * width)
            statements[width] = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"
        try:
            db.execute(statements[width], row[:width])
        except (way.module.IntegrityError, OverflowError):
            continue


# --- contacts -----------------------------------------------------------------------------------

_LANES = """
SELECT DISTINCT lane FROM (
  SELECT lane FROM changes UNION SELECT lane FROM keys UNION SELECT lane FROM batch_contacts
  UNION SELECT joined FROM contacts WHERE joined IS NOT NULL
  UNION SELECT lane FROM members WHERE lane IS NOT NULL)
 WHERE lane NOT IN (SELECT lane FROM contacts)"""
_ADD_CONTACT = """
INSERT OR IGNORE INTO contacts (lane, ref, contact_id, joined, created_at)
VALUES (:lane, :ref, :contact_id, :joined,
  coalesce((SELECT min(created_at) FROM changes WHERE lane = :lane), :now))"""


def _mend_contacts(db: Connection, found: Salvage, now: str) -> None:
    """Make contacts anew whose row is lost: ref and GUID stand in the indexes on them too."""
    have = {row["lane"] for row in db.execute("SELECT lane FROM contacts")}
    for lane in sorted(found.refs.keys() - have):
        _add_contact(db, found, lane, now)
    for row in db.execute(_LANES).fetchall():
        _add_contact(db, found, row["lane"], now)


def _add_contact(db: Connection, found: Salvage, lane: int, now: str) -> None:
    joined = found.joined.get(lane)
    contact_id = None if joined is not None else found.contact_ids.get(lane)
    values = {"lane": lane, "joined": joined, "contact_id": contact_id, "now": now}
    added = db.execute(_ADD_CONTACT, {**values, "ref": found.refs.get(lane) or new_id()})
    if added.rowcount == 0:  # its ref or its GUID is another's by now
        db.execute(_ADD_CONTACT, {**values, "contact_id": None, "ref": new_id()})


_ADD_ENGAGE = "INSERT OR IGNORE INTO engages (number, base_url) VALUES (?, ?)"
_LOST_ENGAGES = """
SELECT DISTINCT engage FROM changes
 WHERE engage IS NOT NULL AND engage NOT IN (SELECT number FROM engages)"""


def _mend_engages(db: Connection, found: Salvage) -> None:
    """Where it is lost for which Engage changes were taken, the next start asks a person."""
    db.executemany(_ADD_ENGAGE, found.engages.items())
    for row in db.execute(_LOST_ENGAGES).fetchall():
        name = f"an Engage whose address is lost (number {row['engage']})"
        db.execute(_ADD_ENGAGE, (row["engage"], name))


# --- keys and members ---------------------------------------------------------------------------

_BRINGING_KEYS = """
SELECT seq, lane, kind, state, payload, payload_sha256, created_at FROM changes
 WHERE erased = 0 AND state <> 'discarded' ORDER BY seq"""
_PUT_KEY = """
INSERT INTO keys (name, value, lane, seq, since, told_at)
VALUES (:name, :value, :lane, :seq, :seq, :told_at)
ON CONFLICT (name, value, lane) DO UPDATE SET seq = max(seq, excluded.seq)"""
_DROP_FORMER = "DELETE FROM keys WHERE lane = ? AND name = ? AND value <> ?"


def _mend_keys(db: Connection, found: Salvage) -> None:
    """Where keys are lost, the changes say by what their contacts are found."""
    db.execute(
        """UPDATE keys SET told_at = coalesce(
             (SELECT created_at FROM changes WHERE changes.seq = keys.seq),
             strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) WHERE told_at = ''"""
    )
    if not found.tables["keys"].is_damaged:
        return
    known = {(row["lane"], row["name"]) for row in db.execute("SELECT lane, name FROM keys")}
    for row in db.execute(_BRINGING_KEYS).fetchall():
        if row["state"] == State.REJECTED and row["kind"] != Kind.CREATE:
            continue
        payload = _payload(row)
        for key in keys_of(payload.attributes) if payload else ():
            if (row["lane"], key.name) in known:
                continue
            values = {"name": key.name, "value": key.value, "lane": row["lane"]}
            db.execute(_PUT_KEY, {**values, "seq": row["seq"], "told_at": row["created_at"]})
            if row["state"] in (State.DELIVERED, State.CONFIRMED):
                db.execute(_DROP_FORMER, (row["lane"], key.name, key.value))


def _payload(row: Any) -> Payload | None:
    try:
        return changes.payload_of(row)
    except (ValueError, KeyError, TypeError):
        return None


def _mend_members(db: Connection, found: Salvage) -> None:
    """Where members are lost, the export's files are read again, and the erased stay erased."""
    if not (found.tables["members"].is_damaged or found.tables["member_keys"].is_damaged):
        return
    db.execute("DELETE FROM exports")
    db.execute(
        """INSERT OR IGNORE INTO members (contact_id, told_at, gone)
           SELECT contact_id, erased_at, 'erased' FROM erasures WHERE contact_id IS NOT NULL"""
    )
    db.execute(
        """UPDATE members SET gone = 'erased', contact_type = NULL, lane = NULL
            WHERE contact_id IN (SELECT contact_id FROM erasures)"""
    )


# --- the rest -----------------------------------------------------------------------------------

_HANGING = (
    "DELETE FROM attempts WHERE change NOT IN (SELECT seq FROM changes)",
    """DELETE FROM member_keys WHERE member NOT IN
         (SELECT member FROM members WHERE gone IS NULL)""",
    "DELETE FROM batch_contacts WHERE batch NOT IN (SELECT number FROM batches)",
)
_COUNTING = (
    "UPDATE counts SET n = (SELECT count(*) FROM changes WHERE changes.state = counts.state)",
    """UPDATE changes SET behind = leaps = 0 AND EXISTS (SELECT 1 FROM changes e
         WHERE e.lane = changes.lane AND e.holds = 1 AND e.seq < changes.seq)""",
    "INSERT OR IGNORE INTO figures (quarter) VALUES ('')",
    # The sum over all rows is what is open now.
    """UPDATE figures SET net = net - (SELECT sum(net) FROM figures)
         + (SELECT count(*) FROM changes WHERE settled_at IS NULL) WHERE quarter = ''""",
)


def _carry_numbers(db: Connection, found: Salvage) -> None:
    """No number of a change or an attempt is given twice, not even that of a lost one."""
    for name, last in (("changes", found.last_change), ("attempts", found.last_attempt)):
        db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
        db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (name, last + _SKIPPED_NUMBERS))


def _check(db: Connection) -> None:
    broken = db.execute("PRAGMA foreign_key_check").fetchall()
    verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok" or broken:
        raise JournalUnavailable(
            f"What was saved does not stand up to its check ({verdict}). Nothing was changed: the "
            "damaged journal is where it was. Put a backup back."
        )
