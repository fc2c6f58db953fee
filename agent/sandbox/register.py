"""The contacts that the simulated Engage holds, and its rules for creating and changing them.

Knows nothing of HTTP, files or faults. Everything is in memory.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.sandbox import checks
from agent.sandbox.errors import (
    EngageError,
    contact_not_found,
    invalid,
    key_exists,
    key_is_being_created,
)
from agent.sandbox.written import Written, problem, take_apart

_FIRST_MEMBER_NUMBER = 1000001


@dataclass(frozen=True)
class Tenant:
    """What Voyado sets up for each customer of theirs."""

    contact_key: str = "email"
    custom_key: str = "memberNumber"  # what customKey means in a look-up: or "externalId"
    contact_types: tuple[str, ...] = ("Member", "Contact")
    default_contact_type: str = "Member"
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by contact type
    custom_attributes: tuple[str, ...] = ()
    minimum_age: int = 0  # years; 0 asks for none

    def type_named(self, handle: str) -> str | None:
        """Return the contact type with this handle in its own spelling, or None."""
        for contact_type in self.contact_types:
            if contact_type.casefold() == handle.casefold():
                return contact_type
        return None


@dataclass
class Contact:
    """One contact as Engage stores it."""

    contact_id: str
    contact_type: str
    attributes: dict[str, Any]
    preferences: dict[str, bool]
    consents: list[dict[str, Any]]
    approved: bool
    source: str | None
    created_on: str
    modified_on: str

    def document(self) -> dict[str, Any]:
        """Return the contact as Engage answers it.

        `{id, attributes, meta: {contactType, createdOn, modifiedOn, sourceType, approved},
        preferences: {AcceptsEmails, AcceptsPostals, AcceptsSms}, consents}`.
        """
        return {
            "id": self.contact_id,
            "attributes": dict(self.attributes),
            "meta": {
                "contactType": self.contact_type,
                "createdOn": self.created_on,
                "modifiedOn": self.modified_on,
                "sourceType": self.source,
                "approved": self.approved,
            },
            "preferences": {
                read: self.preferences.get(name, False)
                for name, read in checks.PREFERENCES_AS_READ.items()
            },
            "consents": [dict(consent) for consent in self.consents],
        }


class Register:
    """All contacts, by id and by key."""

    def __init__(
        self,
        tenant: Tenant,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.tenant = tenant
        self.creates = 0
        self.updates = 0
        self.duplicates = 0
        self._now = now
        self._on_change = on_change
        self._contacts: dict[str, Contact] = {}
        # Insertion-ordered, so that the oldest contact with a key comes first.
        self._by_key: dict[tuple[str, str], dict[str, None]] = {}
        self._being_created: set[tuple[str, str]] = set()
        self._next_member_number = _FIRST_MEMBER_NUMBER

    def __len__(self) -> int:
        return len(self._contacts)

    def contacts(self) -> list[Contact]:
        """Return all contacts, oldest first."""
        return list(self._contacts.values())

    def get(self, contact_id: str) -> Contact:
        """Return the contact; `ContactNotFound` otherwise."""
        contact = self._contacts.get(contact_id.lower())
        if contact is None:
            raise contact_not_found()
        return contact

    def find(self, key: str, value: Any, contact_type: str | None = None) -> list[Contact]:
        """Return the contacts whose attribute has this value, oldest first.

        Args:
            key: Any attribute; key attributes are found by index.
            value: Compared as in `checks.same_key`.
            contact_type: Only of this type, in the tenant's spelling.
        """
        wanted = checks.same_key(key, value)
        if key in checks.KEYS:
            found = [self._contacts[each] for each in self._by_key.get((key, wanted), ())]
        else:
            found = [
                each
                for each in self._contacts.values()
                if key in each.attributes and checks.same_key(key, each.attributes[key]) == wanted
            ]
        return [each for each in found if contact_type in (None, each.contact_type)]

    # --- creating -----------------------------------------------------------------------------

    def create(
        self,
        body: Mapping[str, Any],
        *,
        source: str | None = None,
        store: str | None = None,
        approved: bool = True,
        is_key_unique: bool = True,
    ) -> Contact:
        """Create a contact as Engage's docs, "Create contact", say, or refuse.

        Args:
            body: A flat contact; `contactType` defaults to the tenant's.
            source: How the contact came to be, e.g. `POS`.
            store: External id of the store that recruited it; becomes `createdInStore`.
            approved: False for `createAsUnapproved`.
            is_key_unique: False leaves out the look at the key, as if two creates had raced.

        Raises:
            EngageError: 422 `ValidationError`, 409 `ApprovedContactWithKeyExists`, 409
                `ContactWithKeyIsBeingCreated`.
        """
        contact_type = self._type_of(body)
        written = take_apart(body, self.tenant.custom_attributes)
        problems = written.problems + self._missing(contact_type, written.attributes)
        problems += self._too_young(written)
        if problems:
            raise invalid(problems)
        if is_key_unique:
            self._refuse_taken_key(contact_type, written.attributes)
        return self._add(contact_type, written, source, store, approved)

    def key_of(self, body: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return what a create with this body reserves: the contact type and the key's value."""
        value = body.get(self.tenant.contact_key)
        contact_type = self.tenant.type_named(str(body.get("contactType") or ""))
        if not isinstance(value, str) or not value:
            return None
        key = checks.same_key(self.tenant.contact_key, value)
        return contact_type or self.tenant.default_contact_type, key

    def reserve(self, key: tuple[str, str] | None) -> bool:
        """Hold a key while its create is under way; False if somebody holds it already."""
        if key is None:
            return True
        if key in self._being_created:
            return False
        self._being_created.add(key)
        return True

    def release(self, key: tuple[str, str] | None) -> None:
        """Give a held key free."""
        if key is not None:
            self._being_created.discard(key)

    def _type_of(self, body: Mapping[str, Any]) -> str:
        handle = body.get("contactType") or self.tenant.default_contact_type
        contact_type = self.tenant.type_named(handle) if isinstance(handle, str) else None
        if contact_type is None:
            allowed = ", ".join(self.tenant.contact_types)
            raise invalid([problem("contactType", f"must be one of: {allowed}")])
        return contact_type

    def _missing(self, contact_type: str, has: Collection[str]) -> list[dict[str, str]]:
        needed = (self.tenant.contact_key, *self.tenant.required.get(contact_type, ()))
        return [
            problem(name, f"is required for {contact_type}")
            for name in dict.fromkeys(needed)
            if name not in has
        ]

    def _too_young(self, written: Written) -> list[dict[str, str]]:
        day = checks.day_of(written.attributes.get("birthDay"))
        if day is None or not self.tenant.minimum_age:
            return []
        if checks.age_on(day, self._now().date()) >= self.tenant.minimum_age:
            return []
        return [problem("birthDay", "is below the minimum age")]

    def _refuse_taken_key(
        self, contact_type: str, attributes: Mapping[str, Any], own_id: str | None = None
    ) -> None:
        """Refuse a key that an approved contact of the same type has.

        Engage's docs, "Find contact", say that several contacts can match chiefly across contact
        types, so each type is looked at by itself; and the error's own name speaks of approved
        contacts only.
        """
        key = self.tenant.contact_key
        if key not in attributes:
            return
        if (contact_type, checks.same_key(key, attributes[key])) in self._being_created:
            raise key_is_being_created()
        holders = self.find(key, attributes[key], contact_type)
        if any(each.approved and each.contact_id != own_id for each in holders):
            raise key_exists()

    def _add(
        self,
        contact_type: str,
        written: Written,
        source: str | None,
        store: str | None,
        approved: bool,
    ) -> Contact:
        attributes = dict(written.attributes)
        if store:
            attributes["createdInStore"] = store
        if "createdInStore" in attributes:
            attributes.setdefault("store", attributes["createdInStore"])
        attributes.setdefault("memberNumber", self._take_member_number())
        now = self._stamp()
        contact = Contact(
            contact_id=str(uuid.uuid4()),
            contact_type=contact_type,
            attributes=attributes,
            preferences=dict(written.preferences),
            consents=_joined([], written.consents, now),
            approved=approved,
            source=source,
            created_on=now,
            modified_on=now,
        )
        self._contacts[contact.contact_id] = contact
        self.creates += 1
        for key in checks.KEYS:
            self._index(contact, key)
        self._on_change()
        return contact

    def _take_member_number(self) -> str:
        number = self._next_member_number
        self._next_member_number += 1
        return str(number)

    # --- changing -----------------------------------------------------------------------------

    def update(self, contact_id: str, body: Mapping[str, Any]) -> Contact:
        """Change the given attributes only; null and "" erase (Engage's docs, "Update contact").

        Raises:
            EngageError: 404 `ContactNotFound`, 409 `ApprovedContactWithKeyExists`, 422
                `ValidationError` (also for erasing the key or a required attribute).
        """
        contact = self.get(contact_id)
        written = take_apart(body, self.tenant.custom_attributes)
        kept = contact.attributes.keys() - set(written.erased) | written.attributes.keys()
        lost = [
            each
            for each in self._missing(contact.contact_type, kept)
            if each["field"] in written.erased
        ]
        problems = written.problems + lost + self._too_young(written)
        if problems:
            raise invalid(problems)
        self._refuse_taken_key(contact.contact_type, written.attributes, contact.contact_id)
        return self.apply(contact, written)

    def apply(self, contact: Contact, written: Written) -> Contact:
        """Store what is right in `written`; asks nothing more."""
        # Engage's docs, "Contact field definitions": cannot be updated once set.
        fixed = {"createdInStore"} & contact.attributes.keys()
        for name in set(written.erased) - fixed:
            self._set(contact, name, None)
        for name, value in written.attributes.items():
            if name not in fixed:
                self._set(contact, name, value)
        contact.preferences.update(written.preferences)
        now = self._stamp()
        contact.consents = _joined(contact.consents, written.consents, now)
        contact.modified_on = now
        self.updates += 1
        self._on_change()
        return contact

    def change_type(self, contact_id: str, handle: str) -> Contact:
        """Change the contact type; what the new type demands must be there already.

        Raises:
            EngageError: 400 `InvalidContactType`, 404, 409, 422.
        """
        contact_type = self.tenant.type_named(handle)
        if contact_type is None:
            raise invalid_contact_type(self.tenant)
        contact = self.get(contact_id)
        missing = self._missing(contact_type, contact.attributes)
        if missing:
            raise invalid(missing)
        if contact_type != contact.contact_type:
            self._refuse_taken_key(contact_type, contact.attributes, contact.contact_id)
        contact.contact_type = contact_type
        contact.modified_on = self._stamp()
        self._on_change()
        return contact

    def approve(self, contact_id: str) -> Contact:
        """Approve an unapproved contact."""
        contact = self.get(contact_id)
        contact.approved = True
        self._on_change()
        return contact

    def erase(self, contact_id: str) -> None:
        """Forget a contact, as when Engage erases or merges it."""
        contact = self.get(contact_id)
        for key in checks.KEYS:
            self._unindex(contact, key)
        del self._contacts[contact.contact_id]
        self._on_change()

    def clear(self) -> None:
        """Forget everything, counts included."""
        self._contacts.clear()
        self._by_key.clear()
        self._being_created.clear()
        self._next_member_number = _FIRST_MEMBER_NUMBER
        self.creates = self.updates = self.duplicates = 0
        self._on_change()

    def _set(self, contact: Contact, name: str, value: Any) -> None:
        before = contact.attributes.get(name)
        if value == before:
            return
        self._unindex(contact, name)
        if value is None:
            contact.attributes.pop(name, None)
        else:
            contact.attributes[name] = value
        self._index(contact, name)

    def _index(self, contact: Contact, key: str) -> None:
        if key not in checks.KEYS or key not in contact.attributes:
            return
        place = (key, checks.same_key(key, contact.attributes[key]))
        holders = self._by_key.setdefault(place, {})
        if key == self.tenant.contact_key and holders:
            self.duplicates += 1
        holders[contact.contact_id] = None

    def _unindex(self, contact: Contact, key: str) -> None:
        if key not in checks.KEYS or key not in contact.attributes:
            return
        place = (key, checks.same_key(key, contact.attributes[key]))
        holders = self._by_key.get(place, {})
        holders.pop(contact.contact_id, None)
        if not holders:
            self._by_key.pop(place, None)

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="milliseconds")

    # --- looking up ---------------------------------------------------------------------------

    def identify(self, query: Mapping[str, str]) -> Contact:
        """Answer a look-up as Engage's docs, "Find contact", say.

        Args:
            query: `email`, `mobilePhone`, `socialSecurityNumber`, `customKey`, `any`,
                `contactType`. Several keys must all fit. Other names are no parameters of this
                call and are ignored, `externalId` and `memberNumber` among them.

        Raises:
            EngageError: 404 `ContactNotFound`, 409 `MultipleMatches`, 400 with a code by
                parameter.
        """
        contact_type = self._wanted_type(query.get("contactType"))
        wanted = self._wanted_keys(query)
        if not wanted:
            raise EngageError(400, "InvalidSearchQuery", "Give one key to search by.")
        found = self.find(*wanted[0], contact_type)
        for key, value in wanted[1:]:
            ids = {each.contact_id for each in self.find(key, value)}
            found = [each for each in found if each.contact_id in ids]
        if not found:
            raise contact_not_found()
        if len(found) > 1:
            raise EngageError(
                409,
                "MultipleMatches",
                "More than one contact was found.",
                details={"multipleMatchesFound": [each.contact_id for each in found]},
            )
        return found[0]

    def _wanted_type(self, handle: str | None) -> str | None:
        if handle is None:
            return None
        contact_type = self.tenant.type_named(handle)
        if contact_type is None:
            raise invalid_contact_type(self.tenant)
        return contact_type

    def _wanted_keys(self, query: Mapping[str, str]) -> list[tuple[str, str]]:
        wanted = []
        for name, check, code in _TYPED_KEYS:
            value = query.get(name)
            if value is None:
                continue
            if wrong := check(value):
                raise EngageError(400, code, f"{name} {wrong}")
            wanted.append((name, value))
        if query.get("customKey"):
            wanted.append((self.tenant.custom_key, query["customKey"]))
        if query.get("any"):
            wanted.append(self._first_type_of(query["any"]))
        return wanted

    def _first_type_of(self, value: str) -> tuple[str, str]:
        """Return the first key the value is valid for: the search stops there, hit or not.

        So a member number that looks like a personal number is not found (Engage's docs, "Find
        contact").
        """
        for name, check, _ in _TYPED_KEYS:
            if check(value) is None:
                return name, value
        return self.tenant.custom_key, value

    # --- snapshot -----------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "nextMemberNumber": self._next_member_number,
            "creates": self.creates,
            "updates": self.updates,
            "duplicates": self.duplicates,
            "contacts": [asdict(each) for each in self._contacts.values()],
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Take over what `dump` returned."""
        self.clear()
        for each in dumped["contacts"]:
            contact = Contact(**each)
            self._contacts[contact.contact_id] = contact
            for key in checks.KEYS:
                self._index(contact, key)
        self._next_member_number = dumped["nextMemberNumber"]
        self.creates = dumped["creates"]
        self.updates = dumped["updates"]
        self.duplicates = dumped["duplicates"]


# In the order in which `any` tries them (Engage's docs, "Find contact").
_TYPED_KEYS = (
    ("email", checks.email, "InvalidEmailAddress"),
    ("socialSecurityNumber", checks.personal_number, "InvalidSocialSecurityNumber"),
    ("mobilePhone", checks.phone, "InvalidPhoneNumber"),
)


def invalid_contact_type(tenant: Tenant) -> EngageError:
    """Return the refusal of a contact type that the tenant does not have."""
    allowed = ", ".join(tenant.contact_types)
    return EngageError(400, "InvalidContactType", f"The contact type must be one of: {allowed}.")


def _joined(
    before: list[dict[str, Any]], written: list[dict[str, Any]], now: str
) -> list[dict[str, Any]]:
    """Return the consents with the written ones in place; a consent never goes away."""
    joined = {each["id"]: each for each in before}
    for consent in written:
        joined[consent["id"]] = {**consent, "date": consent["date"] or now}
    return list(joined.values())
