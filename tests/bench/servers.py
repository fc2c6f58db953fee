"""What the agent is measured against, each in a process of its own: `python -m tests.bench.servers
bare|naive FOLDER` prints its port and serves until it is ended.

bare answers a sign-up without storing it; naive stores each with a commit of its own.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]


def _answer(data: dict[str, str]) -> web.Response:
    return web.json_response({"id": data["email"], "attributes": data}, status=202)


async def bare(request: web.Request) -> web.Response:
    """Read JSON, answer JSON."""
    return _answer(await request.json())


class Naive:
    """The same with a journal as one would write it first: one insert, one commit, one answer."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Naive:
        """Open a file as durable as the agent's."""
        db = await aiosqlite.connect(path)
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE changes (seq INTEGER PRIMARY KEY, email TEXT, body TEXT)")
        await db.execute("CREATE INDEX changes_by_email ON changes (email)")
        await db.commit()
        return cls(db)

    async def handle(self, request: web.Request) -> web.Response:
        """Store, commit, answer."""
        data = await request.json()
        async with self._lock:  # or else tasks commit each other's rows
            await self._db.execute(
                "INSERT INTO changes (email, body) VALUES (?, ?)",
                (data["email"], json.dumps(data)),
            )
            await self._db.commit()
        return _answer(data)

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()


async def _serve(name: str, folder: Path) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    naive = await Naive.open(folder / "naive.db") if name == "naive" else None
    app = web.Application()
    app.router.add_post("/api/v3/contacts", bare if naive is None else naive.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await ended.wait()
    await runner.cleanup()
    if naive is not None:
        await naive.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
