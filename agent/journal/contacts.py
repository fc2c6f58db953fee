"""Contacts in the journal: ref ↔ contactId, keys, and two refs that turn out to be one person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.contact import Contact, Key, is_ref_shaped, is_uuid, new_id
from agent.errors import NotFound
from agent.journal.driver import Connection

_COLUMNS = "lane, ref, contact_id, contact_type"

_BY_LANE = f"SELECT {_COLUMNS} FROM contacts WHERE lane = ?"
_RESOLVE = "SELECT coalesce(joined, lane) AS lane FROM contacts WHERE lane = ?"
_BY_REF = "SELECT coalesce(joined, lane) AS lane FROM contacts WHERE ref = ?"
_BY_CONTACT_ID = "SELECT lane FROM contacts WHERE contact_id = ?"
# Whoever has a key comes before whoever only asks for it: Engage may refuse to move it.
_BY_KEY = """
SELECT c.lane FROM keys k JOIN contacts c ON c.lane = k.lane
 WHERE k.name = ? AND k.value = ?
 ORDER BY EXISTS (SELECT 1 FROM changes ch
                   WHERE ch.seq = k.since AND ch.kind <> 'create' AND ch.holds = 1),
          k.seq DESC LIMIT 1"""
_ALL_BY_KEY = "SELECT DISTINCT lane FROM keys WHERE name = ? AND value = ? ORDER BY seq DESC"
_INSERT = """
INSERT INTO contacts (ref, contact_id, contact_type, created_at) VALUES (?, ?, ?, ?)
RETURNING lane"""
_PUT_KEY = """
INSERT INTO keys (name, value, lane, seq, since, told_at)
VALUES (:name, :value, :lane, :seq, :seq, :told_at)
ON CONFLICT (name, value, lane)
DO UPDATE SET seq = max(seq, excluded.seq), since = min(since, excluded.since),
  told_at = max(told_at, excluded.told_at)"""
# What Engage holds by now comes first: a key that an open change brings is not there yet.
_KEYS_OF = """
SELECT name, value FROM keys WHERE lane = :lane ORDER BY since >= :open_from, seq DESC"""
_DROP_OLDER_KEYS = "DELETE FROM keys WHERE lane = ? AND name = ? AND value <> ? AND seq < ?"
_DROP_KEYS_BEFORE = """
DELETE FROM keys WHERE lane = ? AND told_at < ?
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.seq = keys.seq AND ch.holds = 1)"""
_DROP_CLEARED_KEYS = "DELETE FROM keys WHERE lane = ? AND name = ? AND seq < ?"
_DROP_KEYS_OF_CHANGE = "DELETE FROM keys WHERE lane = ? AND seq = ? AND since = seq"
_CONFIRM_KEY = """
UPDATE keys SET told_at = max(told_at, ?) WHERE lane = ? AND name = ? AND value = ?"""
# A contact has one value of each name, and this is Engage's; only a change on its way there may
# bring another.
_DROP_OTHER_VALUES = """
DELETE FROM keys WHERE lane = ? AND name = ? AND value <> ?
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.seq = keys.seq AND ch.holds = 1)"""
_TRIED_SINCE = """
SELECT 1 FROM changes ch JOIN attempts a ON a.change = ch.seq
 WHERE ch.lane = ? AND a.number > ? LIMIT 1"""
# Engage says whose key it is; only a change on its way there may say otherwise.
_DROP_OUTDATED_KEY = """
DELETE FROM keys WHERE name = ? AND value = ? AND lane <> ?
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.seq = keys.seq AND ch.holds = 1)"""
_SET_ID = "UPDATE contacts SET contact_id = ? WHERE lane = ?"
_RELEASE_LANE = """
UPDATE changes SET holds = 0
 WHERE lane = ? AND holds = 1 AND state = 'rejected' AND kind = 'create'"""
_SET_TYPE = "UPDATE contacts SET contact_type = ? WHERE lane = ?"


def get(db: Connection, lane: int) -> Contact:
    """Give a contact by its lane."""
    row = db.execute(_BY_LANE, (lane,)).fetchone()
    return Contact(row["lane"], row["ref"], row["contact_id"], row["contact_type"])


def resolve(db: Connection, lane: int) -> Contact:
    """Give the contact that a lane turned out to be: itself, or the one that it was joined with."""
    row = db.execute(_RESOLVE, (lane,)).fetchone()
    return get(db, row["lane"])


def find(db: Connection, public_id: str) -> Contact | None:
    """Give a contact by its ref or GUID, either case; None if this till does not know it."""
    public_id = public_id.lower()
    row = (
        db.execute(_BY_CONTACT_ID, (public_id,)).fetchone()
        or db.execute(_BY_REF, (public_id,)).fetchone()
    )
    return get(db, row["lane"]) if row else None


def find_by_key(db: Connection, key: Key) -> Contact | None:
    """Give the contact that carries a key, the latest if there are several.

    One that only asks for it, by an update that is still open, comes last.
    """
    row = db.execute(_BY_KEY, (key.name, key.value)).fetchone()
    return get(db, row["lane"]) if row else None


def find_all_by_key(db: Connection, key: Key) -> list[Contact]:
    """Give every contact that carries a key, the latest first."""
    return [get(db, row["lane"]) for row in db.execute(_ALL_BY_KEY, (key.name, key.value))]


def for_target(db: Connection, public_id: str, now: str) -> Contact:
    """Give the contact that an update names, making one for a GUID that is new to this till.

    Raises NotFound for what is neither a GUID nor a ref of this till: a ref is never sent to
    Engage, so one that nobody here knows leads nowhere.
    """
    if contact := find(db, public_id):
        return contact
    if not is_uuid(public_id) or is_ref_shaped(public_id):
        raise NotFound(
            "This till knows no contact with that id. Nothing was stored. Use the `id` that a "
            "sign-up or a look-up answered."
        )
    return add(db, contact_id=public_id.lower(), contact_type=None, now=now)


def add(db: Connection, *, contact_id: str | None, contact_type: str | None, now: str) -> Contact:
    """Make a contact with a new ref."""
    ref = new_id()
    lane = db.execute(_INSERT, (ref, contact_id, contact_type, now)).fetchone()["lane"]
    return Contact(lane, ref, contact_id, contact_type)


def put_keys(db: Connection, lane: int, keys: Iterable[Key], seq: int, told_at: str) -> None:
    """Store that a change gave this contact these keys; 0 stands for Engage's own word."""
    db.executemany(
        _PUT_KEY,
        [
            {"name": key.name, "value": key.value, "lane": lane, "seq": seq, "told_at": told_at}
            for key in keys
        ],
    )


