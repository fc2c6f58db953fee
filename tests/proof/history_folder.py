"""The sandbox's SFTP server without SSH: the agent's own steps and faults, on the folder itself.

The agent's session decides what to do in which order; only the library under it is replaced.
Encryption would cost more than all the rest of a history.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtual_time import VirtualLoop

from agent.delivery.batch import sftp
from agent.delivery.batch.sftp_login import Account
from agent.errors import AgentError, HostKeyChanged, NotAuthorised, Unreachable
from agent.sandbox import Sandbox

SANDBOXES: dict[int, Sandbox] = {}  # by SFTP port
DEAD: list[Account] = []  # of processes that were killed
_WRITE_FAULTS = ("hang_write", "cut", "disk_full")


class _HangError(Exception):
    """The server does not answer any more."""


class FolderSession(sftp._Session):
    """A session whose server is a folder of the sandbox."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.sandbox = SANDBOXES[account.port]
        self._client: Any = _Files(self)
        self.lost = False
        self.taken: Path | None = None

    def hits(self, *kinds: str) -> Any:
        return self.sandbox._faults.take("sftp", set(kinds))

    async def open(self) -> None:
        await self._pause()
        if self._is_refused():
            raise self._in_words(ConnectionRefusedError(), "connecting")
        if self.hits("hang_kex"):
            raise await self._late("agreeing on keys")
        if self.hits("host_key_changed"):
            raise HostKeyChanged("Another host key.")
        if self.hits("refuse_login"):
            raise NotAuthorised("The login is refused.")
        await self.run("looking for the folder", self._find_folder)

    async def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def run(self, doing: str, work: Callable[[], Any]) -> Any:
        await self._pause()
        if self._is_refused():
            self.lost = True
        try:
            if self.lost:
                raise EOFError
            result = work()
        except AgentError:
            raise
        except _HangError:
            raise await self._late(doing) from None
        except Exception as error:
            raise self._in_words(error, doing) from error
        if self.taken is not None:
            taken, self.taken = self.taken, None
            await self.sandbox._importer.take(taken)
        await self._pause()
        if self.lost:
            raise self._in_words(EOFError(), doing)
        return result

    def close_file(self, file: Any) -> None:
        return  # its folder refuses nothing then

    def _is_refused(self) -> bool:
        down = self.sandbox.is_down or self.sandbox._faults.standing("sftp", "refuse")
        return bool(down)

    def _is_lost(self) -> bool:
        return self.lost

    async def _late(self, doing: str) -> Unreachable:
        await asyncio.sleep(self._timeout_s)
        await self._pause()
        return Unreachable(f"The server did not answer in time while {doing}.")

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(loop.chance.choice((0.0, 0.002, 0.02, 0.1)))
        if any(account is self._account for account in DEAD):
            await asyncio.Event().wait()  # its process is gone: nothing happens any more


class _Files:
    """What the session asks of paramiko, done to the folder, with the sandbox's faults."""

    def __init__(self, session: FolderSession) -> None:
        self._session = session
        self._folder = session.sandbox.sftp_root

    def _place(self, path: str) -> Path:
        return self._folder / path.lstrip("/")

    def stat(self, path: str) -> os.stat_result:
        if self._session.sandbox._faults.standing("sftp", "folder_missing"):
            raise FileNotFoundError(errno.ENOENT, "No such file")
        return self._place(path).stat()

    def open(self, path: str, _: str) -> Any:
        if self._session.hits("hang_open"):
            raise _HangError
        if self._session.sandbox._faults.standing("sftp", "read_only"):
            raise PermissionError(errno.EACCES, "Permission denied")
        fault = self._session.hits(*_WRITE_FAULTS)
        return contextlib.closing(_File(self._place(path), self._session, fault))

    def posix_rename(self, old: str, new: str) -> None:
        if self._session.sandbox._faults.standing("sftp", "no_posix_rename"):
            raise OSError("Operation unsupported")
        self._rename(old, new)

    def rename(self, old: str, new: str) -> None:
        if self._place(new).exists():
            raise OSError("Failure")
        self._rename(old, new)

    def _rename(self, old: str, new: str) -> None:
        faults = self._session.sandbox._faults
        if faults.standing("sftp", "rename_denied") or faults.standing("sftp", "read_only"):
            raise PermissionError(errno.EACCES, "Permission denied")
        os.replace(self._place(old), self._place(new))
        if faults.take("importer", {"takes_at_once"}):
            self._session.taken = self._place(new)
        if self._session.hits("lose_rename_answer"):
            self._session.lost = True

    def remove(self, path: str) -> None:
        self._place(path).unlink()


class _File:
    def __init__(self, place: Path, session: FolderSession, fault: Any) -> None:
        self._stream = place.open("wb")
        self._session = session
        self._fault = fault
        self._left = int(fault.number("after_bytes")) if fault else 0

    def write(self, block: bytes) -> None:
        if self._fault is None or len(block) <= self._left:
            self._left -= len(block)
            self._stream.write(block)
            return
        self._stream.write(block[: self._left])
        self._stream.flush()
        if self._fault.name == "hang_write":
            raise _HangError
        if self._fault.name == "cut":
            self._session.lost = True
            raise EOFError
        raise OSError("Failure")

    def close(self) -> None:
        self._stream.close()
