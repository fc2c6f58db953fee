"""A whole world on loopback: a sandbox's Engage and SFTP server, and a till with its agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import description
from patience import PATIENCE_S, eventually

from agent import config
from agent.assembly import Agent
from agent.sandbox import Sandbox
from agent.trial import Till, write_till

FINAL = ("delivered", "confirmed", "discarded")

# Many calls a second, because the usual few would be most of what a test waits for.
RATES = {"max_requests_per_s": 200, "backlog_requests_per_s": 200}
# What hangs is waited for. A busy machine may stand still for half a second; that is no hanging.
QUICK: dict[str, dict[str, Any]] = {
    "engage": {"create_timeout_s": 1.0, "timeout_s": 1.0, **RATES},
    "server": {"wait_s": 2.0},
    "retry": {"waits_s": [0.05, 0.1]},
    "link": {"offline_after": 2, "probe_s": 0.1},
    "fallback": {"seal_after_s": 0.2, "import_grace_s": 60},
    "sftp": {"poll_s": 0.2, "timeout_s": 3},
}

Settings = Mapping[str, Mapping[str, Any]]


def merged(*layers: Settings) -> dict[str, dict[str, Any]]:
    """Lay settings over settings, table by table."""
    result: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, table in layer.items():
            result.setdefault(name, {}).update(table)
    return result


def lay_till(sandbox: Sandbox, folder: Path, settings: Settings | None = None, **over: Any) -> Till:
    """Write a till's folder for an agent in front of this sandbox, with short times."""
    given: dict[str, Any] = {
        "engage_url": sandbox.engage_url,
        "api_key": sandbox.api_key,
        "sftp_host": sandbox.sftp_host,
        "sftp_port": sandbox.sftp_port,
        "sftp_username": sandbox.sftp_username,
        "sftp_password": sandbox.sftp_password,
        "sftp_directory": sandbox.import_directory,
        "host_key_line": sandbox.host_key_line,
    }
    return write_till(folder, **{**given, **over}, settings=merged(QUICK, settings or {}))


def write_secret(path: Path, text: str) -> None:
    """Replace a secret's file, as an administrator does."""
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600)
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(path)


class Pos:
    """POS software: speaks to an agent as it would to Engage."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._token = token
        self._session = session

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Make a call; gives status, JSON body and headers. `wait=` becomes `Prefer`."""
        sent = {"apikey": self._token}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(
            method, self.url + path, json=body, headers=sent
        ) as response:
            text = await response.text()
            answer = json.loads(text) if text else None
        description.check(method, path, response.status, response.headers, answer)
        return response.status, answer, response.headers

    async def get(self, path: str) -> Any:
        status, body, _ = await self.call("GET", path)
        assert status == 200, body
        return body

    async def create(self, email: str = "vera@example.test", **attributes: Any) -> str:
        """Sign a customer up and do not wait; gives the change's id."""
        body = {"email": email, **attributes}
        status, answer, headers = await self.call(
            "POST", "/api/v3/contacts", body, Prefer="respond-async"
        )
        assert status in (200, 201, 202), answer
        return headers["Agent-Change"]

    async def update(self, contact: str, **attributes: Any) -> str:
        """Change a customer and do not wait; gives the change's id."""
        status, answer, headers = await self.call(
            "PATCH", f"/api/v3/contacts/{contact}", attributes, Prefer="respond-async"
        )
        assert status in (200, 202), answer
        return headers["Agent-Change"]

    async def change(self, change_id: str) -> dict[str, Any]:
        return dict(await self.get(f"/agent/v1/changes/{change_id}"))

    async def ref_of(self, change_id: str) -> str:
        return str((await self.change(change_id))["contactRef"])

    async def status(self) -> dict[str, Any]:
        return dict(await self.get("/agent/v1/status"))

    async def until_link(self, state: str) -> None:
        """Wait until the agent thinks so of the line to Engage."""

        async def there() -> bool:
            return bool((await self.status())["link"]["state"] == state)

        await eventually(there, f"a link that is {state}")

    async def until(self, change_id: str, *states: str) -> dict[str, Any]:
        """Wait until a change is in one of these states."""

        seen: dict[str, Any] = {}

        async def there() -> bool:
            seen.update(await self.change(change_id))
            return seen["state"] in states

        await eventually(there, lambda: f"change in {states}, but {seen}")
        return seen

    async def tried(self, change_id: str, times: int = 1) -> dict[str, Any]:
        """Wait until a change has been tried so often."""

        async def there() -> dict[str, Any] | None:
            change = await self.change(change_id)
            return change if len(change["attempts"]) >= times else None

        return dict(await eventually(there, f"{times} attempts"))

    @contextlib.asynccontextmanager
    async def sealing(self) -> AsyncIterator[None]:
        """Keep what is asked inside off the API, and seal it at the end, all at once."""
        await self.call("POST", "/agent/v1/routes/api/pause")
        yield
        await self.call("POST", "/agent/v1/batches/seal")
        await self.call("POST", "/agent/v1/routes/api/resume")

    async def batches(self) -> list[dict[str, Any]]:
        return list((await self.get("/agent/v1/batches"))["items"])


