"""`GET /agent/v1/doctor`, for programs and for the page; needs a token, for it makes traffic."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from agent.doctor.doctor import Doctor


def routes(doctor: Doctor) -> list[web.RouteDef]:
    """Give the call for the application."""
    return [web.get("/agent/v1/doctor", partial(_examine, doctor))]


async def _examine(doctor: Doctor, _: web.Request) -> web.Response:
    """Answer {rows: [{check, result, meaning, whatToDo}]}; takes seconds where something hangs."""
    rows = [row.to_json() for row in await doctor.examine()]
    return web.json_response({"rows": rows}, headers={"Cache-Control": "no-store"})
