"""The journal's disk: how much room there is, and how long it takes to be sure of a write."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.config import Config, mount_of, mounts_now
from agent.doctor.rows import Row, aside, failed, ok, warning

SPACE, SPEED = "disk space", "disk speed"

_MIB = 1024 * 1024
_TIMES = 20
_BLOCK = b"till-agent\n".ljust(4096, b"\0")


class DiskKind(StrEnum):
    """What a sync can cost depends on what it has to move."""

    MEMORY = "memory"
    CARD = "a memory card"
    ROTATING = "a rotating disk"
    OTHER = "a disk"


# A sync that takes less cannot have reached the medium. Memory has none to reach.
_QUICKEST_S = {
    DiskKind.MEMORY: float("inf"),
    DiskKind.CARD: 0.0002,
    DiskKind.ROTATING: 0.001,
    DiskKind.OTHER: 0.00002,
}
# Every sign-up waits for a sync; beyond the second a queue at the till waits with it.
_SLOW_S, _TOO_SLOW_S = 0.05, 1.0


class DiskCheck:
    """Looks at the disk in the journal's folder, or where that will be made."""

    def __init__(self, config: Config) -> None:
        self._journal = config.journal

    async def space(self) -> Sequence[Row]:
        """Give the row of SPACE."""
        return [await aside(self._space)]

    async def speed(self) -> Sequence[Row]:
        """Give the row of SPEED."""
        return [await aside(self._speed)]

    @property
    def _folder(self) -> Path:
        folder = self._journal.path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return folder

    def _space(self) -> Row:
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            return failed(SPACE, f"{self._folder} cannot be read ({error.strerror}).")
        free, least = disk.f_bavail * disk.f_frsize, self._journal.min_free_mb * _MIB
        words = f"{free // _MIB:,} MiB are free in {self._folder}"
        if disk.f_files and not disk.f_favail:
            return failed(
                SPACE,
                f"{words}, but no file can be made: all inodes are used.",
                "Remove some of the many small files on this disk.",
            )
        words += f"; below {self._journal.min_free_mb:,} MiB nothing more is taken."
        if free < least:
            return failed(SPACE, words, "Free some disk space; no restart is needed.")
        if free < 2 * least:
            return warning(SPACE, words, "Free some disk space before sign-ups must be refused.")
        return ok(SPACE, words)

    def _speed(self) -> Row:
        folder = self._folder
        try:
            times = sync_times(folder)
        except OSError as error:
            return failed(
                SPEED,
                f"Nothing can be written to {folder} ({error.strerror}).",
                "Look at the disk and at the rights of the agent's user.",
            )
        return judged(times, kind_of_disk(folder), folder)


def sync_times(folder: Path) -> list[float]:
    """Write a block and wait for the disk, several times; gives the seconds of each wait.

    Raises OSError. The file is gone afterwards.
    """
    times = []
    with tempfile.TemporaryFile(dir=folder, prefix=".till-agent-doctor-") as file:
        for number in range(_TIMES):
            os.pwrite(file.fileno(), _BLOCK, len(_BLOCK) * number)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


def judged(times: Sequence[float], kind: DiskKind, folder: Path) -> Row:
    """Say what these times mean for a journal on such a disk."""
    usual = statistics.median(times)
    words = f"A sync in {folder} takes {_ms(usual)} ms, {_ms(max(times))} ms at most."
    if usual < _QUICKEST_S[kind]:
        return warning(
            SPEED,
            f"{words} That is too quick to be true for {kind}: what was answered may be gone after "
            "a power cut.",
            "Put journal.path on a disk that keeps what it syncs: not in memory, not on a cheap "
            "card, and in a virtual machine without an unsafe write cache.",
        )
    if usual >= _TOO_SLOW_S:
        return failed(
            SPEED, f"{words} Every sign-up waits for one.", "The disk may be failing; replace it."
        )
    if usual >= _SLOW_S:
        return warning(
            SPEED,
            f"{words} Every sign-up waits for one.",
            "Look at what else writes to this disk; a solid-state disk is much quicker.",
        )
    return ok(SPEED, words)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}"


# --- which disk -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Device:
    name: str
    is_rotating: bool


def kind_of_disk(folder: Path) -> DiskKind:
    """Say on what a folder lies, as far as the kernel tells."""
    mount = mount_of(folder, mounts_now())
    if mount is not None and mount.kind in ("tmpfs", "ramfs"):
        return DiskKind.MEMORY
    device = _device(folder)
    if device is None:
        return DiskKind.OTHER
    if device.name.startswith("mmcblk"):
        return DiskKind.CARD
    # Virtual disks call themselves rotating, whatever is below them.
    if device.is_rotating and device.name.startswith(("sd", "hd")):
        return DiskKind.ROTATING
    return DiskKind.OTHER


def _device(folder: Path) -> _Device | None:
    number = os.stat(folder).st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    for candidate in (place, place.parent):  # a partition has no queue of its own
        try:
            rotating = (candidate / "queue" / "rotational").read_text().strip()
        except OSError:
            continue
        return _Device(candidate.name, rotating == "1")
    return None
