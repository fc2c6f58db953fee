"""A change as the POS hears of it: status, headers and a body in Engage's shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.change import Change, Kind, State
from agent.journal.changes import Attempt

# Engage's refusals that keep their status; any other means that the change is wrong: 422.
_KEPT_STATUSES = (400, 404, 409, 422)
_DONE = (State.DELIVERED, State.CONFIRMED)


@dataclass(frozen=True)
class WriteAnswer:
    """What a write is answered with; a refusal goes through `refusal` instead."""

    status: int
    body: Any


@dataclass(frozen=True)
class Refusal:
    """Why a change will not reach Engage as it is."""

    code: str
    detail: str
    status: int
    more: Mapping[str, Any]


def is_refused(change: Change) -> bool:
    """Say whether the answer is a refusal."""
    return change.state in (State.REJECTED, State.DISCARDED)


def write_answer(change: Change, engage_body: Any = None) -> WriteAnswer:
    """Give the answer to a write whose change is not refused.

    201 and Engage's contact for a sign-up that was made, 200 for one that existed already and for
    a delivered update, 202 for what is journaled and on its way.
    """
    if change.state not in _DONE:
        return WriteAnswer(202, contact_body(change))
    made = change.kind is Kind.CREATE and not change.existed
    body = engage_body if isinstance(engage_body, dict) else contact_body(change)
    return WriteAnswer(201 if made else 200, body)


def contact_body(change: Change) -> dict[str, Any]:
    """Give a contact as Engage shapes it, from what the journal knows.

    `id` is Engage's GUID as soon as it is known, else the ref.
    """
    given = dict(change.payload.attributes)
    preferences, consents = given.pop("preferences", None), given.pop("consents", None)
    contact_type = change.payload.contact_type or change.contact.contact_type
    body: dict[str, Any] = {
        "id": change.contact.public_id,
        "attributes": given,
        "meta": {"contactType": contact_type} if contact_type else {},
    }
    if preferences is not None:
        body["preferences"] = preferences
    if consents is not None:
        body["consents"] = consents
    body["agent"] = {"changeId": change.id, "state": change.state, "durable": True}
    return body


def refusal(change: Change) -> Refusal:
    """Give why a change was refused, in Engage's own words where they are Engage's."""
    fault = change.error
    if change.state is State.DISCARDED:
        return Refusal("Discarded", "This change was discarded by a person.", 409, {})
    if fault is None:
        return Refusal("ValidationError", "This change was refused.", 422, {})
    status = fault.status if fault.status in _KEPT_STATUSES else 422
    more: dict[str, Any] = {}
    if fault.fields:
        more["validationErrors"] = [dict(field) for field in fault.fields]
    elif status == 422:
        more["validationErrors"] = [{"field": "", "code": fault.code, "message": fault.message}]
    if fault.request_id:
        more["engageRequestId"] = fault.request_id
    return Refusal(fault.code, fault.message, status or 422, more)


def headers_of(change: Change, *, replayed: bool = False) -> dict[str, str]:
    """Give the headers that every answer with a change carries."""
    headers = {
        "Agent-Change": change.id,
        "Agent-State": change.state,
        "Location": f"/agent/v1/changes/{change.id}",
        "Cache-Control": "no-store",
    }
    if replayed:
        headers["Idempotent-Replay"] = "true"
    return headers


def change_body(
    change: Change,
    attempts: tuple[Attempt, ...],
    *,
    waits_for: str | None = None,
    with_payload: bool = False,
) -> dict[str, Any]:
    """Give a change as /agent/v1 shows it."""
    body: dict[str, Any] = {
        "id": change.id,
        "requestId": change.request_id,  # of the request that made it, as in the log
        "kind": change.kind,
        "state": change.state,
        "unknown": change.unknown,
        "route": change.route,
        "contactRef": change.contact.ref,
        "contactId": change.contact.contact_id,
        "batch": change.batch,
        "attempts": [attempt_body(attempt) for attempt in attempts],
        "error": fault_body(change),
        "repeated": change.repeated,
        "waitsFor": waits_for,  # the change at the head of its lane
        "createdAt": change.created_at,
        "dueAt": change.due_at,
        "settledAt": change.settled_at,
    }
    if with_payload:
        body["payload"] = json.loads(change.payload.to_json())
    return body


def fault_body(change: Change) -> dict[str, Any] | None:
    """Give what is wrong with a change, or None."""
    fault = change.error
    if fault is None:
        return None
    return {
        "code": fault.code,
        "message": fault.message,
        "status": fault.status,
        "validationErrors": [dict(field) for field in fault.fields],
        "requestId": fault.request_id,
    }


def attempt_body(attempt: Attempt) -> dict[str, Any]:
    """Give one attempt as /agent/v1 shows it."""
    return {
        "route": attempt.route,
        "outcome": attempt.outcome,
        "startedAt": attempt.started_at,
        "endedAt": attempt.ended_at,
        "code": attempt.code,
        "status": attempt.status,
        "message": attempt.message,
        "requestId": attempt.request_id,
        "steps": [dict(step) for step in attempt.steps],
    }
