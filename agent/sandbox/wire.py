"""Answers as HTTP, and the ways to end a connection."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import struct
import time

from aiohttp import web

from agent.sandbox.calls import Answer

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


def json_response(answer: Answer) -> web.Response:
    """Return the answer as JSON, or without a body and a content type."""
    body = answer.body()
    headers = dict(answer.headers)
    if not body:
        return web.Response(status=answer.status, headers=headers)
    return web.Response(
        status=answer.status, body=body, content_type="application/json", headers=headers
    )


def html_response(status: int, text: str) -> web.Response:
    """Return a page, as portals and proxies do."""
    page = f"<!DOCTYPE html><html><head><title>{text}</title></head><body>{text}</body></html>"
    return web.Response(status=status, text=page, content_type="text/html")


def http_date(ahead_s: float) -> str:
    """Return the moment so many seconds ahead in the form of a Date header."""
    return email.utils.formatdate(time.time() + ahead_s, usegmt=True)


def drop(transport: asyncio.BaseTransport | None, *, reset: bool = False) -> None:
    """Cut a connection at once; with `reset` the other side gets a TCP reset."""
    if not isinstance(transport, asyncio.Transport):
        return
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
