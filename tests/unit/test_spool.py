"""Batch files on the till: whole or not at all, private, and found again."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from agent.delivery.batch.spool import Prepared, Spool, SpoolProblem, Swept

NAME = "20261121101500_7-1-1_contacts.xml"
CONTENT = b"<contacts/>\n"


def build(stream: BinaryIO) -> int:
    stream.write(CONTENT)
    return 3


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def listing(spool: Spool) -> list[str]:
    return sorted(os.listdir(spool.directory))


def test_a_prepared_file_has_a_name_that_no_importer_takes(spool: Spool) -> None:
    prepared = spool.prepare(NAME, build)

    assert listing(spool) == [prepared.temporary.name]
    assert not prepared.temporary.name.endswith("_contacts.xml")


def test_a_prepared_file_is_described(spool: Spool) -> None:
    prepared = spool.prepare(NAME, build)

    digest = hashlib.sha256(CONTENT).hexdigest()
    assert prepared == Prepared(prepared.temporary, NAME, digest, len(CONTENT), 3)


def test_publishing_gives_the_file_its_name(spool: Spool) -> None:
    place = spool.publish(spool.prepare(NAME, build))

    assert place.read_bytes() == CONTENT
    assert listing(spool) == [NAME]


def test_content_and_name_are_synced_in_this_order(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.directory.mkdir()
    steps: list[str] = []
    sync, name = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("name"), name(a, b)))

    spool.publish(spool.prepare(NAME, build))

    assert steps == ["sync", "name", "sync"]


def test_folder_that_was_made_is_synced_into_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("agent.delivery.batch.spool.sync", synced.append)

    Spool(tmp_path / "var" / "spool").prepare(NAME, build)

    assert set(synced) == {tmp_path, tmp_path / "var"}


def test_files_and_folder_are_private(spool: Spool) -> None:
    spool.directory.mkdir(mode=0o755)

    place = spool.publish(spool.prepare(NAME, build))

    assert place.stat().st_mode & 0o777 == 0o600
    assert spool.directory.stat().st_mode & 0o777 == 0o700


def test_a_build_that_fails_leaves_no_file(spool: Spool) -> None:
    def fail(stream: BinaryIO) -> int:
        stream.write(CONTENT)
        raise ValueError("cannot be written")

    with pytest.raises(ValueError, match="cannot be written"):
        spool.prepare(NAME, fail)

    assert listing(spool) == []


def test_a_leftover_of_a_cut_off_write_is_written_anew(spool: Spool) -> None:
    spool.prepare(NAME, build).temporary.write_bytes(b"half")

    assert spool.prepare(NAME, build).temporary.read_bytes() == CONTENT


def test_a_link_laid_in_the_way_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    prepared = spool.prepare(NAME, build)
    prepared.temporary.unlink()
    prepared.temporary.symlink_to(victim)

    spool.publish(spool.prepare(NAME, build))

    assert victim.read_text() == "untouched"


def test_publishing_again_gives_the_same_file(spool: Spool) -> None:
    spool.publish(spool.prepare(NAME, build))

    spool.publish(spool.prepare(NAME, build))

    assert listing(spool) == [NAME]


@pytest.mark.parametrize(
    ("content", "held"),
    [(CONTENT, True), (CONTENT.upper(), False), (CONTENT[:-1], False), (b"", False)],
)
def test_a_file_that_is_not_as_it_was_is_not_held(spool: Spool, content: bytes, held: bool) -> None:
    prepared = spool.prepare(NAME, build)
    spool.publish(prepared).write_bytes(content)

    assert spool.holds(NAME, prepared.sha256, prepared.bytes) is held


def test_a_file_that_is_gone_is_not_held(spool: Spool) -> None:
    assert spool.holds(NAME, "0" * 64, 1) is False


def test_removing_twice_is_fine(spool: Spool) -> None:
    spool.publish(spool.prepare(NAME, build))

    spool.remove(NAME)
    spool.remove(NAME)

    assert listing(spool) == []


def test_sweeping_removes_temporary_files_and_reports_foreign_ones(spool: Spool) -> None:
    spool.publish(spool.prepare(NAME, build))
    leftover = spool.prepare("other_contacts.xml", build).temporary.name
    (spool.directory / "notes.txt").touch()

    swept = spool.sweep({NAME})

    assert swept == Swept(removed=(leftover,), foreign=("notes.txt",))
    assert listing(spool) == [NAME, "notes.txt"]


def test_sweeping_a_folder_that_was_never_made_finds_nothing(spool: Spool) -> None:
    assert spool.sweep(set()) == Swept((), ())


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\0b", ".."])
def test_a_name_that_leaves_the_folder_is_refused(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        spool.path(name)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full. Free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "Give the folder to the agent's user"),
        (errno.EIO, "does not work properly"),
        (errno.ELOOP, "Check the folder"),  # not foreseen
    ],
)
def test_trouble_with_the_disk_is_told_with_its_remedy(
    spool: Spool, number: int, words: str
) -> None:
    def fail(stream: BinaryIO) -> int:
        raise OSError(number, os.strerror(number))

    with pytest.raises(SpoolProblem, match=words):
        spool.prepare(NAME, fail)

    assert listing(spool) == []


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()

    with pytest.raises(SpoolProblem, match="write a batch file"):
        Spool(tmp_path / "spool").prepare(NAME, build)


def test_a_really_full_disk_is_told(tmp_path: Path) -> None:
    def fill(stream: BinaryIO) -> int:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(CONTENT)
        return 1

    with pytest.raises(SpoolProblem, match="disk is full"):
        Spool(tmp_path).prepare(NAME, fill)