class World:
    """A sandbox, a till, and an agent in this process that can be stopped and started again."""

    def __init__(self, sandbox: Sandbox, till: Till, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.till = till
        self.session = session
        self.agent: Agent | None = None
        self.pos = Pos("", till.token, session)

    async def start(self) -> Self:
        """Start an agent on the till's folder."""
        self.agent = Agent(config.load(self.till.config_path))
        await self.agent.start()
        self.pos.url = self.agent.url
        return self

    async def stop(self) -> None:
        """Stop the agent in good order; safe to repeat."""
        if self.agent is not None:
            agent, self.agent = self.agent, None
            await agent.stop()

    def calls(self, method: str = "", path: str = "") -> list[Any]:
        """Give what Engage was asked, by method and the path's end."""
        return [
            each
            for each in self.sandbox.requests
            if each.method.startswith(method) and each.path.endswith(path)
        ]

    def attributes(self, email: str = "vera@example.test") -> dict[str, Any]:
        """Give the attributes of the one contact in Engage with this e-mail."""
        (contact,) = self.sandbox.find("email", email)
        return dict(contact["attributes"])

    def writes(self, contact_id: str) -> list[dict[str, Any]]:
        """Give the bodies of the updates that reached Engage for a contact."""
        return [json.loads(each.body) for each in self.calls("PATCH", contact_id)]


class Process:
    """An agent as its own process: `python -m agent run --config …`."""

    def __init__(
        self, till: Till, session: aiohttp.ClientSession, files: int | None = None
    ) -> None:
        self.till = till
        self.pos = Pos("", till.token, session)
        # With `files`, it may have so many open at once and no more.
        limit = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh") if files else ()
        self._command = (*limit, sys.executable, "-m", "agent", "run")
        self._process: asyncio.subprocess.Process | None = None
        self._output = till.folder / "agent.log"

    async def start(self) -> None:
        """Start it and wait until it listens; port 0 is read from its log."""
        seen = len(self.output())
        with self._output.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._command, "--config", str(self.till.config_path)),
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

        def port() -> int | None:
            assert self._process and self._process.returncode is None, self.output()
            return _port(self.output()[seen:])

        self.pos.url = f"http://127.0.0.1:{await eventually(port, 'the agent listens')}"

    @property
    def pid(self) -> int:
        """Give the process's id."""
        assert self._process
        return self._process.pid

    def output(self) -> str:
        """Give what it printed so far."""
        return self._output.read_text("utf-8") if self._output.exists() else ""

    async def kill(self) -> None:
        """End it as a power cut of the process: SIGKILL."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask it to stop; gives its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        assert self._process
        if self._process.returncode is None:
            os.kill(self._process.pid, number)
        return await asyncio.wait_for(self._process.wait(), PATIENCE_S)

    async def stop(self) -> None:
        """End it whatever it does; safe to repeat."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()


def _port(log: str) -> int | None:
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and said.get("event") == "started":
                return int(said["port"])
        if (found := re.search(r" started .*\bport=(\d+)", line)) is not None:
            return int(found.group(1))
    return None


async def run_once(till: Till, within_s: float = PATIENCE_S) -> tuple[int, str]:
    """Run an agent that cannot start; gives its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent", "run", "--config", str(till.config_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), within_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode()
