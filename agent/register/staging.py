"""A file's members between the server and the journal: hidden, and only there once all were read.

What lies on the disk meanwhile are digests, in a file without a name: a crash leaves nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Final, Self

from agent.config import Engage
from agent.identifiers import key_as_stored
from agent.journal.register import Entry
from agent.register.digests import Digests
from agent.register.document import ExportedMember

CHUNK: Final = 50  # members in one unit of work: some milliseconds of the writer's time
_IN_MEMORY: Final = 1024 * 1024  # bytes; what a larger file needs lies on the disk


class Stage:
    """Takes the members of one file, and gives them in chunks."""

    def __init__(self, folder: Path, settings: Engage, digests: Digests, today: date) -> None:
        self._settings = settings
        self._digests = digests
        self._today = today
        # Not in /tmp, which may be memory.
        self._lines = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            _IN_MEMORY, "w+", encoding="ascii", dir=str(folder)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._lines.close()

    def add(self, members: Iterable[ExportedMember]) -> int:
        """Write members down; gives how many. Raises OSError."""
        count = 0
        for member in members:
            entry = self._hidden(member)
            if entry.digests or entry.contact_id is not None:
                self._lines.write(json.dumps(list(vars(entry).values())) + "\n")
                count += 1
        return count

    def chunks(self) -> Iterator[list[Entry]]:
        """Give what was written down, in its order, some members at a time."""
        self._lines.seek(0)
        chunk: list[Entry] = []
        for line in self._lines:
            chunk.append(Entry(*json.loads(line)))
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _hidden(self, member: ExportedMember) -> Entry:
        usual = self._settings.default_contact_type
        is_usual = member.contact_type.casefold() == usual.casefold()
        return Entry(
            is_deleted=member.is_deleted,
            contact_id=member.contact_id,
            contact_type=usual if is_usual else member.contact_type,
            digests={
                name: self._digest(name, value) for name, value in member.keys.items() if value
            },
            emptied=[name for name, value in member.keys.items() if not value],
        )

    def _digest(self, name: str, value: str) -> int:
        key = key_as_stored(name, value, self._settings.phone_region, self._today)
        return self._digests.of(key)
