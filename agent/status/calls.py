"""All calls of this folder in one list: the page and its forms, the status for programs and as a
stream, the health calls.

What lies below `/page/` is for people and looks at their session; all else needs no token, changes
nothing and shows no personal data.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from agent.status import health
from agent.status.acting import Acting
from agent.status.page import Page
from agent.status.program import to_json
from agent.status.signing import Signing
from agent.status.snapshot import Observer
from agent.status.stream import Stream


def routes(
    observer: Observer, page: Page, signing: Signing, acting: Acting, stream: Stream
) -> list[web.RouteDef]:
    """Give the routes for the application; all but the stream answer HEAD as well."""
    return [
        *page.routes(),
        *signing.routes(),
        *acting.routes(),
        *stream.routes(),
        *health.routes(observer),
        web.get("/agent/v1/status", partial(_status, observer)),
    ]


async def _status(observer: Observer, _: web.Request) -> web.Response:
    return web.json_response(to_json(await observer.look()), headers={"Cache-Control": "no-store"})
