"""The GET handlers of Engage's contact API."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from agent.errors import Refused
from agent.lookup.identify import Identifier

# A person stands at the till; whoever has not answered by then is as good as not there.
_PATIENCE_S = 9.0

Problem = Callable[..., web.Response]


class LookupCalls:
    """The reading calls; `problem` is intake's way to answer an error."""

    def __init__(self, identifier: Identifier, problem: Problem) -> None:
        self._identifier = identifier
        self._problem = problem

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        return [web.get("/api/v3/contacts/id", self.identify)]

    async def identify(self, request: web.Request) -> web.Response:
        """`GET /api/v3/contacts/id?email=…` → a JSON string: the GUID, or a ref of this till."""
        try:
            found = await self._identifier.identify(request.query, _PATIENCE_S)
        except Refused as error:
            return self._problem(error.code, error.words, request, status=error.status)
        headers = {"Agent-Source": found.source, "Cache-Control": "no-store"}
        if found.public_id is None:
            return self._problem(
                "ContactNotFound", "Engage knows no such contact.", request, headers=headers
            )
        return web.json_response(found.public_id, headers=headers)
