"""The database driver: the standard library's sqlite3, or SQLCipher when the journal is encrypted.

Both have the same shape but classes of their own, so whoever catches an exception or names a Row
takes it from the Driver that opened the connection.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import JournalUnavailable
from agent.secrets import SecretSource, read_secret

# RETURNING came with 3.35, STRICT tables with 3.37.
OLDEST_SQLITE = (3, 37, 0)

_HEADER = 100  # bytes, of a database file

_TEXT = partial(str, encoding="utf-8", errors="replace")

Connection = sqlite3.Connection  # SQLCipher's is a twin without a common base


@dataclass(frozen=True)
class Driver:
    """One way to open a database file."""

    name: str
    module: Any
    key: Callable[[], str] | None = None  # read at each opening; never kept

    @property
    def version(self) -> str:
        """Give SQLite's version, for the page and the support bundle."""
        return str(self.module.sqlite_version)

    def connect(self, path: Path, *, read_only: bool = False) -> Connection:
        """Open a file. Transactions are begun and ended by hand. Raises the module's Error."""
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = self.module.connect(
            uri, uri=True, isolation_level=None, timeout=2.0, check_same_thread=False
        )
        if self.key is not None:
            # PRAGMA takes no parameters; quoting doubles the only character that could end it.
            secret = self.key().replace("'", "''")
            connection.execute(f"PRAGMA key = '{secret}'")
        connection.row_factory = self.module.Row
        # A flipped bit may leave no UTF-8: that one text is damaged, and no query fails for it.
        connection.text_factory = _TEXT
        return connection  # type: ignore[no-any-return]


def with_key(key_file: SecretSource | None) -> Driver:
    """Give the driver for `journal.key_file`: the plain one where none is set."""
    return plain() if key_file is None else encrypted(partial(read_secret, key_file))


def plain() -> Driver:
    """Give the standard library's driver."""
    return _checked(Driver("sqlite", sqlite3))


def encrypted(key: Callable[[], str]) -> Driver:
    """Give SQLCipher's driver; `key` is called at each opening.

    Raises JournalUnavailable where the package is not installed.
    """
    try:
        module = importlib.import_module("sqlcipher3")
    except ImportError as error:
        raise JournalUnavailable(
            "journal.key_file is set, but SQLCipher is not installed. Nothing was opened. "
            "Install it with: pip install 'till-agent[encrypted]'"
        ) from error
    return _checked(Driver("sqlcipher", module, key))


def is_whole(content: bytearray) -> bool:
    """Say whether a database is sound, indexes too, from its bytes in the clear; touches no disk.

    False also for what is no database at all.
    """
    if len(content) < _HEADER:
        return False
    modes = content[18:20]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        try:
            content[18:20] = b"\1\1"  # a database in memory has no -wal
            db.deserialize(content)
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
        except sqlite3.Error:
            return False
        finally:
            content[18:20] = modes


def _checked(driver: Driver) -> Driver:
    version = tuple(int(part) for part in driver.version.split("."))
    if version < OLDEST_SQLITE:
        raise JournalUnavailable(
            f"SQLite {driver.version} is too old for the journal; "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer is needed. Nothing was opened."
        )
    return driver
