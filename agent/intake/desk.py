"""/agent/v1: what was promised, where it stands, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiohttp import web

from agent.change import Change, Kind, Payload, State
from agent.clock import Clock, to_text
from agent.errors import Conflict, MalformedRequest, NotFound
from agent.intake import answers, payload
from agent.intake.server import language_of, read_body
from agent.journal import batches, changes, skipped
from agent.journal.driver import Connection
from agent.journal.journal import Journal

_MOST = 200
_USUAL = 50
_RETRIED_AT_ONCE = 200


@dataclass(frozen=True)
class RouteSwitch:
    """What a person may do with a route."""

    pause: Callable[[], Awaitable[None]]
    resume: Callable[[], Awaitable[None]]
    describe: Callable[[], Mapping[str, Any]]  # {state, reason}


class Desk:
    """The agent's own calls, each of which needs a token, and what the page's forms do."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        rules: payload.Rules,
        *,
        seal: Callable[[], Awaitable[int]],
        drain: Callable[[], Awaitable[Mapping[str, Any]]],
        withdraw: Callable[..., Awaitable[batches.Batch]],
        place_of: Callable[[batches.Batch], str],
        routes: Mapping[str, RouteSwitch],
    ) -> None:
        """`withdraw` takes a batch's name and `removed`, `place_of` a batch; it is for people."""

        self._journal = journal
        self._clock = clock
        self._rules = rules
        self._seal = seal
        self._drain = drain
        self._withdraw = withdraw
        self._place_of = place_of
        self._routes = routes

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        base = "/agent/v1"
        return [
            web.get(f"{base}/changes", self.list_changes),
            web.get(f"{base}/changes/{{id}}", self.show_change),
            web.post(f"{base}/changes/{{id}}/retry", self.retry),
            web.post(f"{base}/changes/{{id}}/discard", self.discard),
            web.put(f"{base}/changes/{{id}}/payload", self.mend),
            web.get(f"{base}/batches", self.list_batches),
            web.get(f"{base}/batches/{{name:(?!seal$)[^{{}}/]+}}", self.show_batch),
            web.post(f"{base}/batches/seal", self.seal_batches),
            web.post(f"{base}/drain", self.drain),
            web.post(f"{base}/batches/{{name}}/withdraw", self.withdraw_batch),
            web.post(f"{base}/batches/{{name}}/retry", self.retry_batch),
            web.post(f"{base}/routes/{{route}}/pause", self.pause),
            web.post(f"{base}/routes/{{route}}/resume", self.resume),
        ]

    # --- changes ------------------------------------------------------------------------------

    async def list_changes(self, request: web.Request) -> web.Response:
        """`GET changes?state&limit&after` → {items, next}, the newest first."""
        state, limit = _state(request), _limit(request)
        after = request.query.get("after") or None

        def look(db: Connection) -> dict[str, Any]:
            page = changes.listing(db, state, limit, after)
            items = [
                answers.change_body(change, changes.attempts(db, change.seq))
                for change in page.items
            ]
            return {"items": items, "next": page.next}

        return _answer(await self._journal.read(look))

    async def show_change(self, request: web.Request) -> web.Response:
        """`GET changes/{id}`: one change with every attempt and what was asked for."""
        change_id = request.match_info["id"]
        body = await self._journal.read(partial(_change_in_full, change_id=change_id))
        return _answer(body)

    async def retry(self, request: web.Request) -> web.Response:
        """`POST changes/{id}/retry`: send it again now."""
        return await self._changed(await self.retry_change(request.match_info["id"]))

    async def discard(self, request: web.Request) -> web.Response:
        """`POST changes/{id}/discard` with {"reason": …}: give a rejected change up for good."""
        body = await read_body(request)
        data = payload.read_json(body) if body.strip() else {}
        reason = data.get("reason", "")
        if not isinstance(reason, str):
            raise MalformedRequest("`reason` must be a text. Nothing was changed.")
        return await self._changed(await self.discard_change(request.match_info["id"], reason))

    async def mend(self, request: web.Request) -> web.Response:
        """`PUT changes/{id}/payload`: the body that the POS would send now; it is sent again.

        Checked like the call that made the change; where it was created, by whom and which
        attributes are cleared stay as they were.
        """
        data = payload.read_json(await read_body(request))
        mended = await self.mend_change(request.match_info["id"], data, language_of(request))
        return await self._changed(mended)

    async def _changed(self, change: Change) -> web.Response:
        body = await self._journal.read(partial(_change_in_full, change_id=change.id))
        return _answer(body, headers=answers.headers_of(change))

    # --- what a person may do, whoever asks for it --------------------------------------------

    async def rejected(self, limit: int, after: str | None) -> tuple[list[Change], str | None]:
        """Give rejected changes, the newest first, and the `after` of those that follow.

        Raises NotFound for an `after` that is no change.
        """
        page = await self._journal.read(
            partial(changes.listing, state=State.REJECTED, limit=limit, after=after)
        )
        return list(page.items), page.next

    async def find(self, change_id: str) -> Change:
        """Give a change. Raises NotFound."""
        return await self._journal.read(partial(changes.find, change_id=change_id))

    async def retry_change(self, change_id: str) -> Change:
        """Send a change again now. Raises NotFound, Conflict."""
        return await self._send_again(partial(changes.retry, change_id=change_id))

    async def discard_change(self, change_id: str, reason: str) -> Change:
        """Give a rejected change up for good. Raises NotFound, Conflict."""
        return await self._send_again(
            partial(
                changes.discard,
                change_id=change_id,
                reason=reason.strip()[:500],
                now_text=to_text(self._clock.now()),
            )
        )

    async def mend_change(
        self, change_id: str, data: Mapping[str, Any], language: str = "en"
    ) -> Change:
        """Put corrected data into a rejected change and send it again.

        `data` is the body that the POS would send now. Raises InvalidChange with everything that is
        wrong, in a language of words.py; NoData, NotFound, Conflict.
        """
        today = self._clock.now().astimezone().date()

        def corrected(change: Change) -> Payload:
            asked, rules = change.payload, self._rules
            known = change.contact.contact_type
            if change.kind is Kind.UPDATE:
                return payload.update_payload(
                    data, asked.clear, rules, today, contact_type=known, language=language
                )
            if change.kind is Kind.UPGRADE:
                target = asked.contact_type or ""
                return payload.upgrade_payload(data, target, rules, today, language=language)
            new = payload.create_payload(data, {}, rules, today, language=language)
            return replace(
                new,
                source=asked.source or new.source,
                store_external_id=asked.store_external_id or new.store_external_id,
                as_unapproved=asked.as_unapproved,
            )

        return await self._send_again(
            partial(changes.mend, change_id=change_id, corrected=corrected)
        )

    async def _send_again(self, move: Callable[[Connection], Change]) -> Change:
        """Move a change, and let its lane be looked at."""
        change = await self._journal.write(move)
        self._journal.news.tell_recorded(change.contact.lane)
        return change

    async def seal(self) -> int:
        """Put what waits into files now; gives how many that made."""
        return await self._seal()

    async def pause_route(self, route: str) -> None:
        """Let nothing be sent there until a person resumes it. Raises NotFound."""
        await self._switch(route).pause()

    async def resume_route(self, route: str) -> None:
        """Go on, and do not wait for the next probe. Raises NotFound."""
        await self._switch(route).resume()

    # --- batches ------------------------------------------------------------------------------

    async def list_batches(self, request: web.Request) -> web.Response:
        """`GET batches?limit&after` → {items, next}, the newest first."""
        limit, after = _limit(request), request.query.get("after") or None

        def look(db: Connection) -> tuple[batches.Batch, ...]:
            before = batches.get(db, after).number if after else 2**62
            return batches.listing(db, limit + 1, before)

        found = await self._journal.read(look)
        items = [self._batch_body(batch) for batch in found[:limit]]
        more = items[-1]["name"] if len(found) > limit else None
        return _answer({"items": items, "next": more})

    async def show_batch(self, request: web.Request) -> web.Response:
        """`GET batches/{name}`."""
        name = request.match_info["name"]
        batch = await self._journal.read(partial(batches.get, name=name))
        return _answer(self._batch_body(batch))

    async def seal_batches(self, request: web.Request) -> web.Response:
        """`POST batches/seal`: put what waits into files now; answers how many that made."""
        return _answer({"sealed": await self._seal()})

    async def drain(self, _: web.Request) -> web.Response:
        """`POST drain`: try now what waits; answers the status as it is then."""
        return _answer(await self._drain())

    async def withdraw_batch(self, request: web.Request) -> web.Response:
        """`POST batches/{name}/withdraw`: take a file back; its changes wait again.

        `?file=removed`: a person has removed it from the place of former settings. Answers the
        batch. 409 where Engage has taken it already, 503 where the server cannot be asked: nothing
        was changed then.
        """
        wish = request.query.get("file", "")
        if wish not in ("", "removed"):
            raise MalformedRequest("`file` can only be removed. Nothing was changed.")
        name = request.match_info["name"]
        return _answer(self._batch_body(await self._withdraw(name, removed=wish == "removed")))

    async def retry_batch(self, request: web.Request) -> web.Response:
        """`POST batches/{name}/retry`: send all of it again that its import left out.

        Answers {retried: changes}. 409 where nothing of it is rejected.
        """
        return _answer({"retried": await self.send_again(request.match_info["name"])})

    async def withdraw(self, name: str) -> batches.Batch:
        """Take a file back. Raises NotFound, Conflict, NotWithdrawn."""
        return await self._withdraw(name)

    async def send_again(self, name: str) -> int:
        """Send all of a file again that its import left out; gives how many changes.

        Raises Conflict where nothing of it is rejected.
        """
        count = 0
        last: int | None = 0
        while last is not None:
            # Some at a time: thousands in one unit of work would hold up who stands at the till.
            work = partial(skipped.send_again, name=name, after=last, limit=_RETRIED_AT_ONCE)
            sent = await self._journal.write(work)
            count, last = count + sent.count, sent.last
            self._journal.news.recorded.set()
        if not count:
            raise Conflict(f"No change of {name} is rejected. Nothing was changed.")
        return count

    def _batch_body(self, batch: batches.Batch) -> dict[str, Any]:
        return {
            "name": batch.name,
            "state": batch.state,
            "where": self._place_of(batch),
            "contacts": batch.contacts,
            "accepted": batch.accepted,
            "withContactId": batch.with_id,
            "sha256": batch.sha256,
            "bytes": batch.bytes,
            "attempts": batch.attempts,
            "error": batch.error,
            "receipt": batch.receipt,
            "sealedAt": batch.sealed_at,
            "uploadedAt": batch.uploaded_at,
            "importedAt": batch.imported_at,
            "settledAt": batch.settled_at,
            "withdrawnAt": batch.withdrawn_at,
            "skippedAt": batch.skipped_at,
        }

    # --- routes -------------------------------------------------------------------------------

    async def pause(self, request: web.Request) -> web.Response:
        """`POST routes/{api|file}/pause`: nothing is sent there until a person resumes it."""
        switch = self._switch(request.match_info["route"])
        await switch.pause()
        return _answer(dict(switch.describe()))

    async def resume(self, request: web.Request) -> web.Response:
        """`POST routes/{api|file}/resume`: go on, and do not wait for the next probe."""
        switch = self._switch(request.match_info["route"])
        await switch.resume()
        return _answer(dict(switch.describe()))

    def _switch(self, route: str) -> RouteSwitch:
        switch = self._routes.get(route)
        if switch is None:
            raise NotFound("There are two routes: api and file.")
        return switch


def _answer(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with what nobody may keep: it is about customers."""
    return web.json_response(body, headers={"Cache-Control": "no-store", **(headers or {})})


def _change_in_full(db: Connection, change_id: str) -> dict[str, Any]:
    change = changes.find(db, change_id)
    head = changes.blocker(db, change)
    return answers.change_body(
        change,
        changes.attempts(db, change.seq),
        waits_for=head.id if head else None,
        with_payload=True,
    )


def _state(request: web.Request) -> State | None:
    text = request.query.get("state")
    if not text:
        return None
    try:
        return State(text)
    except ValueError:
        names = ", ".join(State)
        raise MalformedRequest(f"`state` must be one of: {names}.") from None


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(_USUAL))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= _MOST):
        raise MalformedRequest(f"`limit` must be a whole number from 1 to {_MOST}.")
    return int(text)
