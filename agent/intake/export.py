"""`GET /agent/v1/changes/export`: what is not in Engage yet, as a person can carry it away.

A stream of JSON lines in the order of capture. It only reads: nothing is marked, and everything
goes on as if nobody had asked.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from functools import partial
from typing import Any

from aiohttp import web

from agent import events
from agent.change import Change, Kind
from agent.errors import AgentError
from agent.intake import answers
from agent.journal import changes
from agent.journal.driver import Connection
from agent.journal.journal import Journal

_PAGE = 200
# Whoever does not read for so long has gone away.
_PATIENCE_S = 60.0


class ExportCall:
    """The call; it needs a token, because what it answers is personal data."""

    def __init__(self, journal: Journal, *, store: str, till: str) -> None:
        self._journal = journal
        self._store = store
        self._till = till

    def routes(self) -> list[web.RouteDef]:
        """Give the call; it has to stand before `changes/{id}`."""
        return [web.get("/agent/v1/changes/export", self.export)]

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Answer a line of JSON for each change that is not in Engage yet and not discarded.

        `Agent-Count` says about how many there are. Changes that are recorded meanwhile are not
        among them. An answer that breaks off ends without its last chunk.
        """
        upto = await self._journal.read(changes.last_seq)
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/jsonl; charset=utf-8",
                "Cache-Control": "no-store",
                "Agent-Count": str(await self._about()),
            }
        )
        await response.prepare(request)
        try:
            await self._stream(response, upto)
        except (AgentError, TimeoutError, ConnectionError) as error:
            # The status line is out already; only breaking off says that something is missing.
            events.log().warning("export_broken", error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _about(self) -> int:
        counts = (await self._journal.totals()).counts
        return sum(counts[state] for state in changes.NOT_THERE)

    async def _stream(self, response: web.StreamResponse, upto: int) -> None:
        after = 0
        while True:
            read = partial(page, store=self._store, till=self._till, after=after, upto=upto)
            lines, last = await self._journal.read(read)
            if last is None:
                break
            async with asyncio.timeout(_PATIENCE_S):
                await response.write(lines)
            after = last
        await response.write_eof()


def page(
    db: Connection, *, store: str, till: str, after: int, upto: int
) -> tuple[bytes, int | None]:
    """Give some lines of the export, and after which change it goes on; None when it is at its end.

    `after` and `upto` are sequence numbers.
    """
    found = changes.unsettled(db, after=after, upto=upto, limit=_PAGE)
    lines = (json.dumps(_line(change, store, till), ensure_ascii=False) for change in found)
    text = "".join(f"{line}\n" for line in lines)
    return text.encode("utf-8", "replace"), found[-1].seq if found else None


def _line(change: Change, store: str, till: str) -> dict[str, Any]:
    return {
        "store": store,
        "till": till,
        "id": change.id,
        "kind": change.kind,
        "state": change.state,
        "unknown": change.unknown,
        "createdAt": change.created_at,
        "contactRef": change.contact.ref,
        "contactId": change.contact.contact_id,
        "batch": change.batch,
        "error": answers.fault_body(change),
        "request": request_of(change),
    }


def request_of(change: Change) -> dict[str, Any]:
    """Give the call that asks for a change: {method, path, body}, as a POS would make it.

    The path names the contact by Engage's GUID, or by this till's ref as long as that is not known.
    """
    asked = change.payload
    contact = f"/api/v3/contacts/{change.contact.public_id}"
    body = {**asked.defaults, **asked.attributes}
    if change.kind is Kind.UPDATE:
        query = {"clear": ",".join(asked.clear)} if asked.clear else {}
        return {"method": "PATCH", "path": contact + _query(query), "body": body}
    if change.kind is Kind.UPGRADE:
        query = {"contactTypeId": asked.contact_type or ""}
        path = f"{contact}/updateContactType{_query(query)}"
        return {"method": "POST", "path": path, "body": body}
    if asked.contact_type:
        body["contactType"] = asked.contact_type
    given = {
        "source": asked.source,
        "storeExternalId": asked.store_external_id,
        "createAsUnapproved": "true" if asked.as_unapproved else None,
    }
    query = {name: value for name, value in given.items() if value}
    return {"method": "POST", "path": f"/api/v3/contacts{_query(query)}", "body": body}


def _query(query: dict[str, str]) -> str:
    return f"?{urllib.parse.urlencode(query)}" if query else ""
