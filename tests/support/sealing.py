"""A sealer with a journal and a spool of its own, and no agent around: times are moved by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from journal_helpers import Book, FakeClock

from agent import config
from agent.change import Change, State
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.spool import Spool
from agent.delivery.link import Link
from agent.journal import batches
from agent.journal.batches import Batch
from agent.trial import write_till


class SealingTill:
    """A till of which only the file route up to the spool runs, a turn at a time."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        clock: FakeClock | None = None,
        engage: Mapping[str, Any] | None = None,
    ) -> None:
        """`settings` are those of [fallback], `engage` those of [engage]."""
        self.folder = folder
        self.clock = clock or FakeClock()
        if not (folder / "agent.toml").exists():  # or else it is a copy of one
            self._lay(settings or {}, engage or {})
        self.config = config.load(folder / "agent.toml")
        self.book = Book(folder / "journal.db", self.clock)
        self.link = Link(self.clock, offline_after=1)
        self.spool = Spool(self.config.fallback.spool)
        self.sealer = Sealer(self.config, self.book.journal, self.spool, self.link, self.clock)

    def _lay(self, fallback: Mapping[str, Any], engage: Mapping[str, Any]) -> None:
        write_till(
            self.folder,
            engage_url="http://127.0.0.1:1",
            api_key="none",
            sftp_host="127.0.0.1",
            sftp_port=1,
            sftp_username="none",
            sftp_password="none",
            sftp_directory="/",
            host_key_line="127.0.0.1 ssh-ed25519 none",
            settings={"fallback": dict(fallback), "engage": dict(engage)},
        )

    async def __aenter__(self) -> Self:
        await self.book.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.book.close()

    # --- what happens ---------------------------------------------------------------------------

    def go_offline(self) -> None:
        self.link.failed("no answer")

    def come_back(self) -> None:
        self.link.probe_succeeded()
        self.link.heard()

    async def turn(self, after_s: float = 0.0) -> None:
        """Let the sealer look around once, so many seconds later."""
        self.clock.pass_s(after_s)
        await self.sealer.turn()

    async def seal_only(self) -> None:
        """Seal what waits, and write no file yet."""
        await self.sealer._packer.pack(used_up=0, why="by hand", now=self.clock.monotonic())

    async def upload(self) -> None:
        """Take every written file to the server."""
        for batch in await self.in_state("written"):
            await self.note_uploaded(batch)
            self.spool.remove(batch.name)

    async def take_in(self) -> None:
        """Let Engage take every file off the server, and nobody look up what became of it."""
        for batch in await self.in_state("uploaded"):
            note = partial(batches.note_imported, name=batch.name, verify="none")
            await self.book.journal.write(partial(note, now="2026-11-21T12:00:00.000Z"))

    async def note_uploaded(self, batch: Batch) -> None:
        """Note that the server holds a file, which still lies in the spool."""
        now = "2026-11-21T11:00:00.000Z"
        await self.book.journal.write(partial(batches.note_uploaded, name=batch.name, now=now))

    # --- what is there --------------------------------------------------------------------------

    async def in_state(self, *states: str) -> tuple[Batch, ...]:
        return await self.book.journal.read(partial(batches.in_state, states=states))

    async def batches(self) -> list[Batch]:
        """Give all of them, the oldest first."""
        found = await self.book.journal.read(partial(batches.listing, limit=1000))
        return sorted(found, key=lambda batch: batch.number)

    async def sizes(self) -> list[int]:
        """Give how many contacts each batch has."""
        return [batch.contacts for batch in await self.batches()]

    async def states(self, *changes: Change) -> list[State]:
        return [await self.book.state(change) for change in changes]

    def files(self) -> dict[str, bytes]:
        """Give everything that lies in the spool."""
        folder = self.spool.directory
        return (
            {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
        )
