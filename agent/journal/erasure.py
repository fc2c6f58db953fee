"""What the journal holds of one person, and how all of it goes on request.

What stays are ids: ref and GUID, and of each change its kind, state and times, so that a repeat of
an old request finds it and brings nobody back. Who is erased never comes back from a member export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.change import Change, Fault, Payload, Route, State
from agent.contact import KEY_ATTRIBUTES, Contact, Key, keys_of
from agent.errors import NotFound, OpenChanges
from agent.journal import changes, contacts, meta, register, served, states
from agent.journal.driver import Connection
from agent.journal.recognising import Asked

# Their values are looked for in the file afterwards: they name somebody, a city does not.
_TELLING = (*KEY_ATTRIBUTES, "lastName", "street", "birthDay")
_TELLING_MIN = 5  # letters; shorter ones stand in other texts by chance
# They are on their way to Engage, or just being looked up there: what comes of it is near.
_UNDER_WAY = (State.SENDING, State.IMPORTED)
_IN_FILE = (State.BATCHED, State.UPLOADED)


# --- what there is ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What this till holds of one person. The names of keys, not their values."""

    contact: Contact | None  # None: known from a member export or a kept answer alone
    contact_id: str | None  # Engage's GUID
    keys: tuple[str, ...]  # of KEY_ATTRIBUTES
    open_changes: tuple[Change, ...]  # rejected ones too: they wait for a person
    settled_changes: int
    answers: int  # of Engage, kept to be shown again
    is_member: bool  # known from a member export
    was_erased: bool  # at least once


_SETTLED = """
SELECT count(*) AS n FROM changes
 WHERE lane = ? AND erased = 0 AND settled_at IS NOT NULL AND state <> 'rejected'"""
_NOT_SETTLED = """
SELECT id FROM changes WHERE lane = ? AND (holds = 1 OR state = 'rejected') ORDER BY seq"""
_WAS_ERASED = "SELECT 1 FROM erasures WHERE ref = ? OR contact_id = ? LIMIT 1"


def held(db: Connection, public_id: str) -> Held:
    """Say what is held of whoever has this ref or GUID. Raises NotFound if it is nothing."""
    contact = contacts.find(db, public_id)
    contact_id = contact.contact_id if contact else public_id.lower()
    lane = contact.lane if contact else 0
    known = {key.name for key in contacts.keys(db, lane)}
    ids = [row["id"] for row in db.execute(_NOT_SETTLED, (lane,)).fetchall()]
    found = Held(
        contact=contact,
        contact_id=contact_id,
        keys=tuple(name for name in KEY_ATTRIBUTES if name in known),
        open_changes=tuple(changes.find(db, change_id) for change_id in ids),
        settled_changes=db.execute(_SETTLED, (lane,)).fetchone()["n"],
        answers=served.count_of_contact(db, public_id),
        is_member=register.is_member(db, contact_id, lane),
        was_erased=_was_erased(db, contact, contact_id),
    )
    if contact is None and not (found.answers or found.is_member or found.was_erased):
        raise NotFound("This till knows no contact with that id.")
    return found


def _was_erased(db: Connection, contact: Contact | None, contact_id: str | None) -> bool:
    ref = contact.ref if contact else None
    return db.execute(_WAS_ERASED, (ref, contact_id)).fetchone() is not None


# --- erasing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Erased:
    """What went, and what stays to be done elsewhere."""

    held: Held  # as it was before
    changes: int  # whose data is gone
    keys: int
    discarded: tuple[Change, ...]  # given up though they were open, as they stand now
    in_engage: str  # yes, maybe, no
    traces: tuple[bytes, ...]  # what must not stand in the journal's file any more. Personal data


_FAULT = Fault("Erased", "The customer was erased on this till; nothing of it was sent any more.")
_GIVE_UP = """
UPDATE changes SET state = 'discarded', holds = 0, settled_at = ?
 WHERE seq = ? AND state IN ('waiting', 'rejected')"""
_OF_LANE = """
SELECT seq, payload, payload_sha256, idempotency_key, state FROM changes
 WHERE lane = ? AND erased = 0"""
_EMPTY = """
UPDATE changes SET erased = 1, payload = ?, payload_sha256 = ?, error = ?, idempotency_key = ?
 WHERE seq = ?"""
_EMPTY_ATTEMPTS = "UPDATE attempts SET message = NULL, request_id = NULL WHERE change = ?"
_ERASE_KEYS = "DELETE FROM keys WHERE lane = ?"
_EMPTY_BATCH_CONTACTS = "UPDATE batch_contacts SET key_value = NULL WHERE lane = ?"
_FORGET_RECEIPTS = """
UPDATE batches SET receipt = NULL
 WHERE receipt IS NOT NULL AND number IN (SELECT batch FROM batch_contacts WHERE lane = ?)"""
_NOTE = """
INSERT INTO erasures (ref, contact_id, erased_at, token_name, changes, discarded, in_engage)
VALUES (?, ?, ?, ?, ?, ?, ?)"""


