"""Batch files in a folder of the till: written whole or not at all, found again after a power cut.

Owns the folder; knows neither what is in the files nor which of them the journal still needs.
Blocking: the caller runs it in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.errors import RouteError
from agent.journal.syncing import sync

TEMPORARY_SUFFIX: Final = ".tmp"

# What a person can do about it, by errno.
_REMEDIES: Final = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "the agent's disk quota is used up. Free some space or raise it",
    errno.EROFS: "the disk is read-only, often because of a fault. Check the disk",
    errno.EACCES: "the agent may not write there. Give the folder to the agent's user",
    errno.EPERM: "the agent may not write there. Give the folder to the agent's user",
    errno.EEXIST: "this is not a folder. Correct fallback.spool",
    errno.ENOTDIR: "this is not a folder. Correct fallback.spool",
    errno.EIO: "the disk does not work properly. Replace it",
}


class SpoolProblem(RouteError):
    """The folder for batch files cannot be used."""

    code = "SpoolProblem"


@dataclass(frozen=True)
class Prepared:
    """A file that is written and synced under a temporary name. Holds no personal data itself."""

    temporary: Path
    name: str
    sha256: str  # hex
    bytes: int
    count: int  # contacts in it


@dataclass(frozen=True)
class Swept:
    """What a sweep found."""

    removed: tuple[str, ...]  # temporary files of writes that were cut off
    foreign: tuple[str, ...]  # neither ours nor expected: left alone, for a person to look at


class Spool:
    """The folder. Every method raises SpoolProblem when the disk does not do what is asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """Give a published file's place. Raises ValueError for a name that leaves the folder."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"not a name for a batch file: {name!a}")
        return self.directory / name

    def prepare(
        self,
        name: str,
        build: Callable[[BinaryIO], int],
        check: Callable[[Path], None] = lambda _: None,
    ) -> Prepared:
        """Write a file under a temporary name; on return its content is on disk.

        `build` writes into the stream that it gets and returns the number of contacts; `check`
        looks at what came out. What they raise goes through, and no file is left; an OSError
        becomes a SpoolProblem. Safe to repeat.
        """
        temporary = self._temporary(name)
        with self._told_in_words("write a batch file"):
            self._make_directory()
            temporary.unlink(missing_ok=True)
            try:
                count = _write_synced(temporary, build)
                check(temporary)
                sha256, size = _digest(temporary)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return Prepared(temporary, name, sha256, size, count)

    def publish(self, prepared: Prepared) -> Path:
        """Give a prepared file its name; on return that survives a power cut.

        A file of that name is replaced: the same batch always gives the same bytes.
        """
        place = self.path(prepared.name)
        with self._told_in_words("name a batch file"):
            os.replace(prepared.temporary, place)
            sync(self.directory)
        return place

    def holds(self, name: str, sha256: str, bytes: int) -> bool:
        """Say whether the published file is there and unchanged; reads all of it."""
        place = self.path(name)
        with self._told_in_words("read a batch file"):
            try:
                return place.stat().st_size == bytes and _digest(place) == (sha256, bytes)
            except FileNotFoundError:
                return False

    def remove(self, name: str) -> None:
        """Remove a published file for good; one that is not there is fine.

        A folder of that name is none of ours, and stays.
        """
        place = self.path(name)
        with self._told_in_words("remove a batch file"):
            if self.directory.is_dir() and not place.is_dir():
                place.unlink(missing_ok=True)
                sync(self.directory)

    def sweep(self, keep: set[str], *, unfinished: bool = True) -> Swept:
        """Remove the temporary files of a former run, and report files that are not in `keep`.

        `unfinished`: remove temporary files. Only while nothing is being prepared: at the start.
        """
        removed: list[str] = []
        foreign: list[str] = []
        with self._told_in_words("look through the batch files"):
            for entry in sorted(self.directory.iterdir()) if self.directory.is_dir() else ():
                if _is_temporary(entry.name) and not entry.is_dir():
                    if unfinished:
                        entry.unlink(missing_ok=True)
                        removed.append(entry.name)
                elif entry.name not in keep:
                    foreign.append(entry.name)
        return Swept(tuple(removed), tuple(foreign))

    def _temporary(self, name: str) -> Path:
        # Hidden and with another ending, so that no importer or script takes it for a batch.
        return self.path(name).with_name(f".{name}{TEMPORARY_SUFFIX}")

    def _make_directory(self) -> None:
        missing = [each for each in (self.directory, *self.directory.parents) if not each.exists()]
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in missing:  # or a power cut takes the folder, with every file in it
            sync(made.parent)
        # A folder made by hand may be open to others, and umask has a say in mkdir().
        if self.directory.stat().st_mode & 0o777 != 0o700:
            self.directory.chmod(0o700)

    @contextmanager
    def _told_in_words(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fault = os.strerror(error.errno) if error.errno else type(error).__name__
            remedy = _REMEDIES.get(error.errno or 0, f"{fault}. Check the folder")
            raise SpoolProblem(
                f"The till cannot {doing} in {self.directory}: {remedy}; "
                "the changes are kept and tried again."
            ) from error


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _write_synced(place: Path, build: Callable[[BinaryIO], int]) -> int:
    # O_EXCL and O_NOFOLLOW: personal data goes into a file of our own, never through a link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o600), "wb") as stream:
        count = build(stream)
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _digest(place: Path) -> tuple[str, int]:
    """Give SHA-256 in hex and the size in bytes of what the file holds, not of what was sent."""
    with place.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return digest.hexdigest(), stream.tell()
