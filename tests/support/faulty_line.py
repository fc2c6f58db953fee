"""A line between a client and a server that breaks, or goes silent, after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_PIECE = 16 * 1024


@dataclass
class FaultyLine:
    """A loopback port in front of another one. The first connection is spoilt, later ones are not.

    `up` and `down`: after so many bytes from the client or from the server it is cut, or falls
    silent: then nothing passes in that direction, and nobody is told.
    """

    target: int
    up: int | None = None
    down: int | None = None
    falls_silent: bool = False
    port: int = 0
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        spoils = self.connections == 1
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        ends = (writer, back)
        try:
            async with asyncio.TaskGroup() as both:
                up, down = (self.up, self.down) if spoils else (None, None)
                both.create_task(self._pump(reader, back, "up", up, ends))
                both.create_task(self._pump(there, writer, "down", down, ends))
        except* ConnectionError:
            pass
        finally:
            for each in ends:
                each.transport.abort()
            await asyncio.sleep(0)  # the loop closes their sockets only now

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        side: str,
        limit: int | None,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        passed = 0
        while piece := await reader.read(_PIECE):
            if limit is not None and passed + len(piece) > limit:
                writer.write(piece[: limit - passed])
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                if not self.falls_silent:
                    for each in ends:
                        each.transport.abort()
                    return
                while await reader.read(_PIECE):
                    pass  # taken, and never passed on
                return
            passed += len(piece)
            self.passed[side] += len(piece)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()


@asynccontextmanager
async def faulty_line(
    target: int, *, up: int | None = None, down: int | None = None, falls_silent: bool = False
) -> AsyncIterator[FaultyLine]:
    """Open a line to a port of this machine."""
    line = FaultyLine(target, up, down, falls_silent)

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(line.take(reader, writer))
        line._tasks.add(task)
        task.add_done_callback(line._tasks.discard)

    listener = await asyncio.start_server(take, "127.0.0.1", 0)
    line.port = listener.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        listener.close()
        await listener.wait_closed()
        for task in list(line._tasks):
            task.cancel()
        await asyncio.gather(*line._tasks, return_exceptions=True)
