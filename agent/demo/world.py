"""A shop in a temporary folder: the sandbox in this process, and the agent as a child of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from agent.errors import AgentError
from agent.sandbox import Sandbox
from agent.trial import Table, Till, write_till

_HOST = "127.0.0.1"
_START_S = 20.0
_STOP_S = 6.0
_LOOK_EVERY_S = 0.05


class WorldProblem(AgentError):
    """Something of the trial did not work, so it proves nothing."""

    code = "WorldProblem"


class World:
    """What stands in the shop, and behind it."""

    def __init__(self, sandbox: Sandbox, till: Till, port: int, log_path: Path) -> None:
        self.sandbox = sandbox
        self.till = till
        self.url = f"http://{_HOST}:{port}"
        self.log_path = log_path
        self._agent: asyncio.subprocess.Process | None = None

    async def start_agent(self) -> None:
        """Start the agent and wait until it serves. Raises WorldProblem."""
        with self.log_path.open("ab") as log:
            self._agent = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "agent", "run", "--config", str(self.till.config_path)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is ours to handle
            )
        await self.until(self._serves, "the agent serves", within_s=_START_S)

    def kill_agent(self) -> None:
        """Kill the agent as a power cut would: at once, in the middle of whatever it does."""
        if self._agent is not None:
            self._agent.kill()

    async def agent_ended(self) -> int:
        """Wait for the agent's end; gives its exit code."""
        return 0 if self._agent is None else await self._agent.wait()

    async def stop_agent(self) -> None:
        """End the agent; hard if it does not go. Safe to repeat."""
        if self._agent is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._agent.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._agent.wait()
        except TimeoutError:
            self._agent.kill()
            await self._agent.wait()

    async def ask(self, path: str) -> Any:
        """Ask the agent with the POS's token; gives the JSON. Raises aiohttp.ClientError."""
        headers = {"apikey": self.till.token}
        async with (
            aiohttp.ClientSession(self.url, headers=headers) as session,
            session.get(path, raise_for_status=True) as answer,
        ):
            return await answer.json()

    async def until(
        self, is_true: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 30.0
    ) -> None:
        """Wait for a condition. Raises WorldProblem with the agent's last words."""
        try:
            async with asyncio.timeout(within_s):
                while not await is_true():
                    self._check_agent()
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError as error:
            raise WorldProblem(
                f"Waited {within_s:g} s until {what}, in vain.\n{self._last_words()}"
            ) from error

    def _check_agent(self) -> None:
        if self._agent is not None and self._agent.returncode is not None:
            raise WorldProblem(
                f"The agent ended with code {self._agent.returncode}.\n{self._last_words()}"
            )

    def _last_words(self) -> str:
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        return "\n".join(["Its log ends so:", *lines[-15:]])

    async def _serves(self) -> bool:
        try:
            await self.ask("/healthz")
        except (aiohttp.ClientError, ValueError):
            return False
        return True


@contextlib.asynccontextmanager
async def world(
    *, port: int = 0, import_every_s: float = 2.0, settings: Mapping[str, Table] | None = None
) -> AsyncIterator[World]:
    """Give a sandbox and a running agent in front of it; at the end all of it is gone.

    `port` is taken for the agent if it is free, else any free one. `settings` go over the usual
    ones of a trial till.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="till-agent-")))
        sandbox = Sandbox(folder / "sandbox", import_every_s=import_every_s)
        await stack.enter_async_context(sandbox)
        # A number, not 0: after a kill the agent must come back where the POS looks for it.
        port = free_port(port)
        till = _till_for(sandbox, folder / "till", port, settings or {})
        made = World(sandbox, till, port, folder / "agent.log")
        stack.push_async_callback(made.stop_agent)
        await made.start_agent()
        yield made


def _till_for(sandbox: Sandbox, folder: Path, port: int, settings: Mapping[str, Table]) -> Till:
    return write_till(
        folder,
        engage_url=sandbox.engage_url,
        api_key=sandbox.api_key,
        sftp_host=sandbox.sftp_host,
        sftp_port=sandbox.sftp_port,
        sftp_username=sandbox.sftp_username,
        sftp_password=sandbox.sftp_password,
        sftp_directory=sandbox.import_directory,
        host_key_line=sandbox.host_key_line,
        settings={
            "log": {"format": "text"},
            **settings,
            "server": {**settings.get("server", {}), "port": port},
        },
    )


def free_port(wanted: int = 0) -> int:
    """Give the wanted port if it is free, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_HOST, port))
            return int(probe.getsockname()[1])
    raise WorldProblem("No port is free on this machine.")
