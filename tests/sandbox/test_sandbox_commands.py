"""`till-agent sandbox`: the command line against a running sandbox, and running it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from agent.sandbox import Sandbox, commands

REPOSITORY = Path(__file__).parents[2]
RUNNER = (
    "import argparse, sys\n"
    "from agent.sandbox import commands\n"
    "parser = argparse.ArgumentParser()\n"
    "commands.add_parser(parser.add_subparsers())\n"
    "sys.exit(commands.run(parser.parse_args(['sandbox', *sys.argv[1:]])))\n"
)


@pytest.fixture
def till(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Run one command against the sandbox: `code, out, err = await till("counts")`."""
    monkeypatch.setenv("TILL_SANDBOX_CONTROL", sandbox.control_url)

    async def call(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, *arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    commands.add_parser(parser.add_subparsers())
    return commands.run(parser.parse_args(["sandbox", *arguments]))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a state file, and no address in the environment."""
    monkeypatch.delenv("TILL_SANDBOX_CONTROL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- talking to a running one ---------------------------------------------------------------------


async def test_down_and_up(till: Any, sandbox: Sandbox) -> None:
    assert await till("down") == (0, "The line is down.\n", "")
    assert sandbox.is_down
    assert await till("up") == (0, "The line is up.\n", "")
    assert not sandbox.is_down


async def test_fault_is_switched_on_listed_and_off(till: Any, sandbox: Sandbox) -> None:
    code, out, _ = await till(
        "fault", "status", "--status", "502", "--commit", "--times", "2", "--method", "POST"
    )
    listed = await till("faults")
    cleared = await till("clear")

    assert code == 0
    assert out == (
        '#1 engage status status=502 commit=true times=2 method="POST", hits: 0\n'.join(
            ["On: ", ""]
        )
    )
    assert "#1 engage status" in listed[1]
    assert "importer sits: leaves the files where they are" in listed[1]
    assert cleared[1] == "Switched off: 1.\n"
    assert sandbox.faults() == []


async def test_wrong_fault_is_said_in_one_sentence(till: Any) -> None:
    code, out, err = await till("fault", "hagn")

    assert (code, out) == (1, "")
    assert "Did you mean 'hang'?" in err


async def test_contacts_counts_log_import_and_reset(
    till: Any, engage: Any, sandbox: Sandbox
) -> None:
    await engage.create(email="vera@example.test")
    sandbox.set_fault("forbidden", times=1)
    await engage.look_up(email="vera@example.test")
    sandbox.import_path.joinpath("1_contacts.xml").write_bytes(b"<")

    assert "email=vera@example.test" in (await till("contacts"))[1]
    assert "Files imported: 1." in (await till("import"))[1]
    assert "by_status.201: 1" in (await till("counts"))[1]
    log = (await till("log"))[1]
    assert "POST /api/v3/contacts -> 201" in log
    assert "GET /api/v3/contacts/id -> 403  (fault forbidden)" in log
    assert "1_contacts.xml: skipped (not readable as XML" in log
    assert "is forgotten" in (await till("reset"))[1]
    assert "0 contact(s)" in (await till("contacts"))[1]


async def test_member_export_is_written(till: Any, sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")

    code, out, _ = await till("export", "--full", "--without-ids")
    again = await till("export")

    assert code == 0
    assert (sandbox.export_path / out.strip()).is_file()
    assert again[1] == "No news, so no file.\n"


async def test_json_is_printed_on_request(till: Any) -> None:
    _, out, _ = await till("counts", "--json")

    assert json.loads(out)["contacts"] == 0


async def test_control_option_goes_before_the_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILL_SANDBOX_CONTROL", "http://127.0.0.1:1")

    assert await asyncio.to_thread(run, "down", "--control", sandbox.control_url) == 0


async def test_state_file_under_the_current_folder_is_used(nowhere: Path, sandbox: Sandbox) -> None:
    state = nowhere / "run" / "sandbox.json"
    state.parent.mkdir()
    state.write_text(json.dumps(sandbox.addresses()))

    assert await asyncio.to_thread(run, "down") == 0
    assert sandbox.is_down


def test_default_address_is_the_default_port(nowhere: Path) -> None:
    assert commands._control_url(argparse.Namespace(control=None)) == "http://127.0.0.1:8719"


def test_no_sandbox_there_is_said_with_what_to_do(capsys: Any) -> None:
    code = run("counts", "--control", "http://127.0.0.1:1")

    assert code == 1
    assert "No sandbox answers on http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["8719", "https://127.0.0.1:8719", "http://"])
def test_wrong_control_address_is_refused(capsys: Any, url: str) -> None:
    assert run("counts", "--control", url) == 1
    assert "is no control address" in capsys.readouterr().err


def test_something_else_on_the_port_is_no_sandbox(capsys: Any) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        code = run("counts", "--control", f"http://127.0.0.1:{server.server_port}")
        thread.join()

    assert code == 1
    assert "No sandbox answers" in capsys.readouterr().err


# --- running it -----------------------------------------------------------------------------------


@pytest.fixture
def running(nowhere: Path) -> Iterator[Any]:
    """Start `till-agent sandbox` as a process; ended at the latest with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(nowhere / "tmp")},
        )
        processes.append(process)
        return process

    (nowhere / "tmp").mkdir()
    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, "the sandbox did not start"
        time.sleep(0.02)
    return dict(json.loads(path.read_text()))


