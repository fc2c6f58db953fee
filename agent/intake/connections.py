"""The connections of callers: how many there may be, and how long each may keep the agent waiting.

Every program on the till can connect, so none may hold a connection for nothing: a request's head
and the answer to it have to move within a time, and what only rests makes room for others. A
connection beyond the limit is told so; health, status and this machine's commands get through even
then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.helpers import set_exception
from aiohttp.http_exceptions import LineTooLong

from agent import events
from agent.errors import AgentError, HeadTooLarge, MalformedRequest, TooSlow
from agent.intake.server import dress, problem, problem_bytes, problem_of

# A request's first line and headers together; a browser's are a tenth of it.
HEAD_LIMIT = 16 * 1024
# So much is read at a time before others have their turn. asyncio would take 256 KiB, and hold it.
_READ_SIZE = 4 * 1024
# Beyond the limit, so many at once are still listened to, to tell them so.
RESERVE = 64
# Of these, nobody is waited for longer: whoever says nothing keeps others from being told.
_RESERVE_S = 2.0
# In a burst places become free at once; only when they do not, callers are told.
_BURST_S = 0.25
# Between two requests of one caller; a POS that comes later opens a new connection.
KEEP_ALIVE_S = 75.0
# What has rested for less may be about to send its next request.
_RESTED_S = 1.0
# A body that nobody wants is read so long, or the caller would miss the answer to it.
_LINGER_S = 2.0


class Connection(web.RequestHandler):
    """One caller's connection; the caller may take its time, but not for ever."""

    __slots__ = (
        "_answered",
        "_head_bytes",
        "_head_since",
        "_is_half_closed",
        "_is_last",
        "_line",
        "_resting_since",
        "_room",
        "_unsent",
        "_unsent_since",
        "is_crowded",
    )

    def __init__(self, room: Connections) -> None:
        super().__init__(
            room.manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None means none, as AppRunner hands it on
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
        )
        self.is_crowded = False  # beyond the limit: only what goes first is served
        self._room = room
        self._is_half_closed = False  # the caller sends no more, and waits for its answer
        self._is_last = False  # the answer that was given ends the connection
        self._line: asyncio.Transport | None = None
        self._answered = 0
        now = self._loop.time()
        self._resting_since = now
        self._head_since: float | None = now  # since when a head is awaited or begun
        self._head_bytes = 0
        self._unsent = 0  # bytes of answers that the caller has not taken
        self._unsent_since = now

    # --- what asyncio and aiohttp call --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first request's head is awaited from now on."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        transport.max_size = _READ_SIZE  # type: ignore[attr-defined] # TLS has no use for it
        self._line = transport
        self._room.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End, whoever ended it."""
        self._room.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; count them as long as they do not make a whole head."""
        super().data_received(data)
        if self.is_busy:
            self._head_since, self._head_bytes = None, 0
        elif data and self._takes_requests:
            self._head_since = self._head_since or self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._refuse(HeadTooLarge())

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
        return self.is_busy and not streams and self.ssl_context is None

    def end_body(self, request: web.BaseRequest) -> None:
        """Let reading this body raise ConnectionError if the rest of it cannot come any more."""
        if self._is_half_closed and not request.content.is_eof():
            set_exception(request.content, ConnectionResetError("The body ended too early."))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, the last one where a body is still missing or others have to wait."""
        if isinstance(resp, web.HTTPException):  # before our own middleware could answer
            resp = problem("MalformedRequest", resp.reason, None, status=resp.status)
            dress(resp)
        if self.is_crowded or not request.content.is_eof():
            resp.force_close()
            self._is_last = True
        self.end_body(request)  # or the framework would wait for what is left of it
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            self._resting_since = self._loop.time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as any other error, and hang up; nothing of it is quoted.

        No route was found for it, so the answer does not say for which call it is.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("An answer was begun already.")
        if status >= 500:
            events.log().error("request_bug", error=type(exc).__name__, exception=exc)
            answer = problem("InternalError", "The agent made a mistake.", None, status=status)
        else:
            too_large = isinstance(exc, LineTooLong)
            answer = problem_of(HeadTooLarge() if too_large else MalformedRequest(), None)
        dress(answer)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Tell of a bug in the way of this house; a body that breaks off is none."""
        error = kw.get("exc_info")
        broken = isinstance(error, web.RequestPayloadError | ConnectionError)
        if isinstance(error, Exception) and not broken:
            events.log().error("request_bug", error=type(error).__name__, exception=error)

    # --- limits -------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Say whether a request is being answered or waits for it."""
        return self._request_count > self._answered

    @property
    def _takes_requests(self) -> bool:
        return not (self._is_last or self._close or self._force_close or self._line is None)

    def resting_since(self) -> float | None:
        """Give since when an answered caller asks for nothing more; None for all others."""
        rests = self._answered and not self.is_busy and self._head_since is None
        return self._resting_since if rests and self._takes_requests else None

    def look(self, now: float, timeout_s: float) -> str | None:
        """Cut the connection if it has kept the agent waiting too long; give the reason then."""
        if self._line is None:
            return None
        if self.is_crowded:
            timeout_s = min(timeout_s, _RESERVE_S)
        unsent = self._line.get_write_buffer_size()
        if not 0 < self._unsent <= unsent:  # the caller takes something, or there is nothing
            self._unsent_since = now
        self._unsent = unsent
        if unsent and now - self._unsent_since > timeout_s:
            self._line.abort()
            return "answer not taken"
        if self._takes_requests and self._head_since and now - self._head_since > timeout_s:
            if not self._head_bytes:
                self.force_close()
                return None
            self._refuse(TooSlow())
            return "head too slow"
        return None

    def give_way(self) -> None:
        """End a connection on which nothing is under way."""
        self.force_close()
        if self._unsent and self._line is not None:
            self._line.abort()

    def _refuse(self, error: AgentError) -> None:
        """Answer what is no whole request yet, and hang up."""
        if self._line is not None and not self._line.is_closing():
            self._line.write(problem_bytes(error))
        self.force_close()


