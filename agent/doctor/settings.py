"""The settings and the files that they name: what is wrong, unwise, missing, or open to others."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from agent import config as configuration
from agent.config import Config
from agent.doctor.rows import Result, Row, aside, ok, warning
from agent.errors import Problem
from agent.rights import user_name

SETTINGS, FILES = "settings", "files"


class SettingsCheck:
    """Looks at what agent.toml says and names."""

    def __init__(self, config: Config, *, is_the_agent: bool) -> None:
        self._config = config
        self._is_the_agent = is_the_agent  # else whoever typed the command, with their own rights

    async def settings(self) -> Sequence[Row]:
        """Give the row of SETTINGS: what is unwise, and what a person has still to do."""
        return [await aside(self._settings)]

    def _settings(self) -> Row:
        config = self._config
        notes = (*configuration.warnings(config), *configuration.file_hints(config))
        number = configuration.config_hash(config)
        if notes:
            return row_of(SETTINGS, Result.WARNING, notes)
        return ok(SETTINGS, f"They are right ({number}).")

    async def files(self) -> Sequence[Row]:
        """Give the row of FILES: what is missing, or belongs to the wrong user, or is open."""
        return [await aside(self._files)]

    def _files(self) -> Row:
        problems = [*configuration.check_files(self._config), *self._open_ones()]
        if problems:
            return row_of(FILES, Result.FAILED, problems)
        if os.geteuid() == 0 and not self._is_the_agent:
            return warning(
                FILES,
                "They are right for root, who may do everything.",
                "Look with the service's rights, too: runuser -u till-agent -- till-agent doctor",
            )
        return ok(FILES, f"{user_name()} may use all that the settings name; others may not.")

    def _open_ones(self) -> Iterator[Problem]:
        """Find what others may get at: journal and spool hold customers' data."""
        journal = self._config.journal.path
        for place, path in (
            ("[journal] path", journal),
            ("[journal] path", journal.with_name(journal.name + "-wal")),
            ("[fallback] spool", self._config.fallback.spool),
        ):
            with contextlib.suppress(OSError):
                mode = path.stat().st_mode
                if mode & (stat.S_IRWXG | stat.S_IRWXO):
                    yield Problem(
                        place,
                        f"Other users may get at {path} (mode {mode & 0o777:o}).",
                        f"Run: chmod go= {path}",
                    )


def row_of(check: str, result: Result, problems: Sequence[Problem]) -> Row:
    """Put several problems into one row, each with its own remedy."""
    return Row(
        check,
        result,
        " ".join(f"{problem.place}: {problem.what}" for problem in problems),
        " ".join(dict.fromkeys(each.suggestion for each in problems if each.suggestion)),
    )
