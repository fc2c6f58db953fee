"""The members of Engage's export: who they are and, as digests, by what they are found.

Plain functions that run as units of work. Entries may come again, late, or in part before a crash:
per member the newest file counts, and the same file twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.contact import KEY_ATTRIBUTES, Contact, Key
from agent.journal import contacts
from agent.journal.driver import Connection
from agent.journal.recognising import Asked, Member

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
