"""`GET /metrics`: what was counted, and the state of the moment from the page's own picture.

Needs no token: numbers and the till's identity, nobody's data.
"""

from __future__ import annotations

import math
from functools import partial

from aiohttp import web

from agent.metrics import Metrics
from agent.status.facts import Line
from agent.status.snapshot import Observer, Snapshot

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LINE_STATES = ("online", "suspect", "offline")
_ROUTE_STATES = ("running", "paused", "halted")
_BATCH_STATES = ("sealed", "written", "uploaded", "imported")


def routes(observer: Observer, metrics: Metrics) -> list[web.RouteDef]:
    """Give `GET /metrics`."""
    return [web.get("/metrics", partial(_show, observer, metrics))]


async def _show(observer: Observer, metrics: Metrics, _: web.Request) -> web.Response:
    set_states(metrics, await observer.look())
    return web.Response(
        body=metrics.text(), headers={"Content-Type": _CONTENT_TYPE, "Cache-Control": "no-store"}
    )


def set_states(metrics: Metrics, snapshot: Snapshot) -> None:
    """Set what is a state of the moment. What nobody knows is NaN, and no alarm holds for it."""
    metrics.info.labels(snapshot.version, snapshot.store, snapshot.till).set(1)
    metrics.start_time.set(snapshot.started_at.timestamp())
    metrics.can_accept.set(snapshot.can_accept)
    metrics.needs_person.set(len(snapshot.needs_person))
    _set_changes(metrics, snapshot)
    for state in _BATCH_STATES:
        count = sum(batch.state == state for batch in snapshot.batches)
        metrics.batches.labels(state).set(count)
    _set_line(metrics, "engage", snapshot.link)
    if snapshot.sftp is not None:
        _set_line(metrics, "sftp", snapshot.sftp)
    for route, found in snapshot.routes.items():
        for state in _ROUTE_STATES:
            metrics.route.labels(route, state).set(found.state == state)
    free = snapshot.storage.free_bytes
    metrics.free_bytes.set(math.nan if free is None else free)


def _set_changes(metrics: Metrics, snapshot: Snapshot) -> None:
    if snapshot.counts is None:
        metrics.changes.clear()
        metrics.unsent.set(math.nan)
        metrics.oldest_waiting.set(math.nan)
        return
    for state, count in snapshot.counts.items():
        metrics.changes.labels(state).set(count)
    metrics.unsent.set(math.nan if snapshot.unsent is None else snapshot.unsent)
    metrics.oldest_waiting.set(snapshot.oldest_waiting_s or 0.0)


def _set_line(metrics: Metrics, name: str, line: Line) -> None:
    for state in _LINE_STATES:
        metrics.line.labels(name, state).set(line.state == state)
