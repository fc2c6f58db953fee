"""Why a file may not be used: path, user and what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.rights import READ, WRITE_IN, user_name, why_denied

NOBODY = 65534


def as_another_user(work: Callable[[], str]) -> str:
    """Run it without root's rights; root may do everything."""
    if os.geteuid() != 0:
        return work()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(writing, work().encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    made = tmp_path / "data"
    made.mkdir(mode=0o500)
    return made


def test_user_owner_and_mode_are_named(folder: Path) -> None:
    words = as_another_user(lambda: why_denied(folder, WRITE_IN))

    owner = user_name(folder.stat().st_uid)
    assert f"belongs to {owner}:" in words
    assert "with mode 500" in words
    assert words.startswith("it is ")


def test_closed_folder_on_the_way_is_named(folder: Path) -> None:
    (folder / "inner").touch()
    folder.chmod(0o000)

    words = as_another_user(lambda: why_denied(folder / "inner" / "file", READ))
    folder.chmod(0o700)

    assert f"may not look into {folder}" in words


def test_mode_that_would_allow_it_points_to_the_kernels_own_rules(folder: Path) -> None:
    folder.chmod(0o777)

    # Nothing here forbids it; where the kernel says no all the same, this is what is said.
    assert "SELinux or AppArmor" in why_denied(folder, WRITE_IN)
