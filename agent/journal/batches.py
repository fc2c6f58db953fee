"""Batches in the journal: seal, manifest, uploaded, imported, withdrawn, and what became of each
contact.

Plain functions that run as units of work. A batch's row exists before its file does, and the file
can be made again from the journal, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from agent.change import Change, Fault, Kind, Payload, Route, State
from agent.contact import Key, keys_of
from agent.errors import Conflict, NotFound
from agent.journal import changes, contacts, states
from agent.journal.driver import Connection


@dataclass(frozen=True)
class Batch:
    """One sealed file and where it is."""

    number: int
    name: str
    state: str  # filling, sealed, written, uploaded, imported; then settled, withdrawn or skipped
    with_id: bool  # its contacts carry Engage's GUID
    contacts: int
    sha256: str | None
    bytes: int | None
    attempts: int  # tries to write and upload it
    full_size: bool  # the server held all of it before the rename was tried
    error: str | None
    receipt: str | None  # what Engage answered to the bulk calls
    sealed_at: str
    uploaded_at: str | None
    imported_at: str | None
    settled_at: str | None
    withdrawn_at: str | None
    skipped_at: str | None  # when it was found that the import brought in next to nothing of it
    accepted: int  # contacts that the first look found just as they were sent
    calls: str | None  # its bulk calls that may have been queued, as bulk_calls.py keeps them
    place: str | None  # where on which SFTP server its file was put, as sftp.py says it

    @property
    def by_bulk(self) -> bool:
        """Say whether it went through Engage's bulk calls, or some of it may have."""
        return self.calls is not None or self.receipt is not None

    @property
    def by_sftp(self) -> bool:
        """Say whether it went up by SFTP, or may have: then it goes no other way."""
        if self.by_bulk:
            return False
        # After a restore every batch is doubted; one without a manifest never was a file.
        return self.state == "uploaded" or (self.full_size and self.sha256 is not None)

    @property
    def may_be_on_server(self) -> bool:
        """Say whether the SFTP server may have the file under its final name."""
        return self.state == "uploaded" or self.full_size


_SELECT = """SELECT number, name, with_id, contacts, sha256, bytes, attempts, full_size, error,
  receipt, sealed_at, uploaded_at, imported_at, settled_at, withdrawn_at, skipped_at, accepted,
  calls, place,
  CASE WHEN withdrawn_at IS NOT NULL THEN 'withdrawn'
       WHEN state = 'settled' AND skipped_at IS NOT NULL THEN 'skipped' ELSE state END AS state
  FROM batches"""


def _batch(row: Any) -> Batch:
    return Batch(
        **{**dict(row), "with_id": bool(row["with_id"]), "full_size": bool(row["full_size"])}
    )


# --- sealing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lane:
    """The part of a lane that can go into a file: its open changes, head first, in order."""

    changes: tuple[Change, ...]
    keys: tuple[Key, ...]

    @property
    def head(self) -> Change:
        """Give the oldest of them."""
        return self.changes[0]


# The heads that a file may take: idle lanes, nothing that may have happened already. The link's
# state decides between all of them and only those whose API attempts are used up.
_IDLE_HEADS = """
SELECT ch.lane, ch.seq FROM changes ch INDEXED BY {index}
 WHERE ch.state = 'waiting' AND ch.behind = 0
   AND ch.by_file = 1 AND ch.unknown = 0 AND ch.retried = 0 AND ch.seq > :after AND {tried}
   AND ch.rests_until <= :now AND (:creates OR ch.kind <> 'create')
   AND NOT EXISTS (SELECT 1 FROM changes e WHERE e.lane = ch.lane AND e.holds = 1
         AND (e.seq < ch.seq OR e.state IN ('sending', 'batched', 'uploaded', 'imported')))
 ORDER BY ch.seq LIMIT :limit"""
