"""Engage's SFTP server: sealed files go up whole or not at all, and never to a stranger.

Owns the way a file gets its name there; knows neither the journal nor the spool. The login is that
of `sftp_login.py`, with the time limits of `sftp_line.py`: each acknowledged block of a file starts
a step's time anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from agent.delivery.batch.host_keys import HostKey, pinned_keys, trust
from agent.delivery.batch.sftp_line import shown_keys
from agent.delivery.batch.sftp_login import Account, Login
from agent.delivery.batch.sftp_words import ServerRefused
from agent.delivery.batch.spool import SpoolProblem
from agent.errors import AnswerLost, RouteError, Unreachable

__all__ = [
    "ChangedFile",
    "Finding",
    "ForeignFile",
    "HostKey",
    "ServerRefused",
    "SftpServer",
    "Upload",
    "pinned_keys",
    "shown_keys",
    "trust",
]


class ForeignFile(ServerRefused):
    """Another file stands under the batch's name on the server; it is never overwritten."""

    code = "ForeignFile"


class ChangedFile(SpoolProblem):
    """What was read from the spool is not what was sealed; under its final name it never stands."""

    code = "ChangedFile"


_BLOCK_BYTES: Final = 32 * 1024  # what every SFTP server takes at once
_STEPS: Final = ("connect", "host key", "login", "folder", "write")  # of check(), in this order


@dataclass(frozen=True)
class Upload:
    """A sealed file to be shipped."""

    path: Path  # in the spool
    name: str  # on the server
    bytes: int
    sha256: str  # hex, of what was sealed
    rename_tried: bool = False  # an earlier try came as far as on_complete()


@dataclass(frozen=True)
class Finding:
    """One row of check()."""

    step: str  # one of: connect, host key, login, folder, write
    good: bool
    words: str  # for a person