def keys(db: Connection, lane: int, open_from: int = 2**62) -> tuple[Key, ...]:
    """Give a contact's keys, the newest first; those of changes from `open_from` on come last."""
    rows = db.execute(_KEYS_OF, {"lane": lane, "open_from": open_from})
    return tuple(Key(row["name"], row["value"]) for row in rows)


def settle_keys(
    db: Connection, lane: int, held: Iterable[Key], cleared: Iterable[str], seq: int, now: str
) -> None:
    """Engage holds what a change brought: forget the values that it replaced or cleared."""
    for key in held:
        db.execute(_DROP_OLDER_KEYS, (lane, key.name, key.value, seq))
        db.execute(_CONFIRM_KEY, (now, lane, key.name, key.value))
    for name in cleared:
        db.execute(_DROP_CLEARED_KEYS, (lane, name, seq))


def hear_keys(db: Connection, lane: int, keys: Iterable[Key], now: str) -> None:
    """Store that Engage gave these as the contact's keys, in place of what was known of them."""
    for key in keys:
        db.execute(_DROP_OTHER_VALUES, (lane, key.name, key.value))
        put_keys(db, lane, [key], 0, now)


def drop_keys_of_change(db: Connection, lane: int, seq: int) -> None:
    """Forget the keys that a change would have brought; it was refused or discarded."""
    db.execute(_DROP_KEYS_OF_CHANGE, (lane, seq))


_STALE_KEYS = """
SELECT name, value, lane FROM keys WHERE told_at < ?
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.lane = keys.lane) LIMIT ?"""
_DROP_STALE_KEY = """
DELETE FROM keys WHERE name = ? AND value = ? AND lane = ? AND told_at < ?
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.lane = keys.lane)"""
_MISDATED_KEYS = "SELECT 1 FROM keys WHERE told_at > ? LIMIT 1"
_REDATE_KEYS = "UPDATE keys SET told_at = ? WHERE told_at > ?"


def stale_keys(db: Connection, before: str, limit: int) -> list[tuple[str, str, int]]:
    """Find keys that were last told before a moment and belong to no change in the journal.

    Looks through all of them: a reading function, for the reader's connection.
    """
    return [tuple(row) for row in db.execute(_STALE_KEYS, (before, limit))]


