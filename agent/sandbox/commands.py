"""`till-agent sandbox`: run the sandbox, and switch a running one over its control port."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.sandbox.sandbox import Sandbox

_ENGAGE_PORT = 8718
_CONTROL_PORT = 8719
_SFTP_PORT = 8722
_STATE_FILE = Path("run/sandbox.json")
_TIMEOUT_S = 10.0
_FAILED = 1
_UNUSABLE = 2
_CODES = """

exit codes:
    0  done
    1  the sandbox refused it, or none runs there
    2  it cannot work here: no asyncssh, a port is taken, a wrong command line"""
_HELP_WIDTH = 78

_NEEDS_ASYNCSSH = (
    "The sandbox needs the package asyncssh, which is not installed. "
    "Install it with: pip install 'till-agent[sandbox]'"
)


class _CommandError(Exception):
    """A command that cannot be done; one sentence for the person who typed it."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add `sandbox` with its subcommands; `run(args)` carries them out."""
    parser = subparsers.add_parser(
        "sandbox",
        help="an Engage and an SFTP server on this machine, with switchable faults",
        **_help_of(
            "Run an Engage, its SFTP server and its file import on this machine, or switch faults "
            "in a running one. Nothing leaves this machine.",
            "till-agent sandbox\ntill-agent sandbox fault status --status 503 --share 0.3",
        ),
    )
    _add_run_options(parser, suppress=False)
    commands = parser.add_subparsers(dest="sandbox_command", metavar="COMMAND")
    about = "run the sandbox (the default)"
    example = "till-agent sandbox run --import-every-s 0"
    _add_run_options(
        commands.add_parser("run", help=about, **_help_of(_sentence(about), example)), True
    )
    for name, about in _SIMPLE.items():
        example = f"till-agent sandbox {name}"
        _add_common_options(
            commands.add_parser(name, help=about, **_help_of(_sentence(about), example))
        )
    _add_fault_parser(commands)
    _add_export_parser(commands)
    return parser


