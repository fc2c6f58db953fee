"""A sandbox on free ports, and clients that speak to it over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import paramiko
import pytest
from patience import PATIENCE_S, eventually

from agent.sandbox import Sandbox

FILE_NAME = "20261121101500_0600_contacts.xml"
HEADERS = {
    "apikey": "sandbox-key",
    "Content-Type": "application/json",
    "User-Agent": "AcmePOS/1.5",
}


class Engage:
    """A client that carries all that Engage demands."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def __call__(
        self, method: str, path: str, body: Any = None, **parameters: str
    ) -> tuple[int, Any]:
        """Return status and JSON body, None for one that is empty or no JSON."""
        async with self._session.request(
            method, f"{self.url}{path}", json=body, params=parameters
        ) as response:
            content = await response.read()
            is_json = content and response.content_type == "application/json"
            return response.status, json.loads(content) if is_json else None

    async def create(self, **attributes: Any) -> dict[str, Any]:
        status, contact = await self("POST", "/api/v3/contacts", attributes)
        assert status == 201, contact
        return contact

    async def look_up(self, **keys: str) -> tuple[int, Any]:
        return await self("GET", "/api/v3/contacts/id", **keys)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(
        tmp_path / "sandbox", import_every_s=0, rate_limit=0, bulk_delay_s=0.01, seed=1
    ) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(headers=HEADERS, timeout=timeout) as opened:
        yield opened


@pytest.fixture
def engage(sandbox: Sandbox, session: aiohttp.ClientSession) -> Engage:
    return Engage(sandbox.engage_url, session)


@pytest.fixture
def engage_of(session: aiohttp.ClientSession) -> Callable[[Sandbox], Engage]:
    return lambda sandbox: Engage(sandbox.engage_url, session)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


class Uploader:
    """What the agent does: paramiko, a pinned host key, a temporary name, a rename."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.password: str | None = sandbox.sftp_password
        self.private_key: paramiko.PKey | None = None
        self.patience_s = PATIENCE_S  # with each operation, once logged in

    @contextmanager
    def connection(self) -> Iterator[paramiko.SFTPClient]:
        client = paramiko.SSHClient()
        name, kind, data = self.sandbox.host_key_line.split()
        client.get_host_keys().add(name, kind, paramiko.Ed25519Key(data=base64.b64decode(data)))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            client.connect(
                self.sandbox.sftp_host,
                self.sandbox.sftp_port,
                username=self.sandbox.sftp_username,
                password=self.password,
                pkey=self.private_key,
                allow_agent=False,
                look_for_keys=False,
                timeout=PATIENCE_S,
                banner_timeout=PATIENCE_S,
                auth_timeout=PATIENCE_S,
            )
            sftp = client.open_sftp()
            sftp.get_channel().settimeout(self.patience_s)
            yield sftp
        finally:
            client.close()

    def _upload(self, content: bytes, name: str, posix: bool) -> None:
        folder = self.sandbox.import_directory
        with self.connection() as sftp:
            with sftp.open(f"{folder}/{name}.tmp", "wb") as file:
                file.write(content)
            rename = sftp.posix_rename if posix else sftp.rename
            rename(f"{folder}/{name}.tmp", f"{folder}/{name}")

    async def upload(self, content: bytes, name: str = FILE_NAME, *, posix: bool = True) -> None:
        await asyncio.to_thread(self._upload, content, name, posix)

    async def do(self, work: Callable[[paramiko.SFTPClient], Any]) -> Any:
        """Run something with an open SFTP connection."""

        def with_connection() -> Any:
            with self.connection() as sftp:
                return work(sftp)

        return await asyncio.to_thread(with_connection)


@pytest.fixture
def uploader(sandbox: Sandbox) -> Uploader:
    return Uploader(sandbox)


def xml(*contacts: str, root: str = "") -> bytes:
    """Return an import file with these elements in `<new>`."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<contacts xmlns="http://eClub.Schemas.ImportContact"{root}><new>'
        f"{''.join(contacts)}</new></contacts>"
    ).encode()


@pytest.fixture(name="xml")
def _xml() -> Callable[..., bytes]:
    return xml
