"""What the facts mean for the shop: what needs a person, and the one sentence on top of the page.

Pure. The sentence answers three questions in this order: can I go on, is anything lost, what must
I do. What is most urgent stands first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.change import Route, State
from agent.status.facts import Facts, OpenBatch
from agent.status.words import Words, first_sentence, words_of

Level = Literal["good", "busy", "warning", "stop"]
# What a person can do about it: nothing but the advice, look at what was refused, let a route go
# on, confirm what it asks, take a file back, or send again what an import left out of a file.
Remedy = Literal["advice", "refused", "resume", "try now", "confirm", "withdraw", "send again"]

_LOW_DISK = 2  # times journal.min_free_mb: time to act before sign-ups are refused
_NAMED = 3  # files, before it is only said how many more there are
_WORTH_SAYING_S = 60  # a change that has waited for less is simply being sent


@dataclass(frozen=True)
class Need:
    """Something that does not heal by itself."""

    what: str  # a sentence
    what_to_do: str
    count: int = 1
    remedy: Remedy = "advice"
    route: Route | None = None  # that stands still
    files: tuple[str, ...] = ()  # names of those to take back, or to send again


@dataclass(frozen=True)
class Verdict:
    """The state of everything in one sentence or a few."""

    level: Level
    sentence: str
    can_accept: bool


# --- what needs a person --------------------------------------------------------------------------


def needs(facts: Facts, words: Words | None = None) -> tuple[Need, ...]:
    """List what needs a person, the most urgent first. A line that is down heals by itself."""
    words = words or words_of("en")
    return (
        *_storage_needs(facts, words),
        *_asked(facts, words),
        *_halted(facts, words),
        *_reported(facts, words),
        *_skipped(facts, words),
        *_rejected(facts, words),
        *_not_imported(facts, words),
        *_set_aside(facts, words),
        *_low_disk(facts, words),
        *_paused(facts, words),
    )


def _storage_needs(facts: Facts, words: Words) -> Iterator[Need]:
    storage = facts.storage
    if storage.write_problem:
        yield _journal_need(storage.write_problem, facts, words)
    elif storage.is_full:
        yield Need(words("need.full"), words("need.full_todo"))
    if storage.read_problem and storage.read_problem != storage.write_problem:
        yield _journal_need(storage.read_problem, facts, words)


def _journal_need(problem: str, facts: Facts, words: Words) -> Need:
    what, rest = first_sentence(problem)
    what = words.said(what)
    if facts.storage.since is not None:
        since = words.moment(facts.storage.since, facts.now)
        what = words("need.since", what=what, since=since)
    # The journal's texts answer the POS too; what only the POS can do is no advice for a person.
    advice = [part for part in rest.split(". ") if part and "send it again" not in part]
    said = [words.said(f"{part.rstrip('.')}.") for part in advice]
    return Need(what, " ".join([*said, words("need.ask")]))


def _asked(facts: Facts, words: Words) -> Iterator[Need]:
    """Both routes ask the same, and one answer is for both."""
    for route, found in facts.routes.items():
        if found.asks:
            what, todo = first_sentence(words.said(found.reason or ""))
            yield Need(what, todo, remedy="confirm", route=route)
            return


def _halted(facts: Facts, words: Words) -> Iterator[Need]:
    for route, found in facts.routes.items():
        if found.state == "halted" and not found.asks:
            cause, todo = first_sentence(words.said(found.reason or ""))
            yield Need(
                words(f"need.halted_{route}", cause=cause or words("need.no_cause")),
                todo or words("need.halted_todo", ask=words("need.ask")),
                remedy="try now",
                route=route,
            )


def _paused(facts: Facts, words: Words) -> Iterator[Need]:
    for route, found in facts.routes.items():
        if found.state == "paused":
            yield Need(
                words(f"need.paused_{route}"),
                words("need.paused_todo", route=route),
                remedy="resume",
                route=route,
            )


def _reported(facts: Facts, words: Words) -> Iterator[Need]:
    for problem in facts.problems:
        what, todo = first_sentence(words.said(problem))
        yield Need(what, todo or words("need.ask"))


def _skipped(facts: Facts, words: Words) -> Iterator[Need]:
    """One need for a whole file, however many changes are in it."""
    for file in facts.skipped_files:
        key = "need.skipped_mostly" if file.accepted else "need.skipped_whole"
        what = words.counted(key, file.contacts, file=file.name, accepted=f"{file.accepted:,}")
        if file.rejected:
            todo = words("need.skipped_twice_todo", file=file.name)
            yield Need(what, todo, file.rejected, remedy="send again", files=(file.name,))
        else:
            yield Need(what, words("need.skipped_todo"))


def _rejected(facts: Facts, words: Words) -> Iterator[Need]:
    count = (facts.counts or {}).get(State.REJECTED, 0)
    count -= sum(file.rejected for file in facts.skipped_files)
    if count:
        what = words.counted("need.rejected", count)
        yield Need(what, words("need.rejected_todo"), count, remedy="refused")


def is_overdue(facts: Facts, batch: OpenBatch) -> bool:
    """Say whether Engage has left an uploaded file lying for longer than it should."""
    return batch.lies_s is not None and batch.lies_s > facts.import_grace_s


def _not_imported(facts: Facts, words: Words) -> Iterator[Need]:
    overdue = [batch.name for batch in facts.batches if is_overdue(facts, batch)]
    if overdue:
        names, more = ", ".join(overdue[:_NAMED]), len(overdue) - _NAMED
        if more > 0:
            names = words("need.and_more", names=names, n=f"{more:,}")
        span = words.limit(facts.import_grace_s)
        what = words.counted("need.not_imported", len(overdue), span=span, names=names)
        todo = words("need.not_imported_todo", file=overdue[0])
        shown = tuple(overdue[:_NAMED])
        yield Need(what, todo, len(overdue), remedy="withdraw", files=shown)


def _set_aside(facts: Facts, words: Words) -> Iterator[Need]:
    files = facts.register.set_aside if facts.register else ()
    if files:
        what = words.counted("need.set_aside", len(files), first=words.said(files[0]))
        yield Need(what, words("need.set_aside_todo"), len(files))


def _low_disk(facts: Facts, words: Words) -> Iterator[Need]:
    free = facts.storage.free_bytes
    if free is None or facts.storage.is_full or free >= _LOW_DISK * facts.storage.min_free_bytes:
        return
    yield Need(words("need.low_disk"), words("need.low_disk_todo"))


# --- the sentence ---------------------------------------------------------------------------------


def verdict(
    facts: Facts, found: tuple[Need, ...] | None = None, words: Words | None = None
) -> Verdict:
    """Give the verdict; `found` is what `needs` gave for the same facts, if it was asked before."""
    words = words or words_of("en")
    found = needs(facts, words) if found is None else found
    under_way = _under_way(facts, words)
    if not facts.can_accept:
        stopped = words("verdict.broken" if facts.storage.write_problem else "verdict.full")
        return Verdict("stop", _joined(stopped, under_way), can_accept=False)
    if found:
        return Verdict("warning", _joined(*_warned(facts, found, words)), can_accept=True)
    if under_way:
        calm = words("verdict.go_on") if _is_down(facts) else ""
        return Verdict("busy", _joined(words("verdict.safe"), under_way, calm), can_accept=True)
    return Verdict("good", _all_well(facts, words), can_accept=True)


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _warned(facts: Facts, found: tuple[Need, ...], words: Words) -> Iterator[str]:
    # With an unreadable journal nobody knows what waits; then nothing is called safe.
    yield words("verdict.stored" if facts.counts is None else "verdict.safe")
    yield found[0].what
    yield _under_way(facts, words)
    others = len(found) - 1
    yield words.counted("verdict.more", others) if others else words("verdict.see_below")


def _is_down(facts: Facts) -> bool:
    return facts.link.state == "offline"


def _under_way(facts: Facts, words: Words) -> str:
    """Say what stands between the till and Engage; empty when nothing does."""
    if facts.link.state == "online":
        return _held(facts, words) or _files_stuck(facts, words) or _on_their_way(facts, words)
    return words(
        "verdict.down" if _is_down(facts) else "verdict.unsteady",
        since=words.moment(facts.link.since, facts.now),
        waiting=_waiting(facts, words),
    )


def _waiting(facts: Facts, words: Words) -> str:
    if facts.unsent is None:
        return words("waiting.unknown")
    if not facts.unsent:
        return words("waiting.nothing")
    return _with_age("waiting.some", "waiting.some_since", facts, words)


def _with_age(young: str, old: str, facts: Facts, words: Words) -> str:
    """Say how many are open, and how old the oldest is where that is worth saying."""
    count, oldest_s = facts.unsent or 0, facts.oldest_waiting_s
    if oldest_s is None or oldest_s < _WORTH_SAYING_S:
        return words.counted(young, count)
    return words.counted(old, count, span=words.span(oldest_s))


def _held(facts: Facts, words: Words) -> str:
    """Say what waits for a route that stands still: it is not on its way."""
    if not facts.unsent or all(found.state == "running" for found in facts.routes.values()):
        return ""
    return words("verdict.held", waiting=_waiting(facts, words))


def _files_stuck(facts: Facts, words: Words) -> str:
    held = any(batch.state in ("sealed", "written") for batch in facts.batches)
    if facts.sftp is None or facts.sftp.state != "offline" or not held:
        return ""
    since = words.moment(facts.sftp.since, facts.now)
    return words("verdict.files_stuck", since=since, waiting=_waiting(facts, words))


def _on_their_way(facts: Facts, words: Words) -> str:
    if not facts.unsent:
        return ""
    return _with_age("verdict.on_their_way", "verdict.on_their_way_since", facts, words)


def _all_well(facts: Facts, words: Words) -> str:
    if not facts.delivered:
        return words("verdict.ready")
    # What an import took away was not looked up, so nobody can say that it is in Engage.
    unseen = (facts.counts or {}).get(State.IMPORTED, 0)
    key = "verdict.all_handed_over" if unseen else "verdict.all_in_engage"
    return _joined(words("verdict.safe"), words.counted(key, facts.delivered))
