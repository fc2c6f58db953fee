"""Engage's answers to reads, kept so that a till without a line can still show them.

Personal data: bounded in number and age, and erased with the contact. What the agent itself has
changed since an answer was fetched is told here too, by the order of attempts and by no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.change import Kind, Payload, State
from agent.clock import to_text
from agent.contact import Contact
from agent.journal import changes, contacts, states
from agent.journal.driver import Connection


class Shelf(StrEnum):
    """What is kept."""

    CONTACT = "contact"  # as Engage answered it
    PURCHASES = "purchases"
    PROMOTIONS = "promotions"
    SHOWN = "shown"  # a contact as a POS was given it, under its ETag


@dataclass(frozen=True)
class Moment:
    """A moment on both clocks."""

    ticks: float  # monotonic; means something only until the machine is started anew
    at: datetime  # UTC


@dataclass(frozen=True)
class Kept:
    """One answer and how old it is."""

    body: Any
    age_s: float
    told: int  # number of the last attempt there was before it was asked for
    fetched_at: str


@dataclass(frozen=True)
class Entry:
    """One answer to be kept."""

    shelf: Shelf
    name: str  # by what it is found again: contactId, query or ETag
    contact: str  # whose: a GUID or a ref, in lower case
    body: Any
    moment: Moment  # when it was asked for
    told: int = 0


# Within one start of the machine the clock that does not jump counts, after it the other one. A
# wall clock that was set back makes an answer look as old as one that was set forward by as much.
_AGE = """
CASE WHEN boot = (SELECT nullif(value, 'unknown') FROM meta WHERE name = 'machine_boot')
     THEN :ticks - fetched
     ELSE abs(julianday(:at) - julianday(fetched_at)) * 86400.0 END"""
_FIND = f"""
SELECT body, told, fetched_at, {_AGE} AS age_s FROM served WHERE shelf = :shelf AND name = :name"""
_KEEP = """
INSERT INTO served (shelf, name, contact, body, told, fetched, fetched_at, boot, used)
VALUES (:shelf, :name, :contact, :body, :told, :ticks, :at,
  (SELECT coalesce(max(value), '') FROM meta WHERE name = 'machine_boot'),
  (SELECT coalesce(max(used), 0) + 1 FROM served WHERE (shelf = 'shown') = (:shelf = 'shown')))
ON CONFLICT (shelf, name) DO UPDATE SET contact = excluded.contact, body = excluded.body,
  told = excluded.told, fetched = excluded.fetched, fetched_at = excluded.fetched_at,
  boot = excluded.boot, used = excluded.used"""
_USE = """
UPDATE served SET used =
  (SELECT max(used) + 1 FROM served WHERE (shelf = 'shown') = (:shelf = 'shown'))
 WHERE shelf = :shelf AND name = :name"""
_TRIM = """
DELETE FROM served WHERE rowid IN (SELECT rowid FROM served
  WHERE (shelf = 'shown') = (:shelf = 'shown') ORDER BY used DESC LIMIT -1 OFFSET :limit)"""
_ERASE_OLD = f"DELETE FROM served WHERE shelf = :shelf AND {_AGE} > :limit"
_ERASE_CONTACT = "DELETE FROM served WHERE contact = ? AND fetched_at < ?"
_COUNT_CONTACT = "SELECT count(*) AS n FROM served WHERE contact = ?"
_LAST_ATTEMPT = "SELECT coalesce(max(number), 0) AS number FROM attempts"
_PROGRESS = """
SELECT (SELECT coalesce(max(seq), 0) FROM changes) AS newest,
  (SELECT sum(n) FROM counts WHERE state IN ('delivered', 'confirmed', 'imported')) AS settled"""


def find(db: Connection, shelf: Shelf, name: str, moment: Moment) -> Kept | None:
    """Give a kept answer, however old it is; None if there is none, or its text is damaged."""
    row = db.execute(_FIND, {"shelf": shelf, "name": name, **_clocks(moment)}).fetchone()
    if row is None or row["age_s"] is None:  # its time is damaged
        return None
    try:
        body = json.loads(row["body"])
    except ValueError:
        return None
    return Kept(body, row["age_s"], row["told"], row["fetched_at"])


def keep(
    db: Connection, entries: Iterable[Entry], used: Iterable[tuple[Shelf, str]], limit: int
) -> None:
    """Store answers, note which others were used, and let the least used beyond `limit` go.

    What a POS was shown is counted by itself, so that it cannot drive out what Engage answered.
    """
    for shelf, name in used:
        db.execute(_USE, {"shelf": shelf, "name": name})
    for entry in entries:
        db.execute(
            _KEEP,
            {
                "shelf": entry.shelf,
                "name": entry.name,
                "contact": entry.contact.lower(),
                "body": json.dumps(entry.body, separators=(",", ":")),
                "told": entry.told,
                **_clocks(entry.moment),
            },
        )
        db.execute(_TRIM, {"shelf": entry.shelf, "limit": limit})


def erase_old(db: Connection, limits_s: Mapping[Shelf, float], moment: Moment) -> int:
    """Erase what is older than its shelf allows; gives how many."""
    return sum(
        db.execute(_ERASE_OLD, {"shelf": shelf, "limit": limit, **_clocks(moment)}).rowcount
        for shelf, limit in limits_s.items()
    )


def erase_contact(db: Connection, public_id: str, before: str = "9") -> int:
    """Erase everything kept of a contact, whichever of its names it was kept under.

    `before`: only what was fetched earlier than that (UTC, ISO 8601). Gives how many answers.
    """
    return sum(
        db.execute(_ERASE_CONTACT, (name, before)).rowcount for name in _names(db, public_id)
    )


def count_of_contact(db: Connection, public_id: str) -> int:
    """Count what is kept of a contact, under whichever of its names."""
    counted = [db.execute(_COUNT_CONTACT, (name,)).fetchone() for name in _names(db, public_id)]
    return sum(row["n"] for row in counted)


def _names(db: Connection, public_id: str) -> set[str]:
    """Give every id under which something may be kept of a contact: its GUID and its refs."""
    names = {public_id.lower()}
    if contact := contacts.find(db, public_id):
        rows = db.execute(
            "SELECT ref FROM contacts WHERE lane = :lane OR joined = :lane", {"lane": contact.lane}
        )
        names.update(row["ref"] for row in rows)
        if contact.contact_id:
            names.add(contact.contact_id)
    return names


def _clocks(moment: Moment) -> dict[str, Any]:
    return {"ticks": moment.ticks, "at": to_text(moment.at)}


# --- what a POS was shown -------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A contact as a POS was given it."""

    etag: str
    body: dict[str, Any]