class Connections:
    """All that are open, and the limits that hold for them."""

    def __init__(self, manager: web.Server, *, most: int, timeout_s: float) -> None:
        self.manager = manager
        self.most = most
        self.timeout_s = timeout_s
        self._open: set[Connection] = set()
        self._full_since: float | None = None
        self._next_look: asyncio.TimerHandle | None = None

    def count(self) -> int:
        """Give how many there are, with those who hung up and whose request is still worked on."""
        return len(self.manager.connections)

    def has_room(self, arriving: int) -> bool:
        """Say whether one more may come in now, be it only to be told that there are too many.

        Those who may not wait in the kernel: `arriving` ones are let in and not open yet.
        """
        count = self.count() + arriving
        if count < self.most:
            self._full_since = None
            return True
        now = asyncio.get_running_loop().time()
        self._full_since = self._full_since or now
        return now - self._full_since > _BURST_S and count < self.most + RESERVE

    def opened(self, connection: Connection) -> None:
        """Count a new connection. Beyond the limit, one that only rests makes room for it."""
        self._open.add(connection)
        if self.count() > self.most and not self._make_room():
            connection.is_crowded = True
        if self._next_look is None:
            self._look_again()

    def closed(self, connection: Connection) -> None:
        """Count it no more."""
        self._open.discard(connection)

    def stop(self) -> None:
        """Look after nothing any more."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _make_room(self) -> bool:
        now = asyncio.get_running_loop().time()
        resting = [
            (since, each) for each in self._open if (since := each.resting_since()) is not None
        ]
        since, longest = min(resting, key=lambda pair: pair[0], default=(now, None))
        if longest is None or now - since < _RESTED_S:
            return False
        longest.give_way()
        return True

    def _look_again(self) -> None:
        pause_s = min(1.0, self.timeout_s / 4)
        self._next_look = asyncio.get_running_loop().call_later(pause_s, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        _tell(each.look(now, self.timeout_s) for each in tuple(self._open))
        self._next_look = None
        if self._open:
            self._look_again()


def _tell(reasons: Iterable[str | None]) -> None:
    for reason, count in Counter(filter(None, reasons)).items():
        events.log().info("connections_cut", reason=reason, count=count)
