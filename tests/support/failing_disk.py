"""A disk that fails under a running agent: strace lets some of its system calls go wrong."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from patience import PATIENCE_S, eventually

# As strace shows it: which call, which file (of an opening stands last), and made to fail or not.
_CALL = re.compile(
    r"^\d+\s+(?P<call>openat(?=.*<(?P<opened>/[^>]*)>$)|\w+)"
    r"\((?:\d+<(?P<path>/[^>]*)>)?.*?(?P<hit>\(INJECTED\))?$"
)


class FailingDisk:
    """While it is entered, these calls of a process fail on these files; then the disk is well."""

    def __init__(
        self, pid: int, files: Sequence[Path], calls: Sequence[str], error: str, log: Path
    ) -> None:
        """`calls` as the kernel names them, `error` like EIO; the rest is recorded only."""
        self._log = log
        self._command = ["strace", "-f", "-y", "-s", "8", "-o", str(log), "-p", str(pid)]
        for path in files:
            self._command += ["-P", str(path.resolve())]
        self._command += ["-e", "trace=openat,pwrite64,ftruncate,fsync,fdatasync"]
        self._command += ["-e", f"inject={','.join(calls)}:error={error}"]
        self._strace: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._strace = await asyncio.create_subprocess_exec(
            *self._command, stderr=asyncio.subprocess.PIPE
        )
        assert self._strace.stderr is not None
        said = await asyncio.wait_for(self._strace.stderr.readline(), PATIENCE_S)
        assert b"attached" in said, said
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._strace is not None
        if self._strace.returncode is None:
            self._strace.send_signal(signal.SIGINT)  # lets go of the process, which runs on
        await asyncio.wait_for(self._strace.communicate(), PATIENCE_S)

    def calls(self) -> list[tuple[str, str, bool]]:
        """Give the calls so far: name, file, and whether it was made to fail."""
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        found = [match for line in lines if (match := _CALL.match(line.strip()))]
        return [
            (each["call"], Path(each["opened"] or each["path"] or "").name, each["hit"] is not None)
            for each in found
        ]

    @property
    def hits(self) -> int:
        """Give how many calls failed so far."""
        return sum(hit for *_, hit in self.calls())

    async def strikes(self, times: int = 1) -> None:
        """Wait until so many calls have failed."""
        await eventually(lambda: self.hits >= times, "the disk fails")
