"""The export's folder on the SFTP server: what lies there, and what is in it. Never writes."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from agent.delivery.batch.sftp_login import Account, Login
from agent.delivery.batch.sftp_words import ServerRefused
from agent.register.files import ExportFile, is_meant

_PIECE_BYTES: Final = 32 * 1024  # what every SFTP server gives at once
_PIECES: Final = 8  # asked for before the loop goes on with something else


class FileChanged(ServerRefused):
    """A file of the export was changed, or went away, while it was read; it is read again."""


class ExportFolder:
    """The folder of the settings; each use is a login of its own."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenFolder]:
        """Log in for some reading.

        Raises Unreachable, NotAuthorised, HostKeyChanged, ServerRefused, here and while reading.
        """
        login = OpenFolder(self._account)
        try:
            await login.open()
            yield login
        finally:
            await login.close()


class OpenFolder(Login):
    """A login with what the reader does in its folder."""

    async def listed(self) -> list[ExportFile]:
        """Give the files of the export."""
        return await self.run("listing the member export", self._list)

    async def content(self, file: ExportFile) -> AsyncIterator[bytes]:
        """Give a file's content in pieces, as it was when it was listed.

        Raises FileChanged if it is another one at the end.
        """
        doing = f"reading {file.name}"
        handle = await self.run(doing, partial(self._open, file.name))
        left = file.bytes
        while piece := await self.run(doing, partial(self._read, handle, left)):
            left -= len(piece)
            yield piece
        if left or await self.run(doing, partial(self._look, file.name)) != file:
            raise self._changed(file.name)

    def _list(self) -> list[ExportFile]:
        entries = self.files.listdir_attr(self._account.directory)
        return [_file(entry.filename, entry) for entry in entries if _is_export(entry)]

    def _open(self, name: str) -> Any:
        try:
            return self.files.open(self.place(name), "rb")
        except FileNotFoundError:
            raise self._changed(name) from None

    def _changed(self, name: str) -> FileChanged:
        return FileChanged(f"{self.server} has another {name} than a moment ago, or none any more.")

    def _look(self, name: str) -> ExportFile | None:
        try:
            return _file(name, self.files.stat(self.place(name)))
        except FileNotFoundError:
            return None

    def _read(self, handle: Any, left: int) -> bytes:
        pieces = []
        for _ in range(_PIECES):
            piece = handle.read(min(_PIECE_BYTES, left)) if left > 0 else b""
            if not piece:
                break
            self.moved()
            left -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)


def _is_export(entry: Any) -> bool:
    is_file = entry.st_mode is None or stat.S_ISREG(entry.st_mode)
    return is_file and is_meant(entry.filename)


def _file(name: str, facts: Any) -> ExportFile:
    return ExportFile(name, facts.st_size or 0, int(facts.st_mtime or 0))
