"""Who may call at all: Host, Origin, caller and media type. Runs before anything reads a body.

A shop's till also runs a web browser. DNS rebinding is stopped by the exact list of hosts, a
foreign page by Origin and Sec-Fetch-Site, another program by the token (docs/operating.md, "Who can
reach the agent"; decision 0016).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import urlsplit

from aiohttp import web

from agent import events
from agent.errors import (
    ForbiddenOrigin,
    MethodNotAllowed,
    Overloaded,
    TooManyWrongTokens,
    Unauthorized,
    UnsupportedMedia,
    WrongHost,
)
from agent.intake.connections import Connection
from agent.intake.server import ANSWER_HEADERS, Handler

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
# What is answered even when there are too many connections: how the agent is, in a moment.
_GOES_FIRST = frozenset(("/", "/healthz", "/readyz", "/metrics", "/agent/v1/status"))
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")

# The caller that this machine's own commands are.
COMMANDS = "command"
TOKEN_NAME: web.RequestKey[str] = web.RequestKey("token_name", str)

# A way to say who calls. Gives the caller's name, or None for a request that does not use this way;
# raises Unauthorized or TooManyWrongTokens for one that uses it wrongly.
Way = Callable[[web.Request], str | None]


class Guard:
    """The rules, ready to be used as a middleware."""

    def __init__(
        self,
        ways: Sequence[Way],
        *,
        listens_on: str,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        admits_person: Callable[[web.Request], bool] = lambda _: False,
    ) -> None:
        """`admits_person`: says whether a request is one of the page's own, which looks after
        cookie and form itself and therefore needs neither a token in a header nor JSON."""
        self._ways = ways  # tried in this order
        self._admits_person = admits_person
        self._own_names = {*_LOOPBACK_NAMES, *_name_of(listens_on)}
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = {origin.lower() for origin in allowed_origins}

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Give the middleware for aiohttp."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.method == "CONNECT":
                raise MethodNotAllowed("The agent is no proxy.")
            host = self._check_host(request)
            origin = self._check_origin(request, host)
            is_persons = self._admits_person(request)
            if origin is not None:
                if is_persons:  # a page that is allowed speaks for a POS, never for a person here
                    raise ForbiddenOrigin
                request[ANSWER_HEADERS] = _cors(origin)
                if request.method == "OPTIONS":
                    return _preflight(request)
            if not (is_persons or is_public(request)):
                request[TOKEN_NAME] = self._caller(request)
            _check_room(request)
            if not is_persons:
                _check_media_type(request)
            return await handler(request)

        return guard

    def _check_host(self, request: web.Request) -> str:
        """Give the Host header, in lower case; refuse all but the names of this agent."""
        named = {host.lower() for host in request.headers.getall("Host", [])}
        if not request.raw_path.startswith("/"):  # the whole address, as one writes to a proxy
            named |= _authority(request.raw_path)
        host = named.pop() if len(named) == 1 else ""
        if (parts := _HOST.fullmatch(host)) is None:
            raise WrongHost
        if host in self._hosts or parts[1] in self._hosts:
            return host
        if parts[1] not in self._own_names or not _is_own_port(request, parts[2]):
            raise WrongHost
        return host

    def _check_origin(self, request: web.Request, host: str) -> str | None:
        """Give the origin of a page from elsewhere that is allowed; refuse all others."""
        origin = _only(request, "Origin")
        if origin and origin in self._origins:
            return origin
        if origin and origin != f"{_scheme(request)}://{host}":
            raise ForbiddenOrigin
        if not _is_our_page(request) and not _is_visit(request):
            raise ForbiddenOrigin
        return None

    def _caller(self, request: web.Request) -> str:
        for way in self._ways:
            if (name := way(request)) is not None:
                return name
        raise Unauthorized


# --- tokens ---------------------------------------------------------------------------------------


class WrongTokens:
    """How many wrong tokens came lately, whoever sent them. It never locks a right one out."""

    # A POS with an old token is told 401 as long as it does not hammer.
    BURST = 20
    PER_S = 1.0

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left = float(self.BURST)
        self._at = monotonic()
        self._is_told = False

    def one_more(self) -> None:
        """Count a wrong token. Raises TooManyWrongTokens if there were too many."""
        now = self._monotonic()
        self._left = min(self.BURST, self._left + max(0.0, now - self._at) * self.PER_S)
        self._at = now
        if self._left >= self.BURST:
            self._is_told = False
        if self._left < 1:
            self._tell()
            raise TooManyWrongTokens
        self._left -= 1

    def _tell(self) -> None:
        """Log it once, until it has been quiet for a while: the log is no place to fill, either."""
        if not self._is_told:
            self._is_told = True
            events.log().warning("wrong_tokens", count=self.BURST)


class TokenInHeader:
    """The POS's way: a token as `apikey`, as with Engage, or as `Authorization: Bearer`."""

    def __init__(self, name_for: Callable[[str], str | None], wrong: WrongTokens) -> None:
        self._name_for = name_for  # a token's name, None for an unknown token
        self._wrong = wrong

    def __call__(self, request: web.Request) -> str | None:
        """Give the name of the token in the request, None if it has none."""
        given = _tokens_in(request)
        if not given:
            return None
        # The right token is looked at first, however many wrong ones came before.
        name = self._name_for(given[0]) if len(given) == 1 else None
        if name is None:
            self._wrong.one_more()
            raise Unauthorized
        return name


