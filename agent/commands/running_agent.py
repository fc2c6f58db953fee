"""A running agent, as the commands ask it: over HTTP, never by opening its journal."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from agent import config
from agent.errors import AgentError

# Made by a running agent beside its journal (assembly.py), for whoever may read that folder.
COMMAND_TOKEN = "command-token"  # noqa: S105 - a file's name


class NotRunning(Exception):
    """No agent answers where the settings say it listens."""


class RunningAgent:
    """The calls that it answers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._settings = None if options.url else config.load(options.config)
        self._url = (options.url or self._address()).rstrip("/")
        # A proxy of the environment has no business between a till and itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _address(self) -> str:
        assert self._settings is not None  # noqa: S101 - set where no --url is given
        server = self._settings.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"http://{host}:{server.port}"

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

    def ask(self, method: str, path: str, body: Any = None, *, public: bool = False) -> Any:
        """Make one call; gives the JSON. Raises NotRunning, and AgentError for a refusal."""
        request = urllib.request.Request(  # noqa: S310 - the address is the agent's own
            f"{self._url}{path}", method=method
        )
        if not public:
            request.add_header("apikey", self._token())
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AgentError(_refusal(error)) from error
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise NotRunning(self._nobody()) from error


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the agent answered HTTP {error.code}."


def quoted(text: str) -> str:
    """Make a text one part of a path."""
    return urllib.parse.quote(text, safe="")
