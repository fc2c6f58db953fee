"""Engage over HTTP/1.1 on loopback: what every request must carry, and the faults.

What a call does is in `calls`; this module owns connections, headers, the rate limit and the ways
in which an answer goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agent.sandbox.calls import Answer, Call, Calls
from agent.sandbox.errors import EngageError, too_many, unauthorized
from agent.sandbox.faults import ENGAGE_ANSWERS, Fault, Faults
from agent.sandbox.listener import Listener, close_if_cancelled
from agent.sandbox.mishaps import MISHAPS, Hit
from agent.sandbox.register import Register
from agent.sandbox.wire import drop, http_date, json_response

_LARGEST_BODY = 64 * 2**20
_LOGGED_REQUESTS = 10_000
_LOGGED_BODY = 64 * 2**10
_STOP_S = 0.2


@dataclass
class LoggedRequest:
    """One request as it came in."""

    at: float  # seconds since the epoch
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)  # the key's value is left out
    body: bytes = field(repr=False)  # the first 64 KiB
    status: int | None = None  # None: no answer was given
    fault: str | None = None


@dataclass(frozen=True)
class Demands:
    """What Engage asks of every request."""

    api_key: str
    rate_limit: int = 200  # requests a second and key; Engage's docs, "API rate limit"; 0: none
    # Engage's docs, "Create contact": a limit of its own, below ten seconds.
    create_timeout_s: float = 9.5
    bulk_delay_s: float = 0.2


class _Connection(web.RequestHandler):
    """A connection that can be reset before a request is read."""

    __slots__ = ("is_reading", "lost", "reset_before")

    def __init__(
        self,
        server: web.Server,
        reset_before: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        no_access_log: dict[str, Any] = {"access_log": None}
        super().__init__(server, loop=loop, **no_access_log)
        self.reset_before = reset_before
        self.is_reading = False  # from a request's first byte to its answer
        self.lost: asyncio.Future[None] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        if not self.is_reading:
            self.is_reading = True
            if self.reset_before():
                drop(self.transport, reset=True)
                return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        super().connection_lost(exc)


class _Server(web.Server):
    """Makes such connections."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        reset_before: Callable[[], bool],
    ) -> None:
        super().__init__(handler, request_factory=self._request)
        self._reset_before = reset_before

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._reset_before, self._loop)

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=_LARGEST_BODY
        )


