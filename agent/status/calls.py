"""All calls of this folder in one list: the page, the status for programs, the health calls.

None of them needs a token, changes anything or shows personal data.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from agent.status import health, page
from agent.status.snapshot import Observer, to_json


def routes(observer: Observer) -> list[web.RouteDef]:
    """Give the routes for the application; each answers HEAD as well."""
    return [
        *page.routes(observer),
        *health.routes(observer),
        web.get("/agent/v1/status", partial(_status, observer)),
    ]


async def _status(observer: Observer, _: web.Request) -> web.Response:
    return web.json_response(to_json(await observer.look()), headers={"Cache-Control": "no-store"})
