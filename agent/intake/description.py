"""The description of all calls, OpenAPI 3.1, as it is packaged: openapi.yaml beside this file."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from aiohttp import ETag, web


@cache
def text() -> bytes:
    """Give the file as it stands."""
    return (files("agent.intake") / "openapi.yaml").read_bytes()


def routes() -> list[web.RouteDef]:
    """Give `GET /openapi.yaml`; it needs no token, since it holds nobody's data."""
    return [web.get("/openapi.yaml", _describe)]


async def _describe(request: web.Request) -> web.Response:
    digest = hashlib.sha256(text()).hexdigest()[:32]
    known = any(tag.value in (digest, "*") for tag in request.if_none_match or ())
    # Built into the program: it may be kept, but an update of the agent has to be noticed.
    answer = web.Response(
        status=304 if known else 200,
        body=None if known else text(),
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )
    if not known:
        answer.content_type = "application/yaml"
    answer.etag = ETag(digest)
    return answer
