"""Who has a key, as far as this till can tell without Engage.

Two sources: the keys that this till itself has heard of (`keys`), and the members of Engage's
export (`members`). Of one person's e-mail, phone or number the later word counts, so an export
never undoes what the till has changed since, and a change elsewhere ends what the till knew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from agent.change import State
from agent.contact import KEY_ATTRIBUTES, Contact, Key
from agent.journal import changes, contacts
from agent.journal.driver import Connection


@dataclass(frozen=True)
class Asked:
    """One key of a question."""

    key: Key
    digest: int | None = None  # as the register has it; None where no export is read


@dataclass(frozen=True)
class Member:
    """A member of Engage's export."""

    number: int
    contact_id: str | None
    contact_type: str | None
    told_at: str
    is_gone: bool


class Word(Enum):
    """Whose word it is that somebody has a key."""

    OPEN = "open"  # a change of this till that is on its way
    TILL = "till"  # what this till delivered, looked up or read
    EXPORT = "export"


@dataclass(frozen=True)
class Person:
    """Somebody whom this till knows; at least one of `contact` and `member` is there."""

    contact: Contact | None
    member: Member | None
    word: Word = Word.OPEN
    told_at: str = ""  # when Engage's word was heard; "" for an open change

    @property
    def contact_id(self) -> str | None:
        """Give Engage's GUID, if it is known."""
        known = self.contact.contact_id if self.contact else None
        return known or (self.member.contact_id if self.member else None)

    @property
    def public_id(self) -> str | None:
        """Give what a POS may use: the GUID, else the ref; None for a member that has neither."""
        return self.contact_id or (self.contact.ref if self.contact else None)

    @property
    def identity(self) -> str:
        """Give what is the same for the same person, however they were found."""
        return self.public_id or f"member {self.member.number if self.member else 0}"

    @property
    def contact_type(self) -> str | None:
        """Give Engage's type, if it is known."""
        known = self.contact.contact_type if self.contact else None
        return known or (self.member.contact_type if self.member else None)


_LANES_WITH = "SELECT DISTINCT lane FROM keys WHERE name = ? AND value = ?"
_MEMBER = "SELECT member, contact_id, contact_type, lane, told_at, gone FROM members"
_MEMBERS_WITH = f"""{_MEMBER} WHERE member IN
  (SELECT member FROM member_keys WHERE digest = ? AND name = ?)"""
_MEMBER_OF_LANE = f"""{_MEMBER} WHERE lane IN
  (SELECT lane FROM contacts WHERE lane = :lane OR joined = :lane)"""
_MEMBER_BY_ID = f"{_MEMBER} WHERE contact_id = ?"
# What only a refused change has brought is nobody's word.
_WORDS_OF_TILL = """
SELECT k.value, k.told_at, EXISTS (SELECT 1 FROM changes ch
    WHERE ch.seq = k.seq AND ch.holds = 1 AND ch.state <> 'rejected') AS is_open
  FROM keys k WHERE k.lane = ? AND k.name = ?
   AND NOT (k.since = k.seq AND EXISTS
     (SELECT 1 FROM changes ch WHERE ch.seq = k.seq AND ch.state = 'rejected'))"""
_WORDS_OF_EXPORT = "SELECT digest FROM member_keys WHERE member = ? AND name = ?"
_DONE_SINCE = """
SELECT payload, payload_sha256 FROM changes
 WHERE lane = ? AND state IN ('delivered', 'confirmed', 'imported') AND settled_at > ?"""


def recognise(
    db: Connection, asked: Sequence[Asked], contact_type: str | None = None
) -> tuple[Person, ...]:
    """Give everybody who has one of these keys and, as far as is known, no other one instead.

    A known type that is not `contact_type` rules somebody out, an unknown one does not.
    """
    found: dict[str, Person] = {}
    for person in _candidates(db, asked):
        judged = _judged(db, person, asked)
        if judged is not None and _has_type(judged, contact_type) and _is_real(db, judged):
            found.setdefault(judged.identity, judged)
    return tuple(found.values())


