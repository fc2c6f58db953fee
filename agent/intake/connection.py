"""One caller's connection: what is no HTTP at all is answered in the agent's own words, too.

aiohttp answers such requests by itself, before any of our code is asked: as plain text that repeats
what came, and with a trace in the log that does so as well. Both may hold a token or a customer's
data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.helpers import set_exception
from aiohttp.http_exceptions import LineTooLong

from agent import events

# (code, detail, request, status=…) → the answer; problem() of intake/server.py.
Problem = Callable[..., web.Response]

_NOT_HTTP = "This is not HTTP as its standard (RFC 9112) has it. Nothing was stored."
_TOO_LONG = "The address or a header is longer than 8190 bytes. Nothing was stored."
_EXPECTS = "The Expect header asks for what this server does not do. Nothing was stored."
_BUG = (
    "The agent made a mistake. Whether this was stored is not known: send it again with the same "
    "Idempotency-Key."
)


class Connection(web.RequestHandler):
    """aiohttp's connection with our errors."""

    __slots__ = ("_answered_count", "_is_half_closed", "_problem")

    def __init__(self, manager: web.Server, problem: Problem, **options: Any) -> None:
        super().__init__(manager, **options)
        self._problem = problem
        self._is_half_closed = False
        self._answered_count = 0

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio takes both
        """Answer also who closes his own half after sending; aiohttp would close the other, too.

        Nothing more can come: a body that is not whole is refused at once.
        """
        self._is_half_closed = True
        request = self._current_request
        if request is not None:
            self.end_body(request)
        self.close()
        # Who follows a stream has left; and TLS knows no half of a connection.
        streams = request is not None and request.writer.output_size > 0
        owes_an_answer = self._request_count > self._answered_count
        return owes_an_answer and not streams and self.ssl_context is None

    def end_body(self, request: web.BaseRequest) -> None:
        """Let reading this body raise ConnectionError if the rest of it cannot come any more."""
        if self._is_half_closed and not request.content.is_eof():
            set_exception(request.content, ConnectionResetError("The body ended too early."))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read, or what went wrong outside of every handler, and close."""
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun already.")
        if status >= 500:
            events.log().error("request_bug", error=repr(exc), exc_info=exc)
            answer = self._problem("InternalError", _BUG, request)
        else:
            events.log().info("request_broken", error=type(exc).__name__)
            why = _TOO_LONG if isinstance(exc, LineTooLong) else _NOT_HTTP
            answer = self._problem("MalformedRequest", why, request)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; the framework's own refusals, made before any handler, become ours."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            why = _EXPECTS if resp.status == 417 else resp.reason
            refusal = self._problem("MalformedRequest", why, request, status=resp.status)
            refusal.force_close()
            resp = refusal
        self.end_body(request)  # or the framework would wait for what is left of it
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered_count += 1

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log what the framework would trace by itself, without what came."""
        error = kwargs.get("exc_info")
        if isinstance(error, web.RequestPayloadError | ConnectionError):
            # The rest of a body that was refused already.
            events.log().info("request_broken", error=type(error).__name__)
        else:
            events.log().error("request_bug", error=repr(error), exc_info=error)


class Listener(web.Server):
    """Makes a Connection for each caller."""

    def __init__(self, handler: Any, problem: Problem, **options: Any) -> None:
        self._problem = problem
        self._options = {k: v for k, v in options.items() if k != "request_factory"}
        super().__init__(handler, **options)

    def __call__(self) -> web.RequestHandler:
        """Make the connection of one caller."""
        return Connection(self, self._problem, loop=self._loop, **self._options)


class Runner(web.AppRunner):
    """Runs the application on connections of ours."""

    __slots__ = ("_problem",)

    def __init__(self, app: web.Application, problem: Problem, **options: Any) -> None:
        super().__init__(app, **options)
        self._problem = problem

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Listener(
            made.request_handler,
            self._problem,
            request_factory=made.request_factory,
            **self._kwargs,
        )
