"""Ships sealed batches, oldest first, and notices when Engage has taken them.

Has its own opinion of its own line: files go up while only the API is down. Nothing is ever
rejected here; what does not work is tried again, slowly, and said on the page.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial

from agent import events
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.sftp import SftpServer, Upload
from agent.delivery.batch.spool import Spool
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import HostKeyChanged, JournalError, NotAuthorised, RouteError
from agent.journal import batches
from agent.journal.batches import Batch
from agent.journal.journal import Journal

_TICK_S = 1.0


class Uploader:
    """Takes written batches to the server, and polls until they are gone from it."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        server: SftpServer,
        sealer: Sealer,
        spool: Spool,
        gate: RouteGate,
        clock: Clock,
    ) -> None:
        self._config = config
        self._journal = journal
        self._server = server
        self._sealer = sealer
        self._spool = spool
        self._gate = gate
        self._clock = clock
        self.link = Link(clock, offline_after=config.link.offline_after)
        self.imported = asyncio.Event()  # something may be verified
        self.problem: str | None = None  # what the server refuses, for the page
        self._tries = 0  # since the last success
        self._next_try = 0.0
        self._next_poll = 0.0

    async def run(self) -> None:
        """Upload and poll until cancelled."""
        while True:
            try:
                await self._turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="uploader", error=error.message)
            await until_rung(self._sealer.written, min(_TICK_S, self._config.sftp.poll_s))

    def hurry(self) -> None:
        """A person asked: do not wait for the next try."""
        self._next_try = self._next_poll = 0.0

    async def _turn(self) -> None:
        if not (self._gate.is_open or self._gate.takes_probe()):
            return
        now = self._clock.monotonic()
        written = await self._in_state("written")
        if written and (now >= self._next_try or self._gate.halt):
            await self._guarded(written, self._ship)
        uploaded = await self._in_state("uploaded")
        if uploaded and (now >= self._next_poll or self._gate.halt):
            # Spread, so that a chain's tills do not all ask in the same second.
            wait_s = self._config.sftp.poll_s * random.uniform(0.8, 1.2)  # noqa: S311
            self._next_poll = self._clock.monotonic() + wait_s
            await self._guarded(uploaded, self._poll)

    async def _in_state(self, state: str) -> tuple[Batch, ...]:
        return await self._journal.read(partial(batches.in_state, states=(state,)))

    async def _guarded(self, waiting: tuple[Batch, ...], work) -> None:  # type: ignore[no-untyped-def]
        """Do something at the server; what goes wrong becomes a halt or a later try."""
        try:
            await work(waiting)
        except (NotAuthorised, HostKeyChanged) as error:
            if self._gate.halt is None:
                events.log().error("route_halted", route="file", code=error.code)
            self._gate.stop(error.message)
            await self._note_trouble(waiting, error)
        except RouteError as error:
            self._tries += 1
            wait_s = next_wait(self._config.retry.waits_s, self._tries, random.uniform)
            self._next_try = self._clock.monotonic() + wait_s
            if error.against_link:
                self.link.failed(error.message)
            else:
                # The line is up and the server says no: a person must see to it.
                self.problem = error.message
            await self._note_trouble(waiting, error)
        else:
            self._tries = 0
            self.problem = None
            self.link.heard()
            if self._gate.halt is not None:
                self._gate.cured()
                events.log().info("route_resumed", route="file")

    async def _note_trouble(self, waiting: tuple[Batch, ...], error: RouteError) -> None:
        events.log().warning("upload_failed", code=error.code, error=error.message)
        names = tuple(batch.name for batch in waiting)
        await self._journal.write(partial(batches.note_trouble, names=names, error=error.message))

    async def _ship(self, waiting: tuple[Batch, ...]) -> None:
        uploads = []
        for batch in waiting:
            whole = await self._whole(batch)
            path = self._spool.path(whole.name)
            uploads.append(Upload(path, whole.name, whole.bytes or 0, whole.full_size))
        await self._server.ship(uploads, self._note_uploaded, self._note_full_size)

    async def _whole(self, batch: Batch) -> Batch:
        """Give the batch once its file stands in the spool unchanged; make it again if need be."""
        if batch.sha256 is not None and batch.bytes is not None:
            intact = await asyncio.to_thread(
                self._spool.holds, batch.name, batch.sha256, batch.bytes
            )
            if intact:
                return batch
        events.log().warning("batch_rebuilt", batch=batch.name)
        await self._sealer.write_file(batch)
        return await self._journal.read(partial(batches.get, name=batch.name))

    async def _note_full_size(self, name: str) -> None:
        await self._journal.write(partial(batches.note_full_size, name=name))

    async def _note_uploaded(self, name: str) -> None:
        now = to_text(self._clock.now())
        await self._journal.write(partial(batches.note_uploaded, name=name, now=now))
        await asyncio.to_thread(self._spool.remove, name)
        self._next_poll = 0.0
        events.log().info("batch_uploaded", batch=name)

    async def _poll(self, waiting: tuple[Batch, ...]) -> None:
        """The file's disappearance says that Engage processed it, not that it accepted it."""
        sizes = await self._server.look([batch.name for batch in waiting])
        for batch in waiting:
            if sizes[batch.name] is not None:
                continue
            now = to_text(self._clock.now())
            await self._journal.write(
                partial(
                    batches.note_imported, name=batch.name, now=now, verify=self._journal.verify
                )
            )
            self.imported.set()
            events.log().info("batch_imported", batch=batch.name)
