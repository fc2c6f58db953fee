"""Engage's HTTP answers read: either what was asked for, or the RouteError that says why not. Pure.

Nothing counts as Engage's answer without Engage's shape: status first, then `errorCode` where the
body is JSON, then nothing more. Shapes are from Engage's docs ("Find contact", "Create contact",
"Update contact") and from public clients; what they leave open is ruled in docs/decisions/0006.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from agent.contact import is_uuid
from agent.errors import (
    AnswerLost,
    ContactGone,
    EngageFailed,
    KeyBusy,
    KeyTaken,
    NotAuthorised,
    NotEngage,
    Refused,
    RolledBack,
    RouteError,
    SeveralMatch,
    Throttled,
)
from agent.events import is_sane_id

# Longer words than these help nobody and may be a whole page.
_WORDS_LIMIT = 500
# Codes and ids reach the log, so they have to look like such.
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, wholly read."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON; _NOT_JSON where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return _NOT_JSON


_NOT_JSON = object()


# --- what was asked for -------------------------------------------------------------------------


def looked_up(answer: Answer) -> str | None:
    """Read GET /contacts/id: a GUID as a bare JSON string; None if Engage knows no such contact.

    Only a JSON `ContactNotFound` is "not found". Raises SeveralMatch and every other RouteError.
    """
    if answer.status == 200:
        data = answer.json()
        if isinstance(data, str) and is_uuid(data):
            return data.lower()
        raise NotEngage("The look-up was answered, but not with Engage's shape.", status=200)
    error = failure(answer, write=False)
    if isinstance(error, ContactGone):
        return None
    raise error


def created(answer: Answer) -> dict[str, Any]:
    """Read POST /contacts: 201 with the whole contact, its `id` included. Raises RouteErrors."""
    if answer.status == 201:
        if (contact := _contact(answer)) is not None:
            return contact
        raise AnswerLost(
            "Engage's answer to a sign-up could not be read; it is looked up.", status=201
        )
    if 200 <= answer.status < 300:
        if answer.json() is _NOT_JSON and answer.body.strip():
            raise NotEngage("A web page answered instead of Engage.", status=answer.status)
        raise AnswerLost("Engage's answer to a sign-up has another shape.", status=answer.status)
    raise failure(answer, write=True)


def updated(answer: Answer) -> dict[str, Any] | None:
    """Read PATCH /contacts/{id} or updateContactType: the contact where one came, else None.

    200, 202 and 204 count, with Engage's shape or empty. Raises RouteErrors.
    """
    if answer.status in (200, 202, 204):
        if not answer.body.strip() or answer.json() in (None, "", {}):
            return None
        if (contact := _contact(answer)) is not None:
            return contact
        if answer.json() is _NOT_JSON:
            raise NotEngage("A web page answered instead of Engage.", status=answer.status)
        if answer.status == 202 or isinstance(answer.json(), str | bool):
            return None  # accepted; what else stands in a 202 is not documented
        raise NotEngage("The answer to an update has another shape.", status=answer.status)
    if 200 <= answer.status < 300:
        raise EngageFailed("Engage's answer to an update is not known.", status=answer.status)
    raise failure(answer, write=False)


def read_contact(answer: Answer) -> dict[str, Any]:
    """Read GET /contacts/{id}. Raises ContactGone and every other RouteError."""
    if answer.status == 200:
        if (contact := _contact(answer)) is not None:
            return contact
        raise NotEngage("The contact was answered, but not with Engage's shape.", status=200)
    raise failure(answer, write=False)


def queued(answer: Answer) -> str:
    """Read POST or PATCH /contacts/bulk: any 2xx means queued; gives what was answered, as text.

    A batch id as a string was seen for v2; code and shape in v3 are not documented.
    """
    if 200 <= answer.status < 300:
        if answer.body.strip() and answer.json() is _NOT_JSON:
            raise NotEngage("A web page answered instead of Engage.", status=answer.status)
        return answer.body.decode("utf-8", "replace").strip()[:200]
    raise failure(answer, write=False)


def read_any(answer: Answer) -> Any:
    """Read a call whose body is passed on as it came: JSON, whatever its shape."""
    if answer.status == 200 and (data := answer.json()) is not _NOT_JSON:
        return data
    if answer.status == 200:
        raise NotEngage("A web page answered instead of Engage.", status=200)
    raise failure(answer, write=False)


def _contact(answer: Answer) -> dict[str, Any] | None:
    data = answer.json()
    if isinstance(data, dict) and isinstance(data.get("id"), str) and is_uuid(data["id"]):
        return data
    return None


# --- what went wrong ----------------------------------------------------------------------------


def failure(answer: Answer, *, write: bool) -> RouteError:
    """Give the RouteError for an answer that is no success.

    `write` says whether it was a POST that makes something: then what may have happened is unknown,
    while repeating anything else is harmless.
    """
    data = answer.json()
    engage = data if isinstance(data, dict) and isinstance(data.get("errorCode"), str) else None
    if answer.status in (401, 403):
        error: RouteError = NotAuthorised(
            f"Engage refuses the API key (HTTP {answer.status}). Nothing is lost: everything "
            "waits. Put the right key into the file named by engage.api_key_file; no restart is "
            "needed."
        )
    elif answer.status == 429:
        error = Throttled()
        error.retry_after_s = retry_after(answer.headers)
    elif answer.status >= 500:
        error = _server_failure(answer.status, engage, data, write=write)
    elif answer.status < 400:
        error = NotEngage("The call was redirected; a portal or proxy stands in between.")
    elif engage is None:
        error = NotEngage("Something else than Engage refused the call: a portal or proxy.")
    else:
        error = _refusal(answer.status, engage)
    error.status = answer.status
    if engage is not None and isinstance(engage.get("requestId"), str):
        request_id = engage["requestId"][:100]
        error.request_id = request_id if is_sane_id(request_id) else None
    return error


def _server_failure(
    status: int, engage: Mapping[str, Any] | None, data: Any, *, write: bool
) -> RouteError:
    if status == 504 and engage is not None and engage["errorCode"] == "RequestTimeOut":
        return RolledBack()
    if status == 511:
        return NotEngage("A portal asks for a login before it lets anything through.")
    error: RouteError
    if write:
        error = AnswerLost(f"Engage failed while making it (HTTP {status}).")
    else:
        error = EngageFailed(f"Engage failed (HTTP {status}).")
    if data is _NOT_JSON:
        error.against_link = True  # a gateway's page, not Engage's own error
    return error


def _refusal(status: int, engage: Mapping[str, Any]) -> RouteError:
    code = engage["errorCode"]
    if status == 404 and code == "ContactNotFound":
        return ContactGone()
    if status == 409 and code == "ContactWithKeyIsBeingCreated":
        return KeyBusy()
    if status == 409 and code == "ApprovedContactWithKeyExists":
        return KeyTaken()
    if status == 409 and code == "MultipleMatches":
        several = SeveralMatch()
        several.contact_ids = _matches(engage)
        return several
    refused = Refused()
    refused.code = code if _CODE.fullmatch(code) else Refused.code
    refused.words = str(engage.get("message") or "")[:_WORDS_LIMIT]
    refused.fields = _fields(engage)
    return refused


def _matches(engage: Mapping[str, Any]) -> tuple[str, ...]:
    details = engage.get("messageDetails")
    found = details.get("multipleMatchesFound") if isinstance(details, dict) else None
    if not isinstance(found, list):
        return ()
    return tuple(item.lower() for item in found if isinstance(item, str) and is_uuid(item))[:20]


def _fields(engage: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Read `validationErrors`; only `errorDescription` was ever seen, so all of it is optional."""
    found = engage.get("validationErrors")
    if not isinstance(found, list):
        return ()
    fields = []
    for item in found[:50]:
        if not isinstance(item, dict):
            continue
        words = item.get("errorDescription") or item.get("message") or ""
        field = item.get("field") or item.get("fieldName") or item.get("name") or ""
        code = str(item.get("errorCode") or item.get("code") or "")
        fields.append(
            {
                "field": str(field)[:100],
                "code": code if _CODE.fullmatch(code) else "ValidationError",
                "message": str(words)[:_WORDS_LIMIT],
            }
        )
    return tuple(fields)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds or as a date (RFC 9110); None where it is absent or nonsense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    moment = _aware(moment)
    # The server's own clock is the one that the date was made with; the till's may be wrong.
    now = date(headers) or datetime.now(UTC)
    seconds = (moment - now).total_seconds()
    return seconds if seconds > 0 else None


def date(headers: Mapping[str, str]) -> datetime | None:
    """Read the server's own time, whole seconds; None where it is absent or nonsense."""
    try:
        return _aware(parsedate_to_datetime(headers.get("date", "")))
    except (ValueError, IndexError, TypeError):
        return None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