def prune_keys(db: Connection, found: Iterable[tuple[str, str, int]], before: str) -> None:
    """Erase such keys, unless something came in between."""
    db.executemany(_DROP_STALE_KEY, [(*each, before) for each in found])


def has_misdated_keys(db: Connection, after: str) -> bool:
    """Say whether some keys bear a date that has not come yet: the clock was wrong then."""
    return db.execute(_MISDATED_KEYS, (after,)).fetchone() is not None


def redate_keys(db: Connection, after: str, now: str) -> None:
    """Count their age from now, so that they do not stay for years."""
    db.execute(_REDATE_KEYS, (now, after))


def drop_keys_before(db: Connection, lane: int, moment: str) -> None:
    """Forget the keys that were told before a moment, but those of changes on their way."""
    db.execute(_DROP_KEYS_BEFORE, (lane, moment))


def learn(db: Connection, lane: int, contact_id: str, contact_type: str | None) -> int:
    """Store Engage's GUID of a contact; join two refs that turn out to be one. Gives the lane.

    Joined changes keep their capture order, because lanes are ordered by sequence number.
    """
    contact_id = contact_id.lower()
    known = db.execute(_BY_CONTACT_ID, (contact_id,)).fetchone()
    if known is None:
        db.execute(_SET_ID, (contact_id, lane))
    elif known["lane"] != lane:
        _join(db, lane, known["lane"])
        lane = known["lane"]
    if contact_type:
        db.execute(_SET_TYPE, (contact_type, lane))
    # What waited for a rejected sign-up has a contact to go to now.
    db.execute(_RELEASE_LANE, (lane,))
    return lane


def remember(
    db: Connection,
    key: Key,
    contact_id: str,
    contact_type: str | None,
    *,
    contact_key: str,
    asked_after: int,
    now: str,
) -> None:
    """Store what a look-up at Engage found: this key belongs to that GUID, and to nobody else.

    `contact_key` is the attribute that makes two sign-ups one person: only by it a sign-up on its
    way is taken for that contact, because relatives share a phone. `asked_after`: the last attempt
    there was before Engage was asked; if the contact was changed since, the answer may be older.
    """
    by_id = find(db, contact_id)
    by_key = find_by_key(db, key) if key.name == contact_key else None
    if by_id is not None:
        lane = by_id.lane
    elif by_key is not None and by_key.contact_id is None:
        lane = learn(db, by_key.lane, contact_id, contact_type)
    else:
        lane = add(db, contact_id=contact_id.lower(), contact_type=contact_type, now=now).lane
    if _was_tried_since(db, lane, asked_after):
        return
    db.execute(_DROP_OUTDATED_KEY, (key.name, key.value, lane))
    hear_keys(db, lane, [key], now)


def remember_contact(
    db: Connection,
    keys: Sequence[Key],
    contact_id: str,
    contact_type: str | None,
    *,
    asked_after: int,
    now: str,
) -> None:
    """Store by what a contact is found that was read from Engage; `asked_after` as above."""
    known = find(db, contact_id)
    if known is None:
        known = add(db, contact_id=contact_id.lower(), contact_type=contact_type, now=now)
    elif contact_type and contact_type != known.contact_type:
        db.execute(_SET_TYPE, (contact_type, known.lane))
    if not _was_tried_since(db, known.lane, asked_after):
        hear_keys(db, known.lane, keys, now)


def _was_tried_since(db: Connection, lane: int, attempt: int) -> bool:
    return db.execute(_TRIED_SINCE, (lane, attempt)).fetchone() is not None


def forget_contact_id(db: Connection, lane: int) -> None:
    """Engage no longer knows the GUID: the next look-up by key decides."""
    db.execute(_SET_ID, (None, lane))


def _join(db: Connection, lane: int, into: int) -> None:
    for statement in (
        "UPDATE contacts SET joined = :into, contact_id = NULL WHERE lane = :lane",
        "UPDATE contacts SET joined = :into WHERE joined = :lane",
        "UPDATE changes SET lane = :into WHERE lane = :lane",
        "UPDATE batch_contacts SET lane = :into WHERE lane = :lane",
        "UPDATE OR REPLACE keys SET lane = :into WHERE lane = :lane",
    ):
        db.execute(statement, {"lane": lane, "into": into})
