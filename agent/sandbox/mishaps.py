"""How a request goes wrong: one function for each fault that spoils an answer of Engage.

Each does its own part of the work, or none, and returns the answer; None when there is none and
the connection is gone.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.sandbox.calls import Answer, Call
from agent.sandbox.errors import (
    EngageError,
    key_is_being_created,
    request_time_out,
    too_many,
    unauthorized,
)
from agent.sandbox.faults import Fault
from agent.sandbox.wire import drop, html_response, http_date, json_response

if TYPE_CHECKING:
    from agent.sandbox.engage import EngageServer

_BOMB_PIECE = 2**20
_BOMB_PIECES = 2**10

_Response = web.StreamResponse | None


@dataclass(frozen=True)
class Hit:
    """A fault that hits a request, which has been read."""

    server: EngageServer
    call: Call
    fault: Fault
    request: web.BaseRequest

    def refused(self, error: EngageError) -> web.Response:
        """Return a refusal in Engage's shape."""
        return json_response(self.server.calls.refusal(error))

    def commit_if_wanted(self) -> None:
        """Do the work where the fault says `commit`."""
        if self.fault.flag("commit"):
            self.server.reply(self.call)

    def key(self) -> tuple[str, str] | None:
        """Return what a create reserves, None where the body cannot be read."""
        try:
            return self.server.register.key_of(self.call.json_object())
        except EngageError:
            return None


async def _hang(hit: Hit) -> _Response:
    await hit.server.until_gone(hit.request)
    return None


async def _slow(hit: Hit) -> _Response:
    delay_s = hit.fault.number("delay_s")
    if not hit.call.is_create:
        await hit.server.waits_out(delay_s)
        return json_response(hit.server.reply(hit.call))
    key = hit.key()
    if not hit.server.register.reserve(key):
        return hit.refused(key_is_being_created())
    try:
        await hit.server.waits_out(min(delay_s, hit.server.demands.create_timeout_s))
    finally:
        hit.server.register.release(key)
    if delay_s > hit.server.demands.create_timeout_s:
        return hit.refused(request_time_out())
    return json_response(hit.server.reply(hit.call))


async def _reset(hit: Hit) -> _Response:
    drop(hit.request.transport, reset=True)
    return None


async def _lose_answer(hit: Hit) -> _Response:
    hit.server.reply(hit.call)
    drop(hit.request.transport)
    return None


async def _late_commit(hit: Hit) -> _Response:
    key = hit.key() if hit.call.is_create and hit.call.is_key_unique else None
    if not hit.server.register.reserve(key):
        return hit.refused(key_is_being_created())

    def commit() -> None:
        hit.server.register.release(key)
        hit.server.reply(hit.call)

    hit.server.do_later(hit.fault.number("delay_s"), commit)
    drop(hit.request.transport)
    return None


async def _status(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    code = int(hit.fault.number("status"))
    if code == 500:
        return hit.refused(EngageError(code, "InternalServerError", "An error has occurred"))
    return html_response(code, "The gateway cannot reach the server")


async def _rollback_504(hit: Hit) -> _Response:
    await hit.server.waits_out(hit.fault.number("delay_s"))
    return hit.refused(request_time_out())


async def _committed_504(hit: Hit) -> _Response:
    hit.server.reply(hit.call)
    return await _rollback_504(hit)


async def _throttle(hit: Hit) -> _Response:
    return hit.refused(too_many(_retry_after(hit.fault)))


async def _unauthorised(hit: Hit) -> _Response:
    return hit.refused(unauthorized())


async def _forbidden(hit: Hit) -> _Response:
    error = EngageError(403, "Forbidden", "The API key has no right to this.")
    return hit.refused(error)


async def _portal(hit: Hit) -> _Response:
    return html_response(200, "Welcome to the guest network. Please accept the terms.")


async def _portal_511(hit: Hit) -> _Response:
    return html_response(511, "Network Authentication Required")


async def _proxy_407(hit: Hit) -> _Response:
    response = html_response(407, "Proxy Authentication Required")
    response.headers["Proxy-Authenticate"] = 'Basic realm="proxy.example.test"'
    return response


async def _redirect(hit: Hit) -> _Response:
    response = html_response(302, "Moved")
    response.headers["Location"] = hit.fault.text("location")
    return response


async def _html_404(hit: Hit) -> _Response:
    return html_response(404, "Not Found")


async def _drip(hit: Hit) -> _Response:
    answer = (
        hit.server.reply(hit.call) if hit.fault.flag("commit") else Answer(200, {"dripped": True})
    )
    body = answer.body() or b"{}"
    response = web.StreamResponse(status=answer.status)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(hit.request)
    for place in range(len(body)):
        if await hit.server.waits_out(hit.fault.number("every_s")) or hit.request.transport is None:
            return None
        await _write(response, body[place : place + 1])
    return response


async def _endless(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    response = web.StreamResponse(status=200)
    response.content_type = "application/json"
    response.enable_chunked_encoding()
    await response.prepare(hit.request)
    piece = b'"' + b"a" * 2**16
    while not hit.server.stopping.is_set() and hit.request.transport is not None:
        if not await _write(response, piece):
            break
        piece = b"a" * 2**16
        await asyncio.sleep(0)  # writing alone need not give way to others
    return None


async def _gzip_bomb(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    # Members one after the other are one valid gzip stream (RFC 1952, section 2.2).
    body = gzip.compress(b" " * _BOMB_PIECE) * _BOMB_PIECES
    headers = {"Content-Encoding": "gzip"}
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _empty_201(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    return web.Response(status=201)


async def _wrong_shape(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    return json_response(Answer(200, {"result": {"status": "ok"}}))


async def _not_json(hit: Hit) -> _Response:
    hit.commit_if_wanted()
    status = 201 if hit.call.is_create else 200
    return web.Response(
        status=status, body=b'{"id": "6f1c0a52-3f0e', content_type="application/json"
    )


async def _accepted(hit: Hit) -> _Response:
    hit.server.do_later(hit.fault.number("delay_s"), lambda: hit.server.reply(hit.call))
    return web.Response(status=202)


async def _busy(hit: Hit) -> _Response:
    return hit.refused(key_is_being_created())


def _retry_after(fault: Fault) -> str | None:
    wish = fault.text("retry_after")
    delay_s = fault.number("delay_s")
    spelled = {
        "none": None,
        "seconds": str(round(delay_s)),
        "date": http_date(delay_s),
        "absurd": str(10**12),
    }
    return spelled.get(wish, wish)


async def _write(response: web.StreamResponse, piece: bytes) -> bool:
    """Write; False when the caller has hung up."""
    try:
        await response.write(piece)
    except ConnectionError:
        return False
    return True


MISHAPS: dict[str, Callable[[Hit], Coroutine[Any, Any, _Response]]] = {
    "hang": _hang,
    "slow": _slow,
    "reset": _reset,
    "lose_answer": _lose_answer,
    "late_commit": _late_commit,
    "status": _status,
    "rollback_504": _rollback_504,
    "504_committed": _committed_504,
    "throttle": _throttle,
    "unauthorised": _unauthorised,
    "forbidden": _forbidden,
    "portal": _portal,
    "portal_511": _portal_511,
    "proxy_407": _proxy_407,
    "redirect": _redirect,
    "html_404": _html_404,
    "drip": _drip,
    "endless": _endless,
    "gzip_bomb": _gzip_bomb,
    "empty_201": _empty_201,
    "wrong_shape": _wrong_shape,
    "not_json": _not_json,
    "accepted": _accepted,
    "busy": _busy,
}
