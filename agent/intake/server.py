"""The HTTP application: its outermost middleware, and the only table from code to status.

Where it listens is known elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import HttpVersion10, web

from agent import events
from agent.contact import is_uuid, new_id
from agent.errors import (
    AgentError,
    InvalidChange,
    MalformedRequest,
    MethodNotAllowed,
    MultipleMatches,
    NotFound,
    TooLarge,
    TooSlow,
)
from agent.intake import addresses
from agent.intake.words import preferred_language

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# The kind of call (write, read, own), HTTP status, seconds.
OnAnswer = Callable[[str, int, float], None]

# Larger than any contact; aiohttp stops reading beyond it.
BODY_LIMIT = 64 * 1024

_READS = ("GET", "HEAD", "OPTIONS")
_METHODS = (*_READS, "POST", "PATCH", "PUT", "DELETE")

CALLER_TIMEOUT_S: web.AppKey[float] = web.AppKey("caller_timeout_s", float)
ON_ANSWER: web.AppKey[OnAnswer] = web.AppKey("on_answer")
# What the guard wants to stand on the answer, whatever the answer is.
ANSWER_HEADERS: web.RequestKey[Mapping[str, str]] = web.RequestKey("answer_headers", Mapping)

# Neither its version nor what it is made of is told to who has no token.
SERVER = "till-agent"

STATUS_OF = {
    "MalformedRequest": 400,
    "NoData": 400,
    "Unauthorized": 401,
    "ForbiddenOrigin": 403,
    "NotFound": 404,
    "ContactNotFound": 404,
    "MethodNotAllowed": 405,
    "TooSlow": 408,
    "Conflict": 409,
    "OpenChanges": 409,
    "Discarded": 409,
    "MultipleMatches": 409,
    "PreconditionFailed": 412,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "WrongHost": 421,
    "ValidationError": 422,
    "IdempotencyKeyReused": 422,
    "TooManyWrongTokens": 429,
    "HeadTooLarge": 431,
    "InternalError": 500,
    "EngageUnreachable": 503,
    "JournalUnavailable": 503,
    "NotWithdrawn": 503,
    "Overloaded": 503,
    "StylesheetProblem": 503,
    "JournalFull": 507,
}


def status_of(error: AgentError) -> int:
    """Give the status with which an error is answered."""
    return STATUS_OF.get(error.code, 500)


_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    417: "Expectation failed",
    421: "Wrong host",
    422: "Not acceptable data",
    429: "Too many wrong tokens",
    431: "Head too large",
    500: "Internal error",
    503: "Not available now",
    507: "Disk full",
}


# Nothing that the agent answers is for another page to load, frame or guess the type of. What a
# page of its own needs beyond that, it says itself.
_FOR_BROWSERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def problem(
    code: str,
    detail: str,
    request: web.Request | None,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> web.Response:
    """Give an error as RFC 9457 wants it, with Engage's members beside.

    Members: type, title, status, detail, instance; errorCode, message, requestId; and `more`, for
    example validationErrors: [{field, code, message}]. Without a request, as when none could be
    read or no route was found for it, the address is not known.
    """
    status = status or STATUS_OF.get(code, 422)
    request_id = events.request_id() or new_id()
    body: dict[str, Any] = {
        "type": f"urn:till-agent:error:{quote(code, safe='')}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": _instance(request),
        "errorCode": code,
        "message": detail,
        "requestId": request_id,
        **(more or {}),
    }
    answer = web.json_response(
        body, status=status, content_type="application/problem+json", headers=headers
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Request-Id"] = answer.headers["X-Request-ID"] = request_id
    answer.headers["Server"] = SERVER
    return answer


def _call(request: web.Request | None) -> str:
    """Name the call by its address without what the caller put into it: `/changes/{id}`."""
    resource = request.match_info.route.resource if request is not None else None
    return resource.canonical if resource is not None else "/"


def _instance(request: web.Request | None) -> str:
    """Give the address of the request; ids stay, all else that a caller put in may be a name."""
    place = _call(request)
    if request is not None:
        for name, value in request.match_info.items():
            place = place.replace(f"{{{name}}}", value.lower() if is_uuid(value) else "*")
    return place


def problem_of(error: AgentError, request: web.Request | None) -> web.Response:
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
        if request is not None:
            headers["Content-Language"] = language_of(request)
    if isinstance(error, MultipleMatches):
        more["messageDetails"] = {"multipleMatchesFound": list(error.contact_ids)}
    if error.code == "Unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    code = error.code if error.code in STATUS_OF else "InternalError"
    return problem(code, " ".join(error.message.split()), request, headers=headers, more=more)


def problem_bytes(error: AgentError) -> bytes:
    """Give an error as it goes over the wire where no request could be read; the last answer."""
    answer = problem_of(error, None)
    body = answer.body
    assert isinstance(body, bytes)  # noqa: S101 - for the type checker
    dress(answer)
    answer.headers["Connection"] = "close"
    answer.headers["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and turn everything that goes wrong into a problem+json answer.

    The id is the POS's own (`X-Request-ID`), where that can stand in a log line, and else a new
    one; the answer and every line that is logged meanwhile carry it.
    """
    given = request.headers.get("X-Request-ID", "")
    with events.following(given if events.is_sane_id(given) else new_id()):
        began = time.monotonic()
        answer = await _answer(request, handler)
        seconds = time.monotonic() - began
        _note_answer(request, answer, seconds)
        if not answer.prepared:
            answer.headers["X-Request-ID"] = events.request_id() or ""
            request.app[ON_ANSWER](_kind_of_call(request), answer.status, seconds)
    return answer