def _candidates(db: Connection, asked: Iterable[Asked]) -> list[Person]:
    people: list[Person] = []
    for each in asked:
        lanes = db.execute(_LANES_WITH, (each.key.name, each.key.value)).fetchall()
        people += [_of_lane(db, row["lane"]) for row in lanes]
        if each.digest is not None:
            place = KEY_ATTRIBUTES.index(each.key.name)
            rows = db.execute(_MEMBERS_WITH, (each.digest, place)).fetchall()
            people += [_of_member(db, row) for row in rows]
    return list(dict.fromkeys(people))  # one who was found by both sources is one


def _of_lane(db: Connection, lane: int) -> Person:
    contact = contacts.get(db, lane)
    row = db.execute(_MEMBER_OF_LANE, {"lane": lane}).fetchone()
    if row is None and contact.contact_id is not None:
        row = db.execute(_MEMBER_BY_ID, (contact.contact_id,)).fetchone()
    return Person(contact, _member(row) if row else None)


def _of_member(db: Connection, row: Any) -> Person:
    contact = contacts.find(db, row["contact_id"]) if row["contact_id"] else None
    if contact is None and row["lane"] is not None:
        contact = contacts.resolve(db, row["lane"])
    return Person(contact, _member(row))


def _member(row: Any) -> Member:
    return Member(
        row["member"],
        row["contact_id"],
        row["contact_type"],
        row["told_at"],
        row["gone"] is not None,
    )


def _judged(db: Connection, person: Person, asked: Iterable[Asked]) -> Person | None:
    """Give the person with the oldest word that counts; None if one of the keys is another's."""
    words = [_word_on(db, person, each) for each in asked]
    yes = [word for word in words if word is not None and word[0]]
    if not yes or any(word is not None and not word[0] for word in words):
        return None
    _, whose, told_at = min(yes, key=lambda word: word[2])
    return replace(person, word=whose, told_at=told_at)


def _word_on(db: Connection, person: Person, asked: Asked) -> tuple[bool, Word, str] | None:
    """Say whether the person has the key, whose word that is, and of when; None: nobody knows."""
    name = asked.key.name
    own = (
        db.execute(_WORDS_OF_TILL, (person.contact.lane, name)).fetchall() if person.contact else []
    )
    if any(row["is_open"] and row["value"] == asked.key.value for row in own):
        return True, Word.OPEN, ""
    heard = [row for row in own if not row["is_open"]]
    heard_at = max((row["told_at"] for row in heard), default="")
    if (said := _word_of_export(db, person, asked, heard_at)) is not None:
        return said
    if not heard:
        return None
    return any(row["value"] == asked.key.value for row in heard), Word.TILL, heard_at


def _word_of_export(
    db: Connection, person: Person, asked: Asked, heard_at: str
) -> tuple[bool, Word, str] | None:
    """Give what the export says of a key, if it is later than what this till heard and did."""
    member = person.member
    if member is None or asked.digest is None or member.told_at <= heard_at:
        return None
    place = KEY_ATTRIBUTES.index(asked.key.name)
    digests = {row["digest"] for row in db.execute(_WORDS_OF_EXPORT, (member.number, place))}
    if not (digests or member.is_gone) or _was_set_since(db, person, asked.key.name):
        return None
    return asked.digest in digests, Word.EXPORT, member.told_at


def _was_set_since(db: Connection, person: Person, name: str) -> bool:
    """Say whether this till has set or cleared an attribute since the export was made."""
    if person.contact is None or person.member is None:
        return False
    rows = db.execute(_DONE_SINCE, (person.contact.lane, person.member.told_at))
    payloads = [changes.payload_of(row) for row in rows]
    return any(name in payload.names() for payload in payloads if payload is not None)


def _has_type(person: Person, contact_type: str | None) -> bool:
    known = person.contact_type
    return contact_type is None or known is None or known.casefold() == contact_type.casefold()


def _is_real(db: Connection, person: Person) -> bool:
    """A sign-up that was refused is no reason to believe that Engage has the contact."""
    if person.contact is None or person.contact_id is not None:
        return True
    held = changes.open_of_lane(db, person.contact.lane)
    return not held or any(change.state is not State.REJECTED for change in held)
