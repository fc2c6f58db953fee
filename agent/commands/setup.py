"""`setup`: asks for what a till needs, writes it, starts the service and examines it all.

Everything that is asked can be given as an option, so a roll-out needs no terminal. Secrets come
from files or are typed unseen; a command line is visible to everybody on the machine.
"""

from __future__ import annotations

import argparse
import getpass
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import config, setup, tokens
from agent.commands import host_key
from agent.commands.doctor import examined, lines
from agent.commands.parts import BAD_CONFIG, FAILED, OK, add, width
from agent.errors import AgentError, ConfigError, RouteError

_SYSTEMD = Path("/run/systemd/system")
_UNIT = "till-agent.service"


@dataclass(frozen=True)
class _Question:
    option: str
    table: str
    key: str
    words: str
    default: str = ""
    sftp: bool = False  # asked only where files go by SFTP


_QUESTIONS = (
    _Question("store", "store", "id", "the store's id in Engage"),
    _Question("till", "store", "till", "the till's number in the store", "1"),
    _Question(
        "engage-url", "engage", "base_url", "Engage's address, such as https://acme.voyado.com"
    ),
    _Question("sftp-host", "sftp", "host", "Engage's SFTP server", sftp=True),
    _Question("sftp-user", "sftp", "username", "the SFTP login", sftp=True),
    _Question("sftp-directory", "sftp", "directory", "its import folder", "/import", sftp=True),
)


class _Incomplete(AgentError):
    """Something is missing and nobody is there to be asked."""

    code = "SetupIncomplete"


def add_setup(commands: Any) -> None:
    """Add `setup`."""
    parser = add(
        commands,
        "setup",
        "ask for what this till needs, write it in place and start the service",
        _setup,
        about="Ask for what this till needs: store, till, Engage's address and key, the SFTP login "
        "and its host key. Write settings and secrets with the right modes, make a token for the "
        "POS, start the service, and examine it all as doctor does. What is given as an option is "
        "not asked, and what stands there already is kept.",
        example="till-agent setup\ntill-agent setup --no-questions --store 0042 --till 3 …",
        codes=(
            (OK, "the till is set up; what doctor finds wrong is printed"),
            (FAILED, "something could not be written, pinned or started; the message says what"),
            (BAD_CONFIG, "the answers are wrong"),
        ),
    )
    for question in _QUESTIONS:
        parser.add_argument(f"--{question.option}", metavar="TEXT", help=question.words)
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="holds the key to Engage's API"
    )
    parser.add_argument(
        "--sftp-password-file", type=Path, metavar="FILE", help="holds the SFTP login's password"
    )
    parser.add_argument(
        "--sftp-private-key-file", type=Path, metavar="FILE", help="the SFTP login's key instead"
    )
    parser.add_argument("--sftp-port", type=int, metavar="N", help="the SFTP server's port (22)")
    parser.add_argument(
        "--sftp-fingerprint",
        metavar="SHA256:…",
        help="the SFTP server's, as Voyado told it; pins its key without asking",
    )
    parser.add_argument(
        "--bulk", action="store_true", help="send what waited by Engage's bulk calls, not by SFTP"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help='any other setting, written as in agent.toml, as in engage.phone_region="SE"; may be '
        "repeated",
    )
    parser.add_argument(
        "--token", default="pos", metavar="NAME", help="whose token is made (%(default)s)"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="write the token there, not to the screen"
    )
    parser.add_argument("--no-start", action="store_true", help="do not start the service")
    parser.add_argument(
        "--no-questions", action="store_true", help="ask nothing; what is missing is an error"
    )


def _setup(options: argparse.Namespace) -> int:
    asks = not options.no_questions and sys.stdin.isatty()
    path: Path = options.config
    whose = setup.owner()
    tables = _answers(options, setup.present(path), asks=asks)
    secrets = _secrets(options, path.parent, tables, asks=asks)
    settings = setup.save_settings(path, tables)
    for place, text in secrets.items():
        setup.save_secret(place, text, whose)
    print(f"Written: {path}" + "".join(f", {place.name}" for place in secrets))
    pinned = _pin(settings, options.sftp_fingerprint, asks=asks)
    _make_token(settings, options)
    problems = config.check_files(settings)
    if problems:
        raise ConfigError(problems)
    if not pinned:
        print("Batch files stay on this till until the SFTP server's key is pinned, with:")
        print("  till-agent host-key trust")
    code = OK if options.no_start else _start()
    _examine(path)
    return code


def _examine(path: Path) -> None:
    """Print what doctor finds; a line that is down is no reason not to be set up."""
    print()
    wrong = [
        row for row in examined(argparse.Namespace(config=path, url=None)) if row["result"] != "ok"
    ]
    if wrong:
        print("\n".join(lines(wrong, width())))
    else:
        print("doctor: all is well.")


# --- answers ------------------------------------------------------------------------------------


def _answers(options: argparse.Namespace, present: setup.Tables, *, asks: bool) -> setup.Tables:
    given = _given(options, present)
    bulk = given.get("fallback", {}).get("transport") == "bulk"
    missing = []
    for question in _QUESTIONS:
        table = given.setdefault(question.table, {})
        told = getattr(options, question.option.replace("-", "_"))
        if told is not None:
            table[question.key] = told
        elif question.sftp and bulk:
            continue
        elif asks:
            table[question.key] = _asked(question, str(table.get(question.key, question.default)))
        elif question.key not in table and question.default:
            table[question.key] = question.default
        elif question.key not in table:
            missing.append(f"--{question.option}")
    if missing:
        raise _Incomplete(
            f"Still needed: {', '.join(missing)}. Nothing was changed. Give them as options, or "
            "run this in a terminal and be asked."
        )
    return given


