"""The parts of the status page: facts in a person's words, ready for the template. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.change import Route, State
from agent.status.chart import chart
from agent.status.facts import Line, OpenBatch, RefusedChange, RouteState, Trouble
from agent.status.snapshot import Snapshot
from agent.status.verdict import Need, is_overdue, needs, verdict
from agent.status.words import Words, first_sentence

_BATCHES_SHOWN = 10
# In the order of a change's life, its ends together.
_STATES = (
    *(State.WAITING, State.SENDING, State.BATCHED, State.UPLOADED, State.IMPORTED),
    *(State.CONFIRMED, State.DELIVERED, State.REJECTED, State.DISCARDED),
)
_SAME_CLOCK_S = 5.0  # closer than that the second that a Date header tells says nothing


@dataclass(frozen=True)
class Act:
    """Something that a person may do: a form of one button, or a link to a form."""

    id: str  # of the element, so that the focus stays when the page is renewed
    label: str
    path: str
    is_link: bool = False
    is_main: bool = False
    about: str = ""  # for who hears the button without what stands around it


def status_view(
    snapshot: Snapshot, words: Words, *, may_act: bool, may_check: bool
) -> dict[str, Any]:
    """Give everything that the status page shows.

    `may_act`: to who is signed in; `may_check`: who may let this till be examined.
    """
    found = needs(snapshot, words)
    said = verdict(snapshot, found, words)
    headline, details = first_sentence(said.sentence)
    return {
        "level": said.level,
        "level_word": _level_word(snapshot, words),
        "headline": headline,
        "details": details,
        "needs": [
            _need(number, need, words, may_act=may_act, may_check=may_check)
            for number, need in enumerate(found)
        ],
        "refused_changes": [
            refused_row(change, words, snapshot.now, may_act) for change in snapshot.refused
        ],
        "more_refused": _more_refused(snapshot, words),
        "now": _now(snapshot, words),
        "today": _today(snapshot, words),
        "chart": chart(snapshot.hours, words) if snapshot.hours else None,
        "lines": list(_lines(snapshot, words, may_act)),
        "batches": [_batch(snapshot, batch, words) for batch in snapshot.batches[:_BATCHES_SHOWN]],
        "more_batches": _more_batches(snapshot, words),
        "troubles": [_trouble(trouble, words, snapshot.now) for trouble in snapshot.troubles],
        "counts": _counts(snapshot, words),
        "kept": words.counted("state.kept", snapshot.retain_days),
        "identity": _identity(snapshot, words),
        "taken_at": f"{snapshot.now.astimezone():%H:%M:%S}",
    }


def _level_word(snapshot: Snapshot, words: Words) -> str:
    level = snapshot.verdict.level
    if level == "busy" and snapshot.link.state != "online":
        return words("level.waiting")
    return words(f"level.{level}")


# --- what needs a person --------------------------------------------------------------------------


def _goes_on(need: Need) -> str:
    """Give the name of the words on the button that lets a route go on."""
    if need.remedy == "confirm":
        return "act.confirm"
    return f"act.{'resume' if need.remedy == 'resume' else 'try_now'}_{need.route}"


def _need(
    number: int, need: Need, words: Words, *, may_act: bool, may_check: bool
) -> dict[str, Any]:
    acts = []
    if need.route is not None and may_act:
        label, place = words(_goes_on(need)), f"/page/routes/{need.route}/resume"
        acts.append(Act(f"need-{need.route}", label, place, is_main=True))
    elif need.files and may_act:
        does = "withdraw" if need.remedy == "withdraw" else "retry"
        acts = [
            Act(
                f"{does}-{file}",
                words(f"act.{does}_file"),
                f"/page/batches/{file}/{does}",
                about=file,
            )
            for file in need.files
        ]
    elif need.remedy == "advice" and may_check:
        acts.append(Act(f"check-{number}", words("act.doctor"), "/page/doctor", is_link=True))
    lists_refused = need.remedy == "refused"
    return {
        "what": need.what,
        "todo": words("need.rejected_here") if lists_refused else need.what_to_do,
        "acts": acts,
        "lists_refused": lists_refused,
    }


def refused_row(
    change: RefusedChange, words: Words, now: datetime, may_act: bool
) -> dict[str, Any]:
    """Give what stands on the page for one refused change: cause, what to do, and the actions."""
    cause = words(f"code.{change.code}" if words.has(f"code.{change.code}") else "code.other")
    since = words.moment(change.since, now)
    return {
        "id": change.id,
        "what": words("refused.what", kind=words(f"kind.{change.kind}"), since=since),
        "code": change.code,
        "cause": cause,
        "fields": words("refused.fields", names=", ".join(change.fields)) if change.fields else "",
        "todo": words(_todo(change.code, words)),
        "acts": _refused_acts(change, words) if may_act else [],
    }


def _todo(code: str, words: Words) -> str:
    return f"todo.{code}" if words.has(f"todo.{code}") else "todo.other"


def _refused_acts(change: RefusedChange, words: Words) -> list[Act]:
    place = f"/page/changes/{change.id}"
    about = f"{words(f'kind.{change.kind}')} {change.id}"
    damaged = change.code == "PayloadDamaged"
    acts = [
        Act(f"mend-{change.id}", words("act.mend"), f"{place}/mend", True, not damaged, about),
        Act(f"retry-{change.id}", words("act.retry"), f"{place}/retry", about=about),
        Act(f"discard-{change.id}", words("act.discard"), f"{place}/discard", True, about=about),
    ]
    return [act for act in acts if not (damaged and act.path.endswith("/retry"))]


def _more_refused(snapshot: Snapshot, words: Words) -> str:
    more = (snapshot.counts or {}).get(State.REJECTED, 0) - len(snapshot.refused)
    return words.counted("refused.more", more) if more > 0 else ""


# --- figures --------------------------------------------------------------------------------------


def _now(snapshot: Snapshot, words: Words) -> list[tuple[str, str]]:
    oldest = words("page.none")
    if snapshot.counts is None:
        oldest = words("page.unknown")
    elif snapshot.oldest_waiting_s is not None:
        oldest = words.brief(snapshot.oldest_waiting_s)
    return [
        (words("figure.unsent"), _number(snapshot.unsent, words)),
        (words("figure.oldest"), oldest),
    ]


def _today(snapshot: Snapshot, words: Words) -> list[tuple[str, str]]:
    today = snapshot.today
    names = ("accepted", "delivered", "by_file", "rejected")
    return [
        (words(f"figure.{name}"), _number(getattr(today, name) if today else None, words))
        for name in names
    ]


def _number(count: int | None, words: Words) -> str:
    return words("page.unknown") if count is None else words.number(count)


def _counts(snapshot: Snapshot, words: Words) -> list[tuple[str, str, str]]:
    """Give state, meaning and number for every state, in the order of a change's life."""
    known = snapshot.counts
    return [
        (
            state.value,
            words(f"state.{state.value}"),
            _number(None if known is None else known.get(state, 0), words),
        )
        for state in _STATES
    ]


