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
from agent.status.words import counted, first_sentence, moment, span

Level = Literal["good", "busy", "warning", "stop"]

_LOW_DISK = 2  # times journal.min_free_mb: time to act before sign-ups are refused
_WORTH_SAYING_S = 60  # a change that has waited for less is simply being sent
_ASK = "Tell whoever looks after this till."


@dataclass(frozen=True)
class Need:
    """Something that does not heal by itself."""

    what: str  # a sentence
    what_to_do: str
    count: int = 1


@dataclass(frozen=True)
class Verdict:
    """The state of everything in one sentence or a few."""

    level: Level
    sentence: str
    can_accept: bool


# --- what needs a person --------------------------------------------------------------------------


def needs(facts: Facts) -> tuple[Need, ...]:
    """List what needs a person, the most urgent first. A line that is down heals by itself."""
    return (
        *_storage_needs(facts),
        *_route_needs(facts, "halted"),
        *_reported(facts),
        *_rejected(facts),
        *_not_imported(facts),
        *_set_aside(facts),
        *_low_disk(facts),
        *_route_needs(facts, "paused"),
    )


def _storage_needs(facts: Facts) -> Iterator[Need]:
    storage = facts.storage
    if storage.write_problem:
        yield _journal_need(storage.write_problem)
    elif storage.is_full:
        yield Need(
            "The till's disk is full, so nothing more can be stored safely.",
            "Free some disk space. Sign-ups are taken again at once; no restart is needed.",
        )
    if storage.read_problem and storage.read_problem != storage.write_problem:
        yield _journal_need(storage.read_problem)


def _journal_need(problem: str) -> Need:
    what, rest = first_sentence(problem)
    # The journal's texts answer the POS too; what only the POS can do is no advice for a person.
    advice = [part for part in rest.split(". ") if part and "send it again" not in part]
    return Need(what, " ".join([*(f"{part.rstrip('.')}." for part in advice), _ASK]))


_ROUTE_WORDS = {Route.API: "Sending to Engage", Route.FILE: "Sending by file"}


def _route_needs(facts: Facts, state: str) -> Iterator[Need]:
    for route, found in facts.routes.items():
        if found.state == state == "halted":
            cause, remedy = first_sentence(found.reason or "The cause is not known.")
            yield Need(
                f"{_ROUTE_WORDS[route]} is halted: {cause}",
                remedy or f"{_ASK} It goes on by itself once the cause is cured.",
            )
        elif found.state == state:
            yield Need(
                f"{_ROUTE_WORDS[route]} was paused by hand.",
                f"Resume it when you are ready (route: {route}). What waits is kept.",
            )


def _reported(facts: Facts) -> Iterator[Need]:
    return (_need_from(problem) for problem in facts.problems)


def _rejected(facts: Facts) -> Iterator[Need]:
    count = (facts.counts or {}).get(State.REJECTED, 0)
    if count:
        yield Need(
            f"{counted(count, 'change was', 'changes were')} refused.",
            "See why with “till-agent changes list”, then correct and resend, or discard. "
            "Everything else goes on meanwhile.",
            count,
        )


def is_overdue(facts: Facts, batch: OpenBatch) -> bool:
    """Say whether Engage has left an uploaded file lying for longer than it should."""
    if batch.state != "uploaded" or batch.uploaded_at is None:
        return False
    return (facts.now - batch.uploaded_at).total_seconds() > facts.import_grace_s


def _not_imported(facts: Facts) -> Iterator[Need]:
    count = sum(is_overdue(facts, batch) for batch in facts.batches)
    if count:
        files = counted(count, "uploaded file has", "uploaded files have")
        yield Need(
            f"{files} not been taken in by Engage for more than {span(facts.import_grace_s)}.",
            "Ask Engage's support whether the file import of this store runs.",
            count,
        )


def _set_aside(facts: Facts) -> Iterator[Need]:
    files = facts.register.set_aside if facts.register else ()
    if files:
        what = counted(
            len(files), "file of Engage's member export", "files of Engage's member export"
        )
        yield Need(
            f"{what} cannot be read: {files[0]}.",
            "Ask Voyado to export those members again; until then they may not be recognised "
            "without a line. The files after it are read.",
            len(files),
        )


