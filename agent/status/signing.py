"""Signing in and out, and who may send which form.

Every form of the page carries the session's form key, which no other site can know; whatever comes
without it changes nothing. What lies below `/page/` looks after that itself, so the guard lets it
through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from agent import events
from agent.errors import AgentError, TooSlow
from agent.status.page import BUNDLE, DOCTOR, Page, go_to, words_for
from agent.status.session import (
    IDLE_S,
    LONGEST_S,
    Message,
    Session,
    Sessions,
    hand_over,
    take_back,
)

_MOST_FIELDS = 2000
_FORM_S = 10.0  # a browser on the same machine sends a form in milliseconds

Form = Mapping[str, str]
Handler = Callable[[web.Request], Awaitable[web.Response]]
PersonsHandler = Callable[[web.Request, Session], Awaitable[web.Response]]
FormHandler = Callable[[web.Request, Session, Form], Awaitable[web.Response]]


class Signing:
    """The sign-in, and the three ways in which the page's other calls are wrapped."""

    def __init__(
        self,
        page: Page,
        sessions: Sessions,
        *,
        status_of: Callable[[AgentError], int],
        wrong_token: Callable[[], None],
    ) -> None:
        """`status_of`: the HTTP status of an error; `wrong_token`: counts one, and raises an
        AgentError when there were too many lately."""
        self._page = page
        self._sessions = sessions
        self._status_of = status_of
        self._wrong_token = wrong_token

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        return [
            web.get("/page/sign-in", self._show_sign_in),
            web.post("/page/sign-in", self.answered(self._sign_in)),
            web.post("/page/sign-out", self.form(self._sign_out)),
        ]

    def admits(self, request: web.Request) -> bool:
        """Say whether this is a call of the page, which needs no token in a header.

        The guard asks. What lies below `/page/` looks at the session itself; of all other calls a
        session opens only those that change nothing and hold nobody's data.
        """
        if request.path.startswith("/page/"):
            return True
        return (
            request.method in ("GET", "HEAD")
            and request.path in (DOCTOR, BUNDLE)
            and self._sessions.of(request) is not None
        )

    # --- who, and with which form -------------------------------------------------------------

    def answered(self, handler: Handler) -> Handler:
        """Let what cannot be done be said on the page, in words."""

        async def answer(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except AgentError as error:
                said = words_for(request).said(" ".join(error.message.split()))
                message = Message("warning", said)
                return await self._page.status(request, message, code=self._status_of(error))

        return answer

    def person(self, handler: PersonsHandler) -> Handler:
        """Let only a signed-in person through; others are asked to sign in."""

        async def answer(request: web.Request) -> web.Response:
            session = self._sessions.of(request)
            if session is None:
                return go_to("/page/sign-in")
            self._sessions.keep(session)
            return await handler(request, session)

        return self.answered(answer)

    def form(self, handler: FormHandler) -> Handler:
        """Let only a form of this session's own page through."""

        async def answer(request: web.Request) -> web.Response:
            session = self._sessions.of(request)
            if session is None:
                return go_to("/?said=expired#message")
            form = await _read_form(request)
            if not session.accepts(form.get("form_key", "")):
                message = Message("warning", words_for(request)("done.stale_form"))
                return await self._page.status(request, message, code=403)
            self._sessions.keep(session)
            return await handler(request, session, form)

        return self.answered(answer)

    # --- signing in and out -------------------------------------------------------------------

    async def _show_sign_in(self, request: web.Request) -> web.Response:
        if self._sessions.of(request) is not None:
            return go_to("/")
        return self._sign_in_page(request)

    def _sign_in_page(
        self, request: web.Request, message: Message | None = None, code: int = 200
    ) -> web.Response:
        words = words_for(request)
        lasts = words("sign_in.lasts", idle=words.span(IDLE_S), longest=words.span(LONGEST_S))
        return self._page.document(request, "sign_in", message=message, code=code, lasts=lasts)

    async def _sign_in(self, request: web.Request) -> web.Response:
        # Another site cannot get here: the guard refuses a foreign origin.
        form, words = await _read_form(request), words_for(request)
        signed_in = self._sessions.sign_in(request, form.get("token", "").strip())
        if signed_in is None:
            events.log().warning("sign_in_refused")
            self._wrong_token()
            return self._sign_in_page(request, Message("warning", words("sign_in.wrong")), 403)
        session, number = signed_in
        events.log().info("signed_in", token_name=session.name)
        answer = self._page.say(session, Message("good", words("done.signed_in")))
        hand_over(answer, request, number)
        return answer

    async def _sign_out(self, request: web.Request, session: Session, _: Form) -> web.Response:
        self._sessions.sign_out(request)
        events.log().info("signed_out", token_name=session.name)
        answer = go_to("/?said=signed-out#message")
        take_back(answer, request)
        return answer


async def _read_form(request: web.Request) -> Form:
    """Read a form's texts; what is no plain form has none. Raises TooSlow."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        async with asyncio.timeout(_FORM_S):
            body = await request.read()
    except TimeoutError:
        raise TooSlow from None
    try:
        # Not the framework's own reading: bytes that are no UTF-8 would break it.
        pairs = parse_qsl(
            body.decode("ascii", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        return {}
    return dict(pairs)
