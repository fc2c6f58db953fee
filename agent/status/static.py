"""The page's style, script and icon, served from here and kept by the browser for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aiohttp import ETag, web

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
GUARDS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Not "no-referrer": with that a browser hides the origin of the page's own forms from us.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def routes() -> list[web.RouteDef]:
    """Give `GET /assets/{name}`."""
    return [web.get("/assets/{name}", _asset)]


@dataclass(frozen=True)
class _Asset:
    content: bytes
    digest: str


@cache
def _load(name: str) -> _Asset:
    content = (files("agent.status") / "assets" / name).read_bytes()
    return _Asset(content, hashlib.sha256(content).hexdigest()[:16])


def address(name: str) -> str:
    """Give an asset's address with its version, so that a browser may keep it for good."""
    return f"/assets/{name}?v={_load(name).digest}"


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _TYPES:
        raise web.HTTPNotFound(text="There is no such file.")
    asset = _load(name)
    is_current = request.query.get("v") == asset.digest
    keep = "public, max-age=31536000, immutable" if is_current else "no-cache"
    known = any(tag.value in (asset.digest, "*") for tag in request.if_none_match or ())
    response = web.Response(
        status=304 if known else 200,
        body=None if known else asset.content,
        headers={**GUARDS, "Cache-Control": keep},
    )
    if not known:
        response.content_type = _TYPES[name]
        response.charset = "utf-8"
    response.etag = ETag(asset.digest)
    return response