ANY_PORTS = ("--engage-port", "0", "--sftp-port", "0", "--control-port", "0")


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_a_signal_and_leaves_nothing_behind(
    nowhere: Path, running: Any, number: signal.Signals
) -> None:
    process = running(*ANY_PORTS, "--write-state", "run/sandbox.json")
    state = wait_for(nowhere / "run" / "sandbox.json")

    with urllib.request.urlopen(state["controlUrl"]) as answer:
        assert json.load(answer)["engageUrl"] == state["engageUrl"]
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)

    assert (process.returncode, err) == (0, "")
    assert state["hostKeyFingerprint"] in out
    assert f"curl -s -X POST {state['controlUrl']}/down" in out
    assert list((nowhere / "tmp").iterdir()) == []
    assert not (nowhere / "run" / "sandbox.json").exists()


def test_printed_curl_lines_work(nowhere: Path, running: Any) -> None:
    process = running("run", *ANY_PORTS, "--write-state", "state.json")
    wait_for(nowhere / "state.json")
    lines = []
    while not (line := process.stdout.readline()).startswith("Ctrl-C"):
        lines.append(line.strip())
    create, look_up, *_ = [line for line in lines if line.startswith("curl")]

    created = json.loads(subprocess.check_output(create, shell=True))
    found = json.loads(subprocess.check_output(look_up, shell=True))

    assert created["attributes"]["firstName"] == "Vera"
    assert found == created["id"]


@pytest.mark.system
def test_given_folder_and_snapshot_are_kept(nowhere: Path, running: Any) -> None:
    options = ("--directory", "kept", "--snapshot", "contacts.json", "--write-state", "state.json")
    process = running("run", *ANY_PORTS, *options)
    wait_for(nowhere / "state.json")

    process.terminate()
    process.communicate(timeout=PATIENCE_S)

    assert (nowhere / "kept" / "host_key").exists()


def test_options_before_run_count_too() -> None:
    parser = argparse.ArgumentParser()
    commands.add_parser(parser.add_subparsers())

    args = parser.parse_args(["sandbox", "--engage-port", "5", "run", "--sftp-port", "6"])

    assert (args.engage_port, args.sftp_port, args.control_port) == (5, 6, 8719)


async def test_taken_port_is_said_and_exits_with_2(
    nowhere: Path, running: Any, sandbox: Sandbox
) -> None:
    process = running("run", *ANY_PORTS, "--engage-port", str(sandbox.engage_port))

    _, err = await asyncio.to_thread(process.communicate)

    assert process.returncode == 2
    assert err.startswith("The sandbox cannot start:")
    assert "in use" in err


def test_missing_asyncssh_is_said_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)

    assert run("run") == 2
    assert "pip install 'till-agent[sandbox]'" in capsys.readouterr().err


def test_commands_need_neither_asyncssh_nor_aiohttp() -> None:
    code = (
        "import sys; from agent.sandbox import commands; "
        "sys.exit(bool({'asyncssh', 'aiohttp', 'lxml'} & sys.modules.keys()))"
    )

    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
