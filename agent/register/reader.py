"""Keeps the register of members up to date from Engage's export, or empty where none is wanted.

A file counts whole or not at all: it is read to its end first, and only then does the journal get
it, in pieces that hold up nobody. What cannot be read is left where it is, remembered, and said on
the page; the files after it are read all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from agent import events
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.retry import next_wait
from agent.delivery.ring import until_rung
from agent.errors import AgentError, JournalUnavailable, RouteError
from agent.journal import register
from agent.journal.journal import Journal
from agent.journal.register import FileNote
from agent.register.digests import Digests
from agent.register.document import ExportedMember, ExportParser, NotAnExport
from agent.register.files import ExportFile, in_order, moment_of
from agent.register.folder import ExportFolder, FileChanged, OpenFolder
from agent.register.staging import CHUNK, Stage

_FIRST_LOOK_S = 30.0  # at the latest after the start; a chain's tills do not come all at once
_DOUBT_S = 30.0  # a file that cannot be read may be on its way still
# What is larger is no export of one chain, and would only fill the disk.
_LARGEST_FILE = 2 * 1024**3
_MOST_MEMBERS_PER_ROOM = 2
_USUAL_SPLIT = 10_000  # contacts in one file (Engage's docs, "Contact XML export")
_SAID_FOR = timedelta(days=7)  # how long a file that was set aside is said on the page

_FULL = (
    "Engage's member export has more members than register.max_members allows, so some are not "
    "recognised without a line. Raise the setting, and see that the disk has room for them."
)


@dataclass(frozen=True)
class Fill:
    """How full the register is, and of when."""

    members: int = 0
    told_at: str | None = None  # the moment of the newest file, UTC, ISO 8601
    read_at: str | None = None  # when the folder was last looked through to its end
    set_aside: tuple[str, ...] = ()  # files that cannot be read, for as long as it is said


class ExportReader:
    """Reads new files of the export now and then, and erases the register when it is not wanted."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        folder: ExportFolder | None,
        digests: Digests,
        clock: Clock,
        *,
        may_read: Callable[[], bool] = lambda: True,
    ) -> None:
        """`folder`: None where no export is wanted; `may_read`: False while the login is halted."""
        self._config = config
        self._journal = journal
        self._folder = folder
        self._digests = digests
        self._clock = clock
        self._may_read = may_read
        self._wanted_now = asyncio.Event()
        self._looking = asyncio.Lock()
        self._tries = 0  # since the last success
        self.fill = Fill()
        self.problem: str | None = None  # why it cannot be read, for the page

    @property
    def is_on(self) -> bool:
        """Say whether an export is read."""
        return self._folder is not None

    def hurry(self) -> None:
        """A person asked: look now."""
        self._wanted_now.set()

    async def run(self) -> None:
        """Read until cancelled, or erase what is there and then rest."""
        if self._folder is None:
            await self._erase()
            await asyncio.Event().wait()
        await self._note_fill(self.fill.read_at)
        first_s = min(self._config.register.poll_s, _FIRST_LOOK_S)
        await until_rung(self._wanted_now, random.uniform(0, first_s))  # noqa: S311
        while True:
            await until_rung(self._wanted_now, await self._turn())

    # --- looking ------------------------------------------------------------------------------

    async def _turn(self) -> float:
        """Look through the folder once; gives the seconds until the next time."""
        # Spread, so that a chain's tills do not all ask in the same second.
        usual_s = self._config.register.poll_s * random.uniform(0.8, 1.2)  # noqa: S311
        if not self._may_read():
            return usual_s  # the same login is halted; why, the file route says
        try:
            is_through = await self.look()
        except RouteError as error:
            events.log().warning("export_not_read", code=error.code, error=error.message)
            self._tries += 1
            if not error.against_link:
                self.problem = _not_read(error.message)
                return usual_s
            # A line that is down heals by itself.
            return min(usual_s, next_wait(self._config.retry.waits_s, self._tries, random.uniform))
        except AgentError as error:
            events.log().warning("export_not_read", code=error.code, error=error.message)
            self.problem = _not_read(error.message)
            return usual_s
        self._tries = 0
        return usual_s if is_through else min(usual_s, _DOUBT_S)

    async def look(self) -> bool:
        """Take in what is new in the folder, in the order in which it was made.

        Gives False if a file may be on its way still: it and what follows it is left for the next
        time. Raises RouteErrors and AgentErrors; what was taken in before stays.
        """
        assert self._folder is not None  # noqa: S101 - run() looks first
        async with self._looking, self._folder.opened() as folder:
            await self._know_key()
            listed = in_order(await folder.listed())
            known = await self._known(listed)
            for file in listed:
                note = known.get(file.name)
                if note is not None and not await self._is_worth_another_look(note):
                    continue
                is_doubted = note is not None and note.state == "doubted"
                if not await self._read(folder, file, is_doubted=is_doubted):
                    return False
        await self._note_fill(to_text(self._clock.now()))
        return True

    async def _is_worth_another_look(self, note: FileNote) -> bool:
        if note.state == "taken" and note.reason is not None:
            return await self._room() > 0
        return note.state == "doubted"

    async def _know_key(self) -> None:
        """See to it that the digests were made with the key that is there now."""
        if not self._digests.is_open:
            self._digests.open()
        if await self._journal.read(register.key_check) != self._digests.check:
            await self._erase_members()
            await self._journal.write(partial(register.note_key, check=self._digests.check))

    async def _known(self, listed: Iterable[ExportFile]) -> dict[str, FileNote]:
        """Give what became of the listed files, as they are now; forget those that are gone."""
        files = {file.name: file for file in listed}
        notes = await self._journal.read(register.files)
        gone = [name for name in notes if name not in files]
        if gone:
            await self._journal.write(partial(register.forget_files, names=gone))
        return {
            name: note
            for name, note in notes.items()
            if name in files
            and (note.bytes, note.modified) == (files[name].bytes, files[name].modified)
        }

    # --- one file -----------------------------------------------------------------------------

    async def _read(self, folder: OpenFolder, file: ExportFile, *, is_doubted: bool) -> bool:
        """Take a file in; one that cannot be read is doubted first, then set aside.

        Gives False while it is doubted.
        """
        state, reason = "taken", None
        try:
            if refused := await self._take(folder, file):
                reason = f"{refused} members had no room"
        except FileChanged:
            return False
        except NotAnExport as error:
            state, reason = ("broken" if is_doubted else "doubted"), str(error)
            if is_doubted:
                events.log().error("export_set_aside", file=file.name, reason=reason)
        read_at = to_text(self._clock.now())
        note = FileNote(file.name, file.bytes, file.modified, state, reason, read_at)
        await self._journal.write(partial(register.note_file, note=note))
        return state != "doubted"

    async def _take(self, folder: OpenFolder, file: ExportFile) -> int:
        """Take a file in; gives for how many new members there was no room.

        Raises NotAnExport, and nothing of the file was taken in then.
        """
        self._journal.check_room()
        now = self._clock.now()
        try:
            with Stage(
                self._journal.database.path.parent,
                self._config.engage,
                self._digests,
                now.astimezone().date(),
            ) as stage:
                count = await self._stage(folder, file, stage)
                refused = await self._store(stage, to_text(moment_of(file, now)))
        except OSError as error:
            raise JournalUnavailable(
                f"The till's disk does not take what is read ({error.strerror})."
            ) from error
        events.log().info("export_read", file=file.name, bytes=file.bytes, contacts=count)
        return refused

    async def _stage(self, folder: OpenFolder, file: ExportFile, stage: Stage) -> int:
        if file.bytes > _LARGEST_FILE:
            raise NotAnExport("it is larger than 2 GiB")
        parser = ExportParser()
        count, most = 0, _MOST_MEMBERS_PER_ROOM * self._config.register.max_members + _USUAL_SPLIT
        async for piece in folder.content(file):
            count += await asyncio.to_thread(_staged, stage, parser.feed, piece)
            if count > most:
                raise NotAnExport("it has far more members than register.max_members allows")
        return count + await asyncio.to_thread(_staged, stage, parser.close)

    async def _store(self, stage: Stage, told_at: str) -> int:
        refused = 0
        room = await self._room()
        for entries in stage.chunks():
            taken = await self._journal.write(
                partial(register.take, entries=entries, told_at=told_at, room=room)
            )
            room -= taken.added
            refused += taken.refused
        return refused

    async def _room(self) -> int:
        return self._config.register.max_members - await self._journal.read(register.size)

    # --- how full it is -----------------------------------------------------------------------

    async def _note_fill(self, read_at: str | None) -> None:
        notes = (await self._journal.read(register.files)).values()
        since = to_text(self._clock.now() - _SAID_FOR)
        broken = [note for note in notes if note.state == "broken" and note.read_at >= since]
        self.problem = (
            _FULL if any(note.state == "taken" and note.reason for note in notes) else None
        )
        self.fill = Fill(
            members=await self._journal.read(register.size),
            told_at=await self._journal.read(register.newest),
            read_at=read_at,
            set_aside=tuple(f"{note.name} ({note.reason})" for note in broken),
        )

    # --- not wanted ---------------------------------------------------------------------------

    async def _erase(self) -> None:
        """The setting is off: nothing of an export stays on the till."""
        if not await self._journal.read(register.is_empty):
            await self._erase_members()
            events.log().info("register_erased")
        try:
            self._digests.forget()
        except AgentError as error:
            self.problem = error.message

    async def _erase_members(self) -> None:
        while await self._journal.write(partial(register.erase_some, limit=CHUNK)):
            pass
        await self._journal.scrub()


def _staged(stage: Stage, read: Callable[..., list[ExportedMember]], *data: bytes) -> int:
    return stage.add(read(*data))


def _not_read(cause: str) -> str:
    return (
        f"Engage's member export cannot be read: {cause} "
        "Who is known already is recognised all the same; it is tried again by itself."
    )