# --- connections ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One line or route in the table of connections."""

    name: str
    state: str
    tone: str  # good, busy, warning: colour and sign beside the word
    since: str
    note: str
    act: Act | None = None


_TONES = {"online": "good", "running": "good", "suspect": "busy", "offline": "busy"}


def _lines(snapshot: Snapshot, words: Words, may_act: bool) -> Iterator[_Row]:
    yield _line_row("line.engage", snapshot.link, snapshot.now, words)
    if snapshot.sftp is not None:
        yield _line_row("line.sftp", snapshot.sftp, snapshot.now, words)
    for route, found in snapshot.routes.items():
        yield _Row(
            words(f"line.{route}"),
            words(f"line.{found.state}"),
            _TONES.get(found.state, "warning"),
            words.moment(found.since, snapshot.now) if found.since else "",
            words.said(found.reason or ""),
            _route_act(route, found, words) if may_act else None,
        )


def _line_row(key: str, line: Line, now: datetime, words: Words) -> _Row:
    note = words("line.not_heard")
    if line.heard_at is not None:
        note = words("line.heard", when=words.moment(line.heard_at, now))
    if line.reason:
        note = f"{words.said(line.reason).rstrip('.')}. {note}."
    state = words(f"line.{line.state}")
    tone = _TONES.get(line.state, "busy")
    return _Row(words(key), state, tone, words.moment(line.since, now), note)


