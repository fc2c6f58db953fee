"""A running agent, as the commands ask it: over HTTP, never by opening its journal."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import config
from agent.errors import AgentError
from agent.tls import leaf_of

# Made by a running agent beside its journal (assembly.py), for whoever may read that folder.
COMMAND_TOKEN = "command-token"  # noqa: S105 - a file's name
_TIMEOUT_S = 30.0
_EXAMPLE_URL = "http://127.0.0.1:8717"
_PIECE_BYTES = 64 * 1024


class NotRunning(Exception):
    """No agent answers where the settings say it listens."""


@dataclass(frozen=True)
class Lines:
    """An answer that comes a line at a time, as bytes with their line ends."""

    about: int  # how many lines there are, about
    lines: Iterator[bytes]


class RunningAgent:
    """The calls that it answers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._settings = None if options.url else config.load(options.config)
        self._url = (options.url or self._address()).rstrip("/")

    def _address(self) -> str:
        assert self._settings is not None  # noqa: S101 - set where no --url is given
        return self._settings.server.address()

    def _connection(self) -> http.client.HTTPConnection:
        """Give a way to the agent: its socket where there is one, else its address.

        A proxy of the environment has no business between a till and itself.
        """
        server = None if self._settings is None else self._settings.server
        if server and server.socket and os.access(server.socket, os.W_OK):
            return _ByFile(server.socket)
        scheme, host, port = _parts(self._url)
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        if server is None or server.tls_certificate_file is None:
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S)
        return _Pinned(host, port, leaf_of(server.tls_certificate_file))

    def _token(self) -> str:
        if token := os.environ.get("TILL_AGENT_TOKEN"):
            return token
        if self._settings is None:
            return ""
        path = self._settings.journal.path.with_name(COMMAND_TOKEN)
        try:
            return path.read_text("ascii").strip()
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise NotRunning(self._nobody()) from error
            raise AgentError(
                f"{path} cannot be read ({error.strerror}). Run this as the agent's user or as "
                "root, or put a token into TILL_AGENT_TOKEN."
            ) from error

    def _nobody(self) -> str:
        return (
            f"no agent answers at {self._url}. What it has stored is safe. Start it with "
            "'systemctl start till-agent' or 'till-agent run'."
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        public: bool = False,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """Make one call; gives the JSON. Raises NotRunning, and AgentError for a refusal."""
        with self._answer(method, path, body, public=public, timeout_s=timeout_s) as answer:
            text = self._whole(answer)
        try:
            return json.loads(text)
        except ValueError as error:
            raise NotRunning(self._nobody()) from error

    def fetch(self, path: str, *, timeout_s: float) -> bytes:
        """Get a file. Raises as ask()."""
        with self._answer("GET", path, None, public=False, timeout_s=timeout_s) as answer:
            return self._whole(answer)

    @contextmanager
    def lines(self, path: str) -> Iterator[Lines]:
        """Read a long answer line by line, with little memory.

        Raises as ask(), and AgentError for an answer that breaks off.
        """
        with self._answer("GET", path, None, public=False, timeout_s=_TIMEOUT_S) as answer:
            yield Lines(int(answer.headers.get("Agent-Count", 0)), _lines(answer))

    def _whole(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(self._nobody()) from error

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Any, *, public: bool, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {} if public else {"apikey": self._token()}
        sent = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body)
        connection = self._connection()
        connection.timeout = timeout_s
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise AgentError(
                f"the certificate of {self._url} cannot be trusted ({error.verify_message}). "
                "Nothing was asked. Use --config on the till itself."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(self._nobody()) from error
        try:
            if answer.status >= 400:
                raise AgentError(_refusal(answer.status, self._whole(answer)))
            yield answer
        finally:
            connection.close()


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Split by hand: the library's own lines end in silence where an answer breaks off."""
    rest = b""
    while True:
        try:
            piece = answer.read(_PIECE_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise AgentError("The agent's answer broke off; not all of it has come.") from error
        if not piece:
            break
        *whole, rest = (rest + piece).splitlines(keepends=True)
        if rest.endswith(b"\n"):
            whole, rest = [*whole, rest], b""
        yield from whole
    if rest:
        yield rest


def _parts(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
        raise AgentError(f"{url} is not where an agent can be. Write for example {_EXAMPLE_URL}")
    return parts.scheme, parts.hostname, port


class _ByFile(http.client.HTTPConnection):
    """A connection to the agent's Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class _Pinned(http.client.HTTPSConnection):
    """A TLS connection to whoever has the very certificate that the settings name.

    It is not asked whose name stands in it or when it ends: the commands call an address of the
    machine, and are needed most when a certificate has ended.
    """

    def __init__(self, host: str, port: int | None, leaf: bytes) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(host, port, timeout=_TIMEOUT_S, context=context)
        self._leaf = leaf

    def connect(self) -> None:
        super().connect()
        if self.sock.getpeercert(binary_form=True) != self._leaf:
            self.close()
            raise AgentError(
                f"what answers at {self.host}:{self.port} has another certificate than the one in "
                "server.tls_certificate_file, so it got no token. If the file was replaced, see "
                "in the log whether the agent could use it; else find out what listens there."
            )


def _refusal(status: int, text: bytes) -> str:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return str(detail or f"the agent answered HTTP {status}.")


def quoted(text: str) -> str:
    """Make a text one part of a path."""
    return urllib.parse.quote(text, safe="")
