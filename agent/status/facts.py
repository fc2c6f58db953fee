"""What the picture is made of: plain values, taken at one moment. Pure.

Texts that come from elsewhere in the agent are masked before they get here; nothing in these
classes names a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.change import Kind, Route, State
from agent.status.day import Hour, Today


@dataclass(frozen=True)
class Line:
    """A line as the agent sees it."""

    state: str  # online, suspect, offline
    since: datetime
    reason: str | None  # why it is not online
    heard_at: datetime | None  # when the other side last answered


@dataclass(frozen=True)
class RouteState:
    """Whether a route is used."""

    state: str  # running, paused, halted
    reason: str | None
    since: datetime | None = None  # None: it runs, or it is not known
    asks: bool = False  # halted until a person confirms what `reason` says


@dataclass(frozen=True)
class OpenBatch:
    """A file with changes that are not settled yet."""

    name: str
    state: str  # sealed, written, uploaded, imported
    contacts: int
    attempts: int  # tries to upload it
    error: str | None
    sealed_at: datetime
    uploaded_at: datetime | None
    lies_s: float | None = None  # uploaded for so long, whatever the clock was set to; else None


@dataclass(frozen=True)
class SkippedFile:
    """A file of which Engage brought in next to nothing, and that is not made good yet."""

    name: str
    contacts: int
    accepted: int  # of them, found in Engage as they were sent
    rejected: int  # changes that were skipped a second time: they need a person


@dataclass(frozen=True)
class Storage:
    """Whether the journal can be used, and on what it stands."""

    write_problem: str | None  # why nothing can be stored
    read_problem: str | None  # why it is not known what waits
    since: datetime | None  # when such a problem was first seen; None: there is none
    is_full: bool  # less room than journal.min_free_mb: nothing is taken
    free_bytes: int | None  # None: not known
    min_free_bytes: int
    sqlite_version: str
    is_encrypted: bool


@dataclass(frozen=True)
class RegisterFill:
    """The members whom the till recognises without a line, as Engage's export told them."""

    members: int
    told_at: datetime | None  # the moment of the newest file; None: nothing was told yet
    read_at: datetime | None  # when the folder was last looked through, since the start
    set_aside: tuple[str, ...]  # files that cannot be read, each with its reason


@dataclass(frozen=True)
class RefusedChange:
    """A change that a person has to look at; what was said of it stays with the change."""

    id: str
    kind: Kind
    code: str  # why
    fields: tuple[str, ...]  # names of attributes that were found wrong
    since: datetime


@dataclass(frozen=True)
class Trouble:
    """One kind of failed try, as often as it is found among the last ones."""

    code: str
    route: Route
    times: int
    is_least: bool  # there may be more: the last ones were not all that there are
    last_at: datetime


@dataclass(frozen=True)
class Facts:
    """One moment of the agent."""

    version: str
    store: str
    till: str
    config_hash: str
    retain_days: int  # how long settled changes stay in the counts
    started_at: datetime
    uptime_s: float
    now: datetime
    link: Line
    sftp: Line | None  # None where files do not go by SFTP
    counts: Mapping[State, int] | None  # all nine states; None: the journal cannot be read
    unsent: int | None  # taken, not in Engage yet and not set aside
    delivered: int | None  # kept ones that reached Engage, for all that will be known
    oldest_waiting_s: float | None  # None: nothing waits, or it is not known
    routes: Mapping[Route, RouteState]
    batches: tuple[OpenBatch, ...]  # oldest first
    import_grace_s: float
    storage: Storage
    problems: tuple[str, ...]  # what other parts of the agent report, a text each
    last_delivery: str | None  # UTC, ISO 8601
    clock_ahead_s: float | None  # of the till's clock before Engage's; None: Engage was not heard
    today: Today | None  # since the till's midnight; None: the journal cannot be read
    hours: tuple[Hour, ...]  # the last 24, oldest first; empty: the journal cannot be read
    refused: tuple[RefusedChange, ...]  # the newest ones
    troubles: tuple[Trouble, ...]  # kinds of failed tries, the latest first
    register: RegisterFill | None = None  # None: no export is read
    erased_here: int = 0  # customers erased lately who are, or may be, in Engage still
    skipped_files: tuple[SkippedFile, ...] = ()  # oldest first

    @property
    def can_accept(self) -> bool:
        """Say whether a sign-up would be stored now."""
        return self.storage.write_problem is None and not self.storage.is_full
