"""The status page: one HTML document with its style and script, all served from here.

Shows what the snapshot says and nothing else. Works without JavaScript; with it, the page keeps
itself current and says so when the agent no longer answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiohttp import ETag, web

from agent.change import Route, State
from agent.status.facts import Line, OpenBatch
from agent.status.snapshot import Observer, Snapshot
from agent.status.verdict import is_overdue
from agent.status.words import counted, first_sentence, moment, size, span

if TYPE_CHECKING:
    from jinja2 import Template

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_GUARDS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_BATCHES_SHOWN = 10


def routes(observer: Observer) -> list[web.RouteDef]:
    """Give `GET /` and `GET /assets/{name}`."""
    return [
        web.get("/", partial(_show, observer)),
        web.get("/assets/{name}", _asset),
    ]


async def _show(observer: Observer, _: web.Request) -> web.Response:
    return web.Response(
        text=render(await observer.look()),
        content_type="text/html",
        charset="utf-8",
        headers={**_GUARDS, "Cache-Control": "no-store"},
    )


# --- assets ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asset:
    content: bytes
    digest: str


@cache
def _load(name: str) -> _Asset:
    content = (files("agent.status") / "assets" / name).read_bytes()
    return _Asset(content, hashlib.sha256(content).hexdigest()[:16])


def _address(name: str) -> str:
    """Give an asset's address with its version, so that a browser may keep it for good."""
    return f"/assets/{name}?v={_load(name).digest}"


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _ASSETS:
        raise web.HTTPNotFound(text="There is no such file.")
    asset = _load(name)
    is_current = request.query.get("v") == asset.digest
    keep = "public, max-age=31536000, immutable" if is_current else "no-cache"
    known = any(tag.value in (asset.digest, "*") for tag in request.if_none_match or ())
    response = web.Response(
        status=304 if known else 200,
        body=None if known else asset.content,
        headers={**_GUARDS, "Cache-Control": keep},
    )
    if not known:
        response.content_type = _ASSETS[name]
        response.charset = "utf-8"
    response.etag = ETag(asset.digest)
    return response


# --- the document ---------------------------------------------------------------------------------


@cache
def _template() -> Template:
    # Here, not above: an agent whose page nobody opens keeps the memory.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = (files("agent.status") / "assets" / "page.html.j2").read_text("utf-8")
    return environment.from_string(text)


def render(snapshot: Snapshot) -> str:
    """Give the whole page for a snapshot."""
    headline, details = first_sentence(snapshot.verdict.sentence)
    return _template().render(
        snapshot=snapshot,
        level=snapshot.verdict.level,
        level_word=_level_word(snapshot),
        headline=headline,
        details=details,
        tiles=_tiles(snapshot),
        counts=_counts(snapshot),
        lines=_lines(snapshot),
        batches=[_batch_row(snapshot, batch) for batch in snapshot.batches[:_BATCHES_SHOWN]],
        more_batches=_more_batches(snapshot),
        identity=_identity(snapshot),
        taken_at=f"{snapshot.now.astimezone():%H:%M:%S}",
        css=_address("page.css"),
        js=_address("page.js"),
        icon=_address("icon.svg"),
    )


_LEVEL_WORDS = {
    "good": "All well",
    "busy": "Sending",
    "warning": "Needs a person",
    "stop": "Stopped",
}
_UNKNOWN = "unknown"


def _level_word(snapshot: Snapshot) -> str:
    level = snapshot.verdict.level
    if level == "busy" and snapshot.link.state != "online":
        return "Waiting for the line"
    return _LEVEL_WORDS[level]


