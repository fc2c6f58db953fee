"""The members of Engage's export: who they are and, as digests, by what they are found.

Plain functions that run as units of work. Entries may come again, late, or in part before a crash:
per member the newest file counts, and the same file twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.contact import KEY_ATTRIBUTES, Contact, Key
from agent.journal import contacts, served
from agent.journal.driver import Connection
from agent.journal.recognising import Asked, Member

# What tells two members apart where Engage's GUID is not exported, the surest first: numbers are
# given once, an address may be shared.
_SUREST_FIRST = ("memberNumber", "externalId", "socialSecurityNumber", "email", "mobilePhone")


@dataclass(frozen=True)
class Entry:
    """One member as a file of the export tells it; nothing of it can be read."""

    is_deleted: bool
    contact_id: str | None  # Engage's GUID in lower case
    contact_type: str | None
    digests: Mapping[str, int]  # by the key's name
    emptied: Collection[str] = ()  # keys that the member has no more


# --- taking entries in --------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """What became of some entries."""

    added: int  # members that were not known before
    refused: int  # new ones for whom there was no room


_COUNT = "SELECT count(*) AS n FROM members WHERE gone IS NULL"
_NEWEST = "SELECT max(told_at) AS newest FROM members WHERE gone IS NULL OR gone = 'deleted'"
_ROW = "SELECT member, contact_id, told_at, gone FROM members"
_BY_ID = f"{_ROW} WHERE contact_id = ?"
_ANY_WITHOUT_ID = "SELECT 1 FROM members WHERE contact_id IS NULL LIMIT 1"
_SHARING = f"""{_ROW} WHERE member IN
  (SELECT member FROM member_keys WHERE digest = ? AND name = ?)"""
_KEYS_OF = "SELECT name, digest FROM member_keys WHERE member = ?"
_ADD = """
INSERT INTO members (contact_id, contact_type, told_at, gone) VALUES (?, ?, ?, ?)
RETURNING member"""
_TOLD = """
UPDATE members SET contact_id = coalesce(?, contact_id),
  contact_type = coalesce(?, contact_type), told_at = ?, gone = NULL WHERE member = ?"""
_DROP_KEY = "DELETE FROM member_keys WHERE member = ? AND name = ? AND digest IS NOT ?"
_DROP_KEYS = "DELETE FROM member_keys WHERE member = ?"
_PUT_KEY = "INSERT OR IGNORE INTO member_keys (digest, member, name) VALUES (?, ?, ?)"
_GONE = "UPDATE members SET gone = ?, told_at = ?, lane = NULL WHERE member = ?"
_DROP = "DELETE FROM members WHERE member = ?"


def size(db: Connection) -> int:
    """Count the members."""
    return int(db.execute(_COUNT).fetchone()["n"])


def newest(db: Connection) -> str | None:
    """Give the moment of the newest file that told something; None if nothing was told."""
    row = db.execute(_NEWEST).fetchone()
    return None if row["newest"] is None else str(row["newest"])


def take(db: Connection, entries: Iterable[Entry], told_at: str, room: int) -> Taken:
    """Store what a file tells of some members; `room`: how many more there may be.

    `told_at`: the moment of the file. What a later file told already is left as it is, and a
    member that a person has erased here is not brought back.
    """
    added = refused = 0
    nameless = db.execute(_ANY_WITHOUT_ID).fetchone() is not None
    for entry in entries:
        same = _same(db, entry, nameless or entry.contact_id is None)
        if entry.is_deleted:
            _delete(db, entry, same, told_at)
        elif same:
            _tell(db, entry, same, told_at)
        elif added >= room:
            refused += 1
        else:
            added += 1
            row = db.execute(_ADD, (entry.contact_id, entry.contact_type, told_at, None)).fetchone()
            db.executemany(_PUT_KEY, _key_rows(row["member"], entry))
            nameless = nameless or entry.contact_id is None
    return Taken(added, refused)


def _tell(db: Connection, entry: Entry, same: Sequence[Any], told_at: str) -> None:
    member, *doubles = same
    if member["gone"] == "erased" or member["told_at"] > told_at:
        return
    for double in doubles:  # it had no GUID before, and was found to be this one
        db.execute(_DROP, (double["member"],))
    db.execute(_TOLD, (entry.contact_id, entry.contact_type, told_at, member["member"]))
    _put_keys(db, member["member"], entry)


def _put_keys(db: Connection, member: int, entry: Entry) -> None:
    for name in entry.emptied:
        db.execute(_DROP_KEY, (member, KEY_ATTRIBUTES.index(name), None))
    rows = _key_rows(member, entry)
    db.executemany(_DROP_KEY, [(member, place, digest) for digest, _, place in rows])
    db.executemany(_PUT_KEY, rows)


def _key_rows(member: int, entry: Entry) -> list[tuple[int, int, int]]:
    return [(digest, member, KEY_ATTRIBUTES.index(name)) for name, digest in entry.digests.items()]


def _delete(db: Connection, entry: Entry, same: Sequence[Any], told_at: str) -> None:
    for member in same:
        if member["gone"] == "erased" or member["told_at"] > told_at:
            continue
        db.execute(_DROP_KEYS, (member["member"],))
        if member["contact_id"] is None:
            db.execute(_DROP, (member["member"],))
        else:
            db.execute(_GONE, ("deleted", told_at, member["member"]))
            _forget_here(db, member["contact_id"], told_at)
    if not same and entry.contact_id is not None:
        # So that an older file that comes late does not bring the member back.
        db.execute(_ADD, (entry.contact_id, None, told_at, "deleted"))
        _forget_here(db, entry.contact_id, told_at)


def _forget_here(db: Connection, contact_id: str, told_at: str) -> None:
    """Engage has deleted the contact: what this till knew of it before is of no use."""
    if contact := contacts.find(db, contact_id):
        contacts.drop_keys_before(db, contact.lane, told_at)
    served.erase_contact(db, contact_id, before=told_at)


def _same(db: Connection, entry: Entry, by_keys: bool) -> list[Any]:
    """Give the rows that are this member, the one with its GUID first."""
    found: dict[int, Any] = {}
    if entry.contact_id is not None:
        rows = db.execute(_BY_ID, (entry.contact_id,)).fetchall()
        found.update((row["member"], row) for row in rows)
    for name, digest in entry.digests.items() if by_keys else ():
        for row in db.execute(_SHARING, (digest, KEY_ATTRIBUTES.index(name))).fetchall():
            unnamed = entry.contact_id is None or row["contact_id"] is None
            if unnamed and row["member"] not in found and _is_same(db, entry, row["member"]):
                found[row["member"]] = row
    return list(found.values())


def _is_same(db: Connection, entry: Entry, member: int) -> bool:
    """Say whether two without a common GUID are one: the surest key that both have decides."""
    known: dict[str, set[int]] = {}
    for row in db.execute(_KEYS_OF, (member,)):
        known.setdefault(KEY_ATTRIBUTES[row["name"]], set()).add(row["digest"])
    for name in _SUREST_FIRST:
        if name in known and name in entry.digests:
            return entry.digests[name] in known[name]
    return False


# --- one member ---------------------------------------------------------------------------------

_IS_MEMBER = """
SELECT 1 FROM members WHERE gone IS NULL AND (contact_id = :contact_id OR lane = :lane)"""
_ERASE_BY_LANE = "DELETE FROM members WHERE lane = ? AND contact_id IS NULL"
_ERASE_BY_ID = """
INSERT INTO members (contact_id, told_at, gone) VALUES (?, ?, 'erased')
ON CONFLICT (contact_id) DO UPDATE SET gone = 'erased', contact_type = NULL, lane = NULL
RETURNING member"""


def is_member(db: Connection, contact_id: str | None, lane: int) -> bool:
    """Say whether a contact is known from an export."""
    parameters = {"contact_id": contact_id, "lane": lane}
    return db.execute(_IS_MEMBER, parameters).fetchone() is not None


def erase_member(db: Connection, contact_id: str | None, lane: int, now: str) -> None:
    """Erase a member on request: no later export brings back who has this GUID."""
    db.execute(_ERASE_BY_LANE, (lane,))
    if contact_id is not None:
        row = db.execute(_ERASE_BY_ID, (contact_id, now)).fetchone()
        db.execute(_DROP_KEYS, (row["member"],))


_ERASE_NAMELESS = """
DELETE FROM members WHERE contact_id IS NULL AND member IN
  (SELECT member FROM member_keys WHERE digest = ? AND name = ?)"""


def erase_nameless(db: Connection, asked: Iterable[Asked]) -> None:
    """Erase members without a GUID who have one of these keys.

    An export may bring them back: without a GUID nobody can tell that they are the same.
    """
    db.executemany(_ERASE_NAMELESS, [_place(each) for each in asked if each.digest is not None])


# --- files --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileNote:
    """What became of one file of the export."""

    name: str
    bytes: int
    modified: int  # by the server's clock, seconds since 1970
    state: str  # taken, doubted, broken
    reason: str | None = None  # why it cannot be read; never quotes it
    read_at: str = ""


_FILES = "SELECT name, bytes, modified, state, reason, read_at FROM exports"
_NOTE_FILE = "INSERT OR REPLACE INTO exports VALUES (?, ?, ?, ?, ?, ?)"
_FORGET_FILE = "DELETE FROM exports WHERE name = ?"


def files(db: Connection) -> dict[str, FileNote]:
    """Give what is remembered of the export's files, by name."""
    return {row["name"]: FileNote(**dict(row)) for row in db.execute(_FILES)}


