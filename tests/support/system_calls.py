"""What a process really asked of the file system: its system calls, recorded by strace.

Only calls on files below one folder are kept, with all that was written, and in between the notes
that the process made on its standard output.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from patience import PATIENCE_S

STDOUT = 1
NOTE = "noted: "
# Everything that makes, names, fills, cuts or syncs a file.
_TRACED = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,"
    "symlinkat,fsync,fdatasync,sync_file_range,copy_file_range,dup,dup2,dup3"
)
_LONGEST_WRITE = 64 * 1024 * 1024
_CALL = re.compile(r"(?P<name>[a-z0-9_]+)\((?P<given>.*)\)\s+= (?P<result>-?\d+)(?P<error>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Made:
    """A name that a new file or folder got."""

    path: str
    file: int
    is_folder: bool = False


@dataclass(frozen=True)
class Written:
    """Bytes that went into a file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file that got another length."""

    file: int
    size: int


@dataclass(frozen=True)
class Renamed:
    """A file that got another name, in the place of whatever had it."""

    old: str
    new: str


@dataclass(frozen=True)
class Removed:
    """A name that is gone."""

    path: str


@dataclass(frozen=True)
class Synced:
    """A sync of a file or folder, and whether it worked."""

    path: str  # as it was opened
    file: int
    is_good: bool
    begun: int  # so many events came before it began


@dataclass(frozen=True)
class Noted:
    """What the process said of itself on its standard output, in a line that begins with NOTE."""

    text: str


Event = Made | Written | Cut | Renamed | Removed | Synced | Noted


def refusal() -> str | None:
    """Say why no process can be traced here; None where it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is missing (packaging/system-tools.sh installs it)"
    tried = subprocess.run(
        [strace, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    return None if tried.returncode == 0 else f"nothing can be traced here: {tried.stderr.strip()}"


def need_tracing() -> None:
    """Skip the test where no process can be traced."""
    if (why := refusal()) is not None:
        pytest.skip(why)


def injecting(call: str, error: str, when: str) -> str:
    """Give strace's option by which some of these calls fail; `when` as in its manual, "3..5"."""
    return f"inject={call}:error={error}:when={when}"


def record(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    files: Mapping[str, int] | None = None,
    failing: Sequence[str] = (),
) -> list[Event]:
    """Run a process to its end and give what it did below `folder`.

    `files` are those that are there before, by path, each with a number of its own. `failing` are
    options of strace that make calls fail (injecting()).
    """
    options = [
        *("strace", "-f", "-qq", "-xx", "-s", str(_LONGEST_WRITE), "-o", str(log)),
        *("--seccomp-bpf", "-e", f"trace={_TRACED}"),
    ]
    for each in failing:
        options += ["-e", each]
    with subprocess.Popen(
        [*options, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as strace:
        try:
            _, said = strace.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(strace.pid, signal.SIGKILL)  # what it traces would live on
            raise
    assert strace.returncode == 0, said[-4000:]
    return list(_Reader(str(folder), dict(files or {})).events(log))


@dataclass
class _Open:
    path: str
    file: int
    at: int = 0
    appends: bool = False


@dataclass
class _Reader:
    """Turns strace's lines into events. One process; its threads share their descriptors."""

    folder: str
    files: dict[str, int]  # path → number, as it is now
    opened: dict[int, _Open] = field(default_factory=dict)
    last: int = 1000  # the highest number given; below are those of the files there before
    said: str = ""
    count: int = 0

    def events(self, log: Path) -> Iterator[Event]:
        half: dict[str, tuple[str, int]] = {}  # thread → a call that has not ended, and its begin
        with log.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                thread, _, rest = line.rstrip("\n").partition(" ")
                rest = rest.lstrip()
                begun = self.count
                if rest.endswith("<unfinished ...>"):
                    half[thread] = rest.removesuffix("<unfinished ...>"), begun
                    continue
                if rest.startswith("<... "):
                    head, begun = half.pop(thread)
                    rest = head + rest.partition("resumed>")[2]
                if (found := _CALL.match(rest)) is None:
                    continue  # signals and exits
                for event in self._events_of(found, begun):
                    self.count += 1
                    yield event

    def _events_of(self, call: re.Match[str], begun: int) -> Iterator[Event]:
        name, given, result = call["name"], call["given"], int(call["result"])
        if name in ("fsync", "fdatasync"):
            if (at := self.opened.get(int(given))) is not None:
                yield Synced(at.path, at.file, result == 0, begun)
            return
        if result < 0:
            return
        texts = [bytes.fromhex(each.replace("\\x", "")) for each in _TEXT.findall(given)]
        numbers = _TEXT.sub("T", given).split(", ")
        handler = getattr(self, f"_{name.rstrip('0123456789')}", None)
        if handler is not None:
            yield from handler(numbers, texts, result)
        elif self._is_ours(numbers, texts):
            raise NotImplementedError(f"the model knows no {name}")

    def _is_ours(self, numbers: list[str], texts: list[bytes]) -> bool:
        in_folder = any(self._path(text) is not None for text in texts)
        return in_folder or (numbers[0].isdigit() and int(numbers[0]) in self.opened)

    def _path(self, text: bytes) -> str | None:
        path = os.fsdecode(text)
        inside = path == self.folder or path.startswith(self.folder + "/")
        # What is shared between processes is no file that lasts: it is made anew at each opening.
        return path if inside and not path.endswith("-shm") else None

    def _number(self, path: str) -> int:
        self.last += 1
        self.files[path] = self.last
        return self.last

    # --- calls, by their names ----------------------------------------------------------------

    def _openat(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        self.opened.pop(result, None)
        if (path := self._path(texts[0])) is None:
            return
        flags = numbers[2].split("|")
        if path not in self.files:
            self._number(path)
            if "O_CREAT" in flags:
                yield Made(path, self.files[path])
        file = self.files[path]
        if "O_TRUNC" in flags:
            yield Cut(file, 0)
        self.opened[result] = _Open(path, file, appends="O_APPEND" in flags)

    def _close(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        self.opened.pop(int(numbers[0]), None)
        return iter(())

    def _write(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        descriptor = int(numbers[0])
        if descriptor == STDOUT:
            *lines, self.said = (self.said + texts[0][:result].decode()).split("\n")
            for line in lines:
                if line.startswith(NOTE):
                    yield Noted(line.removeprefix(NOTE))
        elif (at := self.opened.get(descriptor)) is not None:
            if at.appends:
                raise NotImplementedError("the model knows no O_APPEND")
            yield Written(at.file, at.at, texts[0][:result])
            at.at += result

    def _pwrite(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        if (at := self.opened.get(int(numbers[0]))) is not None:
            yield Written(at.file, int(numbers[-1]), texts[0][:result])

    def _lseek(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        if (at := self.opened.get(int(numbers[0]))) is not None:
            at.at = result
        return iter(())

    def _ftruncate(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        if (at := self.opened.get(int(numbers[0]))) is not None:
            yield Cut(at.file, int(numbers[1]))

    def _rename(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        old, new = (self._path(text) for text in texts)
        if old is not None and new is not None:
            self.files[new] = self.files.pop(old)
            yield Renamed(old, new)

    _renameat = _rename

    def _unlink(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        if (path := self._path(texts[0])) is not None:
            self.files.pop(path, None)
            yield Removed(path)

    _unlinkat = _unlink

    def _mkdir(self, numbers: list[str], texts: list[bytes], result: int) -> Iterator[Event]:
        if (path := self._path(texts[0])) is not None:
            yield Made(path, self._number(path), is_folder=True)
