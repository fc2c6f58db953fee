"""One typed picture of the agent, and the observer that takes it.

Knows the journal; of the lines and gates it only knows their shape, so that status never reaches
into delivery.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from agent import __version__
from agent.change import Change, Route, State
from agent.clock import Clock, to_text
from agent.config import Config, config_hash
from agent.errors import AgentError, JournalFull, JournalUnavailable, Overloaded
from agent.events import mask
from agent.journal import batches, changes, erasure, failures, figures, skipped
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.status import day, troubles
from agent.status.ages import UploadAges
from agent.status.facts import (
    Facts,
    Line,
    OpenBatch,
    RegisterFill,
    RouteState,
    SkippedFile,
    Storage,
)
from agent.status.verdict import Need, Verdict, needs, verdict

T = TypeVar("T")

# Many pages and probes may look at once; they share one picture for so long.
_FRESH_S = 0.5
# A disk that hangs must not hang the page that is to tell of it.
_PATIENCE_S = 2.5  # a little longer than SQLite waits for another program's lock
# For so long the page says that who was erased here must be erased in Engage too.
_ERASED_LATELY = timedelta(days=7)
_SILENT = "The till's disk does not answer."
_OPEN_BATCHES = ("sealed", "written", "uploaded", "imported")
_REFUSED_SHOWN = 5
_FAILURES_READ = 200


class LineView(Protocol):
    """What is asked of a link."""

    since: datetime
    reason: str | None
    heard_at: datetime | None

    @property
    def state(self) -> str:
        """Give online, suspect or offline."""


class Gate(Protocol):
    """What is asked of a route's gate."""

    @property
    def state(self) -> str:
        """Give running, paused or halted."""

    @property
    def reason(self) -> str | None:
        """Give why it does not run, for a person."""

    @property
    def since(self) -> datetime | None:
        """Give since when, where that is known."""

    @property
    def asks(self) -> bool:
        """Say whether it waits for a person's word."""


@dataclass(frozen=True, kw_only=True)
class Snapshot(Facts):
    """The facts of one moment with what they mean."""

    needs_person: tuple[Need, ...]
    verdict: Verdict


def interpret(facts: Facts) -> Snapshot:
    """Add to the facts what they mean."""
    found = needs(facts)
    return Snapshot(**vars(facts), needs_person=found, verdict=verdict(facts, found))


@dataclass(frozen=True)
class _Kept:
    """What the journal holds, read at one moment."""

    totals: changes.Totals
    batches: tuple[batches.Batch, ...]
    awaits_imports: bool  # some `imported` changes are still to be looked up
    figures: figures.Figures
    refused: tuple[Change, ...]
    failures: tuple[failures.Failure, ...]
    erased_here: int
    skipped_files: tuple[skipped.SkippedFile, ...]