class EngageServer:
    """The simulated Engage on its port."""

    def __init__(
        self,
        register: Register,
        faults: Faults,
        demands: Demands,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.demands = demands
        self.register = register
        self.requests: deque[LoggedRequest] = deque(maxlen=_LOGGED_REQUESTS)
        self.request_count = 0
        self.status_counts: Counter[str] = Counter()  # "201", …; "none" for no answer
        self.calls = Calls(register, self._bulk_later)
        self.listener = Listener(self._take_socket)
        self.stopping = asyncio.Event()
        self._faults = faults
        self._tls = tls
        self._server: _Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds: dict[str, tuple[int, int]] = {}  # key -> (second, requests in it)

    async def start(self, port: int) -> None:
        """Take the port and answer."""
        self.listener.hold(port)
        self._server = _Server(self._handle, self._is_reset_before)
        self.listener.open()

    async def stop(self) -> None:
        """End at once, whatever hangs; late commits that are still due do not happen."""
        self.stopping.set()
        self.listener.release()
        self.cut_connections()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.shutdown(_STOP_S)

    def cut_connections(self) -> None:
        """Cut every open connection, as when the line goes down."""
        if self._server is not None:
            for connection in self._server.connections:
                drop(connection.transport)

    def clear(self) -> None:
        """Forget requests and counts."""
        self.requests.clear()
        self.status_counts.clear()
        self.request_count = 0
        self.calls.clear()

    # --- connections --------------------------------------------------------------------------

    def _take_socket(self, connection: socket.socket) -> None:
        task = self._spawn(self._serve(connection))
        task.add_done_callback(lambda done: close_if_cancelled(done, connection))

    async def _serve(self, connection: socket.socket) -> None:
        if self._server is None or not self.listener.is_open:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # a handshake that failed; the caller has been told
            transport, _ = await loop.connect_accepted_socket(
                self._server, connection, ssl=self._tls
            )
            if not self.listener.is_open:
                transport.abort()

    def _is_reset_before(self) -> bool:
        fault = self._faults.take(
            "engage", {"reset"}, where=lambda each: each.text("when") == "before"
        )
        return fault is not None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- one request --------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        entry = LoggedRequest(
            at=time.time(),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=_without_key(request),
            body=b"",
        )
        self.requests.append(entry)
        self.request_count += 1
        try:
            response = await self._response(request, entry)
            entry.status = None if response is None else response.status
            return web.Response() if response is None else response
        finally:
            self.status_counts[str(entry.status or "none")] += 1
            if isinstance(request.protocol, _Connection):
                request.protocol.is_reading = False

    async def _response(
        self, request: web.BaseRequest, entry: LoggedRequest
    ) -> web.StreamResponse | None:
        try:
            body = await request.read()
        except (ConnectionError, web.RequestPayloadError):
            return None  # the caller went away in the middle of the body
        entry.body = body[:_LOGGED_BODY]
        call = Call(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=body,
        )
        if call.makes_contacts and self._take({"not_unique"}, request):
            call = dataclasses.replace(call, is_key_unique=False)
        fault = self._faults.take(
            "engage",
            ENGAGE_ANSWERS,
            call.method,
            call.path,
            where=lambda each: each.parameters.get("when") != "before",
        )
        if fault is None:
            response: web.StreamResponse | None = json_response(self.reply(call))
        else:
            entry.fault = fault.name
            response = await MISHAPS[fault.name](Hit(self, call, fault, request))
        self._skew_clock(request, response)
        return response

    def _take(self, kinds: set[str], request: web.BaseRequest) -> Fault | None:
        return self._faults.take("engage", kinds, request.method, request.path)

    def _skew_clock(self, request: web.BaseRequest, response: web.StreamResponse | None) -> None:
        if response is None or response.prepared:
            return
        skewed = self._take({"clock_skew"}, request)
        if skewed is not None:
            response.headers["Date"] = http_date(skewed.number("skew_s"))

    def reply(self, call: Call) -> Answer:
        """Do the work and answer, without any fault."""
        try:
            self._check_demands(call)
        except EngageError as error:
            return self.calls.refusal(error)
        return self.calls.answer(call)

    def _check_demands(self, call: Call) -> None:
        """Refuse what lacks a header, and what comes too fast.

        Engage's docs, "API authentication": `apikey` and User-Agent on every call; without the
        content type the answer is 500 "An error has occurred". How a missing User-Agent is
        answered is not documented: 400 here.
        """
        content_type = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise EngageError(500, "InternalServerError", "An error has occurred")
        if call.headers.get("apikey") != self.demands.api_key:
            raise unauthorized()
        if not call.headers.get("User-Agent", "").strip():
            raise EngageError(400, "MissingUserAgent", "The User-Agent header is missing.")
        if self._is_too_fast(self.demands.api_key):
            raise too_many()

    def _is_too_fast(self, key: str) -> bool:
        second = int(time.monotonic())
        began, count = self._seconds.get(key, (second, 0))
        count = count + 1 if began == second else 1
        self._seconds[key] = (second, count)
        return bool(self.demands.rate_limit) and count > self.demands.rate_limit

    def _bulk_later(self, work: Callable[[], None]) -> None:
        self.do_later(self.demands.bulk_delay_s, work)

    def do_later(self, delay_s: float, work: Callable[[], object]) -> None:
        """Do something after a delay, unless the sandbox stops first."""
        self._spawn(self._do_after(delay_s, work))

    async def _do_after(self, delay_s: float, work: Callable[[], object]) -> None:
        if not await self.waits_out(delay_s):
            work()

    async def waits_out(self, delay_s: float) -> bool:
        """Wait; True when the sandbox stops meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), delay_s)
        return self.stopping.is_set()

    async def until_gone(self, request: web.BaseRequest) -> None:
        """Wait until the caller hangs up or the sandbox stops."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        waits: set[asyncio.Future[Any]] = {stopping}
        if isinstance(request.protocol, _Connection):
            waits.add(request.protocol.lost)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()


def _without_key(request: web.BaseRequest) -> dict[str, str]:
    return {
        name: "…" if name.lower() == "apikey" else value for name, value in request.headers.items()
    }