def _tokens_in(request: web.Request) -> list[str]:
    """Give the different tokens that a request holds; apikey goes before Authorization."""
    if keys := [key for key in request.headers.getall("apikey", []) if key]:
        return list(dict.fromkeys(keys))
    parts = [value.partition(" ") for value in request.headers.getall("Authorization", [])]
    bearers = [token.strip() for scheme, _, token in parts if scheme.lower() == "bearer"]
    return list(dict.fromkeys(filter(None, bearers)))


# --- pages from elsewhere -------------------------------------------------------------------------

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, PUT, DELETE",
    "Access-Control-Allow-Headers": "apikey, authorization, content-type, prefer, "
    "idempotency-key, if-match, if-none-match, accept-language, x-request-id",
    "Access-Control-Max-Age": "600",
}
# Chromium asked for these before a page of the internet reached into the local network, under the
# one name and then the other (Private Network Access). Since version 142 it asks the user instead
# (Local Network Access), and nothing is asked of the agent.
_LOCAL_NETWORK = {
    "Access-Control-Request-Private-Network": "Access-Control-Allow-Private-Network",
    "Access-Control-Request-Local-Network": "Access-Control-Allow-Local-Network",
}


def _preflight(request: web.Request) -> web.Response:
    local = {
        allowed: "true"
        for asked, allowed in _LOCAL_NETWORK.items()
        if request.headers.get(asked, "").lower() == "true"
    }
    return web.Response(status=204, headers={**_PREFLIGHT, **local})


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Age, Agent-Change, Agent-Source, Agent-State, "
        "Cache-Status, ETag, Idempotent-Replay, Location, Preference-Applied, Request-Id, "
        "Retry-After, X-Request-ID",
        "Vary": "Origin",
    }


def _is_our_page(request: web.Request) -> bool:
    """Say whether no browser calls it a foreign page; a word nobody knows yet is none of ours."""
    return _only(request, "Sec-Fetch-Site") in ("", "none", "same-origin")


def _is_visit(request: web.Request) -> bool:
    """Somebody follows a link to the page: harmless, unlike a script that fetches it."""
    return (
        is_public(request)
        and _only(request, "Sec-Fetch-Mode") == "navigate"
        and _only(request, "Sec-Fetch-Dest") == "document"
    )


# --- the request ----------------------------------------------------------------------------------


def is_public(request: web.Request) -> bool:
    """Say whether nobody needs to be known for this request."""
    return request.method in ("GET", "HEAD") and (
        request.path in _PUBLIC or request.path.startswith(_PUBLIC_PREFIX)
    )


def _only(request: web.Request, name: str) -> str:
    """Give a header's value in lower case; of several values that differ, none can be believed."""
    values = {value.strip().lower() for value in request.headers.getall(name, [])}
    if len(values) > 1:
        raise ForbiddenOrigin
    return values.pop() if values else ""


def _name_of(address: str) -> set[str]:
    """Give the host by which an address is called; "every address" is no name for one."""
    if ipaddress.ip_address(address).is_unspecified:
        return set()
    return {f"[{address}]" if ":" in address else address}


def _authority(address: str) -> set[str]:
    try:
        return {urlsplit(address).netloc.lower()} - {""}
    except ValueError:
        raise WrongHost from None


def _scheme(request: web.Request) -> str:
    # Not request.scheme: whoever writes the whole address into the request line chooses that.
    transport = request.transport
    is_tls = transport is not None and transport.get_extra_info("sslcontext") is not None
    return "https" if is_tls else "http"


def _is_own_port(request: web.Request, port: str | None) -> bool:
    """Say whether this is the port that the request came in by; a Unix socket has none."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return isinstance(name, str | bytes)
    usual = "443" if _scheme(request) == "https" else "80"
    return (port or usual) == str(name[1])


def _check_room(request: web.Request) -> None:
    """Turn away whoever came when there were too many; what tells how it stands goes first."""
    connection = request.protocol
    if not isinstance(connection, Connection) or not connection.is_crowded:
        return
    if request.path in _GOES_FIRST or request.get(TOKEN_NAME) == COMMANDS:
        return
    raise Overloaded(
        "More connections are open than the till can serve at once. Nothing was stored; send it "
        "again, and keep fewer connections open."
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
