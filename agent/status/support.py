"""The support bundle: a zip file with what somebody who helps from afar has to know.

Holds ids, codes, counts, times and the settings; no customer's data and no secret. Each file in it
is text that can be read before it is sent on.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiohttp import web

from agent import config as configuration
from agent import events
from agent.clock import Clock, to_text
from agent.config import Config
from agent.errors import AgentError, Problem
from agent.journal import batches, changes
from agent.journal.driver import Connection
from agent.journal.journal import Journal
from agent.masking import mask
from agent.metrics import Metrics
from agent.status.metrics import set_states
from agent.status.program import to_json
from agent.status.snapshot import Observer
from agent.status.versions import versions

# {check, result, meaning, whatToDo} each.
Rows = Sequence[Mapping[str, str]]
Parts = dict[str, str]

_CHANGES = 100
_BATCHES = 50
# Who has which account is nobody's business; the doctor says whether the login works.
_HIDDEN = (("sftp", "username"),)

_README = """\
Support bundle of till-agent, made {now} on till {till} of store {store}.

It holds no customer's data and no secret: ids, codes, counts, times, and the settings. All of it is
text; look through it before you send it on.

{files}
{missing}"""
_ABOUT = {
    "versions.json": "what the agent stands on",
    "settings.json": "the settings in force; secrets are named by their file",
    "doctor.json": "what an examination found: ok, warning or failed, and what to do",
    "status.json": "the picture that the status page shows",
    "changes.json": "the latest changes and attempts: ids, states, codes; not what was asked for",
    "batches.json": "the latest batch files",
    "metrics.txt": "counts and times since the start, as Prometheus reads them",
    "events.jsonl": "the latest warnings and errors of the log",
    "log.jsonl": "the log's last lines",
}
_WITHOUT_AGENT = """
The agent did not run, so what only it knows is missing. Its log: journalctl -u till-agent
"""


class Support:
    """Makes bundles of a running agent."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        observer: Observer,
        metrics: Metrics,
        examine: Callable[[], Awaitable[Rows]],
        clock: Clock,
    ) -> None:
        self._config = config
        self._journal = journal
        self._observer = observer
        self._metrics = metrics
        self._examine = examine
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Give the call for the application, under both of its names."""
        return [
            web.get("/agent/v1/support", self._download),
            web.get("/agent/v1/support-bundle", self._download),
        ]

    async def _download(self, _: web.Request) -> web.Response:
        now = self._clock.now()
        return web.Response(
            body=await self.make(),
            content_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{file_name(self._config, now)}"',
                "Cache-Control": "no-store",
            },
        )

    async def make(self) -> bytes:
        """Give the zip file. A part that cannot be had is left out, and the rest is whole."""
        picture = await self._observer.look()
        set_states(self._metrics, picture)
        parts = {
            **_common(self._config, await self._examine()),
            "status.json": _json(to_json(picture)),
            "metrics.txt": self._metrics.text().decode(),
            "events.jsonl": _lines(events.recent.notable()),
            "log.jsonl": _lines(events.recent.lines()),
        }
        for name, look in (("changes.json", _latest_changes), ("batches.json", _latest_batches)):
            try:
                parts[name] = _json(await self._journal.read(look))
            except AgentError as error:
                parts[name] = _json({"missing": mask(error.message)})
        return packed(self._config, self._clock.now(), parts)


def without_agent(config: Config, rows: Rows, now: datetime) -> bytes:
    """Give the smaller bundle of a till on which no agent runs."""
    return packed(config, now, _common(config, rows), _WITHOUT_AGENT)


def without_settings(problems: Sequence[Problem], rows: Rows, now: datetime) -> bytes:
    """Give what is left where even the settings cannot be used; never the file itself."""
    parts = {
        "versions.json": _json(versions()),
        "doctor.json": _json({"rows": list(rows)}),
        "settings.json": _json({"problems": [str(problem) for problem in problems]}),
    }
    return packed(None, now, parts, _WITHOUT_AGENT)


def file_name(config: Config | None, now: datetime) -> str:
    """Give a bundle's usual name: which till, and when."""
    till = f"{config.store.id}-{config.store.till}-" if config is not None else ""
    return f"till-agent-support-{till}{now:%Y%m%dT%H%M%SZ}.zip"


def packed(config: Config | None, now: datetime, parts: Parts, missing: str = "") -> bytes:
    """Put parts and their list into a zip file."""
    readme = _README.format(
        now=to_text(now),
        store=config.store.id if config else "unknown",
        till=config.store.till if config else "unknown",
        files="\n".join(f"{name:<15} {_ABOUT[name]}" for name in _ABOUT if name in parts),
        missing=missing,
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"README.txt": readme, **parts}.items():
            archive.writestr(name, text)
    return stream.getvalue()


def _common(config: Config, rows: Rows) -> Parts:
    return {
        "versions.json": _json(versions()),
        "settings.json": _json(redacted(config)),
        "doctor.json": _json({"rows": list(rows)}),
    }


def redacted(config: Config) -> dict[str, dict[str, Any]]:
    """Give the settings in force as somebody from outside may see them."""
    shown = configuration.describe(config)
    for table, key in _HIDDEN:
        shown[table][key] = "[hidden]" if shown[table][key] else ""
    return shown


# --- from the journal -----------------------------------------------------------------------------


def _latest_changes(db: Connection) -> list[dict[str, Any]]:
    page = changes.listing(db, None, _CHANGES, None)
    return [
        {
            "id": change.id,
            "requestId": change.request_id,
            "kind": change.kind,
            "state": change.state,
            "unknown": change.unknown,
            "route": change.route,
            "batch": change.batch,
            "code": change.error.code if change.error else None,
            "repeated": change.repeated,
            "createdAt": change.created_at,
            "dueAt": change.due_at,
            "settledAt": change.settled_at,
            "attempts": [_attempt(each) for each in changes.attempts(db, change.seq)],
        }
        for change in page.items
    ]


def _attempt(attempt: changes.Attempt) -> dict[str, Any]:
    """Give an attempt without its words: they may be Engage's."""
    return {
        "route": attempt.route,
        "outcome": attempt.outcome,
        "code": attempt.code,
        "status": attempt.status,
        "engageRequestId": attempt.request_id,
        "startedAt": attempt.started_at,
        "endedAt": attempt.ended_at,
        "steps": [dict(step) for step in attempt.steps],
    }


def _latest_batches(db: Connection) -> list[dict[str, Any]]:
    return [
        {
            "name": batch.name,
            "state": batch.state,
            "contacts": batch.contacts,
            "bytes": batch.bytes,
            "attempts": batch.attempts,
            "error": None if batch.error is None else mask(batch.error),
            "sealedAt": batch.sealed_at,
            "uploadedAt": batch.uploaded_at,
            "importedAt": batch.imported_at,
            "settledAt": batch.settled_at,
        }
        for batch in batches.listing(db, _BATCHES)
    ]


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
