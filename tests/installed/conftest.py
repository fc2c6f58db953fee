"""The package, built once, and tills that it is installed on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import PROJECT, Lab, Till, alone, debian

Build = Callable[[], Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    def built() -> Path:
        with alone():
            done = subprocess.run(
                ["packaging/deb/build.sh"], cwd=PROJECT, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            made = PROJECT / done.stdout.split()[0]
            kept = tmp_path_factory.mktemp("package") / made.name
            return made.rename(kept)

    return built


@pytest.fixture(scope="session")
def package(build: Build) -> Path:
    return build()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    opened = Lab(tmp_path / "sandbox")
    yield opened
    opened.close()


@pytest.fixture
def bare(tmp_path: Path, lab: Lab) -> Iterator[Till]:
    """A till with nothing of ours on it, switched on."""
    till = Till([debian()], tmp_path / "till", lab)
    try:
        till.boot()
        yield till
    finally:
        till.take_down()


@pytest.fixture(scope="session")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a till with the package on it, not yet set up, switched off."""
    folder = tmp_path_factory.mktemp("installed")
    lab = Lab(folder / "sandbox")
    machine = Till([debian()], folder / "till", lab)
    try:
        machine.boot()
        done = machine.install(package)
        assert done.returncode == 0, done.stderr
    finally:
        machine.take_down()
        lab.close()
    return machine.disk


@pytest.fixture
def till(installed: Path, tmp_path: Path, lab: Lab) -> Iterator[Till]:
    """A till that is set up and takes sign-ups."""
    machine = Till([installed, debian()], tmp_path / "till", lab)
    try:
        machine.boot()
        machine.set_up(*QUICK)
        yield machine
    finally:
        machine.take_down()


QUICK = (
    "--set=engage.max_requests_per_s=200",
    "--set=engage.backlog_requests_per_s=200",
    "--set=link.probe_s=0.5",
    "--set=link.offline_after=2",
    "--set=retry.waits_s=[0.5, 1, 2, 5]",
    "--set=fallback.seal_after_s=1",
    '--set=fallback.verify="none"',
    "--set=sftp.poll_s=1",
)
