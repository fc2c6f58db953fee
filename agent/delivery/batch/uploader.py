"""Ships sealed batches, oldest first, and notices when Engage has taken them.

Has its own opinion of its own line: files go up while only the API is down. Nothing is ever
rejected here; what does not work is tried again, slowly, and said on the page. A file leaves the
server by Engage's import, or because a person takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from agent import events
from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.batch.pacing import Pacing
from agent.delivery.batch.sealer import Sealer
from agent.delivery.batch.sftp import (
    ChangedFile,
    ServerRefused,
    SftpServer,
    Upload,
    withdrawn_name,
)
from agent.delivery.batch.spool import Spool, SpoolProblem
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link
from agent.delivery.ring import until_rung
from agent.errors import (
    AgentError,
    Conflict,
    HostKeyChanged,
    JournalError,
    NotAuthorised,
    NotWithdrawn,
    RouteError,
)
from agent.journal import batches
from agent.journal.batches import Batch, Rest
from agent.journal.journal import Journal

_TICK_S = 1.0
_PATIENCE_S = 20.0  # of a person, until nothing else is done with the files
_UNCHANGED = "The file and its changes stay as they are; try again later."

Result = TypeVar("Result")


class Unforeseen(RouteError):
    """A fault of the agent itself, or of a library; the file and its changes stay as they are."""

    code = "Unforeseen"


def _unforeseen(error: Exception) -> Unforeseen:
    """Log what nobody has foreseen, and give it as what it means for the file."""
    kind = type(error).__name__
    events.log().error("loop_bug", where="uploader", error=kind, exception=error)
    return Unforeseen(
        f"Something went wrong that the agent does not know ({kind}). It is tried again, slowly; "
        "send what “till-agent support” makes to whoever supports the agent."
    )


def _about_elsewhere(batch: str, place: str | None) -> str:
    return (
        f"{batch} went up to {place}, and the settings name another place now. Set "
        "sftp.host, sftp.port, sftp.username and sftp.directory back until Engage has imported it; "
        "its customers' changes wait for it. Or remove it there, and say so with "
        f"“till-agent batches withdraw {batch} --removed”."
    )


class Uploader:
    """Takes written batches to the server, and polls until they are gone from it."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        server: SftpServer,
        sealer: Sealer,
        spool: Spool,
        gate: RouteGate,
        clock: Clock,
    ) -> None:
        self._config = config
        self._journal = journal
        self._server = server
        self._sealer = sealer
        self._spool = spool
        self._gate = gate
        self._clock = clock
        self.link = Link(clock, offline_after=config.link.offline_after)
        self.imported = asyncio.Event()  # something may be verified
        waits_s, poll_s = config.retry.waits_s, config.sftp.poll_s
        self._shipping = Pacing(clock, waits_s)
        self._kept_back: dict[str, Pacing] = {}  # files that alone cannot go up, by name
        self._polling = Pacing(clock, waits_s, least_s=poll_s)
        self._cleaning = Pacing(clock, waits_s, least_s=poll_s)
        self._stranded: list[str] = []  # batches of the other transport
        self._elsewhere: list[Batch] = []  # those whose file was put to another place
        self._login_refused = False  # in this turn
        self._people_waiting = 0  # to take a file back
        self._working = asyncio.Lock()  # a person may take a file back while the loop is at work

    async def run(self) -> None:
        """Upload and poll until cancelled."""
        while True:
            try:
                async with self._working:
                    await self._turn()
            except JournalError as error:
                events.log().error("journal_trouble", where="uploader", error=error.message)
            await until_rung(self._sealer.written, min(_TICK_S, self._config.sftp.poll_s))

    def hurry(self) -> None:
        """A person asked: do not wait for the next try."""
        kinds = (self._shipping, self._polling, self._cleaning)
        for pacing in (*kinds, *self._kept_back.values()):
            pacing.hurry()

    @property
    def problems(self) -> tuple[str, ...]:
        """Give what the server refuses and what this transport cannot settle, for the page."""
        found = [self._shipping.problem, self._about_kept_back()]
        found += [self._polling.problem, self._cleaning.problem]
        if self._stranded:
            found.append(
                f"{self._stranded[0]} was handed over by bulk calls, and fallback.transport is "
                "sftp now. Set it to bulk again until that is settled; its customers' changes wait "
                "for it."
            )
        found += [_about_elsewhere(batch.name, batch.place) for batch in self._elsewhere[:1]]
        return tuple(dict.fromkeys(problem for problem in found if problem is not None))

    def _about_kept_back(self) -> str | None:
        for name, pacing in self._kept_back.items():
            if pacing.problem is not None:
                return (
                    f"{pacing.problem} The file {name} waits for that, no other does. Take it "
                    f"back with “till-agent batches withdraw {name}”: then its changes go by the "
                    "API."
                )
        return None

    async def withdraw(self, name: str, *, removed: bool = False) -> Batch:
        """Take a file back because a person asks: its changes wait again, and it is not imported.

        `removed`: the person has removed it from the server and folder of former settings, which
        the agent does not ask any more. Where the settings lead to it, the server is asked anyway.

        Also while the route is paused or halted. Raises NotFound, Conflict where Engage has taken
        it already, and NotWithdrawn where the server cannot be asked or does not do it: then the
        file and its changes stay as they are. Safe to repeat.
        """
        async with self._uninterrupted():
            batch = await self._journal.read(partial(batches.get, name=name))
            if batch.state in ("written", "uploaded"):
                if batch.by_bulk:
                    raise NotWithdrawn(
                        f"It was handed over by bulk calls, and what Engage has queued cannot be "
                        f"taken back. {_UNCHANGED}"
                    )
                if batch.may_be_on_server and self._is_here(batch):
                    await self._take_back(batch)
                elif batch.may_be_on_server and not removed:
                    raise NotWithdrawn(f"{_about_elsewhere(name, batch.place)} {_UNCHANGED}")
            withdrawn = await self._note_withdrawn(batch)
            leftovers = await self._leftovers()
            if leftovers and self._gate.halt is None:  # or else the next probe does it
                await self._guarded(self._cleaning, partial(self._clean, leftovers))
        return withdrawn

    @contextlib.asynccontextmanager
    async def _uninterrupted(self) -> AsyncIterator[None]:
        """Wait until nothing is uploaded or written, and keep it so."""
        async with contextlib.AsyncExitStack() as stack:
            self._people_waiting += 1
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await stack.enter_async_context(self._working)
                    await stack.enter_async_context(self._sealer.sealing)
            except TimeoutError:
                raise NotWithdrawn(f"Files are being written or uploaded. {_UNCHANGED}") from None
            finally:
                self._people_waiting -= 1
            yield

    async def _turn(self) -> None:
        await self._survey()
        if not (self._gate.is_open or self._gate.takes_probe()):
            return
        self._login_refused = False
        for work in (self._ship_what_is_due, self._poll_what_is_due, self._clean_what_is_due):
            await work()
            if self._login_refused:
                return  # a wrong password that is tried too often gets the account locked

    async def _ship_what_is_due(self) -> None:
        written = await self._in_state("written")
        self._forget_kept_back(written)
        if written and self._is_due(self._shipping):
            await self._ship(written)

    async def _poll_what_is_due(self) -> None:
        uploaded = await self._in_state("uploaded")
        if uploaded and self._is_due(self._polling):
            self._polling.rest(self._config.sftp.poll_s)
            note = partial(batches.note_poll, names=[batch.name for batch in uploaded])
            if await self._guarded(self._polling, partial(self._poll, uploaded), note):
                await self._journal.write(partial(note, error=None))

    async def _clean_what_is_due(self) -> None:
        leftovers = await self._leftovers()
        if leftovers and self._is_due(self._cleaning):
            await self._guarded(self._cleaning, partial(self._clean, leftovers))

    def _is_due(self, pacing: Pacing) -> bool:
        return pacing.is_due or self._gate.halt is not None  # then this is the probe

    async def _survey(self) -> None:
        """See which open batches cannot be settled with these settings."""
        read = partial(batches.in_state, states=("written", "uploaded"))
        found = await self._journal.read(read)
        self._stranded = [batch.name for batch in found if batch.by_bulk]
        self._elsewhere = [batch for batch in found if not self._is_here(batch)]

    def _is_here(self, batch: Batch) -> bool:
        """Say whether its file is where these settings lead; before it is put anywhere, it is.

        Older versions did not note the place; theirs is taken to be this one.
        """
        return batch.place in (None, self._server.place)

    async def _in_state(self, state: str) -> tuple[Batch, ...]:
        found = await self._journal.read(partial(batches.in_state, states=(state,)))
        return tuple(batch for batch in found if not batch.by_bulk and self._is_here(batch))

    async def _leftovers(self) -> tuple[str, ...]:
        return await self._journal.read(partial(batches.leftovers, place=self._server.place))

    # --- what the server says -----------------------------------------------------------------

    async def _guarded(
        self,
        pacing: Pacing,
        work: Callable[[], Awaitable[None]],
        note: Callable[..., None] | None = None,
    ) -> bool:
        """Do something at the server; what goes wrong becomes a halt or a later try.

        `note` is the unit of work that keeps an `error` with the batches. Gives whether it worked.
        Raises JournalError.
        """
        try:
            await self._heard(work)
        except RouteError as error:
            trouble = error
        except JournalError:
            pacing.failed(None)
            raise
        except Exception as bug:
            trouble = _unforeseen(bug)
        else:
            pacing.succeeded()
            return True
        events.log().warning("upload_failed", code=trouble.code, error=trouble.message)
        # Where the line is up and the answer is no, a person must see to it.
        is_no = isinstance(trouble, ServerRefused | SpoolProblem | Unforeseen)
        pacing.failed(trouble.message if is_no else None)
        if note is not None:
            await self._journal.write(partial(note, error=trouble.message))
        return False

    async def _heard(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do something at the server and note what that says of line and login.

        Raises RouteErrors.
        """
        try:
            result = await work()
        except (NotAuthorised, HostKeyChanged) as error:
            if self._gate.halt is None:
                events.log().error("route_halted", route="file", code=error.code)
            self._gate.stop(error.message)
            self._login_refused = True
            raise
        except RouteError as error:
            if error.against_link:
                self.link.failed(error.message)
            raise
        self.link.heard()
        if self._gate.halt is not None:
            self._gate.cured()
            events.log().info("route_resumed", route="file")
        return result

    # --- uploading ----------------------------------------------------------------------------

    async def _ship(self, written: Sequence[Batch]) -> None:
        """Send what can be sent; a file with a trouble of its own holds up no other."""
        uploads = []
        for batch in filter(self._may_go, written):
            try:
                uploads.append(self._upload_of(await self._whole(batch)))
            except JournalError:
                raise
            except Exception as raised:
                trouble = raised if isinstance(raised, RouteError) else _unforeseen(raised)
                if batch.full_size:
                    uploads.append(self._upload_of(batch))  # the server may have it already
                else:
                    await self._keep_back(batch.name, trouble)
        if uploads:
            await self._send(uploads)

    async def _send(self, uploads: Sequence[Upload]) -> None:
        """Send files over one connection, as long as nobody waits for something else."""
        concerned = {upload.name for upload in uploads}  # by what goes wrong, if it does now
        begun: list[str] = []
        went_up: set[str] = set()
        may_poll = bool(await self._in_state("uploaded"))

        def goes_on(name: str) -> bool:
            polls = may_poll and self._polling.is_due
            if begun and (polls or self._people_waiting):
                return False
            begun.append(name)
            concerned.clear()
            concerned.add(name)
            return True

        async def note_uploaded(name: str) -> None:
            nonlocal may_poll
            concerned.discard(name)
            went_up.add(name)
            self._kept_back.pop(name, None)
            await self._note_uploaded(name)
            if not may_poll:
                self._polling.rest(self._config.sftp.poll_s)
                may_poll = True

        async def ship() -> None:
            try:
                kept_back = await self._server.ship(
                    uploads, note_uploaded, self._note_full_size, goes_on
                )
            except AgentError:
                raise
            except Exception as bug:
                if not begun:
                    raise
                kept_back = {begun[-1]: _unforeseen(bug)}
            for name, error in kept_back.items():
                await self._keep_back(name, error)

        note = partial(batches.note_trouble, names=concerned)
        await self._guarded(self._shipping, ship, note)
        if went_up:
            self._polling.hurry()

    def _may_go(self, batch: Batch) -> bool:
        pacing = self._kept_back.get(batch.name)
        return pacing is None or self._is_due(pacing)

    async def _keep_back(self, name: str, error: RouteError) -> None:
        """Try a file that alone cannot go up again later, and say so on the page."""
        # What was changed in the spool is simply made again; if that goes on, a person must look.
        is_new = isinstance(error, ChangedFile) and name not in self._kept_back
        pacing = self._kept_back.setdefault(name, Pacing(self._clock, self._config.retry.waits_s))
        pacing.failed(None if is_new else error.message, soon=is_new)
        events.log().warning("upload_failed", batch=name, code=error.code, error=error.message)
        note = partial(batches.note_trouble, names=(name,), error=error.message)
        await self._journal.write(note)

    def _forget_kept_back(self, written: Sequence[Batch]) -> None:
        names = {batch.name for batch in written}
        self._kept_back = {
            name: pacing for name, pacing in self._kept_back.items() if name in names
        }

    def _upload_of(self, batch: Batch) -> Upload:
        path = self._spool.path(batch.name)
        return Upload(path, batch.name, batch.bytes or 0, batch.sha256 or "", batch.full_size)

    async def _whole(self, batch: Batch) -> Batch:
        """Give the batch once its file stands in the spool unchanged; make it again if need be."""
        if batch.sha256 is not None and batch.bytes is not None:
            intact = await asyncio.to_thread(
                self._spool.holds, batch.name, batch.sha256, batch.bytes
            )
            if intact:
                return batch
        events.log().warning("batch_rebuilt", batch=batch.name)
        async with self._sealer.sealing:  # or its sweep might take the file for one of a former run
            await self._sealer.write_file(batch)
        return await self._journal.read(partial(batches.get, name=batch.name))

    async def _note_full_size(self, name: str) -> None:
        place = self._server.place
        await self._journal.write(partial(batches.note_full_size, name=name, place=place))

    async def _note_uploaded(self, name: str) -> None:
        now = to_text(self._clock.now())
        note = partial(batches.note_uploaded, name=name, now=now, place=self._server.place)
        await self._journal.write(note)
        await self._sealer.remove_file(name)
        events.log().info("batch_uploaded", batch=name)

    # --- after it -----------------------------------------------------------------------------

    async def _poll(self, waiting: tuple[Batch, ...]) -> None:
        """The file's disappearance says that Engage processed it, not that it accepted it."""
        names = [batch.name for batch in waiting]
        sizes = await self._server.look([*names, *map(withdrawn_name, names)])
        for batch in waiting:
            if sizes[batch.name] is not None:
                continue
            if sizes[withdrawn_name(batch.name)] is not None:
                # A person took it back, and nobody heard that it had worked.
                await self._note_withdrawn(batch)
            else:
                await self._note_imported(batch.name)

    async def _note_imported(self, name: str) -> None:
        now = to_text(self._clock.now())
        await self._journal.write(
            partial(batches.note_imported, name=name, now=now, verify=self._journal.verify)
        )
        self.imported.set()
        events.log().info("batch_imported", batch=name)

    # --- taking a file back -------------------------------------------------------------------

    async def _take_back(self, batch: Batch) -> None:
        file = self._upload_of(batch)
        try:
            is_ours = await self._heard(partial(self._server.take_back, file))
        except RouteError as error:
            raise NotWithdrawn(f"{error.message} {_UNCHANGED}") from error
        if not is_ours:
            if batch.state == "written":
                await self._note_uploaded(batch.name)
            await self._note_imported(batch.name)
            raise Conflict(
                f"Engage has taken {batch.name} already; it cannot be withdrawn any more. Its "
                "contacts are looked up now."
            )

    async def _note_withdrawn(self, batch: Batch) -> Batch:
        if batch.state == "withdrawn":
            return batch
        now, was_there = self._clock.now(), batch.may_be_on_server
        # An import that had begun to read the file gets some time to end.
        rest_s = self._config.sftp.poll_s if was_there else 0.0
        due = self._clock.monotonic() + rest_s
        withdrawn = await self._journal.write(
            partial(
                batches.withdraw,
                name=batch.name,
                now=to_text(now),
                rest=Rest(
                    due=due if rest_s else 0.0,
                    due_at=to_text(now + timedelta(seconds=rest_s)) if rest_s else None,
                    # As if they were asked for now; or a line that is down seals them at once.
                    sealed_from=due + self._config.fallback.seal_after_s,
                ),
                leftover=self._is_here(batch) and (was_there or batch.attempts > 0),
            )
        )
        events.log().warning("batch_withdrawn", batch=batch.name, contacts=batch.contacts)
        self._journal.news.recorded.set()
        await self._sealer.remove_file(batch.name)
        return withdrawn

    async def _clean(self, names: Sequence[str]) -> None:
        await self._server.clean(names)
        for name in names:
            await self._journal.write(partial(batches.note_cleaned, name=name))
