"""Shows the settings: the example file, the reference, and what is in force, without secrets."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.config.kinds import TableOf, plain
from agent.config.tables import TABLES, Config, Described, Setting, settings_of
from agent.secrets import Credential

# --- showing ----------------------------------------------------------------------------------


def describe(config: Config) -> dict[str, dict[str, Any]]:
    """Give the effective settings as JSON types, by table; secrets are only named by their file."""
    return {
        table: {key: _json(getattr(getattr(config, table), key)) for key in settings_of(cls)}
        for table, cls in TABLES.items()
    }


def config_hash(config: Config) -> str:
    """Give 12 hex digits that differ when the settings do; what secret files hold has no part."""
    text = json.dumps(describe(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _json(value: Any) -> Any:
    if isinstance(value, Path | Credential):
        return str(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    return value


def toml_text(value: Any) -> str:
    """Give a value as it is written in TOML."""
    if isinstance(value, Path | Credential):
        value = str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings are written alike
    return plain(value)


_EXAMPLE_HEAD = """\
# Settings of till-agent. Generated: python -m agent.config example > agent.toml.example
#
# A line that begins with "#key =" shows the default, or an example where there is none: take the #
# away to change it. Relative paths begin where this file lies. Secrets never stand here: they are
# in files that only the service can read (chmod 600), or in systemd credentials, which are named
# without a slash. Check your changes with: till-agent check
"""


_Given = Mapping[str, Any]  # the settings of one table that are not left at their default


def example() -> str:
    """Give the text of agent.toml.example."""
    return "\n".join([_EXAMPLE_HEAD, *(_example_table(name) for name in TABLES)])


_FILLED_HEAD = """\
# Settings of this till's till-agent.
#
# A line that begins with "#key =" shows the default: take the # away to change it. Relative paths
# begin where this file lies. Secrets never stand here: they are in files that only the service can
# read. Check your changes with: till-agent check
"""


def filled(given: Mapping[str, _Given]) -> str:
    """Give a settings file with these values, by table and key, explained like the example."""
    return "\n".join(
        [_FILLED_HEAD, *(_example_table(name, given.get(name, {})) for name in TABLES)]
    )


def _example_table(name: str, given: _Given | None = None) -> str:
    settings = settings_of(TABLES[name])
    plain = [key for key in settings if not isinstance(settings[key].setting.kind, TableOf)]
    nested = [key for key in settings if key not in plain]
    return "\n".join(
        [
            f"# {_doc(TABLES[name])}\n[{name}]\n",
            *(
                _comment(settings[key].setting) + _example_line(key, settings[key], given)
                for key in plain
            ),
            *(
                _comment(settings[key].setting)
                + _example_nested(name, key, settings[key].setting, given)
                for key in nested
            ),
        ]
    )


def _doc(table: type[Any]) -> str:
    return (table.__doc__ or "").strip()


# What is counted, the sentence says.
_MEASURES = ("seconds", "days", "years", "MiB", "calls per second")


def _comment(setting: Setting) -> str:
    facts = (
        f"in {setting.unit}" if setting.unit in _MEASURES else "",
        setting.kind.limits,
        f"default: {setting.default_text}" if setting.default_text else "",
    )
    known = "; ".join(filter(None, facts))
    text = setting.meaning + (f" ({known})" if known else "")
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 96, break_on_hyphens=False))


def _example_line(key: str, described: Described, given: _Given | None) -> str:
    setting = described.setting
    value = described.default if setting.example is None else setting.example
    is_set = described.required or setting.needed_for_sftp or setting.in_example
    if given is not None:
        is_set = key in given
        value = given.get(key, value)
    return f"{'' if is_set else '#'}{key} = {toml_text(value)}\n"


def _example_nested(table: str, key: str, setting: Setting, given: _Given | None) -> str:
    values = (given or {}).get(key)
    mark = "" if values else "#"
    lines = [
        f"{mark}{_toml_key(item)} = {toml_text(value)}\n"
        for item, value in (values or setting.example).items()
    ]
    return f"{mark}[{table}.{key}]\n" + "".join(lines)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


_REFERENCE_HEAD = """\
# Settings

<!-- Generated: python -m agent.config reference > docs/config.md -->

The agent reads one file, `agent.toml`, when it starts; `till-agent check` tells everything that is
wrong in it at once and changes nothing. Unknown keys are errors, so a slip of the pen cannot pass
for a default. `agent.toml.example` is a file to begin with.

**Paths.** A relative path begins in the folder where `agent.toml` lies.

**Secrets** never stand in `agent.toml`. A *secret file* is one of these:

- a bare name without a slash (`"engage_api_key"`): the systemd credential of that name
  (`LoadCredential=`) if the service was given one, or else the file of that name beside
  `agent.toml`;
- a path with a slash (`"/etc/till-agent/engage_api_key"`, `"./engage_api_key"`): that file.

The file holds nothing but the secret; one line break at its end is ignored. Files that group or
others may read are refused (`chmod 600`); systemd protects its credentials by itself. Secrets are
read again whenever they are needed, so a new key takes effect without a restart when it replaces
the file. A credential is a copy that systemd makes at the start of the service: restart it then.
"""


def reference() -> str:
    """Give the text of docs/config.md."""
    return "\n".join([_REFERENCE_HEAD, *(_reference_table(name) for name in TABLES)])


def _reference_table(name: str) -> str:
    head = (
        "| key | type | unit | default | meaning | range |\n| --- | --- | --- | --- | --- | --- |"
    )
    rows = [_reference_row(key, each) for key, each in settings_of(TABLES[name]).items()]
    return "\n".join([f"## [{name}]\n", f"{_doc(TABLES[name])}\n", head, *rows, ""])


def _reference_row(key: str, described: Described) -> str:
    setting = described.setting
    cells = (
        f"`{key}`",
        setting.kind.name,
        setting.unit,
        _reference_default(described),
        setting.meaning,
        setting.kind.limits,
    )
    return "| " + " | ".join(cells) + " |"


def _reference_default(described: Described) -> str:
    if described.required:
        return "**required**"
    if described.setting.needed_for_sftp:
        return '**required** with transport = "sftp"'
    return described.setting.default_text or f"`{toml_text(described.default)}`"
