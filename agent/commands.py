"""The command line. What asks a running agent speaks HTTP to it and never opens its journal."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from agent import __version__, config, events, tokens
from agent.errors import AgentError, ConfigError, JournalError, Problem

DEFAULT_CONFIG = Path("/etc/till-agent/agent.toml")
# Made by a running agent beside its journal (assembly.py), for whoever may read that folder.
COMMAND_TOKEN = "command-token"  # noqa: S105 - a file's name

OK, FAILED, BAD_CONFIG, NO_JOURNAL, NOT_RUNNING = range(5)

_EPILOG = """
exit codes: 0 done, 1 failed, 2 the settings are wrong, 3 the journal or the port cannot be used,
4 no agent answers. Every command takes --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.act(options))
    except ConfigError as error:
        _report("The settings cannot be used:", error.problems)
        return BAD_CONFIG
    except JournalError as error:
        print(f"till-agent: {error.message}", file=sys.stderr)
        return NO_JOURNAL
    except AgentError as error:
        print(f"till-agent: {error.message}", file=sys.stderr)
        return FAILED
    except NotRunning as error:
        print(f"till-agent: {error}", file=sys.stderr)
        return NOT_RUNNING
    except BrokenPipeError:
        # Whoever read our output has seen enough; closing it again must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="till-agent",
        description="Takes customer changes at the till and delivers them to Voyado Engage.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"till-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "run", "run the agent", _run)
    _add(commands, "check", "check the settings and their files; starts nothing", _check)
    _add_status(commands)
    _add_changes(commands)
    _add_batches(commands)
    _add_tokens(commands)
    _add_host_key(commands)
    _add_try_and_demo(commands)
    _add_sandbox(commands)
    return parser


def _add(
    commands: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("TILL_AGENT_CONFIG", DEFAULT_CONFIG)),
        metavar="FILE",
        help="the settings (default: $TILL_AGENT_CONFIG, else %(default)s)",
    )
    parser.set_defaults(act=act)
    return parser


# --- run and check ------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    if problems := config.check_files(settings):
        raise ConfigError(problems)
    for warning in (*config.warnings(settings), *config.file_hints(settings)):
        print(f"till-agent: note: {warning}", file=sys.stderr)
    events.set_up(settings.log.level, settings.log.format)
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(_serve(settings))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    # Everything is closed. A resolver that hangs in a thread must not hold up the end, and the
    # interpreter would wait for it.
    os._exit(code)


async def _serve(settings: config.Config) -> int:
    from agent.assembly import Agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    agent = Agent(settings)
    try:
        await _unless(stop, agent.start())
    except asyncio.CancelledError:
        return OK
    except OSError as error:
        print(
            f"till-agent: cannot listen on {settings.server.host}:{settings.server.port}: "
            f"{error.strerror}. Nothing is lost. Stop what uses that port, or set server.port.",
            file=sys.stderr,
        )
        return NO_JOURNAL
    try:
        await stop.wait()
    finally:
        await agent.stop()
    return OK


async def _unless(stop: asyncio.Event, starting: Coroutine[Any, Any, None]) -> None:
    """Start, but not any longer once a stop is asked for: a port may be taken for a while.

    Raises CancelledError then, and what the start raises.
    """
    task, stopped = asyncio.create_task(starting), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
    await task


