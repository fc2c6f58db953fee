"""`till-agent demo` tells the truth: right is 0, anything else is 1, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import demo
from agent.demo.pos import SIGN_UP, UPDATE, Acknowledged
from agent.demo.table import Evidence, count, shown
from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

VERA, NILS = "vera@example.test", "nils@example.test"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder in which the demo makes its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def row(output: str, title: str) -> list[str]:
    return next(line.split()[1:] for line in output.splitlines() if line.startswith(title))


# --- the whole story ----------------------------------------------------------------------------


def test_demo_ends_with_everything_in_engage_and_nothing_left_behind(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = children()

    code = demo.tell(customers=12, seed=3)

    output = capsys.readouterr().out
    assert code == 0, output
    acknowledged, by_api, by_file, in_engage, lost, doubled = row(output, "sign-ups")
    assert (acknowledged, in_engage, lost, doubled) == ("12", "12", "0", "0")
    assert int(by_api) + int(by_file) == 12
    assert int(by_file) > 0
    assert row(output, "updates")[3:] == [row(output, "updates")[0], "0", "-"]
    assert "none lost, none doubled" in output
    assert list(temporary.iterdir()) == []
    assert children() == before


def test_demo_fails_and_names_a_contact_that_is_missing_in_engage(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    erased: list[str] = []

    def erase_one(sandbox: Sandbox) -> None:
        contact = sandbox.contacts()[-1]
        erased.append(contact["attributes"]["email"])
        sandbox.erase(contact["id"])

    code = demo.tell(customers=12, before_count=erase_one)

    output = capsys.readouterr().out
    assert code == 1
    assert row(output, "sign-ups")[4] == "1"
    assert f"{erased[0]}: Engage holds no contact" in output
    assert "WRONG" in output
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_nothing_behind(
    temporary: Path, number: signal.Signals
) -> None:
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "demo"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1."):
                break

        process.send_signal(number)
        code = process.wait(timeout=20)

    assert code == 130
    assert list(temporary.iterdir()) == []
    assert agents_under(temporary) == []


def test_demo_with_too_few_customers_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.tell(customers=2) == 1
    assert "at least 12" in capsys.readouterr().err


def agents_under(folder: Path) -> list[str]:
    """Give the command lines of processes that run from a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


# --- the count ----------------------------------------------------------------------------------


def evidence() -> Evidence:
    """Give what all sides say when all is right: two sign-ups, and an update of one of them."""
    return Evidence(
        acknowledged=[
            Acknowledged("c1", SIGN_UP, VERA, {"email": VERA, "lastName": "Lind"}),
            Acknowledged("c2", SIGN_UP, NILS, {"email": NILS, "lastName": "Berg"}),
            Acknowledged("c3", UPDATE, VERA, {"lastName": "Ek"}),
        ],
        changes=[
            {"id": "c1", "state": "delivered"},
            {"id": "c2", "state": "confirmed"},
            {"id": "c3", "state": "delivered"},
        ],
        contacts=[
            {"attributes": {"email": VERA, "lastName": "Ek"}},
            {"attributes": {"email": NILS, "lastName": "Berg"}},
        ],
        counts={"contacts": 2, "creates": 2, "duplicates": 0},
    )


def test_count_is_right_when_all_sides_agree() -> None:
    result = count(evidence())

    assert result.is_right
    assert [(line.by_api, line.by_file, line.in_engage) for line in result.lines] == [
        (1, 1, 2),
        (1, 0, 1),
    ]


def spoil_missing(found: Evidence) -> None:
    found.contacts.pop()  # type: ignore[attr-defined]


def spoil_doubled(found: Evidence) -> None:
    found.contacts.append(found.contacts[0])  # type: ignore[attr-defined]


def spoil_old_value(found: Evidence) -> None:
    found.contacts[0]["attributes"]["lastName"] = "Lind"


def spoil_stranger(found: Evidence) -> None:
    found.contacts.append({"attributes": {"email": "x@example.test"}})  # type: ignore[attr-defined]


def spoil_state(found: Evidence) -> None:
    found.changes[1]["state"] = "imported"  # type: ignore[index]


def spoil_journal(found: Evidence) -> None:
    found.changes.pop()  # type: ignore[attr-defined]


def spoil_ghost(found: Evidence) -> None:
    found.changes.append({"id": "c4", "state": "delivered"})  # type: ignore[attr-defined]


def spoil_counter(found: Evidence) -> None:
    found.counts["duplicates"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (spoil_missing, f"{NILS}: Engage holds no contact of it."),
        (spoil_doubled, f"{VERA}: Engage holds 2 contacts of it."),
        (spoil_old_value, f"{VERA}: lastName is 'Lind' in Engage, 'Ek' was acknowledged."),
        (spoil_stranger, "x@example.test: nobody signed it up."),
        (spoil_state, "Change c2 is imported."),
        (spoil_journal, "Change c3 is not in the journal."),
        (spoil_ghost, "Change c4 was never acknowledged."),
        (spoil_counter, "Engage's own count of duplicates is 1, not 0."),
    ],
)
def test_count_names_what_is_wrong(spoil: Callable[[Any], None], finding: str) -> None:
    found = evidence()
    spoil(found)

    result = count(found)

    assert not result.is_right
    assert finding in result.findings
    assert finding in shown(result)
    assert "WRONG" in shown(result)


def test_count_shows_an_update_that_was_lost() -> None:
    found = evidence()
    spoil_old_value(found)

    sign_ups, updates = count(found).lines

    assert (sign_ups.lost, updates.lost) == (0, 1)
