"""What the agent stands on, with versions: for the bundle and for `till-agent --version`."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import ssl

from agent import __version__
from agent.journal import driver

_PACKAGE = "till-agent"


def versions() -> dict[str, str]:
    """Give names and versions: the agent, Python, the machine, SQLite, OpenSSL and libraries."""
    return {
        "till-agent": __version__,
        "Python": platform.python_version(),
        "system": _system(),
        "SQLite": driver.plain().version,
        "OpenSSL": ssl.OPENSSL_VERSION,
        **{name: _version_of(name) for name in _libraries()},
    }


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}, {platform.machine()}"


def _libraries() -> list[str]:
    """Give what the package says it needs, extras included where they are installed."""
    try:
        required = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
        return []
    found = [re.split(r"[\s<>=~!\[;(]", each, maxsplit=1)[0] for each in required]
    optional = {"asyncssh", "sqlcipher3"}
    always = [name for name, each in zip(found, required, strict=True) if "extra ==" not in each]
    return sorted(dict.fromkeys([*always, *(n for n in found if n in optional and _has(n))]))


def _has(name: str) -> bool:
    return _version_of(name) != "missing"


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