_ALL_HEADS = _IDLE_HEADS.format(index="changes_free", tried="ch.api_attempts >= :used_up")
# While the line is up these are few among many: their own index finds them.
_TRIED_HEADS = _IDLE_HEADS.format(
    index="changes_tried", tried="ch.api_attempts > 0 AND ch.api_attempts >= :used_up"
)


def _heads(used_up: int) -> str:
    return _TRIED_HEADS if used_up > 0 else _ALL_HEADS


def idle_lanes(
    db: Connection,
    *,
    after: int,
    used_up: int,
    limit: int,
    now: float = math.inf,
    creates: bool = True,
) -> tuple[Lane, ...]:
    """Give lanes that a file could take, oldest head first, from sequence number `after` on.

    `used_up`: only heads with at least so many counted API attempts. `now` (monotonic): what was
    withdrawn a moment before rests; without it nothing does. `creates`: sign-ups may go by file.
    """
    parameters = {
        "after": after, "used_up": used_up, "limit": limit, "now": now, "creates": creates,
    }  # fmt: skip
    rows = db.execute(_heads(used_up), parameters).fetchall()
    return tuple(
        Lane(
            changes.open_of_lane(db, row["lane"]),
            contacts.keys(db, row["lane"], open_from=row["seq"]),
        )
        for row in rows
    )


def lane(db: Connection, lane: int) -> Lane | None:
    """Give a lane as it stands; None if nothing of it is open."""
    found = changes.open_of_lane(db, lane)
    return Lane(found, contacts.keys(db, lane, open_from=found[0].seq)) if found else None


def count_idle(
    db: Connection, *, used_up: int, limit: int, now: float = math.inf, creates: bool = True
) -> int:
    """Count the lanes that a file could take; stops counting at `limit`."""
    counts = count_idle_by_id(db, used_up=used_up, limit=limit, now=now, creates=creates)
    return sum(counts.values())


def count_idle_by_id(
    db: Connection, *, used_up: int, limit: int, now: float = math.inf, creates: bool = True
) -> dict[bool, int]:
    """Count the lanes that a file could take, those with Engage's GUID and those without.

    Stops counting at `limit`. `now` and `creates` as for idle_lanes().
    """
    row = db.execute(
        f"""SELECT count(*) AS n, count(co.contact_id) AS with_id
              FROM ({_heads(used_up)}) head JOIN contacts co ON co.lane = head.lane""",
        {"after": 0, "used_up": used_up, "limit": limit, "now": now, "creates": creates},
    ).fetchone()
    return {True: row["with_id"], False: row["n"] - row["with_id"]}


@dataclass(frozen=True)
class Member:
    """One contact of a batch that is about to be sealed, with the changes that it folds."""

    lane: int
    contact_id: str | None
    contact_type: str
    key_value: str | None  # of an update without contactId: by what Engage's import finds it
    changes: tuple[Change, ...]
    key_name: str | None = None  # the attribute that key_value stands in


_SEQUENCE = "SELECT coalesce(max(number), 0) + 1 AS n FROM batches"
_BEGIN = """
INSERT INTO batches (number, name, state, with_id, contacts, sealed_at)
VALUES (?, ?, 'filling', ?, 0, ?) ON CONFLICT (number) DO NOTHING"""
_INSERT_MEMBER = """
INSERT INTO batch_contacts (batch, position, lane, contact_id, contact_type, key_value, key_name)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
_NOTE_SIZE = "UPDATE batches SET contacts = contacts + ? WHERE number = ?"
# One of which nothing is left makes no file.
_CLOSE_BEGUN = """
UPDATE batches SET state = iif(contacts = 0, 'settled', 'sealed'), sealed_at = :now,
  settled_at = iif(contacts = 0, :now, NULL)
 WHERE number = :number AND state = 'filling'"""
_STILL_IDLE = """
SELECT 1 FROM contacts co
 WHERE co.lane = :lane AND co.joined IS NULL AND co.contact_id IS :contact_id
   AND NOT EXISTS (SELECT 1 FROM changes e WHERE e.lane = :lane AND e.holds = 1
         AND (e.seq < :seq OR e.state IN ('sending', 'batched', 'uploaded', 'imported')))"""
_STILL_WAITING = """
SELECT 1 FROM changes WHERE seq = ? AND lane = ? AND state = 'waiting' AND unknown = 0"""
_PUT_IN = """
UPDATE changes SET state = 'batched', route = 'file', batch = ?, due = 0, due_at = NULL,
  error = NULL WHERE seq = ? AND state = 'waiting' AND unknown = 0"""


def next_number(db: Connection) -> int:
    """Give the number of the next batch: part of its file's name."""
    return int(db.execute(_SEQUENCE).fetchone()["n"])


