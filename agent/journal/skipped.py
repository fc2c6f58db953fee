"""Whether an import left out some contacts of a batch, or skipped it as a whole.

Plain functions that run as units of work. A contact that was not found is set aside alone, unless
next to nothing of its batch was brought in (docs/decisions/0014): then the file failed, and not its
contacts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.change import Change, Fault, Kind, State
from agent.contact import Key
from agent.journal import batches, changes, contacts, states
from agent.journal.batches import Batch, Unverified
from agent.journal.driver import Connection

# Below this share of contacts that are found just as they were sent, the file failed as a whole.
# Not none at all: a customer who was in Engage before with the same data proves nothing.
_WHOLE_BELOW = 0.1
# A look-up may come a moment too early, or meet an Engage that is still at work.
MISSES_ENOUGH = 2


def note_mended(db: Connection, item: Unverified, *, due: float, now: str) -> Batch | None:
    """A contact was found with a difference, which was sent by the API; it is looked at once more.

    Gives the batch if this shows that it was skipped as a whole.
    """
    batches.look_again(db, item, due=due, patched=True)
    return _concluded(db, item.batch.number, now)


@dataclass(frozen=True)
class Settled:
    """What a look-up decided."""

    changes: tuple[Change, ...] = ()  # of this contact, as they stand now
    skipped: Batch | None = None  # it showed that the batch was skipped as a whole


def settle(
    db: Connection,
    item: Unverified,
    *,
    fault: Fault | None,
    contact_id: str | None = None,
    contact_type: str | None = None,
    keys: Sequence[Key] = (),
    now: str,
    verifies: bool,
) -> Settled:
    """Settle a contact as batches.settle() does, and see what that says of its batch."""
    moved = batches.settle(
        db,
        item,
        fault=fault,
        contact_id=contact_id,
        contact_type=contact_type,
        keys=keys,
        now=now,
        verifies=verifies,
    )
    if fault is None and not item.patched:
        _count_accepted(db, item.batch.number)
    return Settled(moved, _concluded(db, item.batch.number, now))


def settle_missed(
    db: Connection, item: Unverified, *, fault: Fault, now: str, verifies: bool
) -> Settled:
    """Decide about a contact that was missed often enough.

    It is rejected alone where the import worked on the file; while that is not known, it waits for
    the other contacts' look-ups.
    """
    number = item.batch.number
    if _was_worked_on(db, number):
        return settle(db, item, fault=fault, now=now, verifies=verifies)
    db.execute(_HOLD, (math.inf, MISSES_ENOUGH, number, item.entry.position))
    return Settled(skipped=_concluded(db, number, now))


# --- a batch that was skipped as a whole --------------------------------------------------------

_MISSED = f"settled = 0 AND misses >= {MISSES_ENOUGH:d}"
_HOLD = "UPDATE batch_contacts SET due = ?, misses = ? WHERE batch = ? AND position = ?"
_WAKE = f"UPDATE batch_contacts SET due = 0 WHERE batch = ? AND {_MISSED}"
_COUNT_ACCEPTED = "UPDATE batches SET accepted = accepted + 1 WHERE number = ?"
_ACCEPTED = "SELECT accepted, to_verify FROM batches WHERE number = ?"
_IS_OPEN = f"""
SELECT 1 FROM batch_contacts
 WHERE batch = ? AND settled = 0 AND misses < {MISSES_ENOUGH:d} AND patched = 0 LIMIT 1"""
_IS_LEFT_OUT = f"""
SELECT 1 FROM batch_contacts WHERE batch = ? AND (({_MISSED}) OR patched = 1) LIMIT 1"""
_NOTE_SKIPPED = "UPDATE batches SET skipped_at = ? WHERE number = ? AND skipped_at IS NULL"

_OF_MISSED = f"""batch = :batch AND state = 'imported'
   AND lane IN (SELECT lane FROM batch_contacts WHERE batch = :batch AND {_MISSED})"""
_NOTE_ATTEMPTS = f"""
INSERT INTO attempts (change, route, outcome, code, message, started_at, ended_at)
SELECT seq, 'file', :outcome, :code, :message, :now, :now FROM changes
 WHERE {_OF_MISSED} AND (skipped_in IS NULL) = :first ORDER BY seq"""
_RETURN = f"""
UPDATE changes SET state = 'waiting', route = 'api', batch = NULL, api_attempts = 0, due = 0,
  due_at = NULL, skipped_in = :batch WHERE {_OF_MISSED} AND skipped_in IS NULL"""
_AGAIN = f"SELECT seq, lane, kind FROM changes WHERE {_OF_MISSED} AND skipped_in IS NOT NULL"
_REJECT = """
UPDATE changes SET state = 'rejected', holds = :holds, error = :error, settled_at = :now,
  skipped_in = :batch WHERE seq = :seq"""
_SETTLE_MISSED = f"UPDATE batch_contacts SET settled = 1 WHERE batch = ? AND {_MISSED}"

SKIPPED_AGAIN = Fault(
    "FileSkipped",
    "Engage's import took a second file with this change and again brought in next to nothing of "
    "it. Ask Voyado what its integration log says of the file, then send all of it again.",
)
_SKIPPED_ONCE = "Engage's import took the file and brought in next to nothing of it."


def _was_worked_on(db: Connection, number: int) -> bool:
    row = db.execute(_ACCEPTED, (number,)).fetchone()
    return bool(row["accepted"] >= row["to_verify"] * _WHOLE_BELOW)


def _count_accepted(db: Connection, number: int) -> None:
    was_known = _was_worked_on(db, number)
    db.execute(_COUNT_ACCEPTED, (number,))
    if not was_known and _was_worked_on(db, number):
        db.execute(_WAKE, (number,))


def _concluded(db: Connection, number: int, now: str) -> Batch | None:
    """Once each contact was looked at: was it the whole batch? Then its changes wait again.

    A change that was in such a batch before is rejected: what fails twice needs a person.
    """
    if (
        _was_worked_on(db, number)
        or db.execute(_IS_OPEN, (number,)).fetchone() is not None
        or db.execute(_IS_LEFT_OUT, (number,)).fetchone() is None
    ):
        return None
    is_new = db.execute(_NOTE_SKIPPED, (now, number)).rowcount == 1
    attempt = {"batch": number, "now": now, "code": SKIPPED_AGAIN.code}
    again = {**attempt, "first": False, "outcome": "rejected", "message": SKIPPED_AGAIN.message}
    db.execute(_NOTE_ATTEMPTS, again)
    for row in db.execute(_AGAIN, {"batch": number}).fetchall():
        _reject(db, number, row, now)
    db.execute(
        _NOTE_ATTEMPTS,
        {**attempt, "first": True, "outcome": "deferred", "message": _SKIPPED_ONCE},
    )
    db.execute(_RETURN, {"batch": number})
    db.execute(_SETTLE_MISSED, (number,))
    batches.close(db, number, now)
    return batches.get_by_number(db, number) if is_new else None


def _reject(db: Connection, number: int, row: Any, now: str) -> None:
    kind, lane = Kind(row["kind"]), row["lane"]
    has_contact = contacts.get(db, lane).contact_id is not None
    db.execute(
        _REJECT,
        {
            "batch": number,
            "seq": row["seq"],
            "now": now,
            "holds": states.holds_lane(
                kind, State.REJECTED, verifies=True, has_contact=has_contact
            ),
            "error": changes.fault_text(SKIPPED_AGAIN),
        },
    )
    if kind is not Kind.CREATE:
        contacts.drop_keys_of_change(db, lane, row["seq"])


@dataclass(frozen=True)
class SkippedFile:
    """A batch that was skipped as a whole, and whose changes are not in Engage yet."""

    name: str
    contacts: int  # that were looked up
    accepted: int  # of these, found as they were sent
    rejected: int  # changes that were skipped a second time and need a person


_SKIPPED_FILES = """
SELECT name, contacts, accepted, rejected FROM (
  SELECT b.number, b.name, b.to_verify AS contacts, b.accepted,
    (SELECT count(*) FROM changes ch
      WHERE ch.skipped_in = b.number AND ch.state = 'rejected' AND ch.batch = b.number) AS rejected,
    b.state = 'imported' OR EXISTS (SELECT 1 FROM changes ch
      WHERE ch.skipped_in = b.number
        AND ch.state IN ('waiting', 'sending', 'batched', 'uploaded', 'imported')) AS is_open
    FROM batches b WHERE b.skipped_at IS NOT NULL)
 WHERE rejected > 0 OR is_open ORDER BY number"""


def skipped_files(db: Connection) -> tuple[SkippedFile, ...]:
    """Give the batches that were skipped as a whole and are not made good yet, oldest first."""
    return tuple(SkippedFile(**dict(row)) for row in db.execute(_SKIPPED_FILES))


_REJECTED_OF = """
SELECT seq FROM changes WHERE batch = ? AND state = 'rejected' AND seq > ? ORDER BY seq LIMIT ?"""


@dataclass(frozen=True)
class SentAgain:
    """Some changes of a batch that wait again."""

    count: int
    last: int | None  # sequence number to go on after; None: there are no more


def send_again(db: Connection, name: str, *, after: int, limit: int) -> SentAgain:
    """Retry rejected changes of a batch, the oldest first, from sequence number `after` on.

    Each as when a person retries it alone; what the disk has damaged stays. Raises NotFound.
    """
    batch = batches.get(db, name)
    rows = db.execute(_REJECTED_OF, (batch.number, after, limit)).fetchall()
    found = [changes.find_by_seq(db, row["seq"]) for row in rows]
    sound = [change for change in found if not change.damaged]
    for change in sound:
        changes.retry(db, change.id)
    return SentAgain(len(sound), found[-1].seq if len(found) == limit else None)
