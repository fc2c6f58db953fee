"""The doctor's rows of the SFTP server, each good and broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from patient import Patient
from world import write_secret

ROWS = ("sftp line", "sftp host key", "sftp login", "sftp folder")


def results(rows: dict[str, object]) -> list[str]:
    return [str(rows[name].result) for name in ROWS]  # type: ignore[attr-defined]


async def test_all_rows_are_ok_and_nothing_is_left_behind(patient: Patient) -> None:
    rows = await patient.examined()

    assert results(rows) == ["ok"] * 4, rows
    assert patient.sandbox.waiting_files() == []
    done = {each.operation.removeprefix("posix_") for each in patient.sandbox.sftp_log}
    assert {"open_write", "rename", "remove"} <= done


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ("refuse", ["failed", "warning", "warning", "warning"], "refuses connections"),
        ("host_key_changed", ["ok", "failed", "warning", "warning"], "another host key"),
        ("refuse_login", ["ok", "ok", "failed", "warning"], "refused the login"),
        ("folder_missing", ["ok", "ok", "ok", "failed"], "sftp.directory"),
        ("read_only", ["ok", "ok", "ok", "failed"], "says while writing a small file"),
        ("disk_full", ["ok", "ok", "ok", "failed"], "says while writing a small file"),
    ],
)
async def test_step_that_fails_is_named_and_the_next_are_not_examined(
    patient: Patient, fault: str, expected: list[str], words: str
) -> None:
    patient.sandbox.set_fault(fault, target="sftp")

    rows = await patient.examined()

    assert results(rows) == expected
    failed = rows[ROWS[expected.index("failed")]]
    assert words in f"{failed.meaning} {failed.what_to_do}"


async def test_wrong_password_fails_and_is_not_repeated(patient: Patient) -> None:
    write_secret(patient.till.folder / "sftp_password", "another-password")

    rows = await patient.examined()

    assert results(rows) == ["ok", "ok", "failed", "warning"]
    assert "another-password" not in str(rows)


async def test_key_that_is_not_pinned_fails_before_any_login(patient: Patient) -> None:
    (patient.till.folder / "known_hosts").write_text("")

    rows = await patient.examined()

    assert results(rows) == ["ok", "failed", "warning", "warning"]
    assert "till-agent host-key trust" in rows["sftp host key"].what_to_do
    assert patient.sandbox.counts()["logins"] == 0


async def test_server_that_hangs_is_left_and_hides_no_other_row(patient: Patient) -> None:
    patient.sandbox.set_fault("hang_kex")

    rows = await patient.examined(step_s=0.5)

    assert results(rows) == ["ok", "failed", "warning", "warning"]
    assert "0.5 s" in rows["sftp host key"].meaning
    assert rows["api key"].result == "ok"


async def test_with_bulk_calls_no_server_is_needed(lay: Callable[..., Patient]) -> None:
    rows = await lay(fallback={"transport": "bulk"}).examined()

    assert results(rows) == ["ok"] * 4
    assert "bulk" in rows["sftp line"].meaning
    assert patient_logins(rows) == 0


def patient_logins(rows: dict[str, object]) -> int:
    return sum("is accepted" in str(row) for row in rows.values())
