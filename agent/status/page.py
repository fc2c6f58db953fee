"""The documents that a person sees: rendered for who asks, in their language.

Shows what the snapshot says and nothing else. Works without JavaScript; with it, the status page
keeps itself current and says so when the agent no longer answers.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent import __version__
from agent.config import Store
from agent.status import static
from agent.status.session import Message, Session, Sessions, is_tls
from agent.status.snapshot import Observer
from agent.status.view import Act, status_view
from agent.status.words import LANGUAGES, Words, preferred, words_of

if TYPE_CHECKING:
    from jinja2 import Environment

DOCTOR, BUNDLE = "/agent/v1/doctor", "/agent/v1/support-bundle"
_LANGUAGE_COOKIE = "till-agent-language"
_YEAR_S = 365 * 86400
# What may stand in the address of the page for who is not signed in (any more).
_SAID_TO_ANYBODY = {
    "signed-out": ("good", "done.signed_out"),
    "expired": ("warning", "done.expired"),
}


class Page:
    """Renders the page's documents."""

    def __init__(self, observer: Observer, sessions: Sessions, store: Store) -> None:
        self._observer = observer
        self._sessions = sessions
        self._store = store

    def routes(self) -> list[web.RouteDef]:
        """Give `GET /`, its assets, and the switch of languages."""
        return [
            web.get("/", self._show),
            web.get("/page/language/{language}", self._switch),
            *static.routes(),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        return await self.status(request, self._said(request))

    async def _switch(self, request: web.Request) -> web.Response:
        """Remember a language; changes nothing but the browser's own cookie."""
        language = request.match_info["language"]
        if language not in LANGUAGES:
            raise web.HTTPNotFound(text="There is no such language.")
        answer = go_to("/")
        answer.set_cookie(
            _LANGUAGE_COOKIE,
            language,
            max_age=_YEAR_S,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=is_tls(request),
        )
        return answer

    def _said(self, request: web.Request) -> Message | None:
        """Give what happened before, as the address of the page says."""
        number = request.query.get("said", "")
        if number in _SAID_TO_ANYBODY:
            tone, key = _SAID_TO_ANYBODY[number]
            return Message(tone, words_for(request)(key))
        person = self._sessions.of(request)
        return person.messages.get(number) if person else None

    def say(self, session: Session, message: Message) -> web.Response:
        """Send a browser to the status page, where it reads what happened and sees it."""
        self._observer.forget()
        return go_to(f"/?said={session.note(message)}#message")

    async def status(
        self, request: web.Request, message: Message | None = None, *, code: int = 200
    ) -> web.Response:
        """Answer with the status page, and what happened above it."""
        words, person = words_for(request), self._sessions.of(request)
        snapshot = await self._observer.look()
        offers = offered(request.app) if person else ()
        view = status_view(snapshot, words, may_act=person is not None, may_check=DOCTOR in offers)
        return self.document(
            request,
            "status",
            message=message,
            code=code,
            seal=Act("seal", words("act.seal"), "/page/seal"),
            offers=_offers(offers, words),
            **view,
        )

    def document(
        self,
        request: web.Request,
        name: str,
        *,
        message: Message | None = None,
        code: int = 200,
        **content: Any,
    ) -> web.Response:
        """Answer with one of the templates. Nobody may keep it: it may hold a customer's data."""
        words = words_for(request)
        text = (
            _environment()
            .get_template(f"{name}.html.j2")
            .render(
                words=words,
                languages=[words_of(language) for language in LANGUAGES],
                person=self._sessions.of(request),
                message=message,
                version=__version__,
                store=self._store.id,
                till=self._store.till,
                css=static.address("page.css"),
                js=static.address("page.js"),
                icon=static.address("icon.svg"),
                **content,
            )
        )
        return web.Response(
            status=code,
            text=text,
            content_type="text/html",
            charset="utf-8",
            headers={
                **static.GUARDS,
                "Cache-Control": "no-store",
                "Content-Language": words.language,
                "Vary": "Accept-Language, Cookie",
            },
        )


def words_for(request: web.Request) -> Words:
    """Give the words of the language that a browser chose here once, or else asks for."""
    chosen = request.cookies.get(_LANGUAGE_COOKIE, "")
    if chosen not in LANGUAGES:
        chosen = preferred(request.headers.get("Accept-Language", ""))
    return words_of(chosen)


def go_to(place: str) -> web.Response:
    """Send a browser on with a GET, so that renewing the page repeats nothing."""
    return web.Response(status=303, headers={"Location": place, "Cache-Control": "no-store"})


def offered(app: web.Application) -> Collection[str]:
    """Give which of the calls that the page may offer this agent has."""
    paths = {resource.canonical for resource in app.router.resources()}
    return paths & {DOCTOR, BUNDLE}


def _offers(paths: Collection[str], words: Words) -> list[Act]:
    acts = []
    if DOCTOR in paths:
        acts.append(Act("doctor", words("act.doctor"), "/page/doctor", is_link=True))
    if BUNDLE in paths:
        acts.append(Act("bundle", words("act.bundle"), BUNDLE, is_link=True))
    return acts


@cache
def _environment() -> Environment:
    # Here, not above: an agent whose page nobody opens keeps the memory.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("agent.status"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