class Observer:
    """Takes the picture, at most twice a second however many look."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        clock: Clock,
        link: LineView,
        sftp_link: LineView | None,
        gates: Mapping[Route, Gate],
        *,
        problems: Callable[[], Sequence[str]] = tuple,
        last_delivery: Callable[[], str | None] = lambda: None,
        register: Callable[[], RegisterFill | None] = lambda: None,
        clock_ahead_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`problems`: texts of other parts, what is wrong first, then what to do.

        `last_delivery`: when a change last reached Engage, UTC, ISO 8601. `register`: how full the
        register of members is; None where no export is read. `clock_ahead_s`: how far the till's
        clock is ahead of Engage's; None while Engage was not heard.
        """
        self._config = config
        self._config_hash = config_hash(config)
        self._journal = journal
        self._clock = clock
        self._link = link
        self._sftp_link = sftp_link
        self._gates = gates
        self._problems = problems
        self._last_delivery = last_delivery
        self._register = register
        self._clock_ahead_s = clock_ahead_s
        self._started_at = clock.now()
        self._started = clock.monotonic()
        self._upload_ages = UploadAges()
        self._looking = asyncio.Lock()
        self._picture: Snapshot | None = None
        self._taken = 0.0  # monotonic
        self._is_wanted_anew = False
        self._trouble_since: datetime | None = None  # with the journal

    async def look(self, *, anew: bool = False) -> Snapshot:
        """Give a picture that is at most half a second old. A broken journal is part of it.

        The cost does not grow with the changes in the journal. `anew`: one that is taken now.
        """
        async with self._looking:
            if anew:
                self.forget()
            while self._picture is None or self._clock.monotonic() - self._taken >= _FRESH_S:
                self._is_wanted_anew = False
                facts = await self._facts()
                if not self._is_wanted_anew:
                    self._picture = interpret(facts)
                    self._taken = self._clock.monotonic()
            return self._picture

    def forget(self) -> None:
        """Take a new picture at the next look: a person did something and wants to see it."""
        self._picture = None
        self._is_wanted_anew = True  # what is being taken right now may be from before

    async def _facts(self) -> Facts:
        write_problem = await self._write_problem()
        now, config = self._clock.now(), self._config
        kept, read_problem = await self._kept(now)
        return Facts(
            version=__version__,
            store=config.store.id,
            till=config.store.till,
            config_hash=self._config_hash,
            retain_days=config.journal.retain_days,
            started_at=self._started_at,
            uptime_s=self._clock.monotonic() - self._started,
            now=now,
            link=_line(self._link),
            sftp=_line(self._sftp_link) if self._sftp_link else None,
            counts=dict(kept.totals.counts) if kept else None,
            unsent=_unsent(kept) if kept else None,
            delivered=_delivered(kept) if kept else None,
            oldest_waiting_s=_age_s(kept.totals.oldest_open_at, now) if kept else None,
            routes={route: _route(gate) for route, gate in self._gates.items()},
            batches=self._batches(kept.batches, now) if kept else (),
            import_grace_s=config.fallback.import_grace_s,
            storage=self._storage(write_problem, read_problem, now),
            problems=tuple(mask(problem) for problem in self._problems()),
            last_delivery=self._last_delivery(),
            register=self._register(),
            clock_ahead_s=self._clock_ahead_s(),
            today=day.today(kept.figures, now) if kept else None,
            hours=day.hours(kept.figures, now) if kept else (),
            refused=troubles.refused(kept.refused) if kept else (),
            troubles=troubles.grouped(kept.failures, most=_FAILURES_READ) if kept else (),
            erased_here=kept.erased_here if kept else 0,
            skipped_files=tuple(SkippedFile(**vars(each)) for each in kept.skipped_files)
            if kept
            else (),
        )

    def _batches(self, found: Sequence[batches.Batch], now: datetime) -> tuple[OpenBatch, ...]:
        uploaded = {
            batch.name: datetime.fromisoformat(batch.uploaded_at)
            for batch in found
            if batch.state == "uploaded" and batch.uploaded_at is not None
        }
        ages = self._upload_ages.told(uploaded, now, self._clock.monotonic())
        return tuple(_batch(batch, ages.get(batch.name)) for batch in found)

    # --- the journal ------------------------------------------------------------------------------

    async def _write_problem(self) -> str | None:
        """Say why nothing can be stored, apart from a full disk; None when it can.

        The writer's own word is kept until something is written; an idle till would show an old
        trouble for hours. So the writer is asked with an empty unit of work, which also notices a
        file that was moved and opens one anew that an I/O error closed. An empty unit touches no
        disk: after a trouble the folder must prove itself first.
        """
        known = self._journal.database.problem
        if known is not None and not await asyncio.to_thread(_takes_bytes, self._folder):
            return mask(known)
        _, problem = await _asked(self._journal.write(_nothing))
        # Where others wait for the writer too, its answer may come too late for this picture.
        return mask(known) if known is not None and problem == _SILENT else problem

    async def _kept(self, now: datetime) -> tuple[_Kept | None, str | None]:
        read = partial(
            _read,
            verifies=self._journal.verifies,
            begin=day.begin(now),
            erased_since=to_text(now - _ERASED_LATELY),
        )
        return await _asked(self._journal.read(read))

    @property
    def _folder(self) -> Path:
        return self._journal.database.path.parent

    def _storage(
        self, write_problem: str | None, read_problem: str | None, now: datetime
    ) -> Storage:
        driver = self._journal.database.driver
        is_full, free_bytes = False, None
        try:
            free_bytes = self._journal.room_bytes()
            self._journal.check_room()
        except JournalFull:
            is_full = True
        except (JournalUnavailable, OSError):
            write_problem = write_problem or "The journal's folder cannot be read."
        is_troubled = bool(write_problem or read_problem)
        self._trouble_since = (self._trouble_since or now) if is_troubled else None
        return Storage(
            write_problem=write_problem,
            read_problem=read_problem,
            since=self._trouble_since,
            is_full=is_full,
            free_bytes=free_bytes,
            min_free_bytes=self._config.journal.min_free_mb * 1024 * 1024,
            sqlite_version=driver.version,
            is_encrypted=driver.key is not None,
        )


