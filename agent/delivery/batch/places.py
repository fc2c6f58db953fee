"""Where a batch is now, in a word for people: told by which way it went, not by the settings.

The transport may have been changed since.
"""

from __future__ import annotations

import os
import posixpath

from agent.config import Config
from agent.delivery.batch.sftp import place_of
from agent.delivery.batch.spool import Spool
from agent.journal.batches import Batch


class Places:
    """Tells a path on the till, an address on the server, or a word."""

    def __init__(self, config: Config, spool: Spool) -> None:
        self._sftp = config.sftp
        self._spool = spool

    def place_of(self, batch: Batch) -> str:
        """Say where a batch is."""
        if batch.state in ("filling", "sealed"):
            return "journal"
        if batch.state == "written":
            return self._on_the_till(batch)
        if batch.state == "uploaded":
            return "Engage's queue" if batch.by_bulk else self._on_the_server(batch)
        return "nowhere" if batch.state == "withdrawn" or not batch.contacts else "Engage"

    def _on_the_till(self, batch: Batch) -> str:
        if batch.by_bulk:
            return "journal and Engage's queue"  # some of its calls were sent, or all of them
        # A batch that was to go by bulk calls has no file, and one that was lost is made again.
        path = str(self._spool.path(batch.name))
        return path if os.path.isfile(path) else "journal"

    def _on_the_server(self, batch: Batch) -> str:
        sftp = self._sftp
        here = place_of(sftp.host, sftp.port, sftp.username, sftp.directory)
        if batch.place not in (None, here):
            return f"{batch.place}/{batch.name}"  # of settings that are gone
        if not self._sftp.host:
            return "the SFTP server"
        place = posixpath.join("/", self._sftp.directory, batch.name)
        return f"sftp://{self._sftp.host}:{self._sftp.port}{place}"