def seal(
    db: Connection,
    number: int,
    name: str,
    *,
    with_id: bool,
    members: Sequence[Member],
    now: str,
    more: bool = False,
) -> Batch:
    """Put contacts into a batch, a new one or one that is being filled; close it unless there are
    `more` to come.

    Contacts that moved on since they were read are left where they are, so the batch may be smaller
    than asked for, and even empty. Raises ForbiddenMove, and nothing is stored, when a single
    change moved meanwhile.
    """
    db.execute(_BEGIN, (number, name, with_id, now))
    position = get(db, name).contacts
    idle = [member for member in members if _is_still_idle(db, member)]
    for place, member in enumerate(idle, start=position):
        db.execute(
            _INSERT_MEMBER,
            (
                number,
                place,
                member.lane,
                member.contact_id,
                member.contact_type,
                member.key_value,
                member.key_name,
            ),
        )
        for change in member.changes:
            done = db.execute(_PUT_IN, (number, change.seq))
            changes.check_moved(done.rowcount, change, states.SEAL)
    db.execute(_NOTE_SIZE, (len(idle), number))
    if not more:
        db.execute(_CLOSE_BEGUN, {"number": number, "now": now})
    return get(db, name)


def close_begun(db: Connection, now: str) -> tuple[Batch, ...]:
    """Close every batch that is being filled, as it is; gives them."""
    begun = in_state(db, ("filling",))
    for batch in begun:
        db.execute(_CLOSE_BEGUN, {"number": batch.number, "now": now})
    return tuple(get(db, batch.name) for batch in begun)


def _is_still_idle(db: Connection, member: Member) -> bool:
    parameters = {
        "lane": member.lane,
        "contact_id": member.contact_id,
        "seq": member.changes[0].seq,
    }
    return db.execute(_STILL_IDLE, parameters).fetchone() is not None and all(
        db.execute(_STILL_WAITING, (change.seq, member.lane)).fetchone() is not None
        for change in member.changes
    )


_LEAVE_OUT = """
UPDATE changes SET state = 'rejected', holds = ?, error = ?, settled_at = ?
 WHERE seq = ? AND state = 'waiting'"""


def leave_out(db: Connection, change: Change, fault: Fault, now: str) -> Change:
    """Reject one change that cannot be written to a file; gives it as it stands now."""
    lane = change.contact.lane
    has_contact = contacts.get(db, lane).contact_id is not None
    holds = states.holds_lane(change.kind, State.REJECTED, verifies=True, has_contact=has_contact)
    done = db.execute(_LEAVE_OUT, (holds, changes.fault_text(fault), now, change.seq))
    changes.check_moved(done.rowcount, change, states.LEAVE_OUT)
    changes.add_attempt(
        db,
        change.seq,
        changes.Attempt(Route.FILE, "rejected", now, now, fault.code, None, fault.message),
    )
    if change.kind is not Kind.CREATE:
        # They are somebody else's, or nobody's, until it is sent again.
        contacts.drop_keys_of_change(db, lane, change.seq)
    return changes.find_by_seq(db, change.seq)


_COUNT_LEFT_OUT = """
SELECT count(*) AS n FROM (SELECT 1 FROM changes
  WHERE state = 'rejected' AND json_extract(error, '$.code') = ? LIMIT ?)"""
_REST = "UPDATE changes SET rests_until = ? WHERE seq = ? AND state = 'waiting'"