def erase(
    db: Connection,
    public_id: str,
    *,
    give_up_open: bool,
    token_name: str,
    digest: Callable[[Key], int | None],
    now: str,
) -> Erased:
    """Erase a person from the journal; with `give_up_open`, what is open of them too.

    `digest`: a key as the register of members has it. Raises NotFound, and OpenChanges while
    something is open that is not given up, or cannot be: nothing is erased then. Safe to repeat.
    """
    before = held(db, public_id)
    _refuse_open(before.open_changes, give_up_open=give_up_open)
    in_engage = _in_engage(before)
    for change in before.open_changes:
        _give_up(db, change, now)
    lane = before.contact.lane if before.contact else 0
    known = contacts.keys(db, lane)
    traces = {trace for key in known for trace in _trace(key.value)}
    emptied = db.execute(_OF_LANE, (lane,)).fetchall()
    for row in emptied:
        traces |= set(_traces_of_payload(changes.payload_of(row)))
        _empty(db, row)
    keys = db.execute(_ERASE_KEYS, (lane,)).rowcount
    db.execute(_FORGET_RECEIPTS, (lane,))
    db.execute(_EMPTY_BATCH_CONTACTS, (lane,))
    served.erase_contact(db, public_id)
    register.erase_member(db, before.contact_id, lane, now)
    meta.note_traces(db)
    register.erase_nameless(db, [Asked(key, digest(key)) for key in known])
    if emptied or keys or before.answers or before.is_member:
        db.execute(
            _NOTE,
            (
                before.contact.ref if before.contact else None,
                before.contact_id,
                now,
                token_name,
                len(emptied),
                len(before.open_changes),
                in_engage,
            ),
        )
    discarded = tuple(changes.find(db, change.id) for change in before.open_changes)
    return Erased(before, len(emptied), keys, discarded, in_engage, tuple(sorted(traces)))


def _refuse_open(open_changes: Sequence[Change], *, give_up_open: bool) -> None:
    under_way = [change for change in open_changes if change.state in _UNDER_WAY]
    in_files = sorted({str(change.batch) for change in open_changes if change.state in _IN_FILE})
    if under_way:
        raise OpenChanges(
            "A change of this customer is just being sent or looked up. Nothing was erased. Try "
            "again in a moment; while Engage cannot be reached, pause the routes first."
        )
    if in_files:
        raise OpenChanges(
            f"Changes of this customer are in a file on its way to Engage ({', '.join(in_files)}). "
            "Nothing was erased. Take the file back, or wait until Engage has imported it."
        )
    if open_changes and not give_up_open:
        raise OpenChanges(
            f"{len(open_changes)} of this customer's changes wait to be sent or for a person. "
            "Nothing was erased. Wait until they are in Engage, or give them up as well: "
            "?open=discard."
        )


def _in_engage(before: Held) -> str:
    if before.contact is None or before.contact.contact_id is not None:
        return "yes"
    return "maybe" if any(change.unknown for change in before.open_changes) else "no"


def _give_up(db: Connection, change: Change, now: str) -> None:
    done = db.execute(_GIVE_UP, (now, change.seq))
    changes.check_moved(done.rowcount, change, states.ERASE)
    attempt = changes.Attempt(Route.API, "rejected", now, now, code=_FAULT.code)
    changes.add_attempt(db, change.seq, attempt)


def _empty(db: Connection, row: Any) -> None:
    text = Payload({}).to_json()
    # Why it was refused may quote a value; that it was given up for this may be said.
    fault = changes.fault_text(_FAULT) if row["state"] == State.DISCARDED else None
    key = row["idempotency_key"]
    hidden = None if key is None else changes.hidden_idempotency_key(key)
    db.execute(_EMPTY, (text, changes.digest(text), fault, hidden, row["seq"]))
    db.execute(_EMPTY_ATTEMPTS, (row["seq"],))


# --- what must be gone --------------------------------------------------------------------------


def _traces_of_payload(payload: Payload | None) -> Iterator[bytes]:
    if payload is None:
        return
    for key in keys_of(payload.attributes):
        yield from _trace(key.value)
    for name in _TELLING:
        if isinstance(value := payload.attributes.get(name), str):
            yield from _trace(value)


def _trace(value: str) -> Iterator[bytes]:
    if len(value) >= _TELLING_MIN:
        yield value.encode(errors="replace")


# --- the notes that stay ------------------------------------------------------------------------


@dataclass(frozen=True)
class Erasure:
    """One customer who was erased on request."""

    ref: str | None
    contact_id: str | None
    erased_at: str
    token_name: str
    changes: int
    discarded: int
    in_engage: str  # yes, maybe, no: whether they must be erased there too


_NOTES = """
SELECT ref, contact_id, erased_at, token_name, changes, discarded, in_engage FROM erasures
 ORDER BY number DESC LIMIT ?"""
_LEFT = "SELECT count(*) AS n FROM erasures WHERE erased_at >= ? AND in_engage <> 'no'"


def erasures(db: Connection, limit: int) -> tuple[Erasure, ...]:
    """Give the notes, the newest first."""
    return tuple(Erasure(**dict(row)) for row in db.execute(_NOTES, (limit,)))


def count_left(db: Connection, since: str) -> int:
    """Count who was erased here since a moment and is, or may be, in Engage still."""
    return int(db.execute(_LEFT, (since,)).fetchone()["n"])
