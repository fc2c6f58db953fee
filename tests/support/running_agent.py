"""A whole agent in front of a sandbox, and a POS that speaks to it over real sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import description
from patience import PATIENCE_S, eventually

from agent import config
from agent.assembly import Agent
from agent.sandbox import Sandbox
from agent.trial import Till, write_till

CONTACTS = "/api/v3/contacts"


@dataclass(frozen=True)
class Answer:
    """What the POS got."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str | None:
        return self.body.get("errorCode") if isinstance(self.body, dict) else None

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Give field and code of every validation error."""
        return [(each["field"], each["code"]) for each in self.body["validationErrors"]]


class Pos:
    """A POS software with a token of its own."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.token = token
        self.session = session

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        data: Any = None,
        **headers: str,
    ) -> Answer:
        """Call; a header is named with _ for -. `data` is sent as it is."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token != "":
            given.setdefault("apikey", token or self.token)
        if data is not None and not any(name.lower() == "content-type" for name in given):
            given["Content-Type"] = "application/json"
        async with self.session.request(
            method, self.url + path, json=body, data=data, headers=given
        ) as response:
            content = await response.read()
            answer = Answer(
                response.status, response.headers.copy(), json.loads(content) if content else None
            )
        description.check(method, path, answer.status, answer.headers, answer.body)
        return answer

    async def create(
        self, email: str, body: Mapping[str, Any] | None = None, **more: str
    ) -> Answer:
        attributes = {"email": email, "firstName": "Vera", **(body or {})}
        return await self("POST", CONTACTS, attributes, **more)

    async def update(self, public_id: str, body: Mapping[str, Any], **more: str) -> Answer:
        return await self("PATCH", f"{CONTACTS}/{public_id}", body, **more)

    async def look_up(self, **query: str) -> Answer:
        return await self("GET", f"{CONTACTS}/id?" + "&".join(f"{k}={v}" for k, v in query.items()))

    async def change(self, answer: Answer) -> dict[str, Any]:
        """Give the change that an answer names, as it stands now."""
        return (await self("GET", answer.headers["Location"])).body

    async def changes(self) -> list[dict[str, Any]]:
        return (await self("GET", "/agent/v1/changes?limit=200")).body["items"]

    async def settled(self, answer: Answer, state: str) -> dict[str, Any]:
        """Wait until the change of an answer is in a state."""

        async def there() -> dict[str, Any] | None:
            change = await self.change(answer)
            return change if change["state"] == state else None

        return dict(await eventually(there, f"a change that is {state}"))


@dataclass
class Shop:
    """Everything that runs: sandbox, till, agent, POS."""

    sandbox: Sandbox
    till: Till
    agent: Agent
    pos: Pos

    async def go_offline(self) -> None:
        """Take the line down, and wait until the agent has noticed."""
        self.sandbox.down()
        numbers = itertools.count()

        async def noticed() -> bool:
            await self.pos("GET", f"{CONTACTS}/id?email=noticing{next(numbers)}@example.test")
            return self.agent.link.state.value == "offline"

        await eventually(noticed, "the line is seen as down")


@contextlib.asynccontextmanager
async def open_shop(
    folder: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, **sandbox: Any
) -> AsyncIterator[Shop]:
    """Run a sandbox and an agent in front of it."""
    options = {"import_every_s": 0, "rate_limit": 0, "seed": 1, **sandbox}
    async with Sandbox(folder / "sandbox", **options) as engage:
        till = write_till(
            folder / "till",
            engage_url=engage.engage_url,
            api_key=engage.api_key,
            sftp_host=engage.sftp_host,
            sftp_port=engage.sftp_port,
            sftp_username=engage.sftp_username,
            sftp_password=engage.sftp_password,
            sftp_directory=engage.import_directory,
            host_key_line=engage.host_key_line,
            settings=merged(settings),
        )
        agent = Agent(config.load(till.config_path))
        await agent.start()
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        try:
            async with aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
            ) as session:
                yield Shop(engage, till, agent, Pos(agent.url, till.token, session))
        finally:
            await agent.stop()


def merged(settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Give settings with a pace and waits that suit tests."""
    usual: dict[str, dict[str, Any]] = {
        "engage": {"max_requests_per_s": 200, "backlog_requests_per_s": 200},
        "retry": {"waits_s": [0.05, 0.1]},
        "fallback": {"seal_after_s": 600},
        "link": {"probe_s": 0.2},
    }
    for name, table in (settings or {}).items():
        usual.setdefault(name, {}).update(table)
    return usual