def count_left_out(db: Connection, code: str, limit: int) -> int:
    """Count the rejected changes with this code; stops counting at `limit`."""
    return int(db.execute(_COUNT_LEFT_OUT, (code, limit)).fetchone()["n"])


def waits(db: Connection, seq: int) -> bool:
    """Say whether a change waits still: neither sent, nor sealed, nor gone."""
    found = db.execute("SELECT 1 FROM changes WHERE seq = ? AND state = 'waiting'", (seq,))
    return found.fetchone() is not None


def let_rest(db: Connection, heads: Sequence[int], until: float) -> None:
    """Seal no lane with these heads before then (monotonic), unless a person asks for files.

    The API may go on.
    """
    db.executemany(_REST, [(until, seq) for seq in heads])


# --- the file -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One contact of a batch, with what its changes ask for, in order."""

    position: int
    lane: int
    contact_id: str | None
    contact_type: str
    key_value: str | None
    asked: tuple[tuple[Kind, Payload], ...]
    key_name: str | None = None  # of key_value; None where an older agent sealed it


_ENTRIES = """
SELECT position, lane, contact_id, contact_type, key_value, key_name FROM batch_contacts
 WHERE batch = ? AND position >= ? ORDER BY position LIMIT ?"""
_ASKED = """
SELECT kind, payload, payload_sha256 FROM changes WHERE batch = ? AND lane = ? ORDER BY seq"""


def entries(db: Connection, number: int, start: int, limit: int) -> tuple[Entry, ...]:
    """Give a page of a batch's contacts in the order of its file."""
    return tuple(
        Entry(
            row["position"],
            row["lane"],
            row["contact_id"],
            row["contact_type"],
            row["key_value"],
            tuple(
                (Kind(asked["kind"]), changes.payload_of(asked) or Payload({}))
                for asked in db.execute(_ASKED, (number, row["lane"]))
            ),
            row["key_name"],
        )
        for row in db.execute(_ENTRIES, (number, start, limit)).fetchall()
    )


def get(db: Connection, name: str) -> Batch:
    """Give a batch by its file's name. Raises NotFound."""
    row = db.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound("There is no batch with that name.")
    return _batch(row)


def get_by_number(db: Connection, number: int) -> Batch:
    """Give a batch that is known to exist."""
    return _batch(db.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone())


def names_among(db: Connection, names: Sequence[str]) -> tuple[str, ...]:
    """Give those names that batches have, whatever became of them."""
    known = "SELECT 1 FROM batches WHERE name = ?"
    return tuple(name for name in names if db.execute(known, (name,)).fetchone())


def in_state(db: Connection, states: Sequence[str]) -> tuple[Batch, ...]:
    """Give the batches in these states, oldest first."""
    marks = ", ".join("?" * len(states))
    rows = db.execute(
        f"""{_SELECT} WHERE state <> 'settled' AND state IN ({marks}) ORDER BY number""",
        tuple(states),
    )
    return tuple(_batch(row) for row in rows)


def listing(db: Connection, limit: int, before: int = 2**62) -> tuple[Batch, ...]:
    """Give batches, the newest first."""
    rows = db.execute(f"{_SELECT} WHERE number < ? ORDER BY number DESC LIMIT ?", (before, limit))
    return tuple(_batch(row) for row in rows)


@dataclass(frozen=True)
class Sealed:
    """A change in a batch, for the log."""

    change: str
    request_id: str | None


def sealed(db: Connection, number: int) -> tuple[Sealed, ...]:
    """Give the changes of a batch, in the order in which they were taken."""
    rows = db.execute("SELECT id, request_id FROM changes WHERE batch = ? ORDER BY seq", (number,))
    return tuple(Sealed(row["id"], row["request_id"]) for row in rows)


def note_manifest(db: Connection, number: int, sha256: str, size: int) -> None:
    """Store what the file must be before it gets its final name."""
    db.execute("UPDATE batches SET sha256 = ?, bytes = ? WHERE number = ?", (sha256, size, number))


