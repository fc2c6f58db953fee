"""A sealed batch → its file in the spool: checked, described in the journal, then named.

The journal is first: a batch exists there before its file does, and the file can be made again from
it at any time, byte for byte.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from agent import events
from agent.config import Config
from agent.delivery.batch.document import CannotBeWritten, Element, write_document
from agent.delivery.batch.gate import stylesheet_of
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.schema import NotOurDocument, validate
from agent.delivery.batch.spool import TEMPORARY_SUFFIX, Prepared, Spool, SpoolProblem
from agent.delivery.batch.stylesheet import NotTurned, Stylesheet, StylesheetProblem
from agent.journal import batches
from agent.journal.batches import Batch
from agent.journal.journal import Journal

_PAGE = 200  # contacts read at once


class Writer:
    """Writes batch files, one page of contacts at a time."""

    def __init__(self, config: Config, journal: Journal, spool: Spool) -> None:
        self._config = config
        self._journal = journal
        self._spool = spool

    async def write_file(self, batch: Batch) -> None:
        """Make a batch's file in the spool: manifest first, then the name. Safe to repeat.

        Raises SpoolProblem, StylesheetProblem.
        """
        loop = asyncio.get_running_loop()
        prepared = await asyncio.to_thread(self._prepare, batch, loop)
        await self._journal.write(
            partial(
                batches.note_manifest,
                number=batch.number,
                sha256=prepared.sha256,
                size=prepared.bytes,
            )
        )
        await asyncio.to_thread(self._spool.publish, prepared)
        events.log().info("batch_written", batch=batch.name, bytes=prepared.bytes)

    def _prepare(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> Prepared:
        """Write and check the document; runs in a thread and fetches its pages from the journal."""
        elements = self._elements(batch, loop)
        stylesheet = stylesheet_of(self._config)
        try:
            if stylesheet is None:
                return self._spool.prepare(batch.name, partial(write_document, elements), validate)
            return self._turned(batch, elements, Stylesheet(stylesheet))
        except (NotOurDocument, CannotBeWritten) as error:
            # Each contact passed the gate before it was sealed: this is not one contact's fault.
            raise SpoolProblem(
                f"The batch file {batch.name} does not come out as it should: {error} It is tried "
                "again, and other files go; if that goes on, check the disk."
            ) from None

    def _turned(
        self, batch: Batch, elements: Iterator[Element], stylesheet: Stylesheet
    ) -> Prepared:
        def build(stream: BinaryIO) -> int:
            # Beside the file, not in /tmp, for it holds personal data; the sweep knows its ending.
            with tempfile.NamedTemporaryFile(
                dir=self._spool.directory, prefix=".plain-", suffix=TEMPORARY_SUFFIX
            ) as canonical:
                count = write_document(elements, cast(BinaryIO, canonical))
                canonical.flush()
                validate(Path(canonical.name))
                stylesheet.turn(Path(canonical.name), stream)
            return count

        try:
            return self._spool.prepare(batch.name, build)
        except NotTurned as error:
            raise StylesheetProblem(
                f"The stylesheet {stylesheet.path} {error.what} on the batch {batch.name}, so it "
                "waits. Correct the stylesheet; other batches go on."
            ) from None

    def _elements(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> Iterator[Element]:
        start = 0
        while True:
            read = partial(batches.entries, number=batch.number, start=start, limit=_PAGE)
            page = asyncio.run_coroutine_threadsafe(self._journal.read(read), loop).result()
            for entry in page:
                yield element_of(entry, self._config.engage.contact_key)
            if len(page) < _PAGE:
                return
            start = page[-1].position + 1
