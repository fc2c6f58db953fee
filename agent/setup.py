"""Puts a till's settings and secrets in place, for a person at the till and for a roll-out.

Every file is replaced as a whole, and the first of them only after all settings were found right.
"""

from __future__ import annotations

import os
import pwd
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import config
from agent.errors import AgentError

SERVICE_USER = "till-agent"

Tables = dict[str, dict[str, Any]]


class SetupProblem(AgentError):
    """A file of the till cannot be written."""

    code = "SetupProblem"


@dataclass(frozen=True)
class Owner:
    """Whose the secrets are."""

    uid: int
    gid: int


def owner() -> Owner:
    """Give the service's user where root sets a till up, else whoever does it."""
    if os.geteuid() == 0:
        try:
            found = pwd.getpwnam(SERVICE_USER)
        except KeyError:
            return caller()
        return Owner(found.pw_uid, found.pw_gid)
    return caller()


def caller() -> Owner:
    """Give whoever runs this."""
    return Owner(os.geteuid(), os.getegid())


def present(path: Path) -> Tables:
    """Give what a settings file sets now; nothing where it is the example or cannot be read."""
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if data == tomllib.loads(config.example()):
        return {}
    return {name: table for name, table in data.items() if isinstance(table, dict)}


def merged(
    tables: Mapping[str, Mapping[str, Any]], more: Mapping[str, Mapping[str, Any]]
) -> Tables:
    """Give all of both; where both say something, `more` counts."""
    names = [*tables, *(name for name in more if name not in tables)]
    return {name: {**tables.get(name, {}), **more.get(name, {})} for name in names}


def save_settings(path: Path, tables: Tables) -> config.Config:
    """Write a settings file, each setting explained; what stood there is kept as *.before-setup.

    Raises ConfigError with all problems, and nothing is changed then; SetupProblem.
    """
    text = config.filled(tables)
    with _told_in_words(path):
        temporary = _written(path, text.encode(), 0o644)
        try:
            settings = _loaded(temporary, tables)
            if path.exists() and path.read_text("utf-8") != text:
                os.replace(_written(path, path.read_bytes(), 0o644), _before(path))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return settings


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".before-setup")


def _loaded(temporary: Path, tables: Tables) -> config.Config:
    unknown = tables.keys() - config.TABLES.keys()
    if unknown:
        raise SetupProblem(f"There is no table [{min(unknown)}]. Nothing was changed.")
    for name, table in tables.items():
        for key in table.keys() - config.settings_of(config.TABLES[name]).keys():
            raise SetupProblem(f"There is no setting {name}.{key}. Nothing was changed.")
    return config.load(temporary)


def save_secret(path: Path, text: str, whose: Owner) -> None:
    """Write a file that only the service can read. Raises SetupProblem."""
    with _told_in_words(path):
        temporary = _written(path, text.rstrip("\r\n").encode() + b"\n", 0o600, whose)
        os.replace(temporary, path)


def _written(path: Path, content: bytes, mode: int, whose: Owner | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if whose is not None and os.geteuid() == 0:
                os.fchown(handle, whose.uid, whose.gid)
            os.fchmod(handle, mode)
            os.fsync(handle)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


@contextmanager
def _told_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupProblem(
            f"{path} cannot be written: {error.strerror}. Run this as root, for example with sudo. "
            "What was written before this file stays; it is safe to repeat."
        ) from error