def note_written(db: Connection, number: int) -> None:
    """The file stands in the spool under its final name, synced."""
    db.execute(
        "UPDATE batches SET state = 'written', error = NULL WHERE number = ? AND state = 'sealed'",
        (number,),
    )


def note_full_size(db: Connection, name: str, place: str | None = None) -> None:
    """The server holds the whole file under its temporary name there; the rename comes next."""
    db.execute("UPDATE batches SET full_size = 1, place = ? WHERE name = ?", (place, name))


def note_trouble(db: Connection, names: Collection[str], error: str) -> None:
    """A file could not be written or uploaded: keep why, for the page."""
    db.executemany(
        "UPDATE batches SET attempts = attempts + 1, error = ? WHERE name = ?",
        [(error, name) for name in names],
    )


def note_poll(db: Connection, names: Collection[str], error: str | None) -> None:
    """Keep why nobody can tell whether uploaded files were imported; None: it can be told again."""
    db.executemany(
        "UPDATE batches SET error = ?1 WHERE name = ?2 AND state = 'uploaded' AND error IS NOT ?1",
        [(error, name) for name in names],
    )


# --- after the upload ---------------------------------------------------------------------------

_MOVE_ALL = "UPDATE changes SET state = ? WHERE batch = ? AND state = ?"


def note_uploaded(
    db: Connection, name: str, now: str, receipt: str | None = None, place: str | None = None
) -> None:
    """The server holds the file under its final name at a place, or Engage has queued the calls."""
    batch = get(db, name)
    if batch.state != "written":
        return
    db.execute(
        """UPDATE batches SET state = 'uploaded', attempts = attempts + 1, error = NULL,
             uploaded_at = ?, receipt = ?, place = ? WHERE number = ?""",
        (now, receipt, place, batch.number),
    )
    db.execute(_MOVE_ALL, (State.UPLOADED, batch.number, State.BATCHED))


def note_imported(db: Connection, name: str, now: str, *, verify: str) -> None:
    """Engage took the file away. What is not verified has reached its end."""
    batch = get(db, name)
    if batch.state != "uploaded":
        return
    # What Engage answered to bulk calls is forgotten in time, so it stands in one place only.
    db.execute(
        "UPDATE batches SET state = 'imported', imported_at = ?, calls = NULL WHERE number = ?",
        (now, batch.number),
    )
    db.execute(_MOVE_ALL, (State.IMPORTED, batch.number, State.UPLOADED))
    _leave_to_verifier(db, batch, now, verify=verify)
    db.execute(_COUNT_TO_VERIFY, (batch.number, batch.number))


_COUNT_TO_VERIFY = """
UPDATE batches SET to_verify = (SELECT count(*) FROM batch_contacts WHERE batch = ? AND settled = 0)
 WHERE number = ?"""


def _leave_to_verifier(db: Connection, batch: Batch, now: str, *, verify: str) -> None:
    if verify == "all":
        return
    condition = (
        ""
        if verify == "none"
        else """AND lane NOT IN (SELECT lane FROM changes
                 WHERE batch = :batch AND kind = 'create')"""
    )
    parameters = {"batch": batch.number, "now": now}
    db.execute(
        f"""UPDATE changes SET holds = 0, settled_at = :now
             WHERE batch = :batch AND state = 'imported' {condition}""",
        parameters,
    )
    db.execute(
        f"UPDATE batch_contacts SET settled = 1 WHERE batch = :batch {condition}", parameters
    )
    _close_if_settled(db, batch.number, now)


# --- verifying ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unverified:
    """One contact of an imported batch that was not looked up for good yet."""

    batch: Batch
    entry: Entry
    seqs: tuple[int, ...]  # its changes that are to be settled, the oldest first
    change_id: str | None  # of the oldest of them
    keys: tuple[Key, ...]
    misses: int
    failures: int  # look-ups that Engage did not answer
    patched: bool


