"""The Debian package as a file: the same bytes twice, small, clean, and complete."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

_MOST_BYTES = 25 * 1024 * 1024


@pytest.fixture(scope="module")
def content(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder


def test_the_same_commit_gives_the_same_bytes(package: Path, build: object) -> None:
    first = package.read_bytes()

    again = build()  # type: ignore[operator]

    assert again.read_bytes() == first
    assert len(first) < _MOST_BYTES


def test_lintian_finds_no_error(package: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=error", package], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


def test_everything_that_belongs_to_it_is_inside(content: Path) -> None:
    for name in (
        "usr/bin/till-agent",
        "lib/systemd/system/till-agent.service",
        "usr/lib/sysusers.d/till-agent.conf",
        "etc/till-agent/agent.toml",
        "usr/share/man/man1/till-agent.1.gz",
        "usr/share/bash-completion/completions/till-agent",
        "usr/share/zsh/vendor-completions/_till-agent",
        "usr/share/doc/till-agent/README.md",
        "usr/share/doc/till-agent/operating.md",
        "usr/share/doc/till-agent/copyright",
    ):
        assert (content / name).is_file(), name


def test_the_man_page_has_every_command(content: Path) -> None:
    text = gzip.decompress((content / "usr/share/man/man1/till-agent.1.gz").read_bytes()).decode()

    for command in ("run", "check", "setup", "status", "changes", "batches", "token", "host\\-key"):
        assert f"till\\-agent {command}" in text or f"till-agent {command}" in text, command


def test_the_list_of_parts_names_every_library(content: Path) -> None:
    sbom = json.loads((content / "usr/share/doc/till-agent/sbom.cdx.json").read_text())
    listed = {each["name"].lower().replace("_", "-") for each in sbom["components"]}
    lock = Path("requirements.lock").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}

    assert sbom["bomFormat"] == "CycloneDX"
    assert locked <= listed


def test_nothing_of_the_building_machine_is_inside(content: Path) -> None:
    here = str(Path.cwd()).encode()

    named = [
        path
        for path in content.rglob("*")
        if path.is_file() and not path.is_symlink() and here in path.read_bytes()
    ]

    assert named == []