class SftpServer:
    """The server of the settings. One connection at a time; secrets are read for each of them.

    `directory` is the import folder as the login sees it. With a private key the password is not
    used. A secret that cannot be read is NotAuthorised, like a wrong one. `place` says all of that
    where a file can lie, in one text.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        directory: str,
        timeout_s: float,
        password: Callable[[], str] | None,
        private_key_file: Callable[[], Path] | None,
        known_hosts_file: Path,
    ) -> None:
        self._account = Account(
            host=host,
            port=port,
            username=username,
            directory=directory or ".",
            timeout_s=timeout_s,
            password=password,
            private_key_file=private_key_file,
            known_hosts_file=known_hosts_file,
        )
        self.place = place_of(host, port, username, directory)
        self._alone = asyncio.Lock()

    async def ship(
        self,
        files: Sequence[Upload],
        on_uploaded: Callable[[str], Awaitable[None]],
        on_complete: Callable[[str], Awaitable[None]],
        goes_on: Callable[[str], bool] = lambda _: True,
    ) -> dict[str, RouteError]:
        """Upload files in order over one connection; each gets its name only when it is complete.

        A file goes up under `.<name>.part` (again from its start at every try), digest and size are
        compared, and then it is renamed. `on_complete(name)` is awaited before the rename: what it
        stores comes back as `rename_tried`, and means that a file which then stands under neither
        name was taken by the importer. `on_uploaded(name)` is awaited once the server holds the
        whole file, or held it. Both may be called again for the same file, by a later call.
        `goes_on(name)` is asked before each file, over the open connection: False leaves it and
        those after it to a later call.

        An answer to a rename that gets lost is settled over a second connection. Safe to repeat.

        Gives, by name, what kept a file back that holds up no other: ServerRefused (a smaller file
        may still fit on the disk), ForeignFile, SpoolProblem (the local file cannot be read),
        ChangedFile (it was changed).

        Raises Unreachable, NotAuthorised, HostKeyChanged, ServerRefused (before any file), and
        AnswerLost (the rename may have happened: ship again with rename_tried).
        """
        left = list(files)
        kept_back: dict[str, RouteError] = {}
        async with self._alone:
            try:
                await self._ship_at_once(left, kept_back, on_uploaded, on_complete, goes_on)
            except AnswerLost as lost:
                left[0] = replace(left[0], rename_tried=True)
                try:
                    await self._ship_at_once(left, kept_back, on_uploaded, on_complete, goes_on)
                except Unreachable:
                    raise lost from None
        return kept_back

    async def look(self, names: Sequence[str]) -> dict[str, int | None]:
        """Give the size in bytes of each file, None for one that is not in the folder.

        A folder that is itself missing is ServerRefused: its files were not taken by an importer.
        Raises as ship().
        """
        async with self._alone, self._session() as session:
            return {name: await session.size(name) for name in names}

    async def take_back(self, file: Upload) -> bool:
        """Take a file out of the importer's reach; False if it is under none of its names any more.

        It is renamed and not removed, so that nobody ever has to guess who made it vanish: what
        stands under `.<name>.withdrawn` was not imported, and clean() removes it; what stands
        nowhere was. For a file whose rename was tried, or done.

        An answer that gets lost is settled by asking again: safe to repeat. Raises as ship(), and
        ForeignFile.
        """
        withdrawn = withdrawn_name(file.name)
        async with self._alone, self._session() as session:
            if await session.size(withdrawn) is not None:
                return True
            # The temporary name too, then the final one again: a rename of ours may come that late.
            for there in (file.name, temporary_name(file.name), file.name):
                await session.has_whole(file)
                if await session.size(there) is None:
                    continue
                try:
                    await session.rename(there, withdrawn)
                except ServerRefused:
                    if await session.size(there) is not None:
                        raise
                else:
                    return True
            return False

    async def clean(self, names: Sequence[str]) -> None:
        """Remove what withdrawing or a broken upload left of files; their names are not touched.

        Raises as ship().
        """
        async with self._alone, self._session() as session:
            for name in names:
                await session.remove(temporary_name(name))
                await session.remove(withdrawn_name(name))

    async def check(self) -> list[Finding]:
        """Try every step that an upload needs, up to the first that fails; leaves nothing behind.

        Raises nothing that ship() raises: it becomes the last row.
        """
        async with self._alone:
            session = _Session(self._account)
            try:
                await session.open()
                await session.try_writing()
            except RouteError as problem:
                failed = Finding(_STEPS[len(session.passed)], False, problem.message)
                return [*session.findings(), failed]
            finally:
                await session.close()
            return session.findings()

    async def _ship_at_once(
        self,
        left: list[Upload],
        kept_back: dict[str, RouteError],
        on_uploaded: Callable[[str], Awaitable[None]],
        on_complete: Callable[[str], Awaitable[None]],
        goes_on: Callable[[str], bool],
    ) -> None:
        """Take files off `left` as they are done, over one connection."""
        async with self._session() as session:
            while left and goes_on(left[0].name):
                try:
                    await _ship_file(session, left[0], on_complete)
                except (ServerRefused, SpoolProblem) as problem:
                    kept_back[left[0].name] = problem
                else:
                    await on_uploaded(left[0].name)
                del left[0]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        session = _Session(self._account)
        try:
            await session.open()
            yield session
        finally:
            await session.close()


def place_of(host: str, port: int, username: str, directory: str) -> str:
    """Give login, server and folder as one text; another text is another place, for all we know."""
    return f"{username}@{host.lower()}:{port}:{posixpath.normpath(directory or '.')}"


def temporary_name(name: str) -> str:
    """Give the name under which a file is uploaded; no importer's pattern matches it."""
    return f".{name}.part"


def withdrawn_name(name: str) -> str:
    """Give the name under which a file waits for its removal; no importer's pattern matches it."""
    return f".{name}.withdrawn"


async def _ship_file(
    session: _Session, upload: Upload, on_complete: Callable[[str], Awaitable[None]]
) -> None:
    if await session.has_whole(upload):
        return
    temporary = await session.size(temporary_name(upload.name))
    if upload.rename_tried and temporary is None:
        return  # neither name is there: the importer took it
    if not (upload.rename_tried and temporary == upload.bytes):
        await _send_whole(session, upload)
    await on_complete(upload.name)
    try:
        await session.publish(upload)
    except Unreachable as lost:
        raise AnswerLost(
            f"{lost.message} The file {upload.name} was complete and may have its name already."
        ) from lost
    except ForeignFile:
        raise
    except ServerRefused:
        # Refused because it happened already, or because the importer is quicker than we.
        if not await session.has_whole(upload):
            raise


async def _send_whole(session: _Session, upload: Upload) -> None:
    try:
        await session.send(upload)
    except ServerRefused:
        # On a full disk another file may need the place. Once a rename was tried, though, a missing
        # temporary file says that the importer has it.
        if not upload.rename_tried:
            with suppress(ServerRefused):
                await session.remove(temporary_name(upload.name))
        raise


# --- what an upload does with a login ---------------------------------------------------------