async def _asked(answer: Awaitable[T]) -> tuple[T | None, str | None]:
    """Wait a little for the journal; give what it said, or why it said nothing."""
    try:
        # Not wait_for(): before Python 3.12 it loses a cancellation that comes with the answer, and
        # the agent would never stop.
        async with asyncio.timeout(_PATIENCE_S):
            return await answer, None
    except Overloaded:
        return None, None  # at work, and the next moment will do
    except TimeoutError:
        return None, _SILENT
    except AgentError as error:
        return None, mask(error.message)


def _nothing(_: Connection) -> None:
    """Write nothing: only whether the writer gets that far is of interest."""


def _takes_bytes(folder: Path) -> bool:
    """Say whether the disk stores something; a quota or a read-only mount shows only then."""
    try:
        with tempfile.TemporaryFile(dir=folder) as scratch:
            scratch.write(b"\0" * 4096)
            scratch.flush()
            os.fsync(scratch.fileno())
    except OSError:
        return False
    return True


def _read(db: Connection, *, verifies: bool, begin: datetime, erased_since: str) -> _Kept:
    found = batches.in_state(db, _OPEN_BATCHES)
    # Where not every import is looked up, changes stay `imported` for good: as long as no file
    # waits for its look-ups, that state is an end.
    awaits = verifies and any(batch.state == "imported" for batch in found)
    return _Kept(
        totals=changes.totals(db, verifies=awaits),
        batches=found,
        awaits_imports=awaits,
        figures=figures.since(db, begin),
        refused=changes.listing(db, State.REJECTED, _REFUSED_SHOWN, None).items,
        failures=failures.last(db, _FAILURES_READ),
        erased_here=erasure.count_left(db, erased_since),
        skipped_files=skipped.skipped_files(db),
    )


def _unsent(kept: _Kept) -> int:
    imported = kept.totals.counts[State.IMPORTED]
    return kept.totals.open if kept.awaits_imports else kept.totals.open - imported


def _delivered(kept: _Kept) -> int:
    counts = kept.totals.counts
    imported = 0 if kept.awaits_imports else counts[State.IMPORTED]
    return counts[State.DELIVERED] + counts[State.CONFIRMED] + imported


def _age_s(text: str | None, now: datetime) -> float | None:
    """Give the seconds since a moment; never negative, whatever the wall clock did."""
    if text is None:
        return None
    return max(0.0, (now - datetime.fromisoformat(text)).total_seconds())


# --- what others say ------------------------------------------------------------------------------


def _line(view: LineView) -> Line:
    return Line(str(view.state), view.since, _masked(view.reason), view.heard_at)


def _route(gate: Gate) -> RouteState:
    return RouteState(gate.state, _masked(gate.reason), gate.since, gate.asks)


def _batch(batch: batches.Batch, lies_s: float | None) -> OpenBatch:
    return OpenBatch(
        name=batch.name,
        state=batch.state,
        contacts=batch.contacts,
        attempts=batch.attempts,
        error=_masked(batch.error),
        sealed_at=datetime.fromisoformat(batch.sealed_at),
        uploaded_at=datetime.fromisoformat(batch.uploaded_at) if batch.uploaded_at else None,
        lies_s=lies_s,
    )


def _masked(text: str | None) -> str | None:
    return None if text is None else mask(text)
