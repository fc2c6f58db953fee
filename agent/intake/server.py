"""The HTTP application: its outermost middleware, and the only table from code to status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from agent import events
from agent.contact import new_id
from agent.errors import (
    AgentError,
    InvalidChange,
    MethodNotAllowed,
    MultipleMatches,
    NotFound,
    TooLarge,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Larger than any contact; aiohttp stops reading beyond it.
BODY_LIMIT = 64 * 1024
# A POS on the same machine sends its body in milliseconds; whoever takes longer ties up a socket.
BODY_S = 10.0

STATUS_OF = {
    "MalformedRequest": 400,
    "NoData": 400,
    "Unauthorized": 401,
    "ForbiddenOrigin": 403,
    "NotFound": 404,
    "ContactNotFound": 404,
    "MethodNotAllowed": 405,
    "Conflict": 409,
    "Discarded": 409,
    "MultipleMatches": 409,
    "PreconditionFailed": 412,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "WrongHost": 421,
    "ValidationError": 422,
    "IdempotencyKeyReused": 422,
    "InternalError": 500,
    "EngageUnreachable": 503,
    "JournalUnavailable": 503,
    "Overloaded": 503,
    "StylesheetProblem": 503,
    "JournalFull": 507,
}

_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    421: "Wrong host",
    422: "Not acceptable data",
    500: "Internal error",
    503: "Not available now",
    507: "Disk full",
}


def problem(
    code: str,
    detail: str,
    request: web.Request,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> web.Response:
    """Give an error as RFC 9457 wants it, with Engage's members beside.

    Members: type, title, status, detail, instance; errorCode, message, requestId; and `more`, for
    example validationErrors: [{field, code, message}].
    """
    status = status or STATUS_OF.get(code, 422)
    request_id = new_id()
    body: dict[str, Any] = {
        "type": f"urn:till-agent:error:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": request.path,
        "errorCode": code,
        "message": detail,
        "requestId": request_id,
        **(more or {}),
    }
    answer = web.json_response(
        body, status=status, content_type="application/problem+json", headers=headers
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Request-Id"] = request_id
    return answer


def problem_of(error: AgentError, request: web.Request) -> web.Response:
    """Give the answer to an error that the agent knows."""
    headers = {}
    if (retry_after_s := getattr(error, "retry_after_s", None)) is not None:
        headers["Retry-After"] = str(retry_after_s)
    more: dict[str, Any] = {}
    if isinstance(error, InvalidChange):
        more["validationErrors"] = [
            {"field": item.field, "code": item.code, "message": item.message}
            for item in error.problems
        ]
    if isinstance(error, MultipleMatches):
        more["messageDetails"] = {"multipleMatchesFound": list(error.contact_ids)}
    if error.code == "Unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    code = error.code if error.code in STATUS_OF else "InternalError"
    return problem(code, " ".join(error.message.split()), request, headers=headers, more=more)


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn everything that goes wrong into a problem+json answer, the framework's own included."""
    try:
        answer = await handler(request)
    except AgentError as error:
        answer = problem_of(error, request)
    except web.HTTPRequestEntityTooLarge:
        answer = problem_of(TooLarge(), request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refused = MethodNotAllowed(f"This address takes {allowed}, not {request.method}.")
        answer = problem_of(refused, request)
        answer.headers["Allow"] = allowed
    except web.HTTPNotFound:
        answer = problem_of(NotFound(), request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = problem("MalformedRequest", error.reason, request, status=error.status)
    except (
        ConnectionError,
        asyncio.IncompleteReadError,
        TimeoutError,
        web.RequestPayloadError,  # broken chunks, or packed and not to be unpacked
    ) as error:
        # The POS went away, or sends too slowly: nothing was stored, and nobody may be listening.
        events.log().info("request_broken", error=type(error).__name__)
        answer = problem("MalformedRequest", "The request did not arrive whole.", request)
    except Exception as error:
        events.log().error("request_bug", error=repr(error), exception=error)
        answer = problem(
            "InternalError",
            "The agent made a mistake. Whether this was stored is not known: send it again with "
            "the same Idempotency-Key.",
            request,
        )
    if not answer.prepared:
        answer.headers["Server"] = "till-agent"
    return answer


async def read_body(request: web.Request) -> bytes:
    """Read a request's body within its limits.

    Raises TooLarge (or aiohttp's own for a chunked one), TimeoutError, ConnectionError.
    """
    if (request.content_length or 0) > BODY_LIMIT:
        raise TooLarge
    if request.content.is_eof():
        body = await request.read()  # it is here already: nothing to wait for
    else:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
    if len(body) > BODY_LIMIT:
        raise TooLarge
    return body


def application(
    routes: Iterable[web.AbstractRouteDef], guard: Callable[..., Awaitable[web.StreamResponse]]
) -> web.Application:
    """Put the application together: problems outermost, then the guard, then the calls."""
    app = web.Application(middlewares=[answer_problems, guard], client_max_size=BODY_LIMIT + 1)
    app.add_routes(routes)
    return app


class Server:
    """The listening socket: bound last at the start, closed first at the end."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=3.0, keepalive_timeout=75.0
        )
        self._host = host
        self._port = port
        self.port = 0  # the one that is really listened on

    async def start(self, *, patience_s: float = 30.0) -> None:
        """Bind and listen; a port that is taken is tried again, because a reboot may free it.

        Raises OSError once the patience is over.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience_s
        while True:
            site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
            try:
                await site.start()
                break
            except OSError as error:
                with contextlib.suppress(RuntimeError):
                    await site.stop()
                if loop.time() >= give_up:
                    raise
                events.log().warning("port_taken", port=self._port, error=error.strerror)
                await asyncio.sleep(0.5)
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Take no more requests and let those under way finish within seconds."""
        await self._runner.cleanup()
