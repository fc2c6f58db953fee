"""The two health calls: does the process serve, and can it store."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import web

from agent.contact import new_id
from agent.errors import JournalFull, JournalUnavailable
from agent.status.snapshot import Observer, Snapshot

_NO_STORE = {"Cache-Control": "no-store"}


def routes(observer: Observer) -> list[web.RouteDef]:
    """Give `GET /healthz` and `GET /readyz`."""
    return [web.get("/healthz", _healthy), web.get("/readyz", partial(_ready, observer))]


async def _healthy(_: web.Request) -> web.Response:
    """Answer as long as the process serves; looks at nothing that could hang."""
    return web.json_response({"status": "ok"}, headers=_NO_STORE)


async def _ready(observer: Observer, _: web.Request) -> web.Response:
    """Answer 200 when a change could be stored: offline is ready, a full disk is not."""
    snapshot = await observer.look()
    if snapshot.can_accept:
        return web.json_response({"status": "ready"}, headers=_NO_STORE)
    return web.Response(
        status=503,
        text=json.dumps(unready(snapshot)),
        content_type="application/problem+json",
        headers={**_NO_STORE, "Retry-After": "5"},
    )


def unready(snapshot: Snapshot) -> dict[str, Any]:
    """Give the problem (RFC 9457) with the members that Engage's errors have too."""
    problem = snapshot.storage.write_problem
    code = JournalFull.code if problem is None else JournalUnavailable.code
    detail = JournalFull().message if problem is None else problem
    return {
        "type": f"urn:till-agent:error:{code}",
        "title": "Nothing can be stored",
        "status": 503,
        "detail": detail,
        "instance": "/readyz",
        "errorCode": code,
        "message": detail,
        "requestId": new_id(),
    }
