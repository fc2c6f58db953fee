"""A change: one thing that the POS asked to be made true in Engage.

Pure: no I/O. Knows what was asked and where it stands; not how it is stored or sent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.contact import Contact

# Attributes of a contact as a POS writes them: flat, with `preferences` (an object of booleans) and
# `consents` (a list of objects) as the only nested ones.
Attributes = Mapping[str, Any]


# Made once: json.dumps would make a new encoder for each change.
_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Kind(StrEnum):
    """What is asked for."""

    CREATE = "create"
    UPDATE = "update"
    UPGRADE = "upgrade"  # another contact type, with attributes that it needs


class State(StrEnum):
    """Where a change stands; the moves between them are in journal/states.py."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    BATCHED = "batched"  # in a sealed file
    UPLOADED = "uploaded"  # the server holds the whole file
    IMPORTED = "imported"  # Engage took the file away; whether it accepted it is not known yet
    CONFIRMED = "confirmed"  # looked up and found
    REJECTED = "rejected"
    DISCARDED = "discarded"


class Route(StrEnum):
    """A way to Engage."""

    API = "api"
    FILE = "file"


@dataclass(frozen=True)
class Payload:
    """What the POS asked for, checked and normalised. Personal data."""

    attributes: Attributes  # as given
    defaults: Attributes = field(default_factory=dict)  # filled in by the agent; for a create only
    contact_type: str | None = None  # of a create; the target of an upgrade
    source: str | None = None  # of a create
    store_external_id: str | None = None  # of a create
    as_unapproved: bool = False  # of a create
    clear: tuple[str, ...] = ()  # attributes to be emptied, of an update

    def names(self) -> frozenset[str]:
        """Give what is set or cleared: attributes, `preferences.<flag>` and `consents.<id>`."""
        names = set(self.clear)
        for name, value in self.attributes.items():
            if name == "preferences" and isinstance(value, dict):
                names.update(f"preferences.{flag}" for flag in value)
            elif name == "consents" and isinstance(value, list):
                names.update(f"consents.{consent['id']}" for consent in value)
            else:
                names.add(name)
        return frozenset(names)

    def without(self, names: Collection[str]) -> dict[str, Any]:
        """Give the attributes that are left when these names (as in names()) are taken out."""
        left: dict[str, Any] = {}
        for name, value in self.attributes.items():
            if name == "preferences" and isinstance(value, dict):
                value = {k: v for k, v in value.items() if f"preferences.{k}" not in names}
            elif name == "consents" and isinstance(value, list):
                value = [each for each in value if f"consents.{each['id']}" not in names]
            elif name in names:
                continue
            if value or name not in ("preferences", "consents"):
                left[name] = value
        return left

    def to_json(self) -> str:
        """Give the canonical text that the journal keeps."""
        return _canonical(
            {
                "attributes": self.attributes,
                "defaults": self.defaults,
                "contactType": self.contact_type,
                "source": self.source,
                "storeExternalId": self.store_external_id,
                "asUnapproved": self.as_unapproved,
                "clear": list(self.clear),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Payload:
        """Read back what to_json() wrote. Raises ValueError or KeyError for anything else."""
        data = json.loads(text)
        return cls(
            attributes=data["attributes"],
            defaults=data["defaults"],
            contact_type=data["contactType"],
            source=data["source"],
            store_external_id=data["storeExternalId"],
            as_unapproved=data["asUnapproved"],
            clear=tuple(data["clear"]),
        )


def foldable(kind: Kind, payload: Payload) -> bool:
    """Say whether a change can be merged with its neighbours in the lane, and stand in a file.

    Not an upgrade (a step of its own), a create for approval by a person (the type of approval
    would be lost), or an update that empties attributes (nobody documents what an empty element
    does). Whether a change marked unknown may be folded is for the caller to judge.
    """
    return kind is not Kind.UPGRADE and not payload.as_unapproved and not payload.clear


@dataclass(frozen=True)
class Fault:
    """Why a change does not move on, for a person; may hold Engage's own words."""

    code: str  # Engage's errorCode, or one of ours (docs/errors.md)
    message: str
    status: int | None = None  # HTTP status of Engage's answer
    fields: tuple[Mapping[str, str], ...] = ()  # [{field, code, message}]
    request_id: str | None = None  # Engage's, for its support


@dataclass(frozen=True)
class Change:
    """One row of the journal."""

    seq: int  # order of capture; times are for people only
    id: str  # UUIDv7
    kind: Kind
    state: State
    unknown: bool  # it may have happened; only a look-up settles that
    route: Route
    contact: Contact
    payload: Payload
    created_at: str  # UTC, ISO 8601
    due_at: str | None  # when it is tried next, for people
    settled_at: str | None
    attempts: int  # tries on a route
    api_attempts: int  # those that count towards the file route
    step: int  # of an upgrade: 1 once its attributes are in Engage
    existed: bool  # a create that found its contact in Engage
    batch: str | None  # the file's name
    error: Fault | None
    repeated: int  # identical requests without an Idempotency-Key that were answered with this one
    retried: bool = False  # was rejected once and is sent again by a person
    damaged: bool = False  # its stored payload does not match its hash, so nothing of it is sent
    request_id: str | None = None  # of the POS's request that made it, for the log
