"""The settings: what may stand in agent.toml, what it means, and what is wrong with it.

The tables carry unit, default, range and one sentence for each setting; the example file and the
reference are generated from them (`python -m agent.config example|reference`). What a setting does
is known elsewhere.
"""

from agent.config.files import Mount, check_files, file_hints, mount_of, mounts_now
from agent.config.loading import load, load_with_files, warnings
from agent.config.showing import config_hash, describe, example, filled, reference
from agent.config.tables import (
    TABLES,
    Cache,
    Config,
    Engage,
    Fallback,
    Journal,
    Link,
    Log,
    Register,
    Retry,
    Server,
    Sftp,
    Store,
    settings_of,
)

__all__ = [
    "TABLES",
    "Cache",
    "Config",
    "Engage",
    "Fallback",
    "Journal",
    "Link",
    "Log",
    "Mount",
    "Register",
    "Retry",
    "Server",
    "Sftp",
    "Store",
    "check_files",
    "config_hash",
    "describe",
    "example",
    "file_hints",
    "filled",
    "load",
    "load_with_files",
    "mount_of",
    "mounts_now",
    "reference",
    "settings_of",
    "warnings",
]
