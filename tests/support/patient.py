"""A till without an agent, and a doctor that looks at it from outside."""

from __future__ import annotations

from dataclasses import dataclass

from agent import config
from agent.clock import SystemClock
from agent.doctor.doctor import Doctor
from agent.doctor.rows import Row
from agent.sandbox import Sandbox
from agent.trial import Till


@dataclass
class Patient:
    """A till without an agent, and what a doctor says of it."""

    sandbox: Sandbox
    till: Till

    async def examined(self, *, step_s: float = 5.0) -> dict[str, Row]:
        """Let a doctor look; gives the rows by their names."""
        settings = config.load(self.till.config_path)
        rows = await Doctor(settings, SystemClock(), step_s=step_s).examine()
        return {row.check: row for row in rows}

    async def row(self, check: str, *, step_s: float = 5.0) -> Row:
        return (await self.examined(step_s=step_s))[check]
