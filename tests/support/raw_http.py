"""HTTP by hand: bytes as they are, for callers that no HTTP library would be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE_S = 15.0


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str | None:
        """Give the errorCode, None where there is none."""
        if "json" not in self.headers.get("content-type", ""):
            return None
        data = json.loads(self.body) if self.body else None
        return data.get("errorCode") if isinstance(data, dict) else None


class Line:
    """A connection to an agent."""

    def __init__(self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.host = urlsplit(url).netloc
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str, *, receive_bytes: int | None = None) -> Self:
        """Connect; with `receive_bytes`, so little of an answer has room on our side."""
        parts = urlsplit(url)
        sock = socket.socket(socket.AF_INET)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        except BaseException:
            sock.close()
            raise
        return cls(url, *await asyncio.open_connection(sock=sock))

    def request(
        self, line: str, *headers: str, body: bytes = b"", host: str | None = None
    ) -> bytes:
        """Give a request's bytes. `host=""` leaves the Host header out."""
        named = self.host if host is None else host
        lines = [f"{line} HTTP/1.1", *([f"Host: {named}"] if named else []), *headers]
        if body and not any(each.lower().startswith("content-length") for each in headers):
            lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "surrogateescape") + body

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, *, to_head: bool = False) -> RawAnswer:
        """Read one answer. Raises IncompleteReadError where the agent hangs up first."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = 0 if to_head else int(headers.get("content-length", 0))
            return RawAnswer(int(first.split()[1]), headers, await self._reader.readexactly(length))

    async def ask(self, line: str, *headers: str, **more: Any) -> RawAnswer:
        """Send a request and read its answer."""
        await self.send(self.request(line, *headers, **more))
        return await self.answer()

    async def rest(self) -> bytes:
        """Give all that still comes until the agent hangs up."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read()
        return b""

    def reset(self) -> None:
        """Hang up in the rude way: RST."""
        line = self._writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.close()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@contextlib.asynccontextmanager
async def line_to(url: str, **more: Any) -> AsyncIterator[Line]:
    """Open a connection for a while."""
    line = await Line.open(url, **more)
    try:
        yield line
    finally:
        line.close()