class _Session(Login):
    """A login with what an upload does in its folder."""

    def findings(self) -> list[Finding]:
        """Give a good row for each step that was passed."""
        rows = zip(_STEPS, self.passed, strict=False)
        return [Finding(step, True, words) for step, words in rows]

    async def size(self, name: str) -> int | None:
        """Give a file's size in bytes, None when it is not there."""
        return await self.run(f"looking for {name}", lambda: self._size(name))

    async def has_whole(self, upload: Upload) -> bool:
        """Say whether the final name has that file. Raises ForeignFile when it has another."""
        return await self.run(f"looking for {upload.name}", lambda: self._has_whole(upload))

    async def send(self, upload: Upload) -> None:
        """Write the temporary file, from its start, and compare its digest and size."""
        await self.run(f"sending {upload.name}", lambda: self._send(upload))

    async def publish(self, upload: Upload) -> None:
        """Give a complete temporary file its name, unless a foreign file has it."""
        await self.run(f"renaming {upload.name}", lambda: self._name(upload))

    async def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        await self.run(f"renaming {old}", lambda: self._rename(old, new))

    async def remove(self, name: str) -> None:
        """Remove a file; none is fine."""
        await self.run(f"removing {name}", lambda: self._remove(name))

    async def try_writing(self) -> None:
        """Do with a few bytes what an upload does."""
        name = f".till-agent-{secrets.token_hex(4)}"
        await self.run("writing a small file to try it", lambda: self._try_writing(name))
        self.passed.append("Files can be written, renamed and removed there.")

    def _size(self, name: str) -> int | None:
        try:
            size = self.files.stat(self.place(name)).st_size
        except FileNotFoundError:
            return None
        if size is None:
            raise ServerRefused(f"{self.server} tells no sizes, so no upload can be checked.")
        return size

    def _has_whole(self, upload: Upload) -> bool:
        size = self._size(upload.name)
        if size not in (None, upload.bytes):
            raise ForeignFile(
                f"{self.server} has another file {upload.name} already: {size} bytes instead of "
                f"{upload.bytes}. It is not overwritten. Let somebody look at it and remove it.",
            )
        return size is not None

    def _send(self, upload: Upload) -> None:
        temporary = temporary_name(upload.name)
        try:
            source = upload.path.open("rb")
        except OSError as error:
            raise SpoolProblem(f"The till cannot read {upload.path}: {error.strerror}.") from error
        with source, self.writing(temporary) as target:
            # Each block is acknowledged before the next: paramiko's pipelined writes drop the
            # server's refusals, and a batch is small.
            for block in _sealed_blocks(source, upload):
                target.write(block)
                self.moved()
        size = self._size(temporary)
        if size != upload.bytes:
            raise ServerRefused(
                f"{self.server} holds {size or 0} of {upload.bytes} bytes of {upload.name}. "
                "Its disk may be full."
            )

    def _name(self, upload: Upload) -> None:
        if not self._has_whole(upload):
            self._rename(temporary_name(upload.name), upload.name)

    def _rename(self, old: str, new: str) -> None:
        self._ask_to_rename(old, new)
        if self._size(old) is not None:
            raise ServerRefused(
                f"{self.server} says it renamed {old}, but it is there. Ask the server's operator."
            )

    def _ask_to_rename(self, old: str, new: str) -> None:
        places = self.place(old), self.place(new)
        try:
            self.files.posix_rename(*places)
        except FileNotFoundError:
            raise
        except OSError:
            # Not supported, or denied as an extension: paramiko tells neither from a real failure.
            # The plain rename refuses an existing target, so it is safe as the second way.
            if self._is_lost():
                raise
            self.files.rename(*places)

    def _remove(self, name: str) -> None:
        try:
            self.files.remove(self.place(name))
        except FileNotFoundError:
            return

    def _try_writing(self, name: str) -> None:
        first, second = f"{name}.part", f"{name}.done"
        with self.writing(first) as target:
            target.write(b"till-agent\n")
        try:
            self._rename(first, second)
        finally:
            self._remove(first)
        self._remove(second)


def _sealed_blocks(source: BinaryIO, upload: Upload) -> Iterator[bytes]:
    """Give a file's blocks, the last one only if all of it is as it was sealed.

    So what was changed never has the whole size on the server: by that, a try after a crash tells
    a complete temporary file. Raises ChangedFile, SpoolProblem.
    """
    digest, size = hashlib.sha256(), 0
    block = _read(source, upload.path)
    while True:
        digest.update(block)
        size += len(block)
        following = _read(source, upload.path) if block else b""
        if size >= upload.bytes or not following:
            break
        yield block
        block = following
    if following or size != upload.bytes or digest.hexdigest() != upload.sha256:
        raise ChangedFile(
            f"The file {upload.path} was changed in the spool. It is made again from the journal."
        )
    yield block


def _read(source: BinaryIO, path: Path) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except OSError as error:
        raise SpoolProblem(f"The till cannot read {path}: {error.strerror}.") from error
