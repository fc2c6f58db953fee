"""A model of a disk that loses power: what may stand on it after each system call of a process.

It promises what POSIX does and no more. What was written is there for certain once its file was
synced, a name once its folder was. Of all else any part may be there: nothing, everything, some
writes and not others, some sectors of a write; and anything where a file grew. A sector that was
there before holds the old or the new, which SQLite takes for granted as well. A rename happens or
does not. After a sync that failed the kernel may call the pages clean: they are read as if all were
well, no later sync brings them to the disk, and only writing them again does.

A simulation: it knows nothing of disks that lie about syncing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from system_calls import Cut, Event, Made, Noted, Removed, Renamed, Synced, Written

T = TypeVar("T")

_SECTOR = 512


@dataclass
class _File:
    """A file: as it is read, and as it stands on the disk without its latest changes."""

    is_folder: bool = False
    live: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Written | Cut]] = field(default_factory=list)  # with their number
    # Called clean although they may not be on the disk: no sync helps, only writing them again.
    given_up: list[Written] = field(default_factory=list)


def _apply(content: bytearray, change: Written | Cut) -> None:
    if isinstance(change, Cut):
        if change.size < len(content):
            del content[change.size :]
        else:
            content.extend(bytes(change.size - len(content)))
        return
    if change.offset > len(content):
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


@dataclass(frozen=True)
class _Naming:
    """A change of a folder's entries; `file` is None for a name that goes."""

    names: tuple[tuple[str, int | None], ...]

    def apply(self, entries: dict[str, int]) -> None:
        for name, file in self.names:
            if file is None:
                entries.pop(name, None)
            else:
                entries[name] = file


@dataclass(frozen=True)
class State:
    """What a disk may hold after a cut: files and folders by their paths."""

    files: Mapping[str, bytes]
    folders: tuple[str, ...]

    def lay(self, root: Path, target: Path) -> None:
        """Write it below `target`, where `root` was."""
        for folder in self.folders:
            (target / Path(folder).relative_to(root)).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            place = target / Path(path).relative_to(root)
            place.touch(mode=0o600)
            place.write_bytes(content)