_SHOWN = "SELECT contact, body FROM served WHERE shelf = 'shown' AND name = ?"


def shown(db: Connection, etag: str, public_id: str) -> Shown | None:
    """Give what was shown of this contact under an ETag; None if it was another, or is forgotten.

    A ref and the GUID that it turned out to be are the same contact.
    """
    row = db.execute(_SHOWN, (etag,)).fetchone()
    if row is None:
        return None
    if row["contact"] != public_id.lower():
        then, now = contacts.find(db, row["contact"]), contacts.find(db, public_id)
        if then is None or now is None or then.lane != now.lane:
            return None
    try:
        return Shown(etag, json.loads(row["body"]))
    except ValueError:
        return None


def was_shown(db: Connection, etag: str) -> bool:
    """Say whether an ETag is remembered."""
    return db.execute(_SHOWN, (etag,)).fetchone() is not None


# --- what the agent itself did --------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """One change of this till that concerns a contact."""

    kind: Kind
    payload: Payload
    state: State
    holds: bool  # not settled, or a rejected sign-up that keeps its lane waiting
    existed: bool
    ended: int  # number of the attempt that settled it; 0: none did
    settled_at: str | None

    @property
    def is_done(self) -> bool:
        """Say whether Engage has it."""
        return self.state in (State.DELIVERED, State.CONFIRMED) or (
            self.state is State.IMPORTED and not self.holds
        )

    @property
    def is_open(self) -> bool:
        """Say whether it is still on its way."""
        return self.state in states.OPEN and not self.is_done

    def ended_after(self, kept: Kept) -> bool:
        """Say whether it was settled, or refused halfway, after an answer was asked for."""
        if self.state is State.IMPORTED and not self.holds:
            # Where nobody verifies, no attempt tells that the import is over.
            return (self.settled_at or "") >= kept.fetched_at
        return self.ended > kept.told


# A refusal counts: an upgrade may be refused after its attributes went through.
_OWN = """
SELECT ch.kind, ch.state, ch.holds, ch.existed, ch.payload, ch.payload_sha256, ch.settled_at,
  (SELECT coalesce(max(a.number), 0) FROM attempts a
    WHERE a.change = ch.seq AND a.outcome IN ('delivered', 'rejected')) AS ended
  FROM changes ch WHERE ch.lane = ? AND ch.state <> 'discarded' AND ch.erased = 0
 ORDER BY ch.seq"""


def own(db: Connection, public_id: str) -> tuple[Contact | None, tuple[Own, ...]]:
    """Give a contact by its ref or GUID, with what this till asked for it, oldest first.

    What was discarded is left out, what was erased, and what the disk has damaged.
    """
    contact = contacts.find(db, public_id)
    if contact is None:
        return None, ()
    return contact, tuple(
        Own(
            Kind(row["kind"]),
            payload,
            State(row["state"]),
            bool(row["holds"]),
            bool(row["existed"]),
            row["ended"],
            row["settled_at"],
        )
        for row in db.execute(_OWN, (contact.lane,))
        if (payload := changes.payload_of(row)) is not None
    )


def last_attempt(db: Connection) -> int:
    """Give the number of the newest attempt: what comes later has a higher one."""
    return int(db.execute(_LAST_ATTEMPT).fetchone()["number"])


def progress(db: Connection) -> tuple[int, int]:
    """Give what is another pair as soon as anything was recorded or settled."""
    row = db.execute(_PROGRESS).fetchone()
    return row["newest"], row["settled"]
