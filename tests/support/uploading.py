"""A till of which only the file route runs, a turn at a time, in front of a folder as its server.

The agent's own steps are taken; only SSH and the library under it are replaced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sealing import SealingTill

from agent.change import Change, Route
from agent.delivery.batch import sftp
from agent.delivery.batch.sftp_login import Account
from agent.delivery.batch.uploader import Uploader
from agent.delivery.halts import RouteGate
from agent.errors import AgentError
from agent.trial import write_till

POLL_S = 300.0
WAITS_S = [10, 30, 60, 300]


class FolderServer:
    """An SFTP server that is a folder of the till's machine, with everything it refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("import", "elsewhere"):
            (root / name).mkdir(parents=True)
        self.logins = 0
        self.refuses_login: Exception | None = None
        # "open", "stat", "rename", "remove" → names for which that is refused, "" for all of them.
        self.refuses: dict[str, str] = {}
        self.on_sending: Callable[[str], None] = lambda _: None  # gets the name of what comes

    @property
    def folder(self) -> Path:
        return self.root / "import"

    @property
    def files(self) -> list[str]:
        return sorted(place.name for place in self.folder.iterdir())

    def login(self) -> None:
        self.logins += 1
        if self.refuses_login is not None:
            raise self.refuses_login

    def session(self, account: Account) -> sftp._Session:
        return _FolderSession(account, self)

    def place(self, path: str, operation: str) -> Path:
        if self.refuses.get(operation, "\0") in path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return self.root / path.lstrip("/")


class _FolderSession(sftp._Session):
    def __init__(self, account: Account, server: FolderServer) -> None:
        super().__init__(account)
        self._server = server
        self._client: Any = _Files(server)

    async def open(self) -> None:
        self._server.login()
        await self.run("looking for the folder", self._find_folder)

    async def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def run(self, doing: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except AgentError:
            raise
        except Exception as error:
            raise self._in_words(error, doing) from error

    def close_file(self, file: Any) -> None:
        return

    def _is_lost(self) -> bool:
        return False


class _Files:
    """What a session asks of paramiko, done to the folder."""

    def __init__(self, server: FolderServer) -> None:
        self._server = server

    def stat(self, path: str) -> os.stat_result:
        return self._server.place(path, "stat").stat()

    def open(self, path: str, mode: str) -> Any:
        place = self._server.place(path, "open")
        self._server.on_sending(place.name)
        return place.open(mode)

    def posix_rename(self, old: str, new: str) -> None:
        self._server.place(old, "rename").replace(self._server.place(new, "rename"))

    def rename(self, old: str, new: str) -> None:
        self.posix_rename(old, new)

    def remove(self, path: str) -> None:
        self._server.place(path, "remove").unlink()


class UploadingTill(SealingTill):
    """A till that seals what it is told to, and uploads and polls a turn at a time."""

    def __init__(
        self,
        folder: Path,
        server: FolderServer,
        patch: pytest.MonkeyPatch,
        **account: Any,
    ) -> None:
        """`account`: other settings of [sftp] than before."""
        self._sftp = {"poll_s": POLL_S, "host": "127.0.0.1", "port": 1, "username": "till"}
        self._sftp |= {"directory": "/import", **account}
        self.server = server
        patch.setattr(sftp, "_Session", server.session)
        self.folder = folder
        self._lay({})
        super().__init__(folder)
        sftp_settings = self.config.sftp
        assert sftp_settings.known_hosts_file is not None
        self.gate = RouteGate(Route.FILE, self.clock, probe_s=POLL_S)
        self.uploader = Uploader(
            self.config,
            self.book.journal,
            sftp.SftpServer(
                host=sftp_settings.host,
                port=sftp_settings.port,
                username=sftp_settings.username,
                directory=sftp_settings.directory,
                timeout_s=1.0,
                password=lambda: "none",
                private_key_file=None,
                known_hosts_file=sftp_settings.known_hosts_file,
            ),
            self.sealer,
            self.spool,
            self.gate,
            self.clock,
        )

    def _lay(self, fallback: Mapping[str, Any]) -> None:
        (self.folder / "tokens").unlink(missing_ok=True)
        write_till(
            self.folder,
            engage_url="http://127.0.0.1:1",
            api_key="none",
            sftp_host="",
            sftp_port=0,
            sftp_username="",
            sftp_password="none",
            sftp_directory="",
            host_key_line="127.0.0.1 ssh-ed25519 none",
            settings={"sftp": self._sftp, "retry": {"waits_s": WAITS_S}},
        )

    async def file(self) -> tuple[str, Change]:
        """Have one more file written; gives its name, and the change in it."""
        change = await self.book.create()
        await self.sealer.seal_now()
        await self.sealer.turn()
        return (await self.batches())[-1].name, change

    async def upload_turn(self, after_s: float = 0.0) -> None:
        """Let the uploader look around once, so many seconds later."""
        self.clock.pass_s(after_s)
        async with self.uploader._working:
            await self.uploader._turn()

    async def upload_turns(self, for_s: float, every_s: float = 10.0) -> None:
        """Let it look around now and then for a time."""
        for _ in range(round(for_s / every_s)):
            await self.upload_turn(after_s=every_s)