def _low_disk(facts: Facts) -> Iterator[Need]:
    free = facts.storage.free_bytes
    if free is None or facts.storage.is_full or free >= _LOW_DISK * facts.storage.min_free_bytes:
        return
    yield Need(
        "The till's disk is nearly full.",
        "Free some disk space before sign-ups must be refused.",
    )


def _need_from(text: str) -> Need:
    what, remedy = first_sentence(text)
    return Need(what, remedy or _ASK)


# --- the sentence ---------------------------------------------------------------------------------


def verdict(facts: Facts, found: tuple[Need, ...] | None = None) -> Verdict:
    """Give the verdict; `found` is what `needs` gave for the same facts, if it was asked before."""
    found = needs(facts) if found is None else found
    if not facts.can_accept:
        return Verdict("stop", _joined(_stopped(facts), _under_way(facts)), can_accept=False)
    if found:
        return Verdict("warning", _joined(*_warned(facts, found)), can_accept=True)
    under_way = _under_way(facts)
    if under_way:
        calm = "Go on as usual." if _is_down(facts) else ""
        return Verdict("busy", _joined("Sign-ups are safe.", under_way, calm), can_accept=True)
    return Verdict("good", _all_well(facts), can_accept=True)


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _stopped(facts: Facts) -> str:
    if facts.storage.write_problem is None:
        return (
            "Sign-ups cannot be accepted: the till's disk is full. "
            "What was accepted before is safe. Free some disk space."
        )
    return (
        "Sign-ups cannot be accepted: the till cannot store anything right now. "
        "Write new ones down and tell whoever looks after this till."
    )


def _warned(facts: Facts, found: tuple[Need, ...]) -> Iterator[str]:
    # With an unreadable journal nobody knows what waits; then nothing is called safe.
    yield "New sign-ups are stored." if facts.counts is None else "Sign-ups are safe."
    yield found[0].what
    yield _under_way(facts)
    others = len(found) - 1
    if others:
        yield f"{counted(others, 'more thing needs', 'more things need')} a person: see below."
    else:
        yield "What to do stands below."


def _is_down(facts: Facts) -> bool:
    return facts.link.state == "offline"


def _under_way(facts: Facts) -> str:
    """Say what stands between the till and Engage; empty when nothing does."""
    if facts.link.state == "online":
        return _held(facts) or _files_stuck(facts) or _on_their_way(facts)
    since = moment(facts.link.since, facts.now)
    if _is_down(facts):
        line = f"The line has been down since {since}"
    else:
        line = f"The line has been unsteady since {since}"
    return f"{line}; {_waiting(facts)}."


def _waiting(facts: Facts) -> str:
    if facts.unsent is None:
        return "how much waits is not known"
    if not facts.unsent:
        return "nothing waits"
    return f"{counted(facts.unsent, 'waits', 'wait')}{_oldest(facts)}"


def _oldest(facts: Facts) -> str:
    if facts.oldest_waiting_s is None or facts.oldest_waiting_s < _WORTH_SAYING_S:
        return ""
    who = "for" if facts.unsent == 1 else "the oldest"
    return f", {who} {span(facts.oldest_waiting_s)}"


def _held(facts: Facts) -> str:
    """Say what waits for a route that stands still: it is not on its way."""
    if not facts.unsent or all(found.state == "running" for found in facts.routes.values()):
        return ""
    return f"{_waiting(facts)}."


def _files_stuck(facts: Facts) -> str:
    held = any(batch.state in ("sealed", "written") for batch in facts.batches)
    if facts.sftp is None or facts.sftp.state != "offline" or not held:
        return ""
    since = moment(facts.sftp.since, facts.now)
    return f"The file server has been out of reach since {since}; {_waiting(facts)}."


def _on_their_way(facts: Facts) -> str:
    if not facts.unsent:
        return ""
    way = counted(facts.unsent, "is on its way", "are on their way")
    return f"{way} to Engage{_oldest(facts)}."


def _all_well(facts: Facts) -> str:
    count = facts.delivered
    if not count:
        return "Ready for sign-ups. Nothing waits."
    # What an import took away was not looked up, so nobody can say that it is in Engage.
    unseen = (facts.counts or {}).get(State.IMPORTED, 0)
    where = "handed over to Engage" if unseen else "in Engage"
    if count == 1:
        return f"Sign-ups are safe. The one so far is {where}."
    verb = "were" if unseen else "are"
    return f"Sign-ups are safe. All {count:,} {verb} {where}."
