"""Reads agent.toml: every problem at once, each with its place and what to write instead."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.config.files import check_files
from agent.config.kinds import (
    TableOf,
    Wrong,
    did_you_mean,
    kind_of,
    letters_of,
    nearest,
    plain,
    shown,
)
from agent.config.showing import toml_text
from agent.config.tables import (
    BULK_MAX,
    TABLES,
    Config,
    Described,
    Server,
    Setting,
    Sftp,
    settings_of,
)
from agent.config.texts import is_loopback
from agent.errors import ConfigError, Problem
from agent.secrets import Credential

# --- loading ----------------------------------------------------------------------------------


def load(path: Path) -> Config:
    """Read agent.toml; relative paths in it begin where it lies. Nothing else is opened.

    Raises ConfigError with all problems at once.
    """
    config, problems, _ = _read(Path(path))
    if problems:
        raise ConfigError(problems)
    return config


def load_with_files(
    path: Path, more: Callable[[Config], Iterable[Problem]] = lambda _: ()
) -> Config:
    """Read agent.toml and look at the files and folders that it names, as check_files() does.

    `more` looks at what only others understand. Raises ConfigError with all problems at once.
    """
    config, problems, bad = _read(Path(path))
    told = bad | {_key_at(problem.place) for problem in problems}
    # Of a setting that is wrong itself, only the default could be looked at.
    looked_at = (*check_files(config), *more(config))
    problems += [each for each in looked_at if _key_at(each.place) not in told]
    if problems:
        raise ConfigError(problems)
    return config


def _read(path: Path) -> tuple[Config, list[Problem], set[str]]:
    data = _parsed_toml(path.name, _content(path))
    reading = _Reading(path.absolute().parent)
    config = _with_bulk_default(reading.config(data), data)
    return config, [*reading.problems, *_clashes(config, reading.bad)], reading.bad


def _key_at(place: str) -> str:
    """Give "table.key" for the place of a problem."""
    return place.lstrip("[").replace("] ", ".")


def _content(path: Path) -> str:
    try:
        # Editors on Windows begin a file with a byte order mark.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        what, remedy = "This file does not exist.", "Begin with a copy of agent.toml.example."
    except PermissionError:
        what, remedy = "This file cannot be read by this user.", f"Run: chmod a+r {path}"
    except OSError as error:
        what, remedy = f"This file cannot be read: {error.strerror}.", ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what, remedy = f"Line {line} is not UTF-8 text.", "Save the file as UTF-8."
    raise ConfigError([Problem(str(path), what, remedy)])


def _parsed_toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        # Only the place is passed on: the parser's words may quote what stands there.
        found = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        place = found[1] if found else "some line"
        twice = re.search(r"overwrite|twice|already|mutate", str(error))
    except RecursionError:
        place, twice = "some line", None
    what = "A key or table stands here twice" if twice else "This is not valid TOML"
    remedy = (
        "Keep one of them."
        if twice
        else "Texts need quotes, lists brackets, and each key a line of its own."
    )
    raise ConfigError([Problem(name, f"{what}: {place}.", remedy)])


def _with_bulk_default(config: Config, data: dict[str, Any]) -> Config:
    fallback = data.get("fallback")
    if config.fallback.transport != "bulk" or "max_contacts" in (fallback or {}):
        return config
    smaller = dataclasses.replace(config.fallback, max_contacts=BULK_MAX)
    return dataclasses.replace(config, fallback=smaller)


class _Reading:
    """Reads all tables, gathers all problems, and puts something usable where one is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[Problem] = []
        self.bad: set[str] = set()  # "table.key" with a problem of its own

    def config(self, data: dict[str, Any]) -> Config:
        for name in sorted(data.keys() - TABLES.keys()):
            self._unknown_table(name, data[name])
        tables_given = {name: raw for name, raw in data.items() if isinstance(raw, dict)}
        meant = data | _as_meant(tables_given, TABLES)
        tables = {name: self._table(name, meant.get(name, {})) for name in TABLES}
        self.problems.sort(key=_order)
        return Config(**tables)

    def _unknown_table(self, name: str, raw: object) -> None:
        near = did_you_mean(name, TABLES) or f"There are {', '.join(TABLES)}."
        if isinstance(raw, dict):
            self._add(f"[{shown(name)}]", "There is no such table.", near)
        elif home := _secret_home("", name):
            self.problems.append(_inline_secret(shown(name), home))
        elif homes := _homes(name):
            self._add(name, "This key stands outside of any table.", f"Move it below {homes}.")
        else:
            self._add(shown(name), "There is no such key.", near)

    def _table(self, name: str, raw: object) -> Any:
        if not isinstance(raw, dict):
            self._add(
                f"[{name}]",
                f"This must be a table, not {kind_of(raw)}.",
                f"Write [{name}] on a line of its own, and its keys below it.",
            )
            self.bad |= {f"{name}.{key}" for key in settings_of(TABLES[name])}
            raw = None
        settings = settings_of(TABLES[name])
        for key in sorted((raw or {}).keys() - settings.keys()):
            self._unknown_key(name, key)
        meant = None if raw is None else _as_meant(raw, settings)
        return TABLES[name](
            **{key: self._value(name, key, described, meant) for key, described in settings.items()}
        )

    def _unknown_key(self, table: str, key: str) -> None:
        place = f"[{table}] {shown(key)}"
        if home := _secret_home(table, key):
            self.problems.append(_inline_secret(place, home))
            self.bad.add(home.lstrip("[").replace("] ", "."))  # not told again as missing
            return
        if homes := _homes(key):
            remedy = f"It belongs below {homes}."
        else:
            known = settings_of(TABLES[table])
            remedy = did_you_mean(key, known) or f"There are {', '.join(known)}."
        self._add(place, "There is no such key.", remedy)

    def _value(self, table: str, key: str, described: Described, raw: dict[str, Any] | None) -> Any:
        if raw is None or key not in raw:
            if described.required and raw is not None:
                self.bad.add(f"{table}.{key}")
                self.problems.append(_missing(table, key, described.setting))
            return self._default(described)
        try:
            return described.setting.kind.read(raw[key], self._folder)
        except Wrong as wrong:
            self.bad.add(f"{table}.{key}")
            for where, what, remedy in wrong.found:
                self._add(_place(table, key, described.setting, where), what, remedy)
            return self._default(described)

    def _default(self, described: Described) -> Any:
        if described.required:  # only reached beside a problem, so it is never used
            return described.setting.kind.read(described.setting.example, self._folder)
        if isinstance(described.default, Credential):
            return Credential(described.default.name, self._folder)
        return described.default

    def _add(self, place: str, what: str, suggestion: str) -> None:
        self.problems.append(Problem(place, what, suggestion))


