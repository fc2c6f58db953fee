"""Who may call at all: Host, Origin, token and media type. Runs before anything reads a body.

A shop's till also runs a web browser. DNS rebinding is stopped by the exact list of hosts, a
foreign page by Origin and Sec-Fetch-Site, another program by the token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from agent.errors import ForbiddenOrigin, Unauthorized, UnsupportedMedia, WrongHost
from agent.intake.server import Handler

# What anybody at the till may see: it changes nothing and shows no personal data.
_PUBLIC = frozenset(
    (
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.yaml",
        "/agent/v1/status",
        "/agent/v1/events",
    )
)
_PUBLIC_PREFIX = "/assets/"
_UNPACKED = ("identity", "gzip", "deflate")  # what aiohttp unpacks while it reads
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

TOKEN_NAME: web.RequestKey[str] = web.RequestKey("token_name", str)


class Guard:
    """The rules, ready to be used as a middleware."""

    def __init__(
        self,
        name_for: Callable[[str], str | None],
        *,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._name_for = name_for  # a token's name, None for an unknown token
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = {origin.lower() for origin in allowed_origins}

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Give the middleware for aiohttp."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._check_host(request)
            origin = self._check_origin(request)
            if origin and request.method == "OPTIONS":
                return self._preflight(origin)
            if not _is_public(request):
                request[TOKEN_NAME] = self._check_token(request)
            _check_media_type(request)
            answer = await handler(request)
            if origin and not answer.prepared:
                answer.headers.update(_cors(origin))
            return answer

        return guard

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get("Host", "").lower()
        if "://" in request.raw_path and request.url.authority.lower() != host:
            raise WrongHost  # the whole address in the request line, for a proxy
        name, _, port = host.rpartition(":")
        if not port.isdigit():
            name, port = host, ""
        if name in _LOOPBACK_NAMES and port == str(_port(request)):
            return
        if host in self._hosts or name in self._hosts:
            return
        raise WrongHost

    def _check_origin(self, request: web.Request) -> str | None:
        """Give the origin of a page from elsewhere that is allowed; refuse all others."""
        origin = request.headers.get("Origin", "").lower()
        if origin and origin in self._origins:
            return origin
        own = f"http://{request.headers.get('Host', '').lower()}"
        site = request.headers.get("Sec-Fetch-Site", "none").lower()
        if origin and origin != own:
            raise ForbiddenOrigin
        if site in ("cross-site", "same-site") and not _is_visit(request):
            raise ForbiddenOrigin
        return None

    def _check_token(self, request: web.Request) -> str:
        token = request.headers.get("apikey", "")
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if not token and scheme.lower() == "bearer":
            token = value.strip()
        name = self._name_for(token) if token else None
        if name is None:
            raise Unauthorized
        return name

    def _preflight(self, origin: str) -> web.Response:
        headers = _cors(origin) | {
            "Access-Control-Allow-Methods": "GET, POST, PATCH, PUT, DELETE",
            "Access-Control-Allow-Headers": "apikey, authorization, content-type, prefer, "
            "idempotency-key, if-match, if-none-match, accept-language",
            "Access-Control-Allow-Private-Network": "true",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=headers)


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Age, Agent-Change, Agent-Source, Agent-State, "
        "Cache-Status, ETag, Idempotent-Replay, Location, Retry-After",
        "Vary": "Origin",
    }


def _port(request: web.Request) -> int:
    transport = request.transport
    return int(transport.get_extra_info("sockname")[1]) if transport is not None else 0


def _is_public(request: web.Request) -> bool:
    return request.method in ("GET", "HEAD") and (
        request.path in _PUBLIC or request.path.startswith(_PUBLIC_PREFIX)
    )


def _is_visit(request: web.Request) -> bool:
    """Somebody follows a link to the page: harmless, unlike a script that fetches it."""
    return (
        _is_public(request)
        and request.headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
        and request.headers.get("Sec-Fetch-Dest", "").lower() == "document"
    )


def _check_media_type(request: web.Request) -> None:
    """JSON only: a web form or a script without a preflight cannot send that."""
    if request.method in ("GET", "HEAD", "OPTIONS") or not request.body_exists:
        return
    if request.content_length == 0:
        return
    if request.content_type != "application/json":
        raise UnsupportedMedia
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in _UNPACKED:
        raise UnsupportedMedia(
            "The body is packed in a way that is not known here. Nothing was stored; send it as it "
            "is, or with Content-Encoding: gzip."
        )
    if (request.charset or "utf-8").lower().replace("-", "") != "utf8":
        raise UnsupportedMedia("The body must be JSON in UTF-8. Nothing was stored.")
