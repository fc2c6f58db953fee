"""The load: sign-ups over keep-alive connections, each a new customer, as fast as answers come.

A bare asyncio protocol that puts a request together from ready bytes and looks only at an answer's
status and length, so that it costs far less than any server that it measures.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WARM_UP_S = 0.2


@dataclass(frozen=True)
class Target:
    """A server to be measured."""

    name: str
    port: int
    pid: int
    token: str = ""

    def cpu_s(self) -> float:
        """Give the processor time that the server has used so far, all its threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One round: what came back, and how fast."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server, for one answer

    @classmethod
    def of(cls, seconds: list[float], took_s: float, cpu_us: float) -> Measured:
        """Summarise the times of single answers."""
        ordered = sorted(seconds)
        return cls(
            per_s=len(ordered) / took_s,
            p50_ms=ordered[len(ordered) // 2] * 1000,
            p99_ms=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000,
            cpu_us=cpu_us,
        )

    @classmethod
    def median(cls, rounds: list[Measured]) -> Measured:
        """Give the median of each figure."""
        return cls(
            statistics.median(each.per_s for each in rounds),
            statistics.median(each.p50_ms for each in rounds),
            statistics.median(each.p99_ms for each in rounds),
            statistics.median(each.cpu_us for each in rounds),
        )


# Across all rounds and servers no customer comes twice.
_numbers = itertools.count(int(time.time()) % 1_000_000 * 1_000_000)


def measure(target: Target, *, connections: int, seconds: float) -> Measured:
    """Load a server for so long; the first moments do not count. Raises RuntimeError."""
    before = target.cpu_s()
    callers = asyncio.run(_load(target, connections, seconds))
    answers = sum(caller.answers for caller in callers)
    return Measured.of(
        [each for caller in callers for each in caller.seconds],
        seconds,
        cpu_us=(target.cpu_s() - before) / answers * 1_000_000,
    )


async def _load(target: Target, connections: int, seconds: float) -> list[_Caller]:
    loop = asyncio.get_running_loop()
    requests = _requests(target)
    began = loop.time() + WARM_UP_S
    callers = [_Caller(requests, began, began + seconds) for _ in range(connections)]
    for caller in callers:
        await loop.create_connection(lambda made=caller: made, "127.0.0.1", target.port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + 30):
        await asyncio.gather(*(caller.ended for caller in callers))
    return callers


def _requests(target: Target) -> Iterator[bytes]:
    head = (
        f"POST /api/v3/contacts HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
        f"apikey: {target.token}\r\nContent-Type: application/json\r\n"
        "Prefer: respond-async\r\nContent-Length: "
    )
    for number in _numbers:
        body = (
            f'{{"email": "customer.{number}@example.test", "firstName": "Vera", '
            '"lastName": "Lind", "street": "Storgatan 1", "zipCode": "22222", "city": "Lund"}'
        )
        yield f"{head}{len(body)}\r\n\r\n{body}".encode()


class _Caller(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, requests: Iterator[bytes], begins: float, ends: float) -> None:
        self.seconds: list[float] = []
        self.answers = 0  # those of the warm-up too
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._begins = begins
        self._ends = ends
        self._asked = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = time.monotonic()
        if not head.startswith(b"HTTP/1.1 202"):
            self._fail(self._buffer.decode(errors="replace")[:500])
            return
        self._buffer = b""
        self.answers += 1
        if self._begins <= self._asked and now <= self._ends:
            self.seconds.append(now - self._asked)
        if now >= self._ends:
            self._end()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"The connection was lost: {error}")

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked = time.monotonic()
        self._transport.write(next(self._requests))

    def _end(self) -> None:
        assert self._transport is not None
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(why))


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