_UNVERIFIED = """
SELECT bc.position, bc.batch, bc.lane, bc.misses, bc.patched, b.name,
  (SELECT coalesce(max(ch.seq), 0) FROM changes ch
    WHERE ch.batch = bc.batch AND ch.lane = bc.lane) AS last_seq
  FROM batches b CROSS JOIN batch_contacts bc INDEXED BY batch_contacts_open ON bc.batch = b.number
 WHERE b.state <> 'settled' AND b.state = 'imported' AND bc.settled = 0 AND bc.due <= ?
 ORDER BY b.number, bc.due, bc.position LIMIT ?"""


def unverified(db: Connection, now: float, limit: int) -> tuple[Unverified, ...]:
    """Give contacts whose look-up is due. `now` is monotonic."""
    return tuple(_unverified(db, row) for row in db.execute(_UNVERIFIED, (now, limit)).fetchall())


_TO_SETTLE = """
SELECT seq, id FROM changes WHERE batch = ? AND lane = ? AND state = 'imported' ORDER BY seq"""
# What a person took back, or an import skipped with its file, was no look-up.
_FAILURES = """
SELECT count(*) AS n FROM attempts WHERE change = ? AND route = 'file' AND outcome = 'deferred'
   AND code NOT IN ('Withdrawn', 'FileSkipped')"""


def _unverified(db: Connection, row: Any) -> Unverified:
    found = db.execute(_TO_SETTLE, (row["batch"], row["lane"])).fetchall()
    seqs = tuple(each["seq"] for each in found)
    return Unverified(
        batch=get(db, row["name"]),
        entry=entries(db, row["batch"], row["position"], 1)[0],
        seqs=seqs,
        change_id=found[0]["id"] if found else None,
        # A key that waits behind the batch is not in Engage yet.
        keys=contacts.keys(db, row["lane"], open_from=row["last_seq"] + 1),
        misses=row["misses"],
        failures=db.execute(_FAILURES, seqs[:1]).fetchone()["n"] if seqs else 0,
        patched=bool(row["patched"]),
    )


_LOOK_AGAIN = """
UPDATE batch_contacts SET due = ?, misses = misses + ?, patched = max(patched, ?)
 WHERE batch = ? AND position = ?"""


def look_again(
    db: Connection, item: Unverified, *, due: float, missed: bool = False, patched: bool = False
) -> None:
    """Put a contact's next look-up off, noting what this one brought."""
    db.execute(_LOOK_AGAIN, (due, missed, patched, item.batch.number, item.entry.position))


def put_off(db: Connection, item: Unverified, *, due: float, attempt: changes.Attempt) -> None:
    """Engage did not answer: note why with the contact's changes, and look it up again then."""
    for seq in item.seqs:
        changes.add_attempt(db, seq, attempt)
    look_again(db, item, due=due)


_LOOK_UP_NOW = """
UPDATE batch_contacts SET due = 0 WHERE settled = 0 AND due > 0 AND misses = 0 AND patched = 0
   AND batch IN (SELECT number FROM batches WHERE state <> 'settled' AND state = 'imported')"""


def look_up_now(db: Connection) -> None:
    """Wait no longer with contacts that Engage did not answer for.

    Who was not found keeps the time of the second look-up: the first may have come too early.
    """
    db.execute(_LOOK_UP_NOW)


_SETTLE = """
UPDATE changes SET state = ?, holds = ?, error = ?, settled_at = ?
 WHERE seq = ? AND state = 'imported'"""
_IMPORTED = """
SELECT seq, kind, payload, payload_sha256 FROM changes WHERE seq = ? AND state = 'imported'"""


