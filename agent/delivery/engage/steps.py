"""A claimed change taken to Engage: look up → create, update or upgrade, and what came of it.

The steps never guess: a look-up that failed is not "not found", and a create that may have happened
is looked up before anything else.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from agent.change import Change, Fault, Kind, Payload, foldable
from agent.config import Engage
from agent.contact import Key, contact_type_of, keys_of
from agent.delivery.engage import answers, mapping
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.finding import find_contact
from agent.delivery.folding import fold, needs_member
from agent.delivery.outcome import Outcome, Result
from agent.delivery.quoting import unquoted
from agent.delivery.routing import takes_creates
from agent.errors import (
    AnswerLost,
    ContactGone,
    KeyBusy,
    KeyTaken,
    NotAuthorised,
    Refused,
    RouteError,
    SeveralMatch,
    Throttled,
)
from agent.journal.changes import Claim

T = TypeVar("T")


class Courier:
    """Carries claims to Engage, one at a time each."""

    def __init__(
        self,
        client: EngageClient,
        settings: Engage,
        *,
        api_attempts: int,
        trusts_not_found: Callable[[Change], bool],
        note_step: Callable[[Claim, int], Awaitable[None]],
    ) -> None:
        self._client = client
        self._settings = settings
        self._api_attempts = api_attempts  # after so many a change may go by file
        # Whether a lost create's time is over, so that "not found" means it did not happen.
        self._trusts_not_found = trusts_not_found
        self._note_step = note_step

    async def deliver(self, claim: Claim, *, person: bool) -> Outcome:
        """Take a claim to Engage. Never raises a RouteError: it becomes the outcome."""
        journey = _Journey(self._client, person)
        try:
            if claim.head.kind is Kind.CREATE:
                outcome = await self._create(claim, journey)
            elif claim.head.kind is Kind.UPDATE:
                outcome = await self._update(claim, journey)
            else:
                outcome = await self._upgrade(claim, journey)
        except RouteError as error:
            outcome = _outcome(error, claim)
        if outcome.contact_id is None and journey.contact_id is not None:
            outcome = dataclasses.replace(outcome, contact_id=journey.contact_id)
        return dataclasses.replace(outcome, steps=tuple(journey.steps))

    # --- create -------------------------------------------------------------------------------

    async def _create(self, claim: Claim, journey: _Journey) -> Outcome:
        change = claim.head
        stored = change.contact.contact_id
        if stored is not None:
            try:
                return await self._adopt(claim, stored, journey)
            except ContactGone:
                journey.contact_id = None  # erased in Engage, or merged: the keys tell
        outcome = await self._find_or_make(claim, journey)
        gone = stored is not None and outcome.contact_id is not None
        return dataclasses.replace(outcome, contact_gone=gone)

    async def _find_or_make(self, claim: Claim, journey: _Journey) -> Outcome:
        change = claim.head
        # Asked for now: a late commit may come between Engage's look and its answer.
        not_found_counts = not change.unknown or self._trusts_not_found(change)
        found = await self._look_up(
            keys_of(change.payload.attributes), change.payload.contact_type, journey
        )
        if found is not None:
            return await self._adopt(claim, found, journey)
        if not not_found_counts:
            return Outcome(
                Result.UNKNOWN,
                code="NotFoundYet",
                message="A lost sign-up may still arrive in Engage; it is looked up again.",
                soon=True,
            )
        if change.unknown and self._goes_by_file(change):
            return Outcome(
                Result.DEFERRED,
                code="NotFound",
                message="Engage does not have it and does not manage to make it: it goes by file.",
            )
        try:
            contact = await journey.step(
                "create",
                "POST",
                "/contacts",
                answers.created,
                query=mapping.create_query(change.payload),
                body=mapping.create_body(change.payload),
                create=True,
            )
        except KeyTaken:
            return await self._adopt_taken(claim, journey)
        return Outcome(
            Result.DELIVERED,
            status=201,
            contact_id=contact["id"],
            contact_type=contact_type_of(contact),
            body=contact,
        )

    def _goes_by_file(self, change: Change) -> bool:
        """Say whether the file route takes it as soon as it is certain that it did not happen."""
        return (
            change.api_attempts >= self._api_attempts
            and not change.retried
            and foldable(change.kind, change.payload)
            and takes_creates(self._settings.on_existing)
        )

    async def _adopt_taken(self, claim: Claim, journey: _Journey) -> Outcome:
        """Engage says that the key is taken: whoever holds it is found by a look-up."""
        change = claim.head
        found = await self._look_up(
            keys_of(change.payload.attributes), change.payload.contact_type, journey
        )
        if found is None:
            raise KeyBusy("Engage says that the contact exists, but does not find it yet.")
        return await self._adopt(claim, found, journey)

    async def _adopt(self, claim: Claim, contact_id: str, journey: _Journey) -> Outcome:
        """The contact exists: made by us a moment ago, by another till, or long ago."""
        change = claim.head
        journey.contact_id = contact_id
        if self._settings.on_existing == "conflict" and not (change.unknown or change.existed):
            return Outcome(
                Result.REJECTED,
                code="ApprovedContactWithKeyExists",
                status=409,
                contact_id=contact_id,
                fault=Fault(
                    "ApprovedContactWithKeyExists",
                    "A contact with this key exists already. Nothing was changed in Engage.",
                    409,
                ),
            )
        body = mapping.update_body(change.payload, claim.superseded)
        contact = await self._patch(contact_id, body, journey)
        kind = contact_type_of(contact) or change.contact.contact_type
        if contact is not None and needs_member(contact_type_of(contact), change.payload):
            upgraded = await self._change_type(contact_id, "Member", journey)
            contact, kind = upgraded or contact, "Member"
        return Outcome(
            Result.DELIVERED,
            status=200,
            contact_id=contact_id,
            contact_type=kind,
            existed=not change.unknown,
            body=contact,
        )

    # --- update and upgrade -------------------------------------------------------------------

    async def _update(self, claim: Claim, journey: _Journey) -> Outcome:
        payload = _folded(claim.changes)
        body = mapping.update_body(payload, claim.superseded)
        if not body:
            return Outcome(
                Result.DELIVERED,
                code="Superseded",
                message="Later changes of this contact have set every one of these attributes.",
            )

        async def send(contact_id: str) -> Outcome:
            contact = await self._patch(contact_id, body, journey)
            return Outcome(
                Result.DELIVERED,
                status=200,
                contact_id=contact_id,
                contact_type=contact_type_of(contact),
                body=contact,
            )

        return await self._to_known_contact(claim, journey, send)

    async def _upgrade(self, claim: Claim, journey: _Journey) -> Outcome:
        change = claim.head
        body = mapping.update_body(change.payload, claim.superseded)
        target = change.payload.contact_type or "Member"

        async def send(contact_id: str) -> Outcome:
            contact = None
            if body and change.step < 1:
                contact = await self._patch(contact_id, body, journey)
                await self._note_step(claim, 1)
            contact = await self._change_type(contact_id, target, journey) or contact
            return Outcome(
                Result.DELIVERED,
                status=200,
                contact_id=contact_id,
                contact_type=target,
                body=contact,
            )

        return await self._to_known_contact(claim, journey, send)

    async def _to_known_contact(
        self, claim: Claim, journey: _Journey, send: Callable[[str], Awaitable[Outcome]]
    ) -> Outcome:
        """Send to the stored GUID; look the contact up by its keys where that leads nowhere."""
        stored = claim.head.contact.contact_id
        if stored is not None:
            try:
                return await send(stored)
            except ContactGone:
                pass  # erased, or merged into another: the keys tell
        found = await self._look_up(claim.keys, claim.head.contact.contact_type, journey)
        if found is None or found == stored:
            return _gone(claim, known=stored is not None)
        journey.contact_id = found
        outcome = await send(found)
        return dataclasses.replace(outcome, contact_gone=stored is not None)

    async def _patch(
        self, contact_id: str, body: Mapping[str, Any], journey: _Journey
    ) -> dict[str, Any] | None:
        return await journey.step(
            "update", "PATCH", f"/contacts/{contact_id}", answers.updated, body=body
        )

    async def _change_type(
        self, contact_id: str, target: str, journey: _Journey
    ) -> dict[str, Any] | None:
        # Repeating it is harmless: the contact already has the type then.
        return await journey.step(
            "upgrade",
            "POST",
            f"/contacts/{contact_id}/updateContactType",
            answers.updated,
            query={"contactTypeId": target},
        )

    # --- looking up ---------------------------------------------------------------------------

    async def _look_up(
        self, keys: Sequence[Key], contact_type: str | None, journey: _Journey
    ) -> str | None:
        async def ask(name: str, query: dict[str, str]) -> str | None:
            return await journey.step(name, "GET", "/contacts/id", answers.looked_up, query=query)

        return await find_contact(ask, self._settings, keys, contact_type)


class _Journey:
    """The calls made for one claim, as they will stand in its attempt."""

    def __init__(self, client: EngageClient, person: bool) -> None:
        self._client = client
        self._person = person
        self.steps: list[dict[str, Any]] = []
        self.contact_id: str | None = None  # learnt on the way, kept even if a later step fails

    async def step(
        self,
        name: str,
        method: str,
        path: str,
        read: Callable[[answers.Answer], T],
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        create: bool = False,
    ) -> T:
        note: dict[str, Any] = {"step": name}
        self.steps.append(note)
        began = time.monotonic()
        try:
            result = await self._client.call(
                method, path, read, query=query, body=body, create=create, person=self._person
            )
        except RouteError as error:
            note |= {"code": error.code, "status": error.status}
            raise
        finally:
            note["ms"] = round((time.monotonic() - began) * 1000)
        note["code"] = "NotFound" if result is None and method == "GET" else "OK"
        return result


def _folded(changes: Sequence[Change]) -> Payload:
    if len(changes) == 1:
        return changes[0].payload
    return fold([(change.kind, change.payload) for change in changes])


def _gone(claim: Claim, *, known: bool) -> Outcome:
    message = (
        "Engage does not know this contact any more: it was erased or merged."
        if known
        else "Engage does not know this contact."
    )
    return Outcome(
        Result.REJECTED,
        code="ContactNotFound",
        message=message,
        status=404,
        fault=Fault("ContactNotFound", f"{message} Register the customer again.", 404),
    )


def _outcome(error: RouteError, claim: Claim) -> Outcome:
    """The table from what went wrong to what it means for the change."""
    common: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "status": error.status,
        "request_id": error.request_id,
        "counts": error.counts,
    }
    # Once a create may have happened, only a look-up that succeeds may say that it did not.
    waits = Result.UNKNOWN if claim.head.unknown else Result.DEFERRED
    if isinstance(error, NotAuthorised):
        return Outcome(Result.HALTED, **common)
    if isinstance(error, AnswerLost):
        is_create = claim.head.kind is Kind.CREATE
        if is_create:
            return Outcome(Result.UNKNOWN, sent=True, **common)
        return Outcome(waits, **common)
    if isinstance(error, Refused):
        return _rejected(unquoted(error, *_data(claim)), claim, common)
    if isinstance(error, KeyTaken):
        # Of an update; a create's own is settled by a look-up.
        taken = Refused(status=error.status, request_id=error.request_id)
        taken.code = error.code
        taken.words = "Another contact in Engage has this key already. Nothing was changed."
        return _rejected(taken, claim, common)
    if isinstance(error, SeveralMatch):
        words = "More than one contact in Engage matches: " + ", ".join(error.contact_ids)
        fault = Fault("MultipleMatches", words, 409, request_id=error.request_id)
        return Outcome(Result.REJECTED, fault=fault, **common)
    if isinstance(error, Throttled):
        return Outcome(waits, retry_after_s=error.retry_after_s, **common)
    if isinstance(error, KeyBusy):
        return Outcome(waits, soon=True, **common)
    return Outcome(waits, **common)


def _data(claim: Claim) -> list[Mapping[str, Any]]:
    """Give everything of a customer that a call for this claim may have carried."""
    keys = {key.name: key.value for key in claim.keys}
    return [keys, *(change.payload.attributes for change in claim.changes)]


def _rejected(error: Refused, claim: Claim, common: Mapping[str, Any]) -> Outcome:
    if len(claim.changes) > 1:
        return Outcome(Result.DEFERRED, soon=True, split=True, **common)
    fault = Fault(
        error.code,
        error.words or "Engage refused this change without giving a reason.",
        error.status,
        fields=error.fields,
        request_id=error.request_id,
    )
    return Outcome(Result.REJECTED, fault=fault, **common)