def _check(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    if problems := config.check_files(settings):
        raise ConfigError(problems)
    notes = (*config.warnings(settings), *config.file_hints(settings))
    for note in notes:
        print(f"note: {note}")
    print(f"{options.config}: the settings are right ({config.config_hash(settings)}).")
    return OK


def _report(title: str, problems: Sequence[Problem]) -> None:
    print(title, file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print("Nothing was started and nothing was changed.", file=sys.stderr)


# --- asking a running agent ---------------------------------------------------------------------


class NotRunning(Exception):
    """No agent answers where the settings say it listens."""


class _Desk:
    """A running agent, over HTTP."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._settings = None if options.url else config.load(options.config)
        self._url = (options.url or self._address()).rstrip("/")
        # A proxy of the environment has no business between a till and itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _address(self) -> str:
        assert self._settings is not None  # noqa: S101 - set where no --url is given
        server = self._settings.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"http://{host}:{server.port}"

    def _token(self) -> str:
        if token := os.environ.get("TILL_AGENT_TOKEN"):
            return token
        if self._settings is None:
            return ""
        path = self._settings.journal.path.with_name(COMMAND_TOKEN)
        try:
            return path.read_text("ascii").strip()
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise NotRunning(self._nobody()) from error
            raise AgentError(
                f"{path} cannot be read ({error.strerror}). Run this as the agent's user or as "
                "root, or put a token into TILL_AGENT_TOKEN."
            ) from error

    def _nobody(self) -> str:
        return (
            f"no agent answers at {self._url}. What it has stored is safe. Start it with "
            "'systemctl start till-agent' or 'till-agent run'."
        )

    def ask(self, method: str, path: str, body: Any = None, *, public: bool = False) -> Any:
        """Make one call; gives the JSON. Raises NotRunning, and AgentError for a refusal."""
        request = urllib.request.Request(  # noqa: S310 - the address is the agent's own
            f"{self._url}{path}", method=method
        )
        if not public:
            request.add_header("apikey", self._token())
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AgentError(_refusal(error)) from error
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise NotRunning(self._nobody()) from error


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the agent answered HTTP {error.code}."


def _add_asking(
    commands: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = _add(commands, name, text, act)
    parser.add_argument("--url", metavar="URL", help="where the agent listens, instead of --config")
    parser.add_argument("--json", action="store_true", help="print what the agent answered")
    return parser


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(titles), *([str("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _add_status(commands: Any) -> None:
    _add_asking(commands, "status", "say in a sentence how it goes", _status)


def _status(options: argparse.Namespace) -> int:
    picture = _Desk(options).ask("GET", "/agent/v1/status", public=True)
    if options.json:
        _print_json(picture)
        return OK
    print(picture["verdict"]["sentence"])
    link = picture["link"]
    print(f"Line to Engage: {link['state']}" + (f" ({link['reason']})" if link["reason"] else ""))
    for name, route in picture["routes"].items():
        print(
            f"Route {name}: {route['state']}" + (f". {route['reason']}" if route["reason"] else "")
        )
    counts = {state: count for state, count in picture["counts"].items() if count}
    print("Changes: " + (", ".join(f"{n} {state}" for state, n in counts.items()) or "none"))
    for need in picture["needsPerson"]:
        print("Needs a person: " + " ".join(str(part) for part in _sentences(need)))
    return OK


def _sentences(need: Any) -> list[str]:
    if isinstance(need, dict):
        return [str(need[key]) for key in ("what", "whatToDo") if need.get(key)]
    return [str(need)]


def _add_changes(commands: Any) -> None:
    parser = commands.add_parser("changes", help="list, show, retry, mend or discard changes")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = _add_asking(verbs, "list", "list changes, the newest first", _changes_list)
    listing.add_argument("--state", help="only those in this state, for example rejected")
    listing.add_argument("--limit", type=int, default=50, help="at most so many (%(default)s)")
    for name, text, act in (
        ("show", "show one change with all its attempts", _changes_show),
        ("retry", "send a rejected or waiting change again now", _changes_retry),
        ("mend", "put corrected data into a rejected change and send it again", _changes_mend),
        ("discard", "give a rejected change up for good", _changes_discard),
    ):
        verb = _add_asking(verbs, name, text, act)
        verb.add_argument("id", help="the change's id")
        if name == "mend":
            verb.add_argument(
                "file",
                type=argparse.FileType("r", encoding="utf-8"),
                help="the body as the POS would send it now, as JSON; - for standard input",
            )
        if name == "discard":
            verb.add_argument("--reason", default="", help="why, kept with the change")


def _changes_mend(options: argparse.Namespace) -> int:
    try:
        corrected = json.load(options.file)
    except ValueError as error:
        raise AgentError(
            f"{options.file.name} is not JSON: {error}. Nothing was changed."
        ) from error
    change = _Desk(options).ask(
        "PUT", f"/agent/v1/changes/{_quoted(options.id)}/payload", corrected
    )
    return _moved(options, change)


def _changes_list(options: argparse.Namespace) -> int:
    query = {"limit": str(options.limit)} | ({"state": options.state} if options.state else {})
    page = _Desk(options).ask("GET", f"/agent/v1/changes?{urllib.parse.urlencode(query)}")
    if options.json:
        _print_json(page)
        return OK
    _table(
        ("CHANGE", "KIND", "STATE", "ROUTE", "TRIES", "CREATED", "ERROR"),
        [
            (
                item["id"],
                item["kind"],
                item["state"] + (" (unknown)" if item["unknown"] else ""),
                item["route"],
                len(item["attempts"]),
                item["createdAt"],
                (item["error"] or {}).get("code"),
            )
            for item in page["items"]
        ],
    )
    if page["next"]:
        print(f"There are more; the last one shown is {page['next']}.")
    return OK


def _changes_show(options: argparse.Namespace) -> int:
    change = _Desk(options).ask("GET", f"/agent/v1/changes/{_quoted(options.id)}")
    if options.json:
        _print_json(change)
        return OK
    for label, key in (
        ("change", "id"),
        ("kind", "kind"),
        ("state", "state"),
        ("route", "route"),
        ("ref", "contactRef"),
        ("contactId", "contactId"),
        ("batch", "batch"),
        ("taken", "createdAt"),
        ("next try", "dueAt"),
        ("settled", "settledAt"),
        ("waits for", "waitsFor"),
    ):
        if change[key]:
            print(f"{label + ':':<11} {change[key]}")
    if change["unknown"]:
        print("It may have happened in Engage; it is looked up before anything else.")
    if error := change["error"]:
        print(f"wrong:      {error['code']}: {error['message']}")
    for number, attempt in enumerate(change["attempts"], 1):
        words = " ".join(str(attempt[key]) for key in ("status", "code", "message") if attempt[key])
        print(f"try {number}: {attempt['endedAt']} {attempt['route']} {attempt['outcome']} {words}")
    return OK


def _changes_retry(options: argparse.Namespace) -> int:
    change = _Desk(options).ask("POST", f"/agent/v1/changes/{_quoted(options.id)}/retry")
    return _moved(options, change)


def _changes_discard(options: argparse.Namespace) -> int:
    change = _Desk(options).ask(
        "POST", f"/agent/v1/changes/{_quoted(options.id)}/discard", {"reason": options.reason}
    )
    return _moved(options, change)


def _moved(options: argparse.Namespace, change: Any) -> int:
    if options.json:
        _print_json(change)
    else:
        print(f"{change['id']} is {change['state']}.")
    return OK


def _add_batches(commands: Any) -> None:
    parser = commands.add_parser("batches", help="list, show or seal batch files")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_asking(verbs, "list", "list batches, the newest first", _batches_list)
    show = _add_asking(verbs, "show", "show one batch", _batches_show)
    show.add_argument("name", help="the file's name")
    _add_asking(verbs, "seal", "put what waits into files now", _batches_seal)


def _batches_list(options: argparse.Namespace) -> int:
    page = _Desk(options).ask("GET", "/agent/v1/batches")
    if options.json:
        _print_json(page)
        return OK
    _table(
        ("BATCH", "STATE", "CONTACTS", "BYTES", "TRIES", "SEALED"),
        [
            tuple(
                item[key] for key in ("name", "state", "contacts", "bytes", "attempts", "sealedAt")
            )
            for item in page["items"]
        ],
    )
    return OK


def _batches_show(options: argparse.Namespace) -> int:
    _print_json(_Desk(options).ask("GET", f"/agent/v1/batches/{_quoted(options.name)}"))
    return OK


def _batches_seal(options: argparse.Namespace) -> int:
    answer = _Desk(options).ask("POST", "/agent/v1/batches/seal")
    if options.json:
        _print_json(answer)
    else:
        print(f"{answer['sealed']} batches sealed.")
    return OK


# --- tokens -------------------------------------------------------------------------------------


def _add_tokens(commands: Any) -> None:
    parser = commands.add_parser("token", help="make, list or revoke tokens for POS software")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, text, act in (
        ("new", "make a token and print it once", _token_new),
        ("list", "list the names of all tokens", _token_list),
        ("revoke", "revoke a token; it is refused at once", _token_revoke),
    ):
        verb = _add(verbs, name, text, act)
        if name != "list":
            verb.add_argument("name", help="whose token it is, for example pos-1")


def _tokens_file(options: argparse.Namespace) -> Path:
    return config.load(options.config).server.tokens_file


def _token_new(options: argparse.Namespace) -> int:
    token = tokens.new(_tokens_file(options), options.name)
    print(token)
    print("Give it to the POS as apikey; it is not shown again.", file=sys.stderr)
    return OK


def _token_list(options: argparse.Namespace) -> int:
    for name in tokens.names(_tokens_file(options)):
        print(name)
    return OK


def _token_revoke(options: argparse.Namespace) -> int:
    path = _tokens_file(options)
    if tokens.revoke(path, options.name):
        print(f"{options.name} is revoked.")
        return OK
    print(f"till-agent: there is no token named {options.name} in {path}.", file=sys.stderr)
    return FAILED


# --- the SFTP server's key ----------------------------------------------------------------------


def _add_host_key(commands: Any) -> None:
    parser = commands.add_parser("host-key", help="show or pin the SFTP server's key")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add(verbs, "show", "show the server's key and the pinned one; changes nothing", _host_key_show)
    trust = _add(verbs, "trust", "pin the server's key after you have compared it", _host_key_trust)
    trust.add_argument("--fingerprint", help="SHA256:… as Voyado told it; pins without asking")


def _host_key_of(options: argparse.Namespace) -> tuple[config.Sftp, Path, Any, list[Any]]:
    from agent.delivery.batch import host_keys, sftp

    settings = config.load(options.config).sftp
    if settings.known_hosts_file is None:
        raise AgentError("There is no SFTP server in the settings.")
    shown = asyncio.run(sftp.host_key(settings.host, settings.port, settings.timeout_s))
    path = settings.known_hosts_file
    pinned = host_keys.pinned_keys(path, settings.host, settings.port) if path.exists() else []
    return settings, path, shown, pinned


def _host_key_show(options: argparse.Namespace) -> int:
    settings, path, shown, pinned = _host_key_of(options)
    print(f"{settings.host}:{settings.port} shows  {shown}")
    for key in pinned:
        print(f"pinned in {path}: {key}")
    if not pinned:
        print(f"No key is pinned in {path}; nothing is uploaded until one is.")
        return FAILED
    if shown not in pinned:
        print("They differ: nothing is uploaded. Ask Voyado before you trust the new key.")
        return FAILED
    print("They are the same.")
    return OK


def _host_key_trust(options: argparse.Namespace) -> int:
    from agent.delivery.batch import host_keys

    settings, path, shown, pinned = _host_key_of(options)
    if shown in pinned:
        print(f"{shown} is pinned already.")
        return OK
    print(f"{settings.host}:{settings.port} shows {shown}")
    if options.fingerprint is not None:
        if options.fingerprint != shown.fingerprint:
            raise AgentError("The server shows another fingerprint. Nothing was pinned.")
    elif not _agreed("Is that what Voyado told you? Type yes to pin it: "):
        print("Nothing was pinned.")
        return FAILED
    host_keys.trust(path, settings.host, settings.port, shown)
    print(f"Pinned in {path}. A running agent uses it at its next try.")
    return OK


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "yes"
    except EOFError:
        return False


# --- trying it ----------------------------------------------------------------------------------


def _add_try_and_demo(commands: Any) -> None:
    attempt = commands.add_parser(
        "try",
        help="start a sandbox and an agent in front of it",
        description="Start a sandbox and an agent in front of it, on free ports of this machine, "
        "and print what to type. Ctrl-C ends both and leaves nothing behind.",
    )
    attempt.set_defaults(act=_try)
    demo = commands.add_parser(
        "demo",
        help="tell the story of an outage, in under a minute",
        description="Customers sign up, the line is cut, the agent is killed, the line returns: "
        "at the end the sandbox's contacts are compared with what was acknowledged.",
    )
    demo.add_argument("--customers", type=int, default=60, help="how many sign up (%(default)s)")
    demo.add_argument("--seed", type=int, default=1, help="for the moments of chance")
    demo.add_argument("--keep", action="store_true", help="leave it running at the end")
    demo.set_defaults(act=_demo)


def _try(_: argparse.Namespace) -> int:
    from agent import demo

    return demo.try_it()


def _demo(options: argparse.Namespace) -> int:
    from agent import demo

    return demo.tell(customers=options.customers, seed=options.seed, keep=options.keep)


def _add_sandbox(commands: Any) -> None:
    from agent.sandbox import commands as sandbox

    parser = sandbox.add_parser(commands)
    parser.set_defaults(act=sandbox.run)


if __name__ == "__main__":
    sys.exit(main())
