"""`host-key`: the SFTP server's key, seen and pinned by a person."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from agent.delivery.batch.sftp import HostKey


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
        "show the server's keys and the pinned one; changes nothing",
        _host_key_show,
        about="Show the server's keys, one of each kind, and what is pinned. The first is the one "
        "that the agent looks at: of a pinned kind if the server has that. --json gives it as "
        "shown, all of them as keys, the pinned ones as pinned, and as same whether the first is "
        "pinned.",
        example="till-agent host-key show",
        codes=(
            (OK, "the agent finds a pinned key"),
            (FAILED, "it finds another, or none is pinned"),
            BAD_CONFIG,
        ),
    )
    add_json(show)
    trust = add(
        verbs,
        "trust",
        "pin the server's key after you have compared it",
        _host_key_trust,
        about="Show the server's keys, ask whether the first, at which the agent looks, is the one "
        "that Voyado told you, and pin it. With --fingerprint nobody is asked: the server's key "
        "with exactly that one is pinned, of whichever kind. No key that was pinned for the server "
        "before is trusted any more.",
        example="till-agent host-key trust --fingerprint SHA256:isWVyNgw9tfsNx/U3eF90l8ZVYfb",
        codes=((OK, "it is pinned"), (FAILED, "nothing was pinned"), BAD_CONFIG),
    )
    trust.add_argument("--fingerprint", help="SHA256:… as Voyado told it; pins without asking")


@dataclass(frozen=True)
class Seen:
    """What a server shows, beside what is pinned for it."""

    server: str  # host:port
    path: Path  # of the pinned keys
    keys: Sequence[HostKey]  # one of each kind; the first is the one that the agent looks at
    pinned: Sequence[HostKey]

    @property
    def shown(self) -> HostKey:
        """Give the key that the agent looks at."""
        return self.keys[0]

    @property
    def same(self) -> bool:
        """Say whether the agent finds a pinned key."""
        return self.shown in self.pinned

    def with_fingerprint(self, fingerprint: str) -> HostKey | None:
        """Give the server's key that has this fingerprint."""
        return next((key for key in self.keys if key.fingerprint == fingerprint), None)

    def print_keys(self) -> None:
        """Print what the server shows, and what of it is revoked."""
        from agent.delivery.batch.host_keys import revoked_in_line

        for key in self.keys:
            print(f"{self.server} {'shows' if key == self.shown else 'has also'}  {key}")
        for key in self.keys:
            line = revoked_in_line(self.path, key)
            if line is not None:
                print(f"revoked in {self.path}, line {line}: {key}")


def see(sftp: config.Sftp) -> Seen:
    """Ask the SFTP server of the settings for its keys; no login follows. Raises RouteError."""
    from agent.delivery.batch.sftp import pinned_keys, shown_keys

    path = sftp.known_hosts_file
    if path is None:
        raise AgentError("There is no SFTP server in the settings.")
    pinned = pinned_keys(path, sftp.host, sftp.port)
    keys = asyncio.run(shown_keys(sftp.host, sftp.port, sftp.timeout_s, pinned))
    return Seen(f"{sftp.host}:{sftp.port}", path, keys, pinned)


def pin(sftp: config.Sftp, seen: Seen, key: HostKey) -> None:
    """Pin a key that a person has compared, and say so."""
    from agent.delivery.batch.sftp import trust

    trust(seen.path, sftp.host, sftp.port, key)
    for former in seen.pinned:
        if former != key:
            print(f"No longer trusted: {former}")
    print(f"Pinned in {seen.path}.")


def _host_key_show(options: argparse.Namespace) -> int:
    seen = see(config.load(options.config).sftp)
    if options.json:
        print_json(
            {
                "server": seen.server,
                "shown": _as_json(seen.shown),
                "keys": [_as_json(key) for key in seen.keys],
                "pinned": [_as_json(key) for key in seen.pinned],
                "same": seen.same,
            }
        )
        return OK if seen.same else FAILED
    seen.print_keys()
    for key in seen.pinned:
        print(f"pinned in {seen.path}: {key}")
    if not seen.pinned:
        print(f"No key is pinned in {seen.path}; nothing is uploaded until one is.")
        return FAILED
    several = len(seen.keys) > 1
    if not seen.same:
        what = "The agent looks at the first, which is not pinned" if several else "They differ"
        print(f"{what}: nothing is uploaded. Ask Voyado before you trust a new key.")
        return FAILED
    print("The agent looks at the first, which is pinned." if several else "They are the same.")
    return OK


def _as_json(key: HostKey) -> dict[str, str]:
    return {"algorithm": key.algorithm, "fingerprint": key.fingerprint}


def _host_key_trust(options: argparse.Namespace) -> int:
    from agent.delivery.batch.host_keys import refuse_revoked

    sftp = config.load(options.config).sftp
    seen = see(sftp)
    seen.print_keys()
    if options.fingerprint is not None:
        told = seen.with_fingerprint(options.fingerprint)
        if told is None:
            raise AgentError("The server has no key with that fingerprint. Nothing was pinned.")
        key, settled = told, list(seen.pinned) == [told]
    else:
        key, settled = seen.shown, seen.same
    if settled:
        print(f"{key} is pinned already.")
        return OK
    refuse_revoked(seen.path, key)
    if options.fingerprint is None and not is_what_was_told(seen):
        print("Nothing was pinned.")
        return FAILED
    pin(sftp, seen, key)
    print("A running agent uses it at its next try.")
    return OK


def is_what_was_told(seen: Seen) -> bool:
    """Ask a person whether the key that the agent looks at is the right one."""
    if len(seen.keys) == 1:
        return agreed("Is that what Voyado told you? Type yes to pin it: ")
    print(
        "If Voyado told you another of them than the first, say no and run: "
        "till-agent host-key trust --fingerprint SHA256:…"
    )
    return agreed(f"Is {seen.shown} what Voyado told you? Type yes to pin it: ")