def settle(
    db: Connection,
    item: Unverified,
    *,
    fault: Fault | None,
    contact_id: str | None,
    contact_type: str | None,
    keys: Sequence[Key] = (),
    now: str,
    verifies: bool,
) -> tuple[Change, ...]:
    """Confirm a contact's changes, or reject them with a fault; gives them as they stand now.

    `keys`: those that Engage's contact has beside what was sent. A change that the disk has damaged
    is rejected whatever was found: nobody can say what it asked for.
    """
    number = item.batch.number
    # While Engage was asked, a look-up of the POS may have joined the contact with another one.
    lane = contacts.resolve(db, item.entry.lane).lane
    has_contact = contacts.get(db, lane).contact_id is not None
    rows = [row for seq in item.seqs for row in db.execute(_IMPORTED, (seq,)).fetchall()]
    for row in rows:
        payload, kind = changes.payload_of(row), Kind(row["kind"])
        found = fault if payload else changes.DAMAGED
        target = State.REJECTED if found else State.CONFIRMED
        holds = states.holds_lane(kind, target, verifies=verifies, has_contact=has_contact)
        db.execute(_SETTLE, (target, holds, changes.fault_text(found), now, row["seq"]))
        changes.add_attempt(db, row["seq"], _verification(found, now))
        if payload:
            _settle_keys(db, lane, row["seq"], kind, payload, found, now)
    db.execute(
        "UPDATE batch_contacts SET settled = 1 WHERE batch = ? AND position = ?",
        (number, item.entry.position),
    )
    if contact_id:
        lane = contacts.learn(db, lane, contact_id, contact_type)
        contacts.hear_keys(db, lane, keys, now)
    _close_if_settled(db, number, now)
    return tuple(changes.find_by_seq(db, row["seq"]) for row in rows)


def _verification(fault: Fault | None, now: str) -> changes.Attempt:
    return changes.Attempt(
        route=Route.FILE,
        outcome="rejected" if fault else "delivered",
        started_at=now,
        ended_at=now,
        code=fault.code if fault else None,
        message=fault.message if fault else None,
    )


def _settle_keys(
    db: Connection,
    lane: int,
    seq: int,
    kind: Kind,
    payload: Payload,
    fault: Fault | None,
    now: str,
) -> None:
    """A contact has the keys that Engage holds: those that were taken, not those refused."""
    held = [key for key in keys_of(payload.attributes) if _is_held(key, fault)]
    if fault is not None and kind is not Kind.CREATE:
        contacts.drop_keys_of_change(db, lane, seq)
        contacts.put_keys(db, lane, held, seq, now)
    contacts.settle_keys(db, lane, held, () if fault else payload.clear, seq, now)


def _is_held(key: Key, fault: Fault | None) -> bool:
    if fault is None:
        return True
    # Engage has the contact, and this is not among what it has otherwise.
    names = [field["field"] for field in fault.fields]
    return fault.code == "ImportDiffers" and key.name not in names


_CLOSE = """
UPDATE batches SET state = 'settled', settled_at = ? WHERE number = ? AND state = 'imported'
   AND NOT EXISTS (SELECT 1 FROM batch_contacts INDEXED BY batch_contacts_open
                    WHERE batch = ? AND settled = 0)"""


def _close_if_settled(db: Connection, number: int, now: str) -> None:
    db.execute(_CLOSE, (now, number, number))


def forget_waits(db: Connection) -> None:
    """After the machine was started anew its monotonic clock means something else: all is due."""
    db.execute("UPDATE batch_contacts SET due = 0 WHERE settled = 0 AND due > 0")


def close(db: Connection, number: int, now: str) -> None:
    """End an imported batch, if nothing of it is left to be looked up."""
    _close_if_settled(db, number, now)


# --- taking a file back -------------------------------------------------------------------------


@dataclass(frozen=True)
class Rest:
    """For how long what was taken back is left alone."""

    due: float  # monotonic: not sent by the API before
    due_at: str | None  # the same for people
    sealed_from: float  # monotonic: not put into another file before, unless a person asks