def note_file(db: Connection, note: FileNote) -> None:
    """Remember what became of a file."""
    values = (note.name, note.bytes, note.modified, note.state, note.reason, note.read_at)
    db.execute(_NOTE_FILE, values)


def forget_files(db: Connection, names: Iterable[str]) -> None:
    """Forget files that the server has no more."""
    db.executemany(_FORGET_FILE, [(name,) for name in names])


# --- erasing ------------------------------------------------------------------------------------

_SOME = "SELECT member FROM members WHERE gone IS NOT 'erased' LIMIT ?"
_ERASE_KEYS = "DELETE FROM member_keys WHERE member = ?"
_ERASE_OLD_GONE = "DELETE FROM members WHERE gone = 'deleted' AND told_at < ?"


def erase_some(db: Connection, limit: int) -> int:
    """Erase up to so many members, whoever they are; gives how many there were.

    Only the GUIDs that a person has erased stay, so that no later export brings them back.
    """
    numbers = [(row["member"],) for row in db.execute(_SOME, (limit,))]
    db.executemany(_ERASE_KEYS, numbers)
    db.executemany(_DROP, numbers)
    if not numbers:
        db.execute("DELETE FROM exports")
    return len(numbers)


def is_empty(db: Connection) -> bool:
    """Say whether nothing of an export is stored."""
    row = db.execute(_SOME, (1,)).fetchone() or db.execute("SELECT 1 FROM exports").fetchone()
    return row is None