class Disk:
    """The files below one folder while a process works on them, and what a cut would leave."""

    def __init__(self, root: Path, before: Mapping[str, bytes] | None = None) -> None:
        """`before` is what stands there, synced, by path; numbered from 1 in this order."""
        self._root = str(root)
        self._files: dict[int, _File] = {}
        self._live: dict[str, int] = {}
        self._synced: dict[str, int] = {}
        self._naming: list[tuple[int, _Naming]] = []
        self._count = 0
        for number, (path, content) in enumerate((before or {}).items(), start=1):
            self._files[number] = _File(live=bytearray(content), synced=bytearray(content))
            self._live[path] = self._synced[path] = number

    # --- what the process does ----------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Let one system call happen."""
        self._count += 1
        match event:
            case Made(path, number, is_folder):
                self._files[number] = _File(is_folder)
                self._name((path, number))
            case Renamed(old, new):
                self._name((old, None), (new, self._live[old]))
            case Removed(path):
                self._name((path, None))
            case Written(number) | Cut(number):
                file = self._files[number]
                _apply(file.live, event)
                file.pending.append((self._count, event))
            case Synced():
                self._sync(event)
            case Noted():
                pass

    def _name(self, *names: tuple[str, int | None]) -> None:
        naming = _Naming(names)
        naming.apply(self._live)
        self._naming.append((self._count, naming))

    def _sync(self, event: Synced) -> None:
        if event.path == self._root or (
            event.file in self._files and self._files[event.file].is_folder
        ):
            if event.is_good:
                self._sync_folder(event)
            return
        file = self._files[event.file]
        done = [change for number, change in file.pending if number <= event.begun]
        file.pending = [each for each in file.pending if each[0] > event.begun]
        for change in done:
            if event.is_good or isinstance(change, Cut):
                _apply(file.synced, change)
                file.given_up = [part for old in file.given_up for part in _left_of(old, change)]
            else:
                file.given_up.append(change)

    def _sync_folder(self, event: Synced) -> None:
        left = []
        for number, naming in self._naming:
            if number <= event.begun and any(_parent(n) == event.path for n, _ in naming.names):
                naming.apply(self._synced)
            else:
                left.append((number, naming))
        self._naming = left

    # --- what a cut leaves --------------------------------------------------------------------

    def live(self) -> dict[str, bytes]:
        """Give all files as a process reads them."""
        return {
            path: bytes(self._files[number].live)
            for path, number in self._live.items()
            if not self._files[number].is_folder
        }

    def states(self, chance: random.Random, more: int) -> Iterator[State]:
        """Give what may be there: nothing that was not synced, all of it, and `more` by chance."""
        yield self._state(_Nothing())
        yield self._state(_Luck())
        for _ in range(more):
            yield self._state(_Some(chance))

    def _state(self, luck: _Luck) -> State:
        entries = dict(self._synced)
        for naming in luck.some([naming for _, naming in self._naming]):
            naming.apply(entries)
        files: dict[str, bytes] = {}
        folders = [self._root]
        for path, number in sorted(entries.items()):
            if _parent(path) not in folders:
                continue  # the folder itself is lost
            if self._files[number].is_folder:
                folders.append(path)
            else:
                files[path] = self._content(self._files[number], luck)
        return State(files, tuple(folders))

    def _content(self, file: _File, luck: _Luck) -> bytes:
        content, end = bytearray(file.synced), len(file.synced)
        for change in luck.some([*file.given_up, *(change for _, change in file.pending)]):
            for part in luck.parts(change, end):
                _apply(content, part)
        return bytes(content)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _left_of(old: Written, new: Written | Cut) -> Iterator[Written]:
    """Give the parts of a write that a later one, or a later end of the file, did not touch."""
    begin, end = old.offset, old.offset + len(old.data)
    first = new.size if isinstance(new, Cut) else new.offset
    last = end if isinstance(new, Cut) else new.offset + len(new.data)
    if begin < (stop := min(end, first)):
        yield Written(old.file, begin, old.data[: stop - begin])
    if (start := max(begin, last)) < end:
        yield Written(old.file, start, old.data[start - begin :])


class _Luck:
    """What of the unsynced changes is on the disk: all."""

    def some(self, changes: Sequence[T]) -> Sequence[T]:
        """Give those that are there, in their order."""
        return changes

    def parts(self, change: Written | Cut, end: int) -> Iterable[Written | Cut]:
        """Give what is there of a change that is; the file reached to `end` when it was synced."""
        return (change,)


class _Nothing(_Luck):
    def some(self, changes: Sequence[T]) -> Sequence[T]:
        return ()


class _Some(_Luck):
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._tears = chance.random() < 0.6
        # What stands where the file grew and nothing was written yet: nothing, or anything.
        self._filling = chance.choice((None, None, b"\0" * _SECTOR, chance.randbytes(_SECTOR)))

    def some(self, changes: Sequence[T]) -> Sequence[T]:
        way = self._chance.choice(("first", "some", "most", "all but one"))
        if way == "first":
            return changes[: self._chance.randint(0, len(changes))]
        if way == "all but one" and changes:
            missing = self._chance.randrange(len(changes))
            return [*changes[:missing], *changes[missing + 1 :]]
        share = 0.5 if way == "some" else 0.85
        return [change for change in changes if self._chance.random() < share]

    def parts(self, change: Written | Cut, end: int) -> Iterable[Written | Cut]:
        if isinstance(change, Cut) or not self._tears or self._chance.random() < 0.5:
            return (change,)
        return self._torn(change, end)

    def _torn(self, change: Written, old_end: int) -> Iterator[Written]:
        at, end = change.offset, change.offset + len(change.data)
        while at < end:
            stop = min(end, (at // _SECTOR + 1) * _SECTOR)
            if self._chance.random() < 0.5:
                yield Written(
                    change.file, at, change.data[at - change.offset : stop - change.offset]
                )
            elif self._filling is not None and at >= old_end:
                yield Written(change.file, at, self._filling[: stop - at])
            at = stop
