"""One examination: every check, at most one examination at a time, kept for a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from agent.clock import Clock
from agent.config import Config, Engage
from agent.delivery.engage.client import EngageClient
from agent.delivery.engage.pace import Pace
from agent.delivery.link import Link
from agent.doctor import disk, engage, machine, settings, sftp
from agent.doctor.rows import Check, Result, Row, examine, warning
from agent.errors import Problem
from agent.secrets import read_secret

# An examination makes traffic, a login among it: who asks again at once gets the same rows.
_FRESH_S = 5.0
# For one step, such as a connection or a disk that syncs; as long as a person waits for a row.
_STEP_S = 10.0


class Doctor:
    """Examines a till from inside a running agent, with its client and port, or from outside."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        client: EngageClient | None = None,
        *,
        step_s: float = _STEP_S,
    ) -> None:
        self._config = config
        self._clock = clock
        self._client = client
        self._step_s = step_s
        self._alone = asyncio.Lock()
        self._rows: tuple[Row, ...] = ()
        self._taken: float | None = None  # monotonic
        self.port: int | None = None  # where the agent listens, in whose process this is

    async def examine(self) -> tuple[Row, ...]:
        """Give a row for each check. Raises nothing: what breaks is a row, too."""
        async with self._alone:
            now = self._clock.monotonic()
            if self._taken is None or now - self._taken >= _FRESH_S:
                self._rows = await self._examine()
                self._taken = self._clock.monotonic()
            return self._rows

    async def _examine(self) -> tuple[Row, ...]:
        if self._client is not None:
            return await examine(self._checks(self._client))
        client = self._own_client(self._config.engage)
        try:
            await client.open()
        except OSError:  # engage.ca_file cannot be used, as the rows of files and TLS say
            client = self._own_client(replace(self._config.engage, ca_file=None))
            await client.open()
        try:
            return await examine(self._checks(client))
        finally:
            await client.close()

    def _own_client(self, settings: Engage) -> EngageClient:
        return EngageClient(
            settings,
            partial(read_secret, settings.api_key_file),
            Link(self._clock, offline_after=self._config.link.offline_after),
            Pace(
                self._clock,
                per_s=settings.max_requests_per_s,
                backlog_per_s=settings.backlog_requests_per_s,
            ),
            self._clock,
        )

    def _checks(self, client: EngageClient) -> list[Check]:
        step_s = self._step_s
        files = settings.SettingsCheck(self._config, is_the_agent=self.port is not None)
        room = disk.DiskCheck(self._config)
        till = machine.MachineCheck(self._config, self.port, step_s)
        way = engage.EngageCheck(self._config, client, self._clock, step_s)
        server = sftp.SftpCheck(self._config, step_s)
        return [
            Check((settings.SETTINGS,), files.settings, step_s),
            Check((settings.FILES,), files.files, step_s),
            Check((disk.SPACE,), room.space, step_s),
            Check((disk.SPEED,), room.speed, step_s),
            Check((machine.JOURNAL,), till.journal, step_s),
            # Each of their steps has the time of one.
            Check(engage.NAMES, way.look, 5 * step_s),
            Check(sftp.NAMES, server.look, 5 * step_s),
            Check((machine.PORT,), till.port, step_s),
            Check((machine.AGENT,), till.agent, step_s),
            Check((machine.SERVICE,), machine.service, step_s),
        ]


NAMES = (
    *(settings.SETTINGS, settings.FILES),
    *(disk.SPACE, disk.SPEED, machine.JOURNAL),
    *engage.NAMES,
    *sftp.NAMES,
    *(machine.PORT, machine.AGENT, machine.SERVICE),
)


async def without_settings(problems: Sequence[Problem]) -> tuple[Row, ...]:
    """Give the rows where the settings cannot be used: they say where everything else is."""
    service = Check((machine.SERVICE,), machine.service, _STEP_S)
    rows = {row.check: row for row in await examine([service])}
    rows[settings.SETTINGS] = settings.row_of(settings.SETTINGS, Result.FAILED, problems)
    return tuple(rows.get(name) or _unknown(name) for name in NAMES)


def _unknown(check: str) -> Row:
    return warning(check, "Not examined: the settings cannot be used.", "Correct them first.")