def _route_act(route: Route, found: RouteState, words: Words) -> Act:
    does = "resume" if found.state == "paused" else "pause"
    return Act(
        f"route-{route}",
        words(f"act.{does}"),
        f"/page/routes/{route}/{does}",
        is_main=does == "resume",
        about=words(f"act.{does}_{route}"),
    )


# --- files and errors -----------------------------------------------------------------------------


def _batch(snapshot: Snapshot, batch: OpenBatch, words: Words) -> dict[str, Any]:
    note = words.said(batch.error or "")
    if is_overdue(snapshot, batch):
        note = words("batch.overdue")
    uploaded = words("batch.not_yet")
    if batch.uploaded_at:
        uploaded = words.moment(batch.uploaded_at, snapshot.now)
    return {
        "name": batch.name,
        "state": words(f"batch.{batch.state}"),
        "contacts": words.number(batch.contacts),
        "attempts": words.number(batch.attempts),
        "sealed": words.moment(batch.sealed_at, snapshot.now),
        "uploaded": uploaded,
        "note": note,
    }


def _more_batches(snapshot: Snapshot, words: Words) -> str:
    more = len(snapshot.batches) - _BATCHES_SHOWN
    return words.counted("batch.more", more) if more > 0 else ""


def _trouble(trouble: Trouble, words: Words, now: datetime) -> dict[str, str]:
    known = words.has(f"code.{trouble.code}")
    times = words.number(trouble.times)
    return {
        "last": words.moment(trouble.last_at, now),
        "code": trouble.code,
        "happened": words(f"code.{trouble.code}" if known else "code.other"),
        "route": words(f"errors.route_{trouble.route}"),
        "times": words("errors.at_least", n=times) if trouble.is_least else times,
    }


# --- this agent -----------------------------------------------------------------------------------


def _identity(snapshot: Snapshot, words: Words) -> list[tuple[str, str]]:
    storage, last = snapshot.storage, snapshot.last_delivery
    room = words("page.unknown")
    if storage.free_bytes is not None:
        room = words("identity.free", size=words.size(storage.free_bytes))
    encrypted = "identity.encrypted" if storage.is_encrypted else "identity.not_encrypted"
    delivered = words("identity.last_none")
    if last:
        delivered = words.moment(datetime.fromisoformat(last), snapshot.now)
    return [
        (words("identity.store"), snapshot.store),
        (words("identity.till"), snapshot.till),
        (words("identity.last"), delivered),
        (words("identity.uptime"), words.brief(snapshot.uptime_s)),
        (words("identity.disk"), room),
        (words("identity.journal"), words(encrypted, version=storage.sqlite_version)),
        (words("identity.clock"), _clock(snapshot.clock_ahead_s, words)),
        (words("identity.zone"), f"{snapshot.now.astimezone():%Z (UTC%z)}"),
        (words("identity.version"), snapshot.version),
        (words("identity.settings"), snapshot.config_hash),
        *_members(snapshot, words),
        *_erased(snapshot, words),
    ]


def _members(snapshot: Snapshot, words: Words) -> list[tuple[str, str]]:
    fill = snapshot.register
    if fill is None:
        return []
    count = words.number(fill.members)
    if fill.told_at is not None:
        told_at = words.moment(fill.told_at, snapshot.now)
        count = words("identity.members_as_of", n=count, when=told_at)
    return [(words("identity.members"), count)]


def _erased(snapshot: Snapshot, words: Words) -> list[tuple[str, str]]:
    if not snapshot.erased_here:
        return []
    return [(words("identity.erased"), words.counted("identity.erased_here", snapshot.erased_here))]


def _clock(ahead_s: float | None, words: Words) -> str:
    if ahead_s is None:
        return words("identity.clock_unknown")
    if abs(ahead_s) < _SAME_CLOCK_S:
        return words("identity.clock_right")
    key = "identity.clock_ahead" if ahead_s > 0 else "identity.clock_behind"
    return words(key, span=_offset(abs(ahead_s), words))


def _offset(seconds: float, words: Words) -> str:
    """Give a clock's error: to the second where it is small."""
    return f"{round(seconds)} s" if seconds < 120 else words.span(seconds)
