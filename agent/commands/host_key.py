"""`host-key`: the SFTP server's key, seen and pinned by a person."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from agent import config
from agent.commands.parts import FAILED, OK, add, agreed
from agent.errors import AgentError


def add_host_key(commands: Any) -> None:
    """Add `host-key show` and `trust`."""
    parser = commands.add_parser("host-key", help="show or pin the SFTP server's key")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add(verbs, "show", "show the server's key and the pinned one; changes nothing", _host_key_show)
    trust = add(verbs, "trust", "pin the server's key after you have compared it", _host_key_trust)
    trust.add_argument("--fingerprint", help="SHA256:… as Voyado told it; pins without asking")


def _host_key_of(options: argparse.Namespace) -> tuple[config.Sftp, Path, Any, list[Any]]:
    from agent.delivery.batch import host_keys, sftp

    settings = config.load(options.config).sftp
    if settings.known_hosts_file is None:
        raise AgentError("There is no SFTP server in the settings.")
    shown = asyncio.run(sftp.host_key(settings.host, settings.port, settings.timeout_s))
    path = settings.known_hosts_file
    pinned = host_keys.pinned_keys(path, settings.host, settings.port) if path.exists() else []
    return settings, path, shown, pinned


def _host_key_show(options: argparse.Namespace) -> int:
    settings, path, shown, pinned = _host_key_of(options)
    print(f"{settings.host}:{settings.port} shows  {shown}")
    for key in pinned:
        print(f"pinned in {path}: {key}")
    if not pinned:
        print(f"No key is pinned in {path}; nothing is uploaded until one is.")
        return FAILED
    if shown not in pinned:
        print("They differ: nothing is uploaded. Ask Voyado before you trust the new key.")
        return FAILED
    print("They are the same.")
    return OK


def _host_key_trust(options: argparse.Namespace) -> int:
    from agent.delivery.batch import host_keys

    settings, path, shown, pinned = _host_key_of(options)
    if shown in pinned:
        print(f"{shown} is pinned already.")
        return OK
    print(f"{settings.host}:{settings.port} shows {shown}")
    if options.fingerprint is not None:
        if options.fingerprint != shown.fingerprint:
            raise AgentError("The server shows another fingerprint. Nothing was pinned.")
    elif not agreed("Is that what Voyado told you? Type yes to pin it: "):
        print("Nothing was pinned.")
        return FAILED
    host_keys.trust(path, settings.host, settings.port, shown)
    print(f"Pinned in {path}. A running agent uses it at its next try.")
    return OK
