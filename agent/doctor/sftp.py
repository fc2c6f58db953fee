"""The SFTP server: connection, pinned host key, login, and a folder that can be written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from agent.config import Config
from agent.delivery.batch.sftp import Finding, SftpServer
from agent.doctor.rows import Row, failed, not_examined, ok
from agent.secrets import path_of, read_secret

LINE, HOST_KEY, LOGIN, FOLDER = "sftp line", "sftp host key", "sftp login", "sftp folder"
NAMES = (LINE, HOST_KEY, LOGIN, FOLDER)

# The server's own steps, by the row in which they stand.
_STEPS = {LINE: ("connect",), HOST_KEY: ("host key",), LOGIN: ("login",)}
_FOLDER_STEPS = ("folder", "write")


class SftpCheck:
    """Does what an upload does, with a few bytes under a name that no importer takes."""

    def __init__(self, config: Config, step_s: float) -> None:
        self._config = config
        self._step_s = step_s

    async def look(self) -> Sequence[Row]:
        """Give the rows of NAMES."""
        if self._config.fallback.transport != "sftp":
            words = "Not used: what goes by file goes through Engage's bulk calls."
            return [ok(name, words) for name in NAMES]
        found = {finding.step: finding for finding in await self._server().check()}
        rows = [_row(name, [found.get(step) for step in steps]) for name, steps in _STEPS.items()]
        return [*rows, _row(FOLDER, [found.get(step) for step in _FOLDER_STEPS])]

    def _server(self) -> SftpServer:
        sftp = self._config.sftp
        password, key = sftp.password_file, sftp.private_key_file
        assert sftp.known_hosts_file is not None  # noqa: S101 - config.load() sees to it
        return SftpServer(
            host=sftp.host,
            port=sftp.port,
            username=sftp.username,
            directory=sftp.directory,
            timeout_s=min(sftp.timeout_s, self._step_s),
            password=partial(read_secret, password) if password is not None else None,
            private_key_file=partial(path_of, key) if key is not None else None,
            known_hosts_file=sftp.known_hosts_file,
        )


def _row(check: str, findings: Sequence[Finding | None]) -> Row:
    for finding in findings:
        if finding is None:
            return not_examined(check, "A step before it failed.")
        if not finding.good:
            what, _, remedy = finding.words.partition(". ")
            return failed(check, f"{what.rstrip('.')}.", remedy)
    return ok(check, " ".join(finding.words for finding in findings if finding is not None))