def prune_gone(db: Connection, before: str) -> int:
    """Forget who was deleted so long ago that no older file can come any more."""
    return db.execute(_ERASE_OLD_GONE, (before,)).rowcount


# --- the key of the digests ---------------------------------------------------------------------


def key_check(db: Connection) -> str | None:
    """Give the sign of the key with which the digests were made; None before the first."""
    row = db.execute("SELECT value FROM meta WHERE name = 'register_key'").fetchone()
    return None if row is None else str(row["value"])


def note_key(db: Connection, check: str) -> None:
    """Store with which key the digests are made from now on."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('register_key', ?)", (check,))


# --- single keys --------------------------------------------------------------------------------

_HAS = "SELECT 1 FROM member_keys WHERE digest = ? AND name = ?"
_CORRECT = """
DELETE FROM member_keys WHERE digest = :digest AND name = :name
   AND member NOT IN (SELECT member FROM members WHERE contact_id = :contact_id)"""
_LINK = "UPDATE members SET lane = ? WHERE member = ? AND contact_id IS NULL"


def has(db: Connection, asked: Asked) -> bool:
    """Say whether some member has this key."""
    return asked.digest is not None and db.execute(_HAS, _place(asked)).fetchone() is not None


def correct(db: Connection, asked: Asked, contact_id: str = "") -> None:
    """Engage itself says that this key is that contact's, or nobody's: then it is no other's."""
    if asked.digest is None:
        return
    digest, name = _place(asked)
    db.execute(_CORRECT, {"digest": digest, "name": name, "contact_id": contact_id.lower()})


def give_ref(db: Connection, member: Member, keys: Sequence[Key], now: str) -> Contact:
    """Give a member whose GUID is not known a contact of its own, found by these keys from now on.

    Safe to repeat: a member gets one.
    """
    row = db.execute("SELECT lane FROM members WHERE member = ?", (member.number,)).fetchone()
    if row and row["lane"] is not None:
        contact = contacts.resolve(db, row["lane"])
    else:
        contact = contacts.add(db, contact_id=None, contact_type=member.contact_type, now=now)
    contacts.put_keys(db, contact.lane, keys, 0, member.told_at)
    db.execute(_LINK, (contact.lane, member.number))
    return contact


def _place(asked: Asked) -> tuple[int | None, int]:
    return asked.digest, KEY_ATTRIBUTES.index(asked.key.name)