def _as_meant(raw: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Read misspelt names as what was probably meant, so that one slip is not told twice."""
    slips = [name for name in raw if name not in known and not _secret_home("", name)]
    meant = {nearest(name, known): name for name in slips}
    return raw | {near: raw[name] for near, name in meant.items() if near and near not in raw}


def _place(table: str, key: str, setting: Setting, where: str) -> str:
    if isinstance(setting.kind, TableOf) and where:
        return f"[{table}.{key}] {where.removeprefix(', ')}"
    return f"[{table}] {key}{where}"


def _order(problem: Problem) -> int:
    """Keep the report in the order of the tables, unknown ones first."""
    table = re.split(r"[].]", problem.place)[0].lstrip("[")
    return list(TABLES).index(table) if table in TABLES else -1


def _homes(key: str) -> str:
    homes = [f"[{table}]" for table, cls in TABLES.items() if key in settings_of(cls)]
    return " or ".join(homes)


def _missing(table: str, key: str, setting: Setting) -> Problem:
    return Problem(
        f"[{table}] {key}",
        "This is missing.",
        f"Write for example {key} = {toml_text(setting.example)}.",
    )


_SECRET_HOMES = {  # what people call a secret: where the file that holds it is named
    "apikey": "[engage] api_key_file",
    "key": "[engage] api_key_file",
    "privatekey": "[sftp] private_key_file",
    "passphrase": "[sftp] private_key_file",
    "password": "[sftp] password_file",
    "passwd": "[sftp] password_file",
    "secret": "[engage] api_key_file",
    "token": "[server] tokens_file",
}
_SECRET_HOMES_BY_TABLE = {
    ("journal", "key"): "[journal] key_file",
    ("journal", "password"): "[journal] key_file",
    ("journal", "passphrase"): "[journal] key_file",
    ("engage", "token"): "[engage] api_key_file",
    ("sftp", "key"): "[sftp] private_key_file",
    ("sftp", "secret"): "[sftp] password_file",
}


def _secret_home(table: str, key: str) -> str:
    simple = letters_of(key)
    if simple.endswith("file"):  # password_fil is a slip, password_file in [engage] a wrong place
        return ""
    word = next((word for word in _SECRET_HOMES if simple in (word, word + "s")), "") or next(
        (word for word in _SECRET_HOMES if word != "key" and word in simple), ""
    )
    return _SECRET_HOMES_BY_TABLE.get((table, word)) or _SECRET_HOMES.get(word, "")


def _inline_secret(place: str, home: str) -> Problem:
    remedy = f"Put it in a file that only the service can read and name that file in {home}."
    if home.endswith("tokens_file"):
        remedy = "Make a token with: till-agent token new <name>"
    return Problem(place, "Secrets may not stand in this file.", remedy)


# --- what does not fit together ---------------------------------------------------------------

Clash = Callable[[Config], Iterator[Problem]]


def _clashes(config: Config, bad: set[str]) -> Iterator[Problem]:
    """Give the clashes between values that are each in order, so that nothing is told twice."""
    for depends_on, clash in _CLASHES:
        if not bad.intersection(depends_on):
            yield from clash(config)


def _both_tls_files(config: Config) -> Iterator[Problem]:
    server = config.server
    missing = [
        key for key in ("tls_certificate_file", "tls_key_file") if getattr(server, key) is None
    ]
    if len(missing) == 1:
        yield Problem(
            f"[server] {missing[0]}",
            "This is missing: certificate and key belong together.",
            f"Write for example {_example(missing[0])}.",
        )


def _tls_for_the_network(config: Config) -> Iterator[Problem]:
    server = config.server
    if server.tls_certificate_file or server.tls_key_file or is_loopback(server.host):
        return
    yield Problem(
        "[server] host",
        "Others on the network could reach this address, and without TLS tokens and personal data"
        " would cross it in the clear.",
        'Write "127.0.0.1", or name tls_certificate_file and tls_key_file; each POS needs a token'
        " then too.",
    )


def _example(key: str) -> str:
    return f"{key} = {toml_text(settings_of(Server)[key].setting.example)}"


def _needed(key: str, config: Config) -> Iterator[Problem]:
    # Without files that go up, the folder for them is of no use.
    is_used = config.fallback.transport == "sftp" or (config.uses_sftp and key != "directory")
    if is_used and not getattr(config.sftp, key):
        yield _missing("sftp", key, settings_of(Sftp)[key].setting)


def _one_sftp_login(config: Config) -> Iterator[Problem]:
    given = [config.sftp.password_file, config.sftp.private_key_file]
    if all(given):
        yield Problem(
            "[sftp] password_file",
            "private_key_file is given too, and only one of them can be used.",
            "Delete one of them.",
        )
    if not any(given) and config.uses_sftp:
        yield Problem(
            "[sftp] password_file",
            "This or private_key_file is missing.",
            'Write for example password_file = "sftp_password".',
        )


def _bulk_limit(config: Config) -> Iterator[Problem]:
    if config.fallback.transport == "bulk" and config.fallback.max_contacts > BULK_MAX:
        yield Problem(
            "[fallback] max_contacts",
            f'With transport = "bulk" this must be at most {BULK_MAX}; Engage takes no more.',
            f"Write {BULK_MAX} or less, or delete the line.",
        )


def _export_directory(config: Config) -> Iterator[Problem]:
    here, there = config.register.export_directory, config.sftp.directory
    if here is not None and there and posixpath.normpath(here) == posixpath.normpath(there):
        yield Problem(
            "[register] export_directory",
            "This is sftp.directory, from which Engage imports; its export lies elsewhere.",
            'Write for example "/integration/customerExport", or delete the line.',
        )


def _backlog_rate(config: Config) -> Iterator[Problem]:
    if config.engage.backlog_requests_per_s > config.engage.max_requests_per_s:
        yield Problem(
            "[engage] backlog_requests_per_s",
            "This is more than max_requests_per_s, which holds for all calls.",
            f"Write at most {plain(config.engage.max_requests_per_s)}.",
        )


def _custom_key(config: Config) -> Iterator[Problem]:
    key = config.engage.contact_key
    if key in ("memberNumber", "externalId") and key != config.engage.custom_key:
        yield Problem(
            "[engage] custom_key",
            f"Contacts cannot be looked up: contact_key is {key}, which Engage finds only as its"
            " customKey.",
            f'Write custom_key = "{key}", or choose another contact_key.',
        )


_CLASHES: list[tuple[tuple[str, ...], Clash]] = [
    (("server.tls_certificate_file", "server.tls_key_file"), _both_tls_files),
    (
        ("server.host", "server.tls_certificate_file", "server.tls_key_file"),
        _tls_for_the_network,
    ),
    (("engage.contact_key", "engage.custom_key"), _custom_key),
    (("engage.max_requests_per_s", "engage.backlog_requests_per_s"), _backlog_rate),
    (("fallback.transport", "fallback.max_contacts"), _bulk_limit),
    (("register.export_directory", "sftp.directory"), _export_directory),
    *(
        (
            ("fallback.transport", "register.export_directory", f"sftp.{key}"),
            functools.partial(_needed, key),
        )
        for key, described in settings_of(Sftp).items()
        if described.setting.needed_for_sftp
    ),
    (
        ("fallback.transport", "sftp.password_file", "sftp.private_key_file"),
        _one_sftp_login,
    ),
]

# --- what is allowed but unwise ---------------------------------------------------------------

_UNWISE: tuple[tuple[Callable[[Config], bool], str, str, str], ...] = (
    (
        lambda config: config.engage.create_timeout_s < 10,
        "[engage] create_timeout_s",
        "Engage gives up on a create in under 10 seconds and then says that nothing happened;"
        " ending earlier turns that clear answer into an unknown one, which must be looked up.",
        "Write 11.",
    ),
    (
        lambda config: config.engage.max_requests_per_s >= 50,
        "[engage] max_requests_per_s",
        "Engage recommends fewer than 50 calls a second for the whole chain, and this is one till.",
        "Write 5.",
    ),
    (
        lambda config: config.fallback.verify == "none",
        "[fallback] verify",
        "Imports report nothing back, so a contact that Engage skips stays unseen.",
        'Write "all" or "creates".',
    ),
    (
        lambda config: config.fallback.import_grace_s < 2 * config.sftp.poll_s,
        "[fallback] import_grace_s",
        "The alarm comes before the server was asked twice, so it will often be false.",
        "Write at least twice sftp.poll_s.",
    ),
)


def warnings(config: Config) -> tuple[Problem, ...]:
    """Give what is allowed but probably not meant."""
    return tuple(
        Problem(place, what, remedy) for unwise, place, what, remedy in _UNWISE if unwise(config)
    )