def _given(options: argparse.Namespace, present: setup.Tables) -> setup.Tables:
    more: setup.Tables = {}
    for text in options.set:
        more = setup.merged(more, _setting(text))
    if options.bulk:
        more = setup.merged(more, {"fallback": {"transport": "bulk"}})
    if options.sftp_port is not None:
        more = setup.merged(more, {"sftp": {"port": options.sftp_port}})
    return setup.merged(present, more)


def _setting(text: str) -> setup.Tables:
    name, _, value = text.partition("=")
    table, _, key = name.strip().partition(".")
    try:
        return {table: {key: tomllib.loads(f"value = {value}")["value"]}}
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise AgentError(
            f"--set {name.strip()}: write it as TABLE.KEY=VALUE with a value as in agent.toml; "
            "texts need quotes. Nothing was changed."
        ) from error


def _asked(question: _Question, default: str) -> str:
    while True:
        hint = f" [{default}]" if default else ""
        answer = input(f"{question.words[0].upper()}{question.words[1:]}{hint}: ").strip()
        if answer or default:
            return answer or default


def _secrets(
    options: argparse.Namespace, folder: Path, tables: setup.Tables, *, asks: bool
) -> dict[Path, str]:
    """Give the secrets that are to be written, by their place; names them in the tables."""
    found: dict[Path, str] = {}
    key = folder / "engage_api_key"
    text = _secret(options.api_key_file, key, "The key to Engage's API", asks=asks)
    if text is not None:
        found[key] = text
        tables["engage"]["api_key_file"] = str(key)
    if tables.get("fallback", {}).get("transport") == "bulk":
        tables.pop("sftp", None)
        return found
    sftp = tables["sftp"]
    sftp.setdefault("known_hosts_file", str(folder / "known_hosts"))
    if options.sftp_private_key_file is not None:
        place = folder / "sftp_private_key"
        sftp.pop("password_file", None)
        sftp["private_key_file"] = str(place)
        found[place] = _read(options.sftp_private_key_file)
    elif "private_key_file" not in sftp or options.sftp_password_file is not None:
        place = folder / "sftp_password"
        text = _secret(options.sftp_password_file, place, "The SFTP login's password", asks=asks)
        sftp.pop("private_key_file", None)
        sftp["password_file"] = str(place)
        if text is not None:
            found[place] = text
    return found


def _secret(given: Path | None, place: Path, words: str, *, asks: bool) -> str | None:
    if given is not None:
        return _read(given)
    kept = " [as before]" if place.exists() else ""
    if asks:
        typed = getpass.getpass(f"{words}{kept} (not shown): ").strip()
        if typed:
            return typed
    if place.exists():
        return None
    raise _Incomplete(f"{words} is missing. Nothing was changed. Give it in a file; see --help.")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise AgentError(f"{path} cannot be read: {reason}. Nothing was changed.") from error


# --- what comes after ---------------------------------------------------------------------------


def _pin(settings: config.Config, fingerprint: str | None, *, asks: bool) -> bool:
    """Pin the SFTP server's key; says whether one is pinned now."""
    sftp = settings.sftp
    if settings.fallback.transport != "sftp" or sftp.known_hosts_file is None:
        return True
    from agent.delivery.batch.sftp import pinned_keys

    try:
        seen = host_key.see(sftp)
    except RouteError as error:
        print(f"The SFTP server's key was not asked for: {error.message}", file=sys.stderr)
        return bool(pinned_keys(sftp.known_hosts_file, sftp.host, sftp.port))
    if seen.same:
        return True
    seen.print_keys()
    key = seen.shown if fingerprint is None else seen.with_fingerprint(fingerprint)
    if key is None:
        raise AgentError(
            "The SFTP server shows another fingerprint than the one given. Its key was not pinned "
            "and the service not started; the settings are written. Ask Voyado which one is right."
        )
    if fingerprint is None and not (asks and host_key.is_what_was_told(seen)):
        return bool(seen.pinned)
    host_key.pin(sftp, seen, key)
    return True


def _make_token(settings: config.Config, options: argparse.Namespace) -> None:
    place = settings.server.tokens_file
    if options.token in tokens.names(place):
        print(f"{options.token} has a token already; it stays.")
        return
    token = tokens.new(place, options.token)
    if options.token_file is not None:
        setup.save_secret(options.token_file, token, setup.caller())
        print(f"The token of {options.token} is in {options.token_file}.")
    else:
        print(f"The token of {options.token}, for the POS as apikey; it is not shown again:")
        print(f"  {token}")


def _start() -> int:
    if not _SYSTEMD.is_dir():
        print("This machine does not run systemd. Start the agent with: till-agent run")
        return OK
    for verb in ("enable", "restart"):
        done = subprocess.run(["systemctl", verb, _UNIT], capture_output=True, text=True)  # noqa: S603, S607
        if done.returncode != 0:
            print(
                f"till-agent: the service cannot be started: {done.stderr.strip()}. The settings "
                "are written. See: journalctl -u till-agent",
                file=sys.stderr,
            )
            return FAILED
    print("till-agent runs, and will at each start of this machine. See: till-agent status")
    return OK
