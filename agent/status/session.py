"""Signed-in people: a token that was entered once stands behind a cookie for a while.

The cookie holds a random number and nothing else; it is unreadable for scripts and is never sent
from another site. A session ends when it is left, when nothing was done for a while, after a shift
at the latest, when its token is revoked, and with the agent. Sessions are kept in memory only, and
of the token only its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from agent.clock import Clock

IDLE_S = 30 * 60.0
LONGEST_S = 8 * 3600.0
_MOST_SESSIONS = 20
_MOST_MESSAGES = 10


class TokenBook(Protocol):
    """What is asked of the tokens file."""

    def name_for(self, token: str) -> str | None:
        """Give the name that belongs to a token; None for one that is not known."""

    def name_for_digest(self, digest: str) -> str | None:
        """Give the name that belongs to a token's SHA-256 in hex, as it is now."""


@dataclass(frozen=True)
class Message:
    """What happened, for the page that is shown next."""

    tone: str  # good, warning, stop
    text: str


@dataclass
class Session:
    """One signed-in person."""

    name: str  # of the token
    form_key: str  # stands in every form of the page: other sites cannot know it
    token_digest: str
    began: float  # monotonic
    used: float  # monotonic: when something was last done
    messages: OrderedDict[str, Message] = field(default_factory=OrderedDict)

    def note(self, message: Message) -> str:
        """Keep a message for the next page; gives the name under which it is found."""
        number = secrets.token_urlsafe(8)
        self.messages[number] = message
        while len(self.messages) > _MOST_MESSAGES:
            self.messages.popitem(last=False)
        return number

    def accepts(self, form_key: str) -> bool:
        """Say whether a form came from this session's own page."""
        given = form_key.encode(errors="surrogatepass")
        return hmac.compare_digest(given, self.form_key.encode())


class Sessions:
    """Who is signed in at this till."""

    def __init__(self, tokens: TokenBook, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._known: OrderedDict[str, Session] = OrderedDict()  # by the hash of the cookie

    def sign_in(self, request: web.Request, token: str) -> tuple[Session, str] | None:
        """Begin a session; gives it with its cookie's value, None for an unknown token."""
        name = self._tokens.name_for(token)
        if name is None:
            return None
        self.sign_out(request)
        now, number = self._clock.monotonic(), secrets.token_urlsafe(32)
        session = Session(name, secrets.token_urlsafe(32), _digest(token), now, now)
        self._known[_digest(number)] = session
        while len(self._known) > _MOST_SESSIONS:
            self._known.popitem(last=False)
        return session, number

    def of(self, request: web.Request) -> Session | None:
        """Give who calls; None when nobody is signed in any more. Looking counts as nothing."""
        key = _digest(request.cookies.get(_cookie_name(request), ""))
        session = self._known.get(key)
        if session is None:
            return None
        if self._is_over(session):
            del self._known[key]
            return None
        return session

    def keep(self, session: Session) -> None:
        """Note that something was done, so the session lives on."""
        session.used = self._clock.monotonic()

    def sign_out(self, request: web.Request) -> None:
        """End the session of a request, if there is one."""
        self._known.pop(_digest(request.cookies.get(_cookie_name(request), "")), None)

    def _is_over(self, session: Session) -> bool:
        now = self._clock.monotonic()
        return (
            now - session.used >= IDLE_S
            or now - session.began >= LONGEST_S
            or self._tokens.name_for_digest(session.token_digest) != session.name
        )


def hand_over(response: web.Response, request: web.Request, number: str) -> None:
    """Give the browser its cookie, until it is closed."""
    response.set_cookie(
        _cookie_name(request),
        number,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=is_tls(request),
    )


def take_back(response: web.Response, request: web.Request) -> None:
    """Let the browser forget its cookie."""
    response.del_cookie(
        _cookie_name(request), path="/", httponly=True, samesite="Strict", secure=is_tls(request)
    )


def is_tls(request: web.Request) -> bool:
    """Say whether a request came over TLS."""
    # Not request.secure: whoever writes the whole address into the request line chooses that.
    transport = request.transport
    return transport is not None and transport.get_extra_info("sslcontext") is not None


def _cookie_name(request: web.Request) -> str:
    # Cookies know no ports: two agents on one machine would take each other's away.
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport is not None else None
    return f"till-agent-{name[1]}" if isinstance(name, tuple) else "till-agent"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