def _note_answer(request: web.Request, answer: web.StreamResponse, seconds: float) -> None:
    """Log a request by what it did: its call without its parameters, and the change it made."""
    worth_a_line = request.method not in _READS or answer.status >= 500
    events.log().log(
        logging.INFO if worth_a_line else logging.DEBUG,
        "request_answered",
        method=request.method if request.method in _METHODS else "other",
        call=_call(request),
        status=answer.status,
        change=answer.headers.get("Agent-Change"),
        state=answer.headers.get("Agent-State"),
        ms=round(seconds * 1000),
    )


def _kind_of_call(request: web.Request) -> str:
    if not request.path.startswith("/api/"):
        return "own"
    return "read" if request.method in _READS else "write"


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        answer = await handler(request)
    except AgentError as error:
        answer = problem_of(error, request)
    except web.HTTPRequestEntityTooLarge:
        answer = problem_of(TooLarge(), request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        asked = request.method if request.method in _METHODS else "that"
        refused = MethodNotAllowed(f"This address takes {allowed}, not {asked}.")
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
        web.RequestPayloadError,  # broken chunks, or packed and not to be unpacked
    ) as error:
        # The POS went away: nothing was stored, and nobody may be listening.
        events.log().info("request_broken", error=type(error).__name__)
        answer = problem("MalformedRequest", "The request did not arrive whole.", request)
    except Exception as error:
        events.log().error("request_bug", error=type(error).__name__, exception=error)
        answer = problem(
            "InternalError",
            "The agent made a mistake. Whether this was stored is not known: send it again with "
            "the same Idempotency-Key.",
            request,
        )
    return answer


def language_of(request: web.Request) -> str:
    """Give the language in which this caller wants to be told what is wrong."""
    return preferred_language(", ".join(request.headers.getall("Accept-Language", [])))


@web.middleware
async def check_address(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse an address that could be read in more than one way, and HTTP/0.9."""
    if request.version < HttpVersion10:
        raise MalformedRequest("The request names no version of HTTP. Nothing was stored.")
    addresses.check_target(request.raw_path)
    addresses.check_names(name for name, _ in request.query.items())
    return await handler(request)


def dress(answer: web.StreamResponse) -> None:
    """Put the headers on that every answer has."""
    answer.headers["Server"] = SERVER
    for name, value in _FOR_BROWSERS.items():
        answer.headers.setdefault(name, value)


async def _before_sending(request: web.Request, answer: web.StreamResponse) -> None:
    dress(answer)
    # Of a stream, which sends its headers before its handler ends.
    if (request_id := events.request_id()) is not None:
        answer.headers["X-Request-ID"] = request_id
    answer.headers.update(request.get(ANSWER_HEADERS, {}))


async def read_body(request: web.Request) -> bytes:
    """Read a request's body within its limits.

    Raises TooLarge, TooSlow, ConnectionError.
    """
    if (request.content_length or 0) > BODY_LIMIT:
        raise TooLarge
    # Of a connection of ours; a test's own server has aiohttp's.
    if (end_body := getattr(request.protocol, "end_body", None)) is not None:
        end_body(request)
    if request.content.is_eof():
        body = await request.read()  # it is here already: nothing to wait for
    else:
        body = await _read_as_it_comes(request)
    if len(body) > BODY_LIMIT:
        raise TooLarge
    return body


async def _read_as_it_comes(request: web.Request) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    parts = []
    length = 0
    try:
        async with asyncio.timeout(request.app[CALLER_TIMEOUT_S]):
            # Not request.read(): that holds what came twice while it waits for more.
            while part := await request.content.readany():
                parts.append(part)
                length += len(part)
                if length > BODY_LIMIT:
                    raise TooLarge
    except TimeoutError:
        raise TooSlow from None
    return b"".join(parts)


def application(
    routes: Iterable[web.RouteDef],
    guard: Callable[..., Awaitable[web.StreamResponse]],
    *,
    caller_timeout_s: float,
    on_answer: OnAnswer = lambda call, status, seconds: None,
) -> web.Application:
    """Put the application together: problems outermost, then guard and address, then the calls.

    `on_answer` gets what each answer took.
    """
    middlewares = [answer_problems, guard, check_address]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_LIMIT + 1)
    app[CALLER_TIMEOUT_S] = caller_timeout_s
    app[ON_ANSWER] = on_answer
    app.on_response_prepare.append(_before_sending)
    app.add_routes(
        web.RouteDef(
            each.method, each.path, each.handler, {**each.kwargs, "expect_handler": _later}
        )
        for each in routes
    )
    return app


async def _later(_: web.Request) -> None:
    """Do not ask for a body before the guard let its request in; read_body() does."""