def _help_of(about: str, example: str) -> dict[str, Any]:
    return {
        "description": textwrap.fill(about, _HELP_WIDTH),
        "epilog": "example:\n" + textwrap.indent(example, "  ") + _CODES,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def run(args: argparse.Namespace) -> int:
    """Carry out `till-agent sandbox …`; returns the exit code.

    0 done; 1 refused by the sandbox, or none runs there; 2 cannot work here (asyncssh is missing,
    a port is taken).
    """
    command = args.sandbox_command or "run"
    try:
        if command == "run":
            return _run_sandbox(args)
        return _COMMANDS[command](args)
    except _CommandError as error:
        print(error, file=sys.stderr)
        return _FAILED


# --- options ------------------------------------------------------------------------------------

_SIMPLE = {
    "down": "take the line down: Engage and SFTP refuse connections",
    "up": "bring the line back",
    "faults": "list the faults that are on, and the kinds there are",
    "clear": "switch all faults off",
    "contacts": "list the contacts that Engage holds",
    "counts": "show what happened so far",
    "log": "show the requests, uploads and imports",
    "import": "import the waiting files now",
    "reset": "forget contacts, logs and faults",
}


def _add_run_options(parser: argparse.ArgumentParser, suppress: bool) -> None:
    """Add the options of `run`; suppressed defaults leave those given before `run` alone."""

    def default(value: Any) -> Any:
        return argparse.SUPPRESS if suppress else value

    for name, port in (
        ("--engage-port", _ENGAGE_PORT),
        ("--sftp-port", _SFTP_PORT),
        ("--control-port", _CONTROL_PORT),
    ):
        parser.add_argument(
            name,
            type=int,
            default=default(port),
            metavar="PORT",
            help=f"0 for any free one; default {port}",
        )
    parser.add_argument(
        "--directory",
        type=Path,
        default=default(None),
        help="holds the SFTP folder and keys; default: a temporary one, removed at the end",
    )
    parser.add_argument(
        "--import-every-s",
        type=float,
        default=default(2.0),
        metavar="SECONDS",
        help="how often the importer takes files (Engage: usually hourly); 0: only on demand",
    )
    parser.add_argument("--snapshot", type=Path, default=default(None), help="keeps the contacts")
    parser.add_argument("--api-key", default=default("sandbox-key"), help="default sandbox-key")
    parser.add_argument("--contact-key", default=default("email"), help="default email")
    parser.add_argument(
        "--write-state",
        type=Path,
        default=default(None),
        metavar="FILE",
        help="write all addresses there as JSON",
    )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--control", metavar="URL", help="control address of the sandbox")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_fault_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    about = "switch a fault on; `faults` lists the kinds"
    example = (
        "till-agent sandbox fault hang\n"
        "till-agent sandbox fault lose_answer --method POST --times 3"
    )
    parser = commands.add_parser("fault", help=about, **_help_of(_sentence(about), example))
    _add_common_options(parser)
    parser.add_argument("kind", metavar="KIND")
    parser.add_argument("--target", help="engage, sftp, importer or exporter")
    parser.add_argument("--times", type=int, help="how many times it hits")
    parser.add_argument("--share", type=float, help="probability of a hit, 0 to 1")
    parser.add_argument("--for-s", type=float, help="seconds until it ends by itself")
    parser.add_argument("--method", help="only requests with this method")
    parser.add_argument("--path", help="only paths that begin so; with $ at the end: only this one")
    parser.add_argument("--delay-s", type=float)
    parser.add_argument("--status", type=int, help="500, 502, 503 or 504")
    parser.add_argument("--retry-after", help="none, seconds, date, absurd or a literal value")
    parser.add_argument("--commit", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--when", help="before or after (the request was read)")
    parser.add_argument("--location", help="where a redirect leads")
    parser.add_argument("--every-s", type=float, help="seconds between two bytes")
    parser.add_argument("--skew-s", type=float, help="how far the Date header is off")
    parser.add_argument("--after-bytes", type=int)
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="keys of contacts to skip")
    parser.add_argument("--every", type=int, help="skip every n-th contact")


def _add_export_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    about = "write the member export: what is new, updated and deleted since the last one"
    parser = commands.add_parser(
        "export", help=about, **_help_of(_sentence(about), "till-agent sandbox export --full")
    )
    _add_common_options(parser)
    parser.add_argument("--full", action="store_true", help="all members, as new")
    parser.add_argument(
        "--without-ids", action="store_true", help="without the contactId of each member"
    )
    parser.add_argument(
        "--per-file", type=int, default=10_000, metavar="N", help="contacts in one file"
    )


_FAULT_OPTIONS = (
    "kind",
    "target",
    "times",
    "share",
    "for_s",
    "method",
    "path",
    "delay_s",
    "status",
    "retry_after",
    "commit",
    "when",
    "location",
    "every_s",
    "skew_s",
    "after_bytes",
    "keys",
    "every",
)


# --- running it ---------------------------------------------------------------------------------


def _run_sandbox(args: argparse.Namespace) -> int:
    try:
        import asyncssh  # noqa: F401 - only to say early and plainly that it is missing
    except ImportError:
        print(_NEEDS_ASYNCSSH, file=sys.stderr)
        return _UNUSABLE
    given: Path | None = args.directory
    directory = given or Path(tempfile.mkdtemp(prefix="till-sandbox-"))
    try:
        return asyncio.run(_serve(args, directory))
    except (OSError, ValueError) as error:
        print(f"The sandbox cannot start: {error}", file=sys.stderr)
        return _UNUSABLE
    finally:
        if given is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _serve(args: argparse.Namespace, directory: Path) -> int:
    from agent.sandbox.sandbox import Sandbox

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Sandbox(
        directory,
        engage_port=args.engage_port,
        sftp_port=args.sftp_port,
        control_port=args.control_port,
        api_key=args.api_key,
        contact_key=args.contact_key,
        import_every_s=args.import_every_s,
        snapshot=args.snapshot,
    ) as sandbox:
        with _state_file(args.write_state, sandbox.addresses()):
            print(_greeting(sandbox), flush=True)
            await ended.wait()
    return 0


@contextlib.contextmanager
def _state_file(path: Path | None, addresses: Mapping[str, Any]) -> Iterator[None]:
    """Keep the addresses in a file for as long as they hold."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(addresses, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _greeting(sandbox: Sandbox) -> str:
    headers = (
        f"-H 'apikey: {sandbox.api_key}' -H 'Content-Type: application/json' "
        "-H 'User-Agent: AcmePOS/1.5'"
    )
    contacts = f"{sandbox.engage_url}/api/v3/contacts"
    return f"""The sandbox runs. Nothing leaves this machine.

Engage     {sandbox.engage_url}   apikey: {sandbox.api_key}
SFTP       {sandbox.sftp_host}:{sandbox.sftp_port}   user: {sandbox.sftp_username}   \
password: {sandbox.sftp_password}
  or key   {sandbox.sftp_private_key_file}
  folder   {sandbox.import_directory}
  export   {sandbox.export_directory}
  host key {sandbox.host_key_fingerprint}
  known_hosts line:
  {sandbox.host_key_line}
Control    {sandbox.control_url}

Create a contact, look it up:
  curl -s {headers} '{contacts}?source=POS&storeExternalId=600' \
-d '{{"email": "vera@example.test", "firstName": "Vera"}}'
  curl -s {headers} '{contacts}/id?email=vera%40example.test'
Take the line down and bring it back:
  curl -s -X POST {sandbox.control_url}/down
  curl -s -X POST {sandbox.control_url}/up

Ctrl-C ends it."""


# --- talking to a running one -------------------------------------------------------------------


def _down(args: argparse.Namespace) -> int:
    answer = _call(args, "POST", "/down")
    return _show(args, answer, lambda: "The line is down.")


def _up(args: argparse.Namespace) -> int:
    answer = _call(args, "POST", "/up")
    return _show(args, answer, lambda: "The line is up.")


def _fault(args: argparse.Namespace) -> int:
    given = {name: getattr(args, name) for name in _FAULT_OPTIONS}
    wish = {name: value for name, value in given.items() if value is not None}
    answer = _call(args, "POST", "/faults", wish)
    return _show(args, answer, lambda: f"On: {_fault_line(answer)}")


def _faults(args: argparse.Namespace) -> int:
    answer = _call(args, "GET", "/faults")

    def text() -> str:
        on = [f"  {_fault_line(each)}" for each in answer["faults"]] or ["  none"]
        kinds = [
            f"  {target} {name}{_parameters(kind['parameters'])}: {kind['about']}"
            for target, of_target in answer["kinds"].items()
            for name, kind in of_target.items()
        ]
        return "\n".join(["On:", *on, "Kinds:", *kinds])

    return _show(args, answer, text)


def _clear(args: argparse.Namespace) -> int:
    answer = _call(args, "DELETE", "/faults")
    return _show(args, answer, lambda: f"Switched off: {answer['cleared']}.")


def _contacts(args: argparse.Namespace) -> int:
    answer = _call(args, "GET", "/contacts")

    def text() -> str:
        lines = [
            f"{each['id']}  {each['meta']['contactType']}  "
            + "  ".join(f"{name}={value}" for name, value in each["attributes"].items())
            for each in answer
        ]
        return "\n".join([*lines, f"{len(answer)} contact(s)"])

    return _show(args, answer, text)


def _counts(args: argparse.Namespace) -> int:
    answer = _call(args, "GET", "/counts")
    return _show(args, answer, lambda: "\n".join(_count_lines(answer)))


def _log(args: argparse.Namespace) -> int:
    answer = _call(args, "GET", "/log")

    def text() -> str:
        requests = [
            f"  {each['method']} {each['path']} -> {each['status'] or 'no answer'}"
            + (f"  (fault {each['fault']})" if each["fault"] else "")
            for each in answer["requests"]
        ]
        uploads = [f"  {each['operation']} {each['path']}" for each in answer["sftp"]]
        return "\n".join(
            ["Requests:", *requests, "SFTP:", *uploads, "Imports:", *_imports(answer["imports"])]
        )

    return _show(args, answer, text)


def _import(args: argparse.Namespace) -> int:
    answer = _call(args, "POST", "/import")
    return _show(args, answer, lambda: f"Files imported: {answer['files']}.")


def _export(args: argparse.Namespace) -> int:
    wish = {"full": args.full, "withIds": not args.without_ids, "perFile": args.per_file}
    answer = _call(args, "POST", "/export", wish)
    return _show(args, answer, lambda: "\n".join(answer["files"]) or "No news, so no file.")


def _reset(args: argparse.Namespace) -> int:
    answer = _call(args, "POST", "/reset")
    return _show(args, answer, lambda: "Everything is forgotten; all faults are off.")


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "down": _down,
    "up": _up,
    "fault": _fault,
    "faults": _faults,
    "clear": _clear,
    "contacts": _contacts,
    "counts": _counts,
    "log": _log,
    "import": _import,
    "export": _export,
    "reset": _reset,
}


def _show(args: argparse.Namespace, answer: Any, text: Callable[[], str]) -> int:
    print(json.dumps(answer, indent=2) if args.json else text())
    return 0


def _fault_line(fault: Mapping[str, Any]) -> str:
    rest = {
        name: value for name, value in fault.items() if name not in {"id", "target", "kind", "hits"}
    }
    head = f"#{fault['id']} {fault['target']} {fault['kind']}"
    return f"{head}{_parameters(rest)}, hits: {fault['hits']}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    return "".join(f" {name}={json.dumps(value)}" for name, value in parameters.items())


def _count_lines(counts: Mapping[str, Any], before: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in counts.items():
        if isinstance(value, dict):
            lines += _count_lines(value, f"{before}{name}.")
        else:
            lines.append(f"{before}{name}: {value}")
    return lines


def _imports(imports: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for each in imports:
        reason = f" ({each['reason']})" if each["reason"] else ""
        lines.append(
            f"  {each['file']}: {each['outcome']}{reason}, {each['contacts']} contacts, "
            f"{each['created']} created, {each['updated']} updated, {each['skipped']} skipped"
        )
        lines += [f"    {note}" for note in each["notes"]]
    return lines


def _call(
    args: argparse.Namespace, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    """Send one control call and return its JSON, or say why not in one sentence."""
    url = _control_url(args)
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise _CommandError(f"{url} is no control address; it looks like http://127.0.0.1:8719")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _CommandError(
            f"No sandbox answers on {url} ({error}). Start one with: till-agent sandbox"
        ) from error
    finally:
        connection.close()
    if response.status >= http.HTTPStatus.BAD_REQUEST:
        raise _CommandError(str(answer["error"]))
    return answer


def _control_url(args: argparse.Namespace) -> str:
    """Return `--control`, else TILL_SANDBOX_CONTROL, else the state file's, else the default."""
    given = args.control or os.environ.get("TILL_SANDBOX_CONTROL")
    if given:
        return str(given)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(_STATE_FILE.read_text(encoding="utf-8"))["controlUrl"])
    return f"http://127.0.0.1:{_CONTROL_PORT}"
