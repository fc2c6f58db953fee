"""The doctor's rows of the till itself, each good and broken."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_helpers import Book, FakeClock, raw_key
from patient import Patient

from agent import config, tokens
from agent.doctor import disk, machine
from agent.doctor.disk import DiskKind, judged
from agent.doctor.rows import Result
from agent.journal.inspection import Condition
from agent.journal.lock import JournalLock

CLOCK = FakeClock()


def journal_of(patient: Patient) -> Path:
    return config.load(patient.till.config_path).journal.path


async def test_all_rows_of_a_good_till_are_ok(patient: Patient) -> None:
    async with Book(journal_of(patient), CLOCK) as book:
        await book.create()

    rows = await patient.examined()

    good = ("settings", "disk space", "journal", "port")
    assert {name: str(rows[name].result) for name in good} == dict.fromkeys(good, "ok"), rows
    assert rows["agent"].result == "warning"
    assert "None runs" in rows["agent"].meaning
    assert list(rows) == [
        *("settings", "files", "disk space", "disk speed", "journal"),
        *("dns", "tcp", "tls", "api key", "clock", "rate"),
        *("sftp line", "sftp host key", "sftp login", "sftp folder"),
        *("port", "agent", "service"),
    ]


async def test_every_row_that_is_not_ok_says_what_to_do(patient: Patient) -> None:
    patient.sandbox.down()

    rows = await patient.examined()

    assert [row for row in rows.values() if row.result != "ok" and not row.what_to_do] == []


# --- settings and files -----------------------------------------------------------------------


async def test_settings_that_are_unwise_or_unfinished_warn(patient: Patient) -> None:
    tokens.revoke(patient.till.folder / "tokens", "pos")

    row = await patient.row("settings")

    assert row.result == "warning"
    assert "no POS gets in" in row.meaning
    assert "till-agent token new" in row.what_to_do


async def test_files_that_are_missing_or_open_to_others_fail_together(patient: Patient) -> None:
    async with Book(journal_of(patient), CLOCK):
        pass
    journal_of(patient).chmod(0o644)
    (patient.till.folder / "sftp_password").unlink()
    (patient.till.folder / "engage_api_key").chmod(0o640)

    row = await patient.row("files")

    assert row.result == "failed"
    for words in ("sftp_password does not exist", "open to other users", "mode 644"):
        assert words in row.meaning
    assert "chmod 600" in row.what_to_do


async def test_files_are_ok_for_their_user_and_root_is_told_to_look_as_that_user(
    patient: Patient,
) -> None:
    row = await patient.row("files")

    assert row.result == ("warning" if os.geteuid() == 0 else "ok")
    assert ("runuser -u till-agent" in row.what_to_do) is (os.geteuid() == 0)


# --- the disk -----------------------------------------------------------------------------------


async def test_disk_space_fails_below_the_limit_and_warns_near_it(
    lay: Callable[..., Patient], tmp_path: Path
) -> None:
    facts = os.statvfs(tmp_path)
    free_mb = facts.f_bavail * facts.f_frsize // (1024 * 1024)

    full = await lay(journal={"min_free_mb": 2 * free_mb}).row("disk space")
    near = await lay(journal={"min_free_mb": round(free_mb * 0.75)}).row("disk space")

    assert (full.result, near.result) == ("failed", "warning")
    assert "MiB are free" in full.meaning


async def test_disk_speed_is_measured_in_the_journals_folder_and_leaves_nothing(
    patient: Patient,
) -> None:
    before = sorted(patient.till.folder.iterdir())

    row = await patient.row("disk speed")

    assert str(patient.till.folder) in row.meaning
    assert " ms, " in row.meaning
    assert sorted(patient.till.folder.iterdir()) == before


async def test_disk_that_only_pretends_to_sync_is_warned_of(lay: Callable[..., Patient]) -> None:
    # Memory takes every sync at once and loses all in a power cut: the perfect liar.
    row = await lay(journal={"path": "/dev/shm/till-agent-test/journal.db"}).row("disk speed")

    assert row.result == "warning"
    assert "too quick to be true for memory" in row.meaning
    assert "journal.path" in row.what_to_do


async def test_disk_that_takes_nothing_fails(lay: Callable[..., Patient]) -> None:
    row = await lay(journal={"path": "/proc/till-agent-test/journal.db"}).row("disk speed")

    assert row.result == "failed"
    assert "Nothing can be written" in row.meaning


@pytest.mark.parametrize(
    ("seconds", "kind", "result"),
    [
        (0.004, DiskKind.OTHER, Result.OK),
        (0.00001, DiskKind.OTHER, Result.WARNING),
        (0.0001, DiskKind.OTHER, Result.OK),
        (0.0001, DiskKind.CARD, Result.WARNING),  # a card that keeps its word needs more
        (0.0005, DiskKind.ROTATING, Result.WARNING),  # less than the disk needs to turn
        (0.008, DiskKind.ROTATING, Result.OK),
        (0.06, DiskKind.OTHER, Result.WARNING),
        (1.2, DiskKind.CARD, Result.FAILED),
    ],
)
def test_a_syncs_time_is_judged_by_what_it_has_to_move(
    seconds: float, kind: DiskKind, result: Result
) -> None:
    assert judged([seconds] * 5, kind, Path("/var")).result == result


def test_what_lies_in_memory_is_known() -> None:
    assert disk.kind_of_disk(Path("/dev/shm")) is DiskKind.MEMORY


# --- the journal ----------------------------------------------------------------------------------


async def test_journal_that_is_damaged_fails_and_is_left_as_it_is(patient: Patient) -> None:
    path = journal_of(patient)
    async with Book(path, CLOCK) as book:
        for _ in range(50):
            await book.create()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    path.write_bytes(bytes(content))

    row = await patient.row("journal")

    assert row.result == "failed"
    assert "damaged" in row.meaning
    assert "till-agent journal rescue" in row.what_to_do
    assert path.read_bytes() == bytes(content)


async def test_journal_that_is_gone_fails(patient: Patient) -> None:
    path = journal_of(patient)
    async with Book(path, CLOCK) as book:
        await book.create()
    path.unlink()

    row = await patient.row("journal")

    assert row.result == "failed"
    assert "is gone" in row.meaning
    assert not path.exists()


async def test_journal_of_a_newer_program_fails(patient: Patient) -> None:
    import sqlite3

    path = journal_of(patient)
    async with Book(path, CLOCK):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()

    row = await patient.row("journal")

    assert row.result == "failed"
    assert "newer till-agent" in row.meaning


async def test_encrypted_journal_is_examined_with_its_key_and_fails_with_another(
    lay: Callable[..., Patient], tmp_path: Path
) -> None:
    patient = lay(journal={"key_file": "journal_key"})
    key = patient.till.folder / "journal_key"
    key.touch(mode=0o600)
    key.write_text(raw_key())
    async with Book(journal_of(patient), CLOCK, "sqlcipher") as book:
        await book.create()

    good = await patient.row("journal")
    key.write_text("another key")
    bad = await patient.row("journal")

    assert (good.result, bad.result) == ("ok", "failed")
    assert "journal.key_file" in bad.what_to_do
    assert "another key" not in str(bad)


@pytest.mark.parametrize(
    ("found", "result", "words"),
    [
        (Condition(None, "", 10 << 30, 0), "warning", "too large"),
        (Condition(True, "ok", 1 << 20, 100 << 20), "warning", "-wal has grown to 100 MiB"),
        (Condition(False, "row 1 missing", 1 << 20, 0), "failed", "row 1 missing"),
        (Condition(True, "ok", 1 << 20, 4096), "ok", "whole"),
    ],
)
def test_what_was_found_in_a_journal_is_judged(found: Condition, result: str, words: str) -> None:
    row = machine.judged(Path("journal.db"), found)

    assert row.result == result
    assert words in row.meaning


# --- port and other agents ------------------------------------------------------------------------


async def test_port_that_another_program_has_fails(lay: Callable[..., Patient]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        row = await lay(server={"port": port}).row("port")

    assert row.result == "failed"
    assert f"Another program listens on 127.0.0.1:{port}" in row.meaning


async def test_agent_that_holds_the_journal_and_does_not_answer_fails(patient: Patient) -> None:
    path = journal_of(patient)
    lock = JournalLock(path)
    lock.acquire()
    try:
        rows = await patient.examined()
    finally:
        lock.release()

    assert rows["agent"].result == "failed"
    assert f"Process {os.getpid()}" in rows["agent"].meaning
    assert rows["journal"].result == "warning"
    assert not path.exists()


async def test_looking_for_another_agent_takes_nothing_from_it(patient: Patient) -> None:
    lock = JournalLock(journal_of(patient))
    lock.acquire()
    lock.release()

    await patient.row("agent")

    lock.acquire()
    lock.release()


# --- systemd --------------------------------------------------------------------------------------

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "Result": "success",
    "NRestarts": "0",
}


@pytest.mark.parametrize(
    ("differs", "result", "words"),
    [
        ({}, "ok", "is active (running)"),
        ({"LoadState": "not-found"}, "warning", "does not know"),
        ({"ActiveState": "failed", "Result": "watchdog"}, "failed", "ended with: watchdog"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "failed", "inactive (dead)"),
        ({"UnitFileState": "disabled"}, "warning", "not started at boot"),
        ({"NRestarts": "17"}, "warning", "17 times"),
    ],
)
def test_what_systemd_says_is_told(differs: dict[str, str], result: str, words: str) -> None:
    row = machine.service_row({**RUNNING, **differs})

    assert row.result == result
    assert words in row.meaning


def program(folder: Path, text: str) -> str:
    path = folder / "systemctl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_systemd_is_asked_for_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "\\n".join(f"{name}={value}" for name, value in RUNNING.items())
    systemctl = program(tmp_path, f'test "$2" = till-agent.service && printf "{said}\\n"')
    monkeypatch.setattr(machine, "_systemctl", lambda: systemctl)

    (row,) = await machine.service()

    assert row.result == "ok"


async def test_systemd_that_hangs_is_left_and_its_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = program(tmp_path, "exec sleep 60")
    monkeypatch.setattr(machine, "_systemctl", lambda: systemctl)
    monkeypatch.setattr(machine, "_SYSTEMD_S", 0.1)

    (row,) = await asyncio.wait_for(machine.service(), 30)

    assert row.result == "warning"
    assert "does not say" in row.meaning


async def test_machine_without_systemd_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_systemctl", lambda: None)

    (row,) = await machine.service()

    assert row.result == "warning"
