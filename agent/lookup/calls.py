"""The GET handlers of Engage's contact API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from agent.clock import Clock
from agent.config import Config
from agent.delivery.engage.client import EngageClient
from agent.delivery.quoting import unquoted
from agent.errors import Refused
from agent.journal.journal import Journal
from agent.lookup import overlay
from agent.lookup.cache import Cache
from agent.lookup.freshness import Provenance, matches
from agent.lookup.identify import Digest, Identifier
from agent.lookup.naming import Naming
from agent.lookup.profiles import Profiles
from agent.lookup.purchases import Lists
from agent.lookup.reading import PATIENCE_S, Answered, Reader

Problem = Callable[..., web.Response]

# A POS may keep what it was shown, but has to ask whether it still holds (If-None-Match).
_REVALIDATE = {"Cache-Control": "private, no-cache"}
_NO_STORE = {"Cache-Control": "no-store"}
# Engage's refusals that keep their status.
_KEPT_STATUSES = (400, 409, 422)


class LookupCalls:
    """The reading calls; `problem` is intake's way to answer an error, `digest` the register's to
    have a key."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        client: EngageClient,
        clock: Clock,
        problem: Problem,
        digest: Digest,
    ) -> None:
        self.cache = Cache(config.cache, journal, clock)
        self._reader = Reader(journal, client, self.cache)
        self._identifier = Identifier(config, journal, client, self.cache, clock, digest)
        naming = Naming(journal, client, config.engage)
        region = config.engage.phone_region
        self.profiles = Profiles(journal, self._reader, self.cache, naming, phone_region=region)
        self._lists = Lists(journal, self._reader, self.profiles)
        self._problem = problem

    async def close(self) -> None:
        """End the questions under way."""
        await self._identifier.close()
        await self._reader.close()

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application; the fixed addresses first."""
        return [
            web.get("/api/v3/contacts/id", self.identify),
            web.get("/api/v3/contacts/transactions", self.purchases),
            web.get("/api/v3/contacts/{id}", self.contact),
            web.get("/api/v3/promotion-assignments", self.promotions),
        ]

    async def identify(self, request: web.Request) -> web.Response:
        """`GET /api/v3/contacts/id?email=…` → a JSON string: the GUID, or a ref of this till."""
        try:
            found = await self._identifier.identify(request.query, PATIENCE_S)
        except Refused as error:
            return self._refused(error, request)
        if found.public_id is None:
            return self._not_found(found.provenance, request)
        headers = {**_NO_STORE, **found.provenance.headers()}
        return web.json_response(found.public_id, headers=headers)

    async def contact(self, request: web.Request) -> web.Response:
        """`GET /api/v3/contacts/{id}`, a GUID or a ref → the contact in Engage's shape."""
        return await self._answer(request, self._profile(request))

    async def purchases(self, request: web.Request) -> web.Response:
        """`GET /api/v3/contacts/transactions?contactId&offset&count` → Engage's list."""
        return await self._answer(request, self._lists.purchases(request.query))

    async def promotions(self, request: web.Request) -> web.Response:
        """`GET /api/v3/promotion-assignments?contactId&redemptionChannelType&redeemed`."""
        return await self._answer(request, self._lists.promotions(request.query))

    async def _profile(self, request: web.Request) -> Answered:
        return await self.profiles.read(request.match_info["id"])

    async def _answer(self, request: web.Request, question: Awaitable[Answered]) -> web.Response:
        try:
            answered = await question
        except Refused as error:
            return self._refused(error, request)
        if answered.is_absent:
            return self._not_found(answered.provenance, request)
        etag = overlay.etag(answered.body)
        headers = {**_REVALIDATE, **answered.provenance.headers(), "ETag": etag}
        if matches(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
        return web.json_response(answered.body, headers=headers)

    def _not_found(self, provenance: Provenance, request: web.Request) -> web.Response:
        headers = provenance.headers()
        return self._problem(
            "ContactNotFound", "Engage knows no such contact.", request, headers=headers
        )

    def _refused(self, error: Refused, request: web.Request) -> web.Response:
        status = error.status if error.status in _KEPT_STATUSES else 422
        unquoted(error, request.query)
        return self._problem(error.code, error.words, request, status=status)
