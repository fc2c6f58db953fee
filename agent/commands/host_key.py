"""`host-key`: the SFTP server's key, seen and pinned by a person."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from agent import config
from agent.commands.parts import (
    BAD_CONFIG,
    FAILED,
    OK,
    add,
    add_group,
    add_json,
    agreed,
    print_json,
)
from agent.errors import AgentError


def add_host_key(commands: Any) -> None:
    """Add `host-key show` and `trust`."""
    verbs = add_group(
        commands,
        "host-key",
        "show or pin the SFTP server's key",
        "till-agent host-key show",
        "Files go only to a server that shows the pinned key. Nothing is pinned by itself.",
    )
    show = add(
        verbs,
        "show",
        "show the server's key and the pinned one; changes nothing",
        _host_key_show,
        example="till-agent host-key show",
        codes=((OK, "they are the same"), (FAILED, "they differ, or none is pinned"), BAD_CONFIG),
    )
    add_json(show)
    trust = add(
        verbs,
        "trust",
        "pin the server's key after you have compared it",
        _host_key_trust,
        about="Show the server's key, ask whether it is the one that Voyado told you, and pin it. "
        "With --fingerprint nobody is asked: it is pinned if the server shows exactly that one.",
        example="till-agent host-key trust --fingerprint SHA256:isWVyNgw9tfsNx/U3eF90l8ZVYfb",
        codes=((OK, "it is pinned"), (FAILED, "nothing was pinned"), BAD_CONFIG),
    )
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
    if options.json:
        print_json(
            {
                "server": f"{settings.host}:{settings.port}",
                "shown": _as_json(shown),
                "pinned": [_as_json(key) for key in pinned],
                "same": shown in pinned,
            }
        )
        return OK if shown in pinned else FAILED
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


def _as_json(key: Any) -> dict[str, str]:
    return {"algorithm": key.algorithm, "fingerprint": key.fingerprint}


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
