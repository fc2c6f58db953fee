"""A till in a folder: settings, secrets and a token for an agent in front of a sandbox.

For trying things out: `till-agent try`, the demo, and the tests stand on the same ground, so what
is shown is what is tested.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import tokens

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Till:
    """Where everything of a trial till lies."""

    folder: Path
    config_path: Path
    token: str


def write_till(
    folder: Path,
    *,
    engage_url: str,
    api_key: str,
    sftp_host: str,
    sftp_port: int,
    sftp_username: str,
    sftp_password: str,
    sftp_directory: str,
    host_key_line: str,
    settings: Mapping[str, Table] | None = None,
) -> Till:
    """Write a till's files into a folder, private to their owner; `settings` go over the usual.

    The pace is quick: a trial has a sandbox of its own and shares no limit with a chain.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _secret(folder / "engage_api_key", api_key)
    _secret(folder / "sftp_password", sftp_password)
    _secret(folder / "known_hosts", host_key_line)
    tables: dict[str, dict[str, Any]] = {
        "store": {"id": "0042", "till": "1", "country_code": "SE"},
        "server": {"port": 0, "tokens_file": "tokens"},
        "journal": {"path": "journal.db", "min_free_mb": 1},
        "engage": {
            "base_url": engage_url,
            "api_key_file": "engage_api_key",
            "phone_region": "SE",
            "max_requests_per_s": 200,
            "backlog_requests_per_s": 200,
        },
        "retry": {"waits_s": [0.5, 1, 2, 5]},
        "link": {"offline_after": 2, "probe_s": 1},
        "fallback": {"spool": "spool", "seal_after_s": 5},
        "sftp": {
            "host": sftp_host,
            "port": sftp_port,
            "username": sftp_username,
            "password_file": "sftp_password",
            "known_hosts_file": "known_hosts",
            "directory": sftp_directory,
            "timeout_s": 10,
            "poll_s": 1,
        },
    }
    for name, table in (settings or {}).items():
        tables.setdefault(name, {}).update(table)
    config_path = folder / "agent.toml"
    config_path.write_text(_toml(tables), "utf-8")
    return Till(folder, config_path, tokens.new(folder / "tokens", "pos"))


def _secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _toml(tables: Mapping[str, Table]) -> str:
    """Write tables of texts, numbers, booleans and lists; JSON's spelling of those is TOML's."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)
