"""`till-agent try`: what it prints can be pasted as it stands, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import PATIENCE_S

from agent.demo import world

pytestmark = pytest.mark.system

ENDS_WITHIN_S = 20.0  # it takes a second or two, and on a busy machine more


@dataclass(frozen=True)
class Trial:
    """A running `till-agent try`."""

    process: subprocess.Popen[str]
    text: str
    folder: Path  # in which it makes its own

    @property
    def commands(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.startswith("  ")]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "try"],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        # Killed hard it would leave its agent behind: it is asked first.
        watchdog = threading.Timer(PATIENCE_S, process.terminate)
        watchdog.start()
        try:
            yield Trial(process, greeting_of(process), folder)
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=ENDS_WITHIN_S)


def greeting_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return "".join(lines)
    raise AssertionError("It ended too early:\n" + "".join(lines))


def end(trial: Trial, number: signal.Signals) -> None:
    trial.process.send_signal(number)
    trial.process.wait(timeout=ENDS_WITHIN_S)


def test_printed_commands_work_as_they_stand(trial: Trial) -> None:
    script = "set -e -o pipefail\n" + "\n".join(trial.commands)

    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(trial.commands) == 13
    assert '"firstName": "Vera"' in done.stdout  # the sign-up
    assert '"city": "Lund"' in done.stdout  # the update
    assert "\n200 after" in done.stdout
    assert "The line is down." in done.stdout
    assert "\n202 after" in done.stdout  # the sign-up without a line
    assert re.search(r"create +(waiting|sending)", done.stdout)  # changes list
    assert "The line is up." in done.stdout
    assert "email=vera@example.test" in done.stdout  # Engage's contacts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_within_seconds_and_leaves_nothing(
    trial: Trial, number: signal.Signals
) -> None:
    before = subprocess.run(["bash", "-c", trial.commands[0]], capture_output=True, text=True)
    end(trial, number)

    assert '"firstName"' in before.stdout
    assert trial.process.returncode == 0
    assert list(trial.folder.iterdir()) == []
    # Another test may have got the port meanwhile, but it does not know the token.
    sign_up = subprocess.run(["bash", "-c", trial.commands[0]], capture_output=True, text=True)
    assert '"firstName"' not in sign_up.stdout


def test_signal_ends_it_quickly_while_the_line_hangs(trial: Trial) -> None:
    control = re.search(r"--control (http://\S+)", trial.text)
    assert control
    for wish in ('{"kind": "hang"}', '{"kind": "hang_kex", "target": "sftp"}'):
        subprocess.run(["curl", "-sf", "-d", wish, f"{control[1]}/faults"], check=True)
    subprocess.run(["bash", "-c", trial.commands[0]], check=True)  # a sign-up that hangs

    end(trial, signal.SIGINT)

    assert list(trial.folder.iterdir()) == []


def test_usual_port_is_taken_only_if_it_is_free() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        assert world.free_port(taken) != taken

    assert world.free_port(taken) == taken
