"""What a signed-in person does on the page: plain forms, answered in words on the page itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from agent import events
from agent.change import Change, State
from agent.errors import AgentError, Conflict, InvalidChange
from agent.status import mending, troubles
from agent.status.page import DOCTOR, Page, offered, words_for
from agent.status.session import Message, Session, Sessions
from agent.status.signing import Form, Signing
from agent.status.view import refused_row
from agent.status.words import Words

_REFUSED_ON_A_PAGE = 25
_ROUTES = ("api", "file")
_TONES = {"ok": "good", "warning": "warning", "failed": "stop"}


class Desk(Protocol):
    """What a person may do with what was promised; each raises AgentErrors with words."""

    async def rejected(self, limit: int, after: str | None) -> tuple[list[Change], str | None]:
        """Give rejected changes, the newest first, and where to go on."""

    async def find(self, change_id: str) -> Change:
        """Give a change."""

    async def retry_change(self, change_id: str) -> Change:
        """Send it again now."""

    async def discard_change(self, change_id: str, reason: str) -> Change:
        """Give it up for good."""

    async def mend_change(self, change_id: str, data: Mapping[str, Any], language: str) -> Change:
        """Put corrected data in and send it again."""

    async def seal(self) -> int:
        """Put what waits into files now; gives how many that made."""

    async def withdraw(self, name: str) -> object:
        """Take a file back from the server; its changes wait again."""

    async def send_again(self, name: str) -> int:
        """Send all of a file again that its import left out; gives how many changes."""

    async def pause_route(self, route: str) -> None:
        """Let nothing be sent there."""

    async def resume_route(self, route: str) -> None:
        """Go on, without waiting for the next probe."""


class Acting:
    """The calls below `/page/` for who is signed in, and the list of what was refused."""

    def __init__(
        self,
        page: Page,
        sessions: Sessions,
        signing: Signing,
        desk: Desk,
        now: Callable[[], datetime],
    ) -> None:
        self._page = page
        self._sessions = sessions
        self._signing = signing
        self._desk = desk
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        change, person, form = "/page/changes/{id}", self._signing.person, self._signing.form
        return [
            web.get("/page/refused", self._signing.answered(self._list_refused)),
            web.get(f"{change}/mend", person(self._show_mending)),
            web.post(f"{change}/mend", form(self._mend)),
            web.get(f"{change}/discard", person(self._show_discarding)),
            web.post(f"{change}/discard", form(self._discard)),
            web.post(f"{change}/retry", form(self._retry)),
            web.post("/page/seal", form(self._seal)),
            web.post("/page/batches/{name}/withdraw", form(self._withdraw)),
            web.post("/page/batches/{name}/retry", form(self._send_again)),
            web.post("/page/routes/{route}/{does:pause|resume}", form(self._switch_route)),
            web.get("/page/doctor", person(self._show_doctor)),
        ]

    # --- refused changes ----------------------------------------------------------------------

    async def _list_refused(self, request: web.Request) -> web.Response:
        """All of them, page by page: ids, codes and times, for anybody who may see the page."""
        words, person = words_for(request), self._sessions.of(request)
        found, after = await self._desk.rejected(
            _REFUSED_ON_A_PAGE, request.query.get("after") or None
        )
        rows = [
            refused_row(change, words, self._now(), person is not None)
            for change in troubles.refused(found)
        ]
        older = f"/page/refused?after={after}" if after else ""
        return self._page.document(request, "refused", changes=rows, older=older)

    async def _retry(self, request: web.Request, session: Session, _: Form) -> web.Response:
        change = await self._desk.retry_change(request.match_info["id"])
        return self._done(request, session, "retried", change)

    async def _show_discarding(self, request: web.Request, _: Session) -> web.Response:
        return self._discard_page(request, await self._rejected(request))

    def _discard_page(
        self, request: web.Request, change: Change, message: Message | None = None, code: int = 200
    ) -> web.Response:
        row = self._row(request, change)
        return self._page.document(request, "discard", message=message, code=code, change=row)

    async def _discard(self, request: web.Request, session: Session, form: Form) -> web.Response:
        reason = form.get("reason", "").strip()[:500]
        if not reason:
            message = Message("warning", words_for(request)("discard.reason_missing"))
            return self._discard_page(request, await self._rejected(request), message, 422)
        change = await self._desk.discard_change(request.match_info["id"], reason)
        return self._done(request, session, "discarded", change)

    def _done(
        self, request: web.Request, session: Session, what: str, change: Change
    ) -> web.Response:
        words = words_for(request)
        events.log().info(f"change_{what}", change=change.id, token_name=session.name)
        kind = words(f"kind.{change.kind}")
        return self._page.say(
            session, Message("good", words(f"done.{what}", kind=kind, id=change.id))
        )

    async def _rejected(self, request: web.Request) -> Change:
        change = await self._desk.find(request.match_info["id"])
        if change.state is not State.REJECTED:
            raise Conflict(f"Only a rejected change can be mended; this one is {change.state}.")
        return change

    def _row(self, request: web.Request, change: Change) -> dict[str, Any]:
        (shown,) = troubles.refused([change])
        return refused_row(shown, words_for(request), self._now(), may_act=False)

    # --- mending ------------------------------------------------------------------------------

    async def _show_mending(self, request: web.Request, _: Session) -> web.Response:
        return self._mend_page(request, await self._rejected(request))

    async def _mend(self, request: web.Request, session: Session, form: Form) -> web.Response:
        words, change = words_for(request), await self._rejected(request)
        if form.get("seen") != mending.digest_of(change):
            message = Message("warning", words("mend.changed_meanwhile"))
            return self._mend_page(request, change, message=message, code=409)
        try:
            mended = await self._desk.mend_change(
                change.id, mending.data_of(change, form), words.language
            )
        except InvalidChange as error:
            count = len(error.problems)
            return self._mend_page(
                request,
                change,
                form,
                mending.named_problems(error.problems),
                Message("warning", words.counted("mend.wrong", count)),
                422,
            )
        return self._done(request, session, "mended", mended)

    def _mend_page(
        self,
        request: web.Request,
        change: Change,
        given: Form | None = None,
        problems: mending.Problems | None = None,
        message: Message | None = None,
        code: int = 200,
    ) -> web.Response:
        words = words_for(request)
        said = mending.engage_words(change, words)
        form = mending.form_of(change, words, said if problems is None else problems, given)
        return self._page.document(
            request,
            "mend",
            message=message,
            code=code,
            change=self._row(request, change),
            said=said,
            problems=() if problems is None else form.general,
            form=form,
            tried=words.counted("mend.tried", change.attempts),
            request_id=change.error.request_id if change.error else None,
            is_damaged=change.damaged,
            notes=list(_notes(change, words)),
        )

    # --- files, routes, the till ----------------------------------------------------------------

    async def _seal(self, request: web.Request, session: Session, _: Form) -> web.Response:
        words, made = words_for(request), await self._desk.seal()
        events.log().info("sealed_by_hand", count=made, token_name=session.name)
        text = words.counted("done.sealed", made) if made else words("done.sealed_nothing")
        return self._page.say(session, Message("good", text))

    async def _withdraw(self, request: web.Request, session: Session, _: Form) -> web.Response:
        words, name = words_for(request), request.match_info["name"]
        await self._desk.withdraw(name)
        events.log().info("withdrawn_by_hand", batch=name, token_name=session.name)
        return self._page.say(session, Message("good", words("done.withdrawn", file=name)))

    async def _send_again(self, request: web.Request, session: Session, _: Form) -> web.Response:
        words, name = words_for(request), request.match_info["name"]
        count = await self._desk.send_again(name)
        events.log().info("sent_again_by_hand", batch=name, count=count, token_name=session.name)
        text = words.counted("done.sent_again", count, file=name)
        return self._page.say(session, Message("good", text))

    async def _switch_route(self, request: web.Request, session: Session, _: Form) -> web.Response:
        words, route = words_for(request), request.match_info["route"]
        if route not in _ROUTES:
            return await self._page.status(
                request, Message("warning", words("done.no_route")), code=404
            )
        if request.match_info["does"] == "pause":
            await self._desk.pause_route(route)
            return self._page.say(session, Message("warning", words(f"done.paused_{route}")))
        await self._desk.resume_route(route)
        return self._page.say(session, Message("good", words(f"done.resumed_{route}")))

    async def _show_doctor(self, request: web.Request, _: Session) -> web.Response:
        if DOCTOR not in offered(request.app):
            raise web.HTTPNotFound
        rows = _doctor_rows(await _asked(request, DOCTOR), words_for(request))
        return self._page.document(request, "doctor", rows=rows)


def _notes(change: Change, words: Words) -> list[str]:
    """Give what belongs to a change and cannot be corrected here."""
    notes = []
    if change.payload.contact_type and change.kind != "create":
        notes.append(words("mend.contact_type", type=change.payload.contact_type))
    if change.payload.clear:
        notes.append(words("mend.cleared", names=", ".join(change.payload.clear)))
    return notes


async def _asked(request: web.Request, path: str) -> Any:
    """Ask one of the agent's own calls, as it would answer a program; None where that fails."""
    inner = request.clone(method="GET", rel_url=path)
    match = await request.app.router.resolve(inner)
    try:
        answer = await match.handler(inner)
    except (AgentError, web.HTTPException):
        return None
    body = answer.body if isinstance(answer, web.Response) else None
    try:
        return json.loads(body) if isinstance(body, bytes | bytearray) else None
    except ValueError:
        return None


def _doctor_rows(found: Any, words: Words) -> list[dict[str, str]]:
    """Read the rows of a check: [{check, result, meaning, whatToDo}]."""
    rows = found.get("rows", ()) if isinstance(found, dict) else found or ()
    return [_doctor_row(row, words) for row in rows if isinstance(row, dict)]


def _doctor_row(row: Mapping[str, Any], words: Words) -> dict[str, str]:
    result = str(row.get("result", ""))
    return {
        "check": words.said(str(row.get("check", ""))),
        "tone": _TONES.get(result, "warning"),
        "result": words(f"doctor.{result}") if result in _TONES else result,
        "means": words.said(str(row.get("meaning", ""))),
        "todo": words.said(str(row.get("whatToDo", ""))),
    }
