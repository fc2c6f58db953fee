"""Engage's calls: one request in, one answer out, no sockets and no faults.

Paths, parameters and codes as in Engage's docs, API version 3; where they are silent, the
docstring of the call says what was chosen.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.sandbox import checks, seeded
from agent.sandbox.errors import EngageError, contact_not_found, no_data
from agent.sandbox.register import Contact, Register

MOST_IN_BULK = 4000  # Engage's docs, "Bulk contacts API"
_DEFAULT_PAGE = 100


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # found whatever their case
    body: bytes
    is_key_unique: bool = True  # False: the fault `not_unique`

    @property
    def is_create(self) -> bool:
        """Whether this is `POST /contacts`, the call with a time limit of its own."""
        return self.method == "POST" and self.path == "/api/v3/contacts"

    @property
    def makes_contacts(self) -> bool:
        """Whether contacts are created by this call, one or many."""
        return self.is_create or (self.method, self.path) == ("POST", "/api/v3/contacts/bulk")

    def json_object(self) -> dict[str, Any]:
        """Return the body; `NoData` unless it is a JSON object with something in it."""
        body = self._json()
        if not isinstance(body, dict) or not body:
            raise no_data()
        return body

    def json_list(self) -> list[Any]:
        """Return the body; `NoData` unless it is a JSON array with something in it."""
        body = self._json()
        if not isinstance(body, list) or not body:
            raise no_data()
        return body

    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise no_data() from error


@dataclass(frozen=True)
class Answer:
    """One answer; `content` becomes JSON, or nothing at all when it is None."""

    status: int
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the bytes to send."""
        return b"" if self.content is None else json.dumps(self.content).encode()


