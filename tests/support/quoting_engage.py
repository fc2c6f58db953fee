"""An Engage that repeats what it was sent in everything it refuses, in every spelling it can."""

from __future__ import annotations

import base64
import html
import json
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from aiohttp import web


def spellings(value: str) -> set[str]:
    """Give a value as it may stand in a log, an address, a page or a header."""
    raw = value.encode()
    found = {
        value,
        value.upper(),
        value.lower(),
        value.swapcase(),
        quote(value, safe=""),
        quote(value, safe="").lower(),
        quote_plus(value),
        json.dumps(value)[1:-1],
        html.escape(value),
        repr(value)[1:-1],
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }
    return {each for each in found if each}


def flat(value: Any) -> list[str]:
    """Give every text and number in a JSON value."""
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in flat(each)]
    if isinstance(value, list):
        return [text for each in value for text in flat(each)]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []


class QuotingEngage:
    """Listens on a real socket. `mode` says how it answers from now on."""

    def __init__(self, other_customer: str) -> None:
        self.mode = "ok"
        self.calls = 0
        self.contacts: dict[str, dict[str, Any]] = {}
        self._other = other_customer  # somebody whom it also holds, and talks about
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        text = await request.text()
        body = json.loads(text) if text else {}
        sent = [*flat(body), *request.query.values(), request.headers.get("apikey", "")]
        if request.path.endswith("/contacts/count"):
            return web.json_response(len(self.contacts))
        return getattr(self, f"_{self.mode}")(request, body, sent)

    # --- as it should -------------------------------------------------------------------------

    def _ok(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        path = request.path
        if path.endswith("/contacts/id"):
            return self._found(request)
        told = [{"text": f"bought by {self._other}"}]
        if path.endswith("/transactions"):
            return web.json_response({"items": told})
        if path.endswith("/promotion-assignments"):
            return web.json_response(told)
        if request.method == "POST" and path.endswith("/contacts"):
            contact_id = str(uuid.uuid4())
            self.contacts[contact_id] = dict(body)
            return web.json_response(self._document(contact_id), status=201)
        contact_id = path.split("/contacts/")[1].split("/")[0]
        if request.method == "PATCH":
            self.contacts.setdefault(contact_id, {}).update(body)
        return web.json_response(self._document(contact_id))

    def _found(self, request: web.Request) -> web.Response:
        for contact_id, attributes in self.contacts.items():
            if set(request.query.values()) & {str(value) for value in attributes.values()}:
                return web.json_response(contact_id)
        return self._error(404, "ContactNotFound", ["nobody"], [])

    def _document(self, contact_id: str) -> dict[str, Any]:
        return {
            "id": contact_id,
            "attributes": dict(self.contacts.get(contact_id, {})),
            "meta": {"contactType": "Member"},
        }

    # --- as it should not ---------------------------------------------------------------------

    def _refuse(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        if request.path.endswith("/contacts/id"):
            return self._found(request)
        return self._error(422, "ValidationError", sent, sent)

    def _refuse_all(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return self._error(400, f"Invalid {sent[0] if sent else ''}", sent, sent)

    def _conflict(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return self._error(409, "ApprovedContactWithKeyExists", sent, [])

    def _fail(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return self._error(500, "InternalError", sent, [])

    def _throttle(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return self._error(429, "TooManyRequests", sent, [])

    def _lock_out(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return self._error(401, "Unauthorized", sent, [])

    def _portal(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return web.Response(text=f"<html>{self._said(sent)}</html>", content_type="text/html")

    def _redirect(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        raise web.HTTPFound(f"http://127.0.0.1:1/{quote(' '.join(sent))}")

    def _wrong_shape(self, request: web.Request, body: Any, sent: list[str]) -> web.Response:
        return web.json_response({"said": self._said(sent)}, status=201)

    def _error(self, status: int, code: str, sent: list[str], problems: list[str]) -> web.Response:
        return web.json_response(
            {
                "errorCode": code,
                "message": self._said(sent),
                "validationErrors": [
                    {"field": "firstName", "errorDescription": f"«{value}» is wrong"}
                    for value in problems
                ],
                "requestId": sent[0] if sent else "r-1",
            },
            status=status,
            reason="Said",
        )

    def _said(self, sent: list[str]) -> str:
        spelled = sorted({each for value in sent for each in spellings(value)})
        return f"{self._other} says: {' | '.join(spelled)}"
