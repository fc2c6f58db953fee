"""A journal's bytes as they lie on the disk: the file, and over it what its -wal has committed.

Only reads. SQLite would write to a file that it opens, and would not open some that can be read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.journal.driver import Driver
from agent.journal.rescue import cipher
from agent.journal.rescue.btree import Pages

_PAGE = 4096  # SQLite's own choice, and so every journal's
_BLOCK = 4096
_WAL_HEAD, _FRAME_HEAD = 32, 24
_WAL_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # the checksums' byte order

Read = Callable[[int, int, int], bytes]  # as os.pread: descriptor, bytes, offset


@dataclass(frozen=True)
class Image:
    """What there is to read from."""

    content: bytearray  # in the clear
    pages: Pages
    version: int | None  # of the schema; None where the first page does not say
    unreadable: int  # blocks that the disk did not give, and pages that fail their checksum
    lost_frames: int  # of the -wal, behind a damaged one


def take(path: Path, way: Driver, read: Read = os.pread) -> Image:
    """Read a journal and its -wal. Raises OSError where they cannot be opened.

    What the disk does not give is taken for zeros, and counted.
    """
    content, unreadable = _content(path, read)
    wal, bad = _content(path.with_name(path.name + "-wal"), read)
    lost = _put_wal_over(content, wal)
    size, reserved = _PAGE, 0
    if way.key is not None:
        content, damaged = cipher.decrypted(content, way.key())
        unreadable += len(damaged)
        reserved = cipher.RESERVED
    version = None
    if content[:16] == cipher.MAGIC:
        (size,) = struct.unpack_from(">H", content, 16)
        size = 65536 if size == 1 else size
        reserved = content[20]
        (version,) = struct.unpack_from(">I", content, 60)
        if size < 512 or size & (size - 1):
            size, reserved, version = _PAGE, 0, None
    return Image(content, Pages(content, size, reserved), version, unreadable + bad, lost)


def _content(path: Path, read: Read) -> tuple[bytearray, int]:
    """Give a file's bytes, and how many blocks of it the disk did not give."""
    if not path.exists():
        return bytearray(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = bytearray(os.fstat(descriptor).st_size)
        unreadable = 0
        for start in range(0, len(content), _BLOCK):
            try:
                block = read(descriptor, _BLOCK, start)
            except OSError:
                unreadable += 1
                continue
            content[start : start + len(block)] = block
        return content, unreadable
    finally:
        os.close(descriptor)


# --- the -wal -----------------------------------------------------------------------------------


def _put_wal_over(content: bytearray, wal: bytearray) -> int:
    """Put the committed frames of a -wal over the file, as SQLite does when it opens it.

    Gives how many frames of the same write stand behind a damaged one: they cannot be used, and
    what they held is lost. One torn frame at the very end is what a power cut leaves; nothing that
    was answered is in it.
    """
    if len(wal) < _WAL_HEAD:
        return 0
    magic, _, size = struct.unpack_from(">III", wal, 0)
    order = _WAL_MAGIC.get(magic, ">")
    size = size if size in (512 << shift for shift in range(8)) else _PAGE
    step = _FRAME_HEAD + size
    count = (len(wal) - _WAL_HEAD) // step
    if not count:
        return 0
    salts = bytes(wal[16:24])
    sums = _checksum(order, wal[:24], (0, 0))
    is_whole = magic in _WAL_MAGIC and sums == struct.unpack_from(">II", wal, 24)
    frames: list[tuple[int, int]] = []  # page, where it stands
    used = 0
    for used in range(count) if is_whole else ():
        at = _WAL_HEAD + used * step
        number, pages, own, *check = struct.unpack_from(">II8sII", wal, at)
        sums = _checksum(order, wal[at : at + 8], sums)
        sums = _checksum(order, wal[at + _FRAME_HEAD : at + step], sums)
        if own != salts or list(sums) != check or not number:
            break
        frames.append((number, at + _FRAME_HEAD))
        if pages:  # a commit: the size that the database has from here on
            _put(content, wal, frames, size, pages)
            frames.clear()
    else:
        if is_whole:
            return 0
    return _behind(wal, used if is_whole else -1, count, step, salts)


def _put(
    content: bytearray, wal: bytearray, frames: list[tuple[int, int]], size: int, pages: int
) -> None:
    if len(content) < pages * size:
        content.extend(bytes(pages * size - len(content)))
    for number, at in frames:
        if number <= pages:
            content[(number - 1) * size : number * size] = wal[at : at + size]
    del content[pages * size :]


def _behind(wal: bytearray, bad: int, count: int, step: int, salts: bytes) -> int:
    """Count the frames behind a bad one that were written with it; older ones have other salts."""
    own = [
        bytes(wal[at + 8 : at + 16])
        for at in range(_WAL_HEAD + (bad + 1) * step, _WAL_HEAD + count * step, step)
    ]
    if bad < 0 and own and salts not in own:
        salts = own[0]  # it is the head that is damaged
    return own.count(salts)


def _checksum(order: str, data: bytearray, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