@dataclass
class Batch:
    """One bulk call that waits or was worked on."""

    batch_id: str
    status: str = "Queued"
    total: int = 0
    succeeded: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the status object. Its fields are ours: the docs leave them open."""
        return {
            "batchId": self.batch_id,
            "status": self.status,
            "totalCount": self.total,
            "succeededCount": self.succeeded,
            "failedCount": len(self.errors),
            "errors": self.errors,
        }


class Calls:
    """All calls of the simulated Engage."""

    def __init__(self, register: Register, later: Callable[[Callable[[], None]], None]) -> None:
        """Use `later` to have queued bulk work done after the call was answered."""
        self.error_counts: dict[str, int] = {}
        self._register = register
        self._later = later
        self._batches: dict[str, Batch] = {}

    def answer(self, call: Call) -> Answer:
        """Do what is asked and answer; a refusal is an answer too."""
        try:
            return self._dispatch(call)
        except EngageError as error:
            return self.refusal(error)

    def refusal(self, error: EngageError) -> Answer:
        """Return the answer for a refusal, and count its code."""
        self.error_counts[error.code] = self.error_counts.get(error.code, 0) + 1
        return Answer(error.status, error.body(uuid.uuid4().hex), error.headers)

    def clear(self) -> None:
        """Forget batches and counts."""
        self._batches.clear()
        self.error_counts.clear()

    def _dispatch(self, call: Call) -> Answer:
        handler = _FIXED.get((call.method, call.path))
        if handler is not None:
            return handler(self, call)
        for pattern, methods in _BY_ID:
            match = pattern.fullmatch(call.path)
            if match and call.method in methods:
                return methods[call.method](self, call, *match.groups())
        raise _no_such_call(call)

    # --- contacts -----------------------------------------------------------------------------

    def look_up(self, call: Call) -> Answer:
        """Answer a bare JSON string, the contactId (Engage's docs, "Find contact")."""
        return Answer(200, self._register.identify(call.query).contact_id)

    def create(self, call: Call) -> Answer:
        """Create; 201 and the whole contact (Engage's docs, "Create contact").

        `source`, `storeExternalId` and `createAsUnapproved` are query parameters; headers of
        these names, as in version 2, are not looked at.
        """
        contact = self._register.create(
            call.json_object(),
            source=call.query.get("source"),
            store=call.query.get("storeExternalId"),
            approved=call.query.get("createAsUnapproved", "").lower() != "true",
            is_key_unique=call.is_key_unique,
        )
        return Answer(201, contact.document())

    def read(self, call: Call, contact_id: str) -> Answer:
        """Return the contact."""
        return Answer(200, self._register.get(contact_id).document())

    def update(self, call: Call, contact_id: str) -> Answer:
        """Change the given attributes; 200 and the whole contact."""
        body = call.json_object()
        return Answer(200, self._register.update(contact_id, body).document())

    def change_type(self, call: Call, contact_id: str) -> Answer:
        """Change the type; 200 without a body, which the docs leave open. A body is ignored."""
        handle = call.query.get("contactTypeId", "")
        self._register.change_type(contact_id, handle)
        return Answer(200)

    def set_preference(self, call: Call, contact_id: str, name: str) -> Answer:
        """Set one preference by `{"value": true}`; this approves an unapproved contact too."""
        if name not in checks.PREFERENCES:
            raise _no_such_call(call)
        value = call.json_object().get("value")
        contact = self._register.update(contact_id, {"preferences": {name: value}})
        self._register.approve(contact.contact_id)
        return Answer(200, contact.document())

    def count(self, call: Call) -> Answer:
        """Return a bare integer (Engage's docs, "API authentication": the smoke test)."""
        return Answer(200, len(self._register))

    # --- what else is known about a contact -----------------------------------------------------

    def transactions(self, call: Call) -> Answer:
        """Return purchases and returns, a page of them."""
        contact = self._queried_contact(call)
        offset = _whole_number(call, "offset", 0)
        count = _whole_number(call, "count", _DEFAULT_PAGE)
        return Answer(200, seeded.transactions(contact.contact_id, offset, count))

    def promotions(self, call: Call) -> Answer:
        """Return the promotions assigned to a contact, as a list."""
        contact = self._queried_contact(call)
        channel = call.query.get("redemptionChannelType")
        return Answer(200, seeded.promotions(contact.contact_id, channel))

    def overview(self, call: Call) -> Answer:
        """Return all about a contact, by contactId or by a typed key with its contactType.

        The preferences are spelled as they are written here, unlike in the contact itself.
        """
        if "contactId" in call.query:
            contact = self._queried_contact(call)
        elif "contactType" in call.query:
            contact = self._register.identify(call.query)
        else:
            raise EngageError(400, "InvalidSearchQuery", "Give contactId, or key and contactType.")
        written = {name: contact.preferences.get(name, False) for name in checks.PREFERENCES}
        return Answer(
            200,
            {
                **contact.document(),
                "preferences": written,
                "audiences": [],
                "vouchers": [],
                "promotions": seeded.promotions(contact.contact_id, None),
            },
        )

    def _queried_contact(self, call: Call) -> Contact:
        contact_id = call.query.get("contactId")
        if not contact_id:
            raise EngageError(400, "InvalidContactId", "contactId is missing in the query.")
        return self._register.get(contact_id)

    # --- bulk ---------------------------------------------------------------------------------

    def bulk(self, call: Call) -> Answer:
        """Queue creates or updates; 202 and the batch's id as a JSON string.

        Code and shape of the answer follow the description of version 2. A create whose key
        exists fails alone; an update finds its contact by `contactId`, `id` or the key.
        """
        contacts = call.json_list()
        if len(contacts) > MOST_IN_BULK:
            raise EngageError(
                400, "TooManyContacts", f"A request holds at most {MOST_IN_BULK} contacts."
            )
        contact_type = self._bulk_type(call)
        batch = Batch(str(uuid.uuid4()), total=len(contacts))
        self._batches[batch.batch_id] = batch
        create = partial(self._create_one, is_key_unique=call.is_key_unique)
        work = create if call.method == "POST" else self._update_one
        self._later(lambda: self._work_on(batch, contacts, contact_type, work))
        return Answer(202, batch.batch_id)

    def bulk_status(self, call: Call) -> Answer:
        """Return `{batchId, status: Queued or Finished, totalCount, …, errors}`."""
        batch = self._batches.get(call.query.get("batchId", ""))
        if batch is None:
            raise EngageError(404, "BatchNotFound", "No batch has this id.")
        return Answer(200, batch.document())

    def _bulk_type(self, call: Call) -> str:
        tenant = self._register.tenant
        handle = call.query.get("contactType", tenant.default_contact_type)
        contact_type = tenant.type_named(handle)
        if contact_type is None:
            allowed = ", ".join(tenant.contact_types)
            raise EngageError(400, "InvalidContactType", f"contactType must be one of: {allowed}.")
        return contact_type

    def _work_on(
        self,
        batch: Batch,
        contacts: list[Any],
        contact_type: str,
        work: Callable[[Mapping[str, Any], str], None],
    ) -> None:
        for place, contact in enumerate(contacts):
            try:
                if not isinstance(contact, dict):
                    raise no_data()
                work(contact, contact_type)
                batch.succeeded += 1
            except EngageError as error:
                batch.errors.append({"index": place, "errorCode": error.code})
        batch.status = "Finished"

    def _create_one(
        self, contact: Mapping[str, Any], contact_type: str, *, is_key_unique: bool
    ) -> None:
        self._register.create({**contact, "contactType": contact_type}, is_key_unique=is_key_unique)

    def _update_one(self, contact: Mapping[str, Any], contact_type: str) -> None:
        contact_id = contact.get("contactId") or contact.get("id")
        if not contact_id:
            key = self._register.tenant.contact_key
            found = self._register.find(key, contact.get(key, ""), contact_type)
            if not found:
                raise contact_not_found()
            contact_id = found[0].contact_id
        self._register.update(str(contact_id), contact)


def _whole_number(call: Call, name: str, default: int) -> int:
    value = call.query.get(name, str(default))
    if not value.isdigit():
        raise EngageError(400, "InvalidQuery", f"{name} must be a whole number.")
    return int(value)


def _no_such_call(call: Call) -> EngageError:
    # The code is ours: the docs do not say how Engage answers a path that it does not have.
    known = sorted({f"{method} {path}" for method, path in _FIXED})
    return EngageError(
        404,
        "NoSuchCall",
        f"The sandbox does not know {call.method} {call.path}. It knows {', '.join(known)} and "
        "GET, PATCH /api/v3/contacts/{id}, POST /api/v3/contacts/{id}/updateContactType.",
    )


_FIXED: dict[tuple[str, str], Callable[[Calls, Call], Answer]] = {
    ("GET", "/api/v3/contacts/id"): Calls.look_up,
    ("POST", "/api/v3/contacts"): Calls.create,
    ("GET", "/api/v3/contacts/transactions"): Calls.transactions,
    ("GET", "/api/v3/promotion-assignments"): Calls.promotions,
    ("GET", "/api/v3/contactoverview"): Calls.overview,
    ("POST", "/api/v3/contacts/bulk"): Calls.bulk,
    ("PATCH", "/api/v3/contacts/bulk"): Calls.bulk,
    ("GET", "/api/v3/contacts/bulk/status"): Calls.bulk_status,
    ("GET", "/api/v2/contacts/bulk/status"): Calls.bulk_status,
    ("GET", "/api/v2/contacts/count"): Calls.count,
}

_BY_ID: tuple[tuple[re.Pattern[str], dict[str, Callable[..., Answer]]], ...] = (
    (re.compile(r"/api/v3/contacts/([^/]+)"), {"GET": Calls.read, "PATCH": Calls.update}),
    (
        re.compile(r"/api/v3/contacts/([^/]+)/updateContactType"),
        {"POST": Calls.change_type},
    ),
    (
        re.compile(r"/api/v3/contacts/([^/]+)/preferences/([^/]+)"),
        {"POST": Calls.set_preference},
    ),
)