def _tiles(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Give the three numbers that people ask for first."""
    oldest = "none" if snapshot.oldest_waiting_s is None else span(snapshot.oldest_waiting_s)
    return [
        ("Not in Engage yet", _number(snapshot.unsent)),
        ("Oldest waiting", _UNKNOWN if snapshot.counts is None else oldest),
        ("Delivered", _number(snapshot.delivered)),
    ]


def _number(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"


_STATE_WORDS = {
    State.WAITING: "Stored, waiting to be sent",
    State.SENDING: "Being sent right now",
    State.BATCHED: "In a file that is not uploaded yet",
    State.UPLOADED: "In a file on the file server",
    State.IMPORTED: "Taken in by Engage from a file",
    State.CONFIRMED: "In Engage, looked up after the import",
    State.DELIVERED: "In Engage",
    State.REJECTED: "Refused; a person must look",
    State.DISCARDED: "Given up by a person",
}


def _counts(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Give state, meaning and number for every state, in the order of a change's life."""
    known = snapshot.counts
    return [
        (state.value, words, _number(None if known is None else known.get(state, 0)))
        for state, words in _STATE_WORDS.items()
    ]


@dataclass(frozen=True)
class _Row:
    """One line or route in the table of connections."""

    name: str
    state: str
    tone: str  # good, busy, warning: colour and sign beside the word
    since: str
    note: str


_LINE_TONES = {"online": "good", "suspect": "busy", "offline": "busy"}
_ROUTE_TONES = {"running": "good", "paused": "warning", "halted": "warning"}
_ROUTE_NAMES = {Route.API: "Sending directly", Route.FILE: "Sending by file"}


def _lines(snapshot: Snapshot) -> list[_Row]:
    rows = [_line_row("Line to Engage", snapshot.link, snapshot.now)]
    if snapshot.sftp is not None:
        rows.append(_line_row("File server (SFTP)", snapshot.sftp, snapshot.now))
    for route, found in snapshot.routes.items():
        tone = _ROUTE_TONES.get(found.state, "warning")
        rows.append(_Row(_ROUTE_NAMES[route], found.state, tone, "", found.reason or ""))
    return rows


def _line_row(name: str, line: Line, now: datetime) -> _Row:
    note = "Not heard from since the start"
    if line.heard_at is not None:
        note = f"Last heard from at {moment(line.heard_at, now)}"
    if line.reason:
        note = f"{line.reason.rstrip('.')}. {note}."
    tone = _LINE_TONES.get(line.state, "busy")
    return _Row(name, line.state, tone, moment(line.since, now), note)


_BATCH_WORDS = {
    "sealed": "being written",
    "written": "ready to upload",
    "uploaded": "uploaded",
    "imported": "being checked",
}


def _batch_row(snapshot: Snapshot, batch: OpenBatch) -> dict[str, Any]:
    note = batch.error or ""
    if is_overdue(snapshot, batch):
        note = "Engage has not taken this file in for too long."
    return {
        "name": batch.name,
        "state": _BATCH_WORDS.get(batch.state, batch.state),
        "contacts": f"{batch.contacts:,}",
        "attempts": batch.attempts,
        "sealed": moment(batch.sealed_at, snapshot.now),
        "uploaded": moment(batch.uploaded_at, snapshot.now) if batch.uploaded_at else "not yet",
        "note": note,
    }


def _more_batches(snapshot: Snapshot) -> str:
    more = len(snapshot.batches) - _BATCHES_SHOWN
    return f"and {counted(more, 'more file', 'more files')}" if more > 0 else ""


def _identity(snapshot: Snapshot) -> list[tuple[str, str]]:
    storage, last = snapshot.storage, snapshot.last_delivery
    room = _UNKNOWN if storage.free_bytes is None else f"{size(storage.free_bytes)} free"
    encrypted = "encrypted" if storage.is_encrypted else "not encrypted"
    delivered = moment(datetime.fromisoformat(last), snapshot.now) if last else "none yet"
    return [
        ("Store", snapshot.store),
        ("Till", snapshot.till),
        ("Last delivery", delivered),
        ("Running for", span(snapshot.uptime_s)),
        ("Disk", room),
        *_members(snapshot),
        ("Journal", f"SQLite {storage.sqlite_version}, {encrypted}"),
        ("Version", snapshot.version),
        ("Settings", snapshot.config_hash),
        ("Time zone", f"{snapshot.now.astimezone():%Z (UTC%z)}"),
    ]


def _members(snapshot: Snapshot) -> list[tuple[str, str]]:
    fill = snapshot.register
    if fill is None:
        return []
    as_of = f", as of {moment(fill.told_at, snapshot.now)}" if fill.told_at else ""
    return [("Members known without a line", f"{fill.members:,}{as_of}")]
