"""Create, update and upgrade as the POS calls them: take, make durable, wait, answer."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from aiohttp import web

from agent import events
from agent.change import Change, Kind, Payload, State
from agent.clock import Clock, to_text
from agent.errors import MalformedRequest
from agent.intake import answers, payload
from agent.intake.guard import TOKEN_NAME
from agent.intake.server import language_of, problem, read_body
from agent.journal import changes, contacts
from agent.journal.journal import Journal
from agent.journal.served import Shown

# No answer ever waits longer: Engage's own create gives up in under 10 seconds.
LONGEST_WAIT_S = 9.0

# What else stands at that place of an address is read only.
_ONE_CONTACT = "/api/v3/contacts/{id:(?!(?:id|transactions)$)[^{}/]+}"

_WAITING = (State.WAITING, State.SENDING)
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d+(?:\.\d+)?)\"?\s*(?=$|[,;])", re.IGNORECASE)
_ASYNC = re.compile(r"(?:^|[,;])\s*respond-async\s*(?=$|[,;])", re.IGNORECASE)


# (id, If-Match, given) → what of it differs from what was shown, and that; None for `*`.
Narrow = Callable[[str, str, Mapping[str, Any]], Awaitable[tuple[dict[str, Any], Shown | None]]]


@dataclass(frozen=True)
class Preference:
    """How long the caller wants to wait for Engage (RFC 7240)."""

    seconds: float
    applied: str | None = None  # what is said in Preference-Applied


def preference(header: str, default_s: float) -> Preference:
    """Read `Prefer: wait=N` and `Prefer: respond-async`; anything else is ignored, as RFC 7240
    asks."""
    if _ASYNC.search(header):
        return Preference(0.0, "respond-async")
    if found := _WAIT.search(header):
        seconds = min(float(found[1]), LONGEST_WAIT_S)
        return Preference(seconds, f"wait={math.floor(seconds)}")
    return Preference(min(default_s, LONGEST_WAIT_S))


class ContactCalls:
    """The write calls of Engage's contact API, answered from the journal."""

    def __init__(
        self,
        journal: Journal,
        rules: payload.Rules,
        clock: Clock,
        *,
        wait_s: float,
        dedupe_window_s: float,
        worth_waiting: Callable[[], bool],
        narrow: Narrow,
    ) -> None:
        self._journal = journal
        self._rules = rules
        self._clock = clock
        self._wait_s = wait_s
        self._dedupe_window_s = dedupe_window_s
        # False while nothing can be delivered anyway: then the answer comes at once.
        self._worth_waiting = worth_waiting
        self._narrow = narrow

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        return [
            web.post("/api/v3/contacts", self.create),
            web.patch(_ONE_CONTACT, self.update),
            web.post("/api/v3/contacts/{id}/updateContactType", self.upgrade),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Sign a customer up: `POST /api/v3/contacts?source&storeExternalId&createAsUnapproved`."""
        data = payload.read_json(await read_body(request))
        asked = payload.create_payload(
            data, request.query, self._rules, self._today(), language=language_of(request)
        )
        return await self._take(request, Kind.CREATE, asked, data, target=None)

    async def update(self, request: web.Request) -> web.Response:
        """Change given attributes: `PATCH /api/v3/contacts/{id}?clear=street,city`.

        With `If-Match`, only those that differ from what the POS was shown; 200 and that contact,
        and no change, if none does.
        """
        body = await read_body(request)
        clear = request.query.getall("clear", [])
        data = payload.read_json(body) if body.strip() or not clear else {}
        given = data
        if if_match := request.headers.getall("If-Match", []):
            # Before the check for empty values: a form may send back what is empty anyway.
            target = request.match_info["id"]
            given, shown = await self._narrow(target, ", ".join(if_match), data)
            if shown is not None and data and not given and not clear:
                headers = {"ETag": shown.etag, "Cache-Control": "no-store"}
                return web.json_response(shown.body, headers=headers)
        asked = payload.update_payload(
            given,
            clear,
            self._rules,
            self._today(),
            contact_type=await self._type_of(request.match_info["id"], given),
            language=language_of(request),
        )
        # Without a key, a repeat is what asks for the same change; with one, the same request.
        said = data if "Idempotency-Key" in request.headers else given
        return await self._take(request, Kind.UPDATE, asked, said, request.match_info["id"])

    async def _type_of(self, public_id: str, given: Mapping[str, Any]) -> str | None:
        """Give the contact's type where the journal knows it and a check asks for it."""
        if not self._rules.needs_type(given):
            return None
        contact = await self._journal.read(partial(contacts.find, public_id=public_id))
        return contact.contact_type if contact else None

    async def upgrade(self, request: web.Request) -> web.Response:
        """Change the type: `POST …/{id}/updateContactType?contactTypeId=Member`."""
        body = await read_body(request)
        data = payload.read_json(body) if body.strip() else None
        asked = payload.upgrade_payload(
            data,
            request.query.get("contactTypeId", ""),
            self._rules,
            self._today(),
            language=language_of(request),
        )
        return await self._take(request, Kind.UPGRADE, asked, data, request.match_info["id"])

    async def _take(
        self,
        request: web.Request,
        kind: Kind,
        asked: Payload,
        data: object,
        target: str | None,
    ) -> web.Response:
        wish = preference(", ".join(request.headers.getall("Prefer", [])), self._wait_s)
        now = self._clock.now()
        recorded = await self._journal.record(
            changes.Request(
                kind=kind,
                payload=asked,
                target=target,
                contact_key=self._rules.contact_key,
                fingerprint=payload.request_fingerprint(
                    request.method, request.path, request.query.items(), data
                ),
                token_name=request[TOKEN_NAME],
                idempotency_key=_idempotency_key(request),
                dedupe_window_s=self._dedupe_window_s,
                now=now,
                now_text=to_text(now),
                request_id=events.request_id(),
            )
        )
        change, body = await self._wait(recorded.change, wish.seconds)
        return self._answer(request, change, body, wish, replayed=recorded.replayed)

    async def _wait(self, change: Change, seconds: float) -> tuple[Change, object]:
        if change.state not in _WAITING or seconds <= 0 or not self._worth_waiting():
            return change, None
        settled = await self._journal.news.wait_for(change.id, seconds)
        if settled is not None:
            return settled.change, settled.body
        # Durable since long; only where it stands by now is asked.
        return await self._journal.read(partial(changes.find, change_id=change.id)), None

    def _answer(
        self,
        request: web.Request,
        change: Change,
        body: object,
        wish: Preference,
        *,
        replayed: bool,
    ) -> web.Response:
        headers = answers.headers_of(change, replayed=replayed)
        if wish.applied:
            headers["Preference-Applied"] = wish.applied
        if answers.is_refused(change):
            why = answers.refusal(change)
            return problem(
                why.code, why.detail, request, status=why.status, headers=headers, more=why.more
            )
        answer = answers.write_answer(change, body)
        return web.json_response(answer.body, status=answer.status, headers=headers)

    def _today(self) -> date:
        return self._clock.now().astimezone().date()


def _idempotency_key(request: web.Request) -> str | None:
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= 255 or not key.isprintable():
        raise MalformedRequest(
            "Idempotency-Key must have 1 to 255 printable characters and stand there once. Nothing "
            "was stored."
        )
    return key
