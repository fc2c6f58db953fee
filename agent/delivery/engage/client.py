"""One HTTP call to Engage: connection, deadlines, key, rate, and what it says of the line.

Knows nothing of changes. Every call has a total deadline, follows no redirect, reads a bounded body
and sends `Content-Type: application/json`, without which Engage answers 500 even to a GET (Engage's
docs, "API authentication").
"""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from agent.clock import Clock
from agent.config import Engage
from agent.delivery.engage import answers, tls
from agent.delivery.engage.answers import Answer
from agent.delivery.engage.pace import Pace
from agent.delivery.engage.strangeness import Strangeness
from agent.delivery.link import Link
from agent.delivery.quoting import unquoted
from agent.errors import (
    AgentError,
    EngageFailed,
    LineLost,
    NotAuthorised,
    NotEngage,
    Refused,
    RouteError,
    Throttled,
    Unreachable,
)

T = TypeVar("T")

_BODY_LIMIT = 4 * 1024 * 1024
_CONNECT_S = 10.0
# Of a call's whole time, so that a resolver that hangs never looks like an answer that was lost.
_CONNECT_SHARE = 0.75
# Below what servers usually keep, so that the agent, not Engage, closes idle connections first.
_KEEPALIVE_S = 10.0
# What aiohttp says when nothing of the request has left this machine.
_NOTHING_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class EngageClient:
    """The only door to Engage's API; shared by delivery and by reads."""

    def __init__(
        self,
        settings: Engage,
        key: Callable[[], str],
        link: Link,
        pace: Pace,
        clock: Clock,
        on_call: Callable[[str, float], None] = lambda answer, seconds: None,
    ) -> None:
        """`on_call` gets how each call ended, in a word, and how many seconds it took."""
        self._settings = settings
        self._key = key
        self._clock = clock
        self._on_call = on_call
        self.link = link
        self.pace = pace
        self._certificate = tls.PeerCertificate()
        self._strangeness = Strangeness()
        self._server_time: tuple[datetime, float] | None = None  # its Date, and when it was heard
        self._session: aiohttp.ClientSession | None = None
        self._retired: list[aiohttp.ClientSession] = []
        self._drift = 0.0  # between the till's clock, which counts sleep, and the loop's

    @property
    def server_clock_offset_s(self) -> float | None:
        """Give how far Engage's clock is ahead of the till's; None while it was never heard."""
        if self._server_time is None:
            return None
        moment, heard = self._server_time
        passed_s = self._clock.monotonic() - heard
        return (moment - self._clock.now()).total_seconds() + passed_s

    @property
    def problem(self) -> str | None:
        """Say what a person should see to: Engage changed, or its certificate ends soon."""
        ahead = timedelta(seconds=self.server_clock_offset_s or 0.0)
        strange = self._strangeness.problem(self._clock.monotonic())
        return strange or self._certificate.ending(self._clock.now() + ahead)

    async def open(self) -> None:
        """Make the connection pool; nothing is sent."""
        self._drift = self._clock.monotonic() - asyncio.get_running_loop().time()
        self._session = self._new_session()

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=16, ssl=self._tls(), keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=60
        )
        return aiohttp.ClientSession(
            connector=connector, auto_decompress=False, trust_env=False, cookie_jar=_no_cookies()
        )

    async def close(self) -> None:
        """Close every connection."""
        for session in (*self._retired, self._session):
            if session is not None:
                await session.close()
        self._retired, self._session = [], None

    async def _rebuild_after_sleep(self) -> None:
        """Leave connections behind that were open when the machine fell asleep.

        The loop's clock stood still meanwhile, so they look fresh, and nobody answers on them.
        """
        drift = self._clock.monotonic() - asyncio.get_running_loop().time()
        slept_s, self._drift = drift - self._drift, drift
        if self._session is None or slept_s < _KEEPALIVE_S:
            return
        for session in self._retired:
            await session.close()
        # What is under way in it ends by its own deadline.
        self._retired, self._session = [self._session], self._new_session()

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._settings.base_url.startswith("https:"):
            return True
        return tls.trusting(self._settings.ca_file, self._certificate)

    async def call(
        self,
        method: str,
        path: str,
        read: Callable[[Answer], T],
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        create: bool = False,
        person: bool = True,
    ) -> T:
        """Make one call and read its answer; `path` is below /api/v3, or begins with /api/.

        `read` is one of answers.py. Raises RouteErrors: Unreachable when nothing was sent, LineLost
        when it was sent and nothing came back, NotEngage, and what `read` raises.
        """
        await self.pace.turn(person=person)
        began = self._clock.monotonic()
        try:
            await self._rebuild_after_sleep()
            answer = await self._send(method, path, query, body, create=create)
            try:
                result = read(answer)
            except RouteError as error:
                if not error.against_link:
                    self._note_clock(answer)
                raise
        except RouteError as error:
            if isinstance(error, Refused):
                unquoted(error, {"apikey": self._key()})  # whoever is told why must not learn it
            self._on_call(_ended(error), self._clock.monotonic() - began)
            self._note(error)
            raise
        self._on_call("ok", self._clock.monotonic() - began)
        self._note_clock(answer)
        self._strangeness.note(None, self._clock.monotonic())
        self.link.heard()
        self.pace.answered()
        return result

    def _note_clock(self, answer: Answer) -> None:
        moment = answers.date(answer.headers)
        if moment is not None:
            self._server_time = (moment, self._clock.monotonic())

    def _note(self, error: RouteError) -> None:
        self._strangeness.note(error, self._clock.monotonic())
        if error.against_link:
            self.link.failed(error.message)
        elif error.status is not None:
            self.link.heard()
            if isinstance(error, Throttled):
                self.pace.throttled()
            else:
                self.pace.answered()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        *,
        create: bool,
    ) -> Answer:
        if self._session is None:
            raise Unreachable("The agent is stopping.")
        seconds = self._settings.create_timeout_s if create else self._settings.timeout_s
        headers = self._headers()
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        connect_s = min(_CONNECT_S, seconds * _CONNECT_SHARE)
        timeout = aiohttp.ClientTimeout(total=seconds, connect=connect_s)
        try:
            async with self._session.request(
                method,
                self._url(path, query),
                data=data,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._settings.proxy,
            ) as response:
                return Answer(
                    response.status,
                    {name.lower(): value for name, value in response.headers.items()},
                    await _bounded_body(response),
                )
        except (aiohttp.ClientError, TimeoutError, OSError, zlib.error) as error:
            raise _route_error(error, method, seconds) from error

    def _headers(self) -> dict[str, str]:
        try:
            key = self._key()
        except AgentError as error:
            raise NotAuthorised(f"{error.message} Nothing is lost: everything waits.") from error
        return {
            "apikey": key,
            "User-Agent": self._settings.user_agent,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        prefix = "" if path.startswith("/api/") else "/api/v3"
        text = f"{self._settings.base_url}{prefix}{path}"
        if query:
            # A plus sign must arrive as %2B: Engage reads a bare one as a blank.
            text += "?" + "&".join(
                f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items()
            )
        return URL(text, encoded=True)

    async def probe(self) -> None:
        """Try whether a connection can be made (TCP, and TLS where Engage has it); send nothing.

        Raises Unreachable.
        """
        parts = urlsplit(self._settings.proxy or self._settings.base_url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        try:
            context = self._tls() if secure else None
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(
                    parts.hostname,
                    port,
                    ssl=context if isinstance(context, ssl.SSLContext) else None,
                )
                writer.close()
        except (OSError, TimeoutError) as error:
            raise Unreachable(_why(error)) from error


def _ended(error: RouteError) -> str:
    """Say in a word how a call ended that brought nothing; few words, for a metric's label."""
    if isinstance(error, NotAuthorised):
        return "unauthorised"
    if isinstance(error, Throttled):
        return "throttled"
    if error.against_link:
        return "unreachable"
    return "failed" if error.counts else "refused"


def _no_cookies() -> aiohttp.abc.AbstractCookieJar:
    return aiohttp.DummyCookieJar()


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a body up to the limit, unpacked; a bomb or an endless stream is cut off."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    unpack = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
    parts, size = [], 0
    async for chunk in response.content.iter_chunked(64 * 1024):
        part = unpack.decompress(chunk, _BODY_LIMIT - size + 1) if unpack else chunk
        parts.append(part)
        size += len(part)
        if size > _BODY_LIMIT:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return b"".join(parts)


def _route_error(error: BaseException, method: str, seconds: float) -> RouteError:
    """Translate the library's exceptions; the only place that knows them."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return NotEngage(f"The proxy refused the connection (HTTP {error.status}).")
    if isinstance(error, _NOTHING_SENT):
        return Unreachable(_why(error))
    if isinstance(error, TimeoutError):
        why = f"No answer within {seconds:g} seconds."
    else:
        why = f"The line broke before the whole answer was there ({type(error).__name__})."
    if method == "POST":
        return LineLost(why)
    failed = EngageFailed(why)
    failed.against_link = True
    return failed


def _why(error: BaseException) -> str:
    if (words := tls.why(error)) is not None:
        return words
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "Engage's name cannot be resolved (DNS)."
    if isinstance(error, TimeoutError):
        return "No connection to Engage in time."
    refused = isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower()
    if refused or getattr(error, "errno", None) == errno.ECONNREFUSED:
        return "The connection to Engage was refused."
    return f"No connection to Engage ({type(error).__name__})."
