"""A contact: the agent's identity record of a person, and the keys by which it is found.

Pure: no I/O. Knows nothing of how a contact is stored or sent.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

# The attributes by which Engage can find a contact (Engage's docs, "Find contact"). externalId and
# memberNumber are reached through one parameter, customKey, which the tenant maps to one of them.
KEY_ATTRIBUTES = ("email", "mobilePhone", "socialSecurityNumber", "externalId", "memberNumber")

# What the import file says with names of its own (Engage's docs, "Contact XML import"), in lower
# case: a tenant's attribute, contact type or preference of such a name could never stand in it.
NO_ATTRIBUTES = frozenset({"contactid", "contacts", "avoidtriggeringexport"})
NO_CONTACT_TYPES = frozenset({"contacts", "preferences", "consents"})
NO_PREFERENCES = NO_CONTACT_TYPES | {"contactid"}

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Contact:
    """What the agent knows of a person's identity; holds no personal data itself."""

    lane: int  # the journal's own number; the changes of one contact form one lane
    ref: str  # UUIDv7 that the agent issued; a POS may use it for ever
    contact_id: str | None  # Engage's GUID, once known
    contact_type: str | None  # Engage's type, once known or asked for

    @property
    def public_id(self) -> str:
        """Give what a POS should store: the GUID as soon as it is known, else the ref."""
        return self.contact_id or self.ref


@dataclass(frozen=True)
class Key:
    """One attribute value by which a person is found, in the form in which it is compared."""

    name: str  # one of KEY_ATTRIBUTES
    value: str  # normalised by comparable()


def comparable(name: str, value: str) -> str:
    """Give a key's value in the form in which two of them are the same person.

    E-mail compares without case; personal numbers without dashes; the rest as trimmed text.
    """
    value = value.strip()
    if name == "email":
        return value.casefold()
    if name == "socialSecurityNumber":
        return value.replace("-", "").upper()
    return value


def keys_of(attributes: Mapping[str, Any]) -> tuple[Key, ...]:
    """Give the keys among a contact's attributes, in the order of KEY_ATTRIBUTES."""
    return tuple(
        Key(name, comparable(name, value))
        for name in KEY_ATTRIBUTES
        if isinstance(value := attributes.get(name), str) and value.strip()
    )


def keys_told(contact: Mapping[str, Any] | None, without: Collection[str] = ()) -> tuple[Key, ...]:
    """Give the keys of a contact as Engage answers it, leaving out those of some names."""
    attributes = contact.get("attributes") if isinstance(contact, Mapping) else None
    if not isinstance(attributes, Mapping):
        return ()
    return tuple(key for key in keys_of(attributes) if key.name not in without)


def contact_type_of(contact: Mapping[str, Any] | None) -> str | None:
    """Give `meta.contactType` of a contact as Engage answers it."""
    meta = contact.get("meta") if contact else None
    value = meta.get("contactType") if isinstance(meta, dict) else None
    return value if isinstance(value, str) else None


def is_uuid(text: str) -> bool:
    """Say whether a text has the shape of a GUID, upper or lower case."""
    return _UUID.fullmatch(text) is not None


def is_ref_shaped(text: str) -> bool:
    """Say whether a text can be a ref: a UUID of version 7, as only the agent issues them.

    Engage's GUIDs are of version 4, so a ref that this till does not know is never sent there.
    """
    return is_uuid(text) and text[14] == "7"


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562): sorts by time, unguessable in its last 74 bits."""
    milliseconds = (time.time_ns() // 1_000_000) & (2**48 - 1)
    random = _random_bits()
    value = milliseconds << 80 | 0x7 << 76 | (random >> 68) << 64 | 0x2 << 62
    text = f"{value | random & (2**62 - 1):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class _Pool(threading.local):
    """Random bytes asked for in advance; each thread has its own, so none is given out twice."""

    def __init__(self) -> None:
        self.bytes = b""
        self.used = 0


_pool = _Pool()


def _random_bits() -> int:
    """Give 80 random bits; asks the kernel for many at once, because each asking takes a while."""
    if _pool.used + 10 > len(_pool.bytes):
        _pool.bytes, _pool.used = os.urandom(4000), 0
    start, _pool.used = _pool.used, _pool.used + 10
    return int.from_bytes(_pool.bytes[start : start + 10])