_UNDER_WAY_BY_FILE = "batch = ? AND state IN ('batched', 'uploaded')"
_NOTE_WITHDRAWAL = f"""
INSERT INTO attempts (change, route, outcome, code, message, started_at, ended_at)
SELECT seq, ?, ?, ?, ?, ?, ? FROM changes WHERE {_UNDER_WAY_BY_FILE} ORDER BY seq"""
_TAKE_BACK = f"""
UPDATE changes SET state = 'waiting', route = 'api', batch = NULL, api_attempts = 0, due = ?,
  due_at = ?, rests_until = ? WHERE {_UNDER_WAY_BY_FILE}"""
_WITHDRAW = """
UPDATE batches SET state = 'settled', settled_at = ?, withdrawn_at = ?, leftover = ?, error = NULL
 WHERE number = ?"""


def withdraw(db: Connection, name: str, *, now: str, rest: Rest, leftover: bool) -> Batch:
    """Let the changes of a file wait again that is out of the importer's reach for good.

    `leftover`: something of it may still lie on the server under another name. Raises NotFound, and
    Conflict for a batch that Engage has; nothing is changed then. Safe to repeat.
    """
    batch = get(db, name)
    if batch.state == "withdrawn":
        return batch
    if batch.state not in ("filling", "sealed", "written", "uploaded"):
        raise Conflict(
            f"Engage has taken {name} already; it cannot be withdrawn any more. Nothing is changed."
        )
    number = batch.number
    words = f"A person took back the file {name}."
    attempt = changes.Attempt(Route.FILE, "deferred", now, now, code="Withdrawn", message=words)
    db.execute(
        _NOTE_WITHDRAWAL,
        (attempt.route, attempt.outcome, attempt.code, attempt.message, now, now, number),
    )
    db.execute(_TAKE_BACK, (rest.due, rest.due_at, rest.sealed_from, number))
    db.execute("DELETE FROM batch_contacts WHERE batch = ?", (number,))
    db.execute(_WITHDRAW, (now, now, leftover, number))
    return get(db, name)


def leftovers(db: Connection, place: str) -> tuple[str, ...]:
    """Give the names of withdrawn files of which something may still lie at a place."""
    rows = db.execute(
        "SELECT name FROM batches WHERE leftover = 1 AND coalesce(place, ?1) = ?1 ORDER BY number",
        (place,),
    )
    return tuple(row["name"] for row in rows)


def note_cleaned(db: Connection, name: str) -> None:
    """Nothing of a withdrawn file is left on the server."""
    db.execute("UPDATE batches SET leftover = 0 WHERE name = ?", (name,))


# --- bulk calls ---------------------------------------------------------------------------------


def note_calls(db: Connection, name: str, calls: str | None) -> None:
    """Keep how far a batch's bulk calls have come; None: none of them may have been queued."""
    db.execute("UPDATE batches SET calls = ? WHERE name = ?", (calls, name))


def note_contact_id(db: Connection, number: int, position: int, contact_id: str) -> None:
    """A contact of a batch was found in Engage: from now on it is meant by its GUID."""
    db.execute(
        "UPDATE batch_contacts SET contact_id = ? WHERE batch = ? AND position = ?",
        (contact_id, number, position),
    )


# --- erasing ------------------------------------------------------------------------------------

_SETTLED_CONTACTS = """
SELECT bc.batch, bc.position FROM batches b JOIN batch_contacts bc ON bc.batch = b.number
 WHERE b.state = 'settled' AND b.settled_at < ? LIMIT ?"""
_DROP_CONTACT = "DELETE FROM batch_contacts WHERE batch = ? AND position = ?"
_FORGET_RECEIPTS = """
UPDATE batches SET receipt = NULL
 WHERE receipt IS NOT NULL AND state = 'settled' AND settled_at < ?"""


def prune_contacts(db: Connection, before: str, limit: int) -> int:
    """Erase who was in batches that were settled before a moment, and what Engage said to them.

    Gives how many contacts, at most `limit`; names and numbers of the batches stay.
    """
    found = db.execute(_SETTLED_CONTACTS, (before, limit)).fetchall()
    db.executemany(_DROP_CONTACT, [tuple(row) for row in found])
    db.execute(_FORGET_RECEIPTS, (before,))
    return len(found)
