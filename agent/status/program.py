"""The status for programs: the body of `GET /agent/v1/status`, always in English."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.clock import to_text
from agent.status.facts import Line, OpenBatch, RegisterFill
from agent.status.snapshot import Snapshot


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Give the body of `GET /agent/v1/status`. Moments are UTC; spans are in seconds.

    `counts`, `unsent`, `delivered`, `today` and `oldestWaitingSeconds` are null where the journal
    cannot be read; the last one also where nothing waits. `hours` are the last 24, the oldest first
    and the last one not over: what was accepted and delivered in each, and how many waited at its
    end. `lastErrors` groups the last failed tries by code and route, the latest first.
    """
    return {
        "version": snapshot.version,
        "store": snapshot.store,
        "till": snapshot.till,
        "configHash": snapshot.config_hash,
        "startedAt": to_text(snapshot.started_at),
        "uptimeSeconds": round(snapshot.uptime_s),
        "now": to_text(snapshot.now),
        "verdict": {
            "level": snapshot.verdict.level,
            "sentence": snapshot.verdict.sentence,
            "canAccept": snapshot.verdict.can_accept,
        },
        "link": _line_json(snapshot.link),
        "sftp": _line_json(snapshot.sftp) if snapshot.sftp else None,
        "counts": _counts_json(snapshot),
        "unsent": snapshot.unsent,
        "delivered": snapshot.delivered,
        "oldestWaitingSeconds": _rounded(snapshot.oldest_waiting_s),
        "routes": {
            route.value: {"state": found.state, "reason": found.reason}
            for route, found in snapshot.routes.items()
        },
        "batches": [_batch_json(batch) for batch in snapshot.batches],
        "needsPerson": [
            {"what": need.what, "whatToDo": need.what_to_do, "count": need.count}
            for need in snapshot.needs_person
        ],
        "journal": {
            "problem": snapshot.storage.write_problem or snapshot.storage.read_problem,
            "since": _text(snapshot.storage.since),
            "full": snapshot.storage.is_full,
            "freeBytes": snapshot.storage.free_bytes,
            "sqliteVersion": snapshot.storage.sqlite_version,
            "encrypted": snapshot.storage.is_encrypted,
        },
        "lastDelivery": snapshot.last_delivery,
        "register": _register_json(snapshot.register) if snapshot.register else None,
        "erasedHere": snapshot.erased_here,
        "clockAheadSeconds": _rounded(snapshot.clock_ahead_s),
        "today": _today_json(snapshot),
        "hours": [
            {
                "beginsAt": to_text(hour.begins_at),
                "accepted": hour.accepted,
                "delivered": hour.delivered,
                "waiting": hour.waiting,
            }
            for hour in snapshot.hours
        ],
        "lastErrors": [
            {
                "code": trouble.code,
                "route": trouble.route.value,
                "times": trouble.times,
                "lastAt": to_text(trouble.last_at),
            }
            for trouble in snapshot.troubles
        ],
    }


def _today_json(snapshot: Snapshot) -> dict[str, int] | None:
    today = snapshot.today
    if today is None:
        return None
    return {
        "accepted": today.accepted,
        "delivered": today.delivered,
        "byFile": today.by_file,
        "rejected": today.rejected,
    }


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _counts_json(snapshot: Snapshot) -> dict[str, int] | None:
    if snapshot.counts is None:
        return None
    return {state.value: count for state, count in snapshot.counts.items()}


def _line_json(line: Line) -> dict[str, str | None]:
    return {
        "state": line.state,
        "since": to_text(line.since),
        "reason": line.reason,
        "heardAt": _text(line.heard_at),
    }


def _register_json(fill: RegisterFill) -> dict[str, Any]:
    return {
        "members": fill.members,
        "toldAt": _text(fill.told_at),
        "readAt": _text(fill.read_at),
        "setAside": list(fill.set_aside),
    }


def _batch_json(batch: OpenBatch) -> dict[str, Any]:
    return {
        "name": batch.name,
        "state": batch.state,
        "contacts": batch.contacts,
        "attempts": batch.attempts,
        "error": batch.error,
        "sealedAt": to_text(batch.sealed_at),
        "uploadedAt": _text(batch.uploaded_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)
