"""`host-key`: a person sees the SFTP server's key and pins it; nothing is ever pinned by itself."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from patience import eventually
from world import World, lay_till

from agent.delivery.batch.host_keys import HostKey, pinned_keys
from agent.sandbox import Sandbox
from agent.trial import Till

Start = Callable[..., Awaitable[World]]


@pytest.fixture
def till(sandbox: Sandbox, tmp_path: Path) -> Till:
    """A till without any pinned key."""
    laid = lay_till(sandbox, tmp_path / "till")
    known_hosts(laid).unlink()
    return laid


def known_hosts(till: Till) -> Path:
    return till.folder / "known_hosts"


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


async def test_the_key_is_shown_and_not_pinned(typed: Any, till: Till, sandbox: Sandbox) -> None:
    shown = await typed("host-key", "show", "--config", str(till.config_path))

    assert shown.code == 1
    assert sandbox.host_key_fingerprint in shown.out
    assert not known_hosts(till).exists()


async def test_a_pinned_key_is_said_to_be_the_same(
    typed: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    till = lay_till(sandbox, tmp_path / "till")

    shown = await typed("host-key", "show", "--config", str(till.config_path))

    assert shown.code == 0
    assert shown.out.count(sandbox.host_key_fingerprint) == 2


async def test_another_key_than_the_pinned_one_is_shown_beside_it(
    typed: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    till = lay_till(sandbox, tmp_path / "till")
    sandbox.set_fault("host_key_changed")

    shown = await typed("host-key", "show", "--config", str(till.config_path))

    assert shown.code == 1
    assert shown.out.count("SHA256:") == 2
    assert sandbox.host_key_fingerprint in shown.out


@pytest.mark.parametrize("answer", ["", "no\n", "y\n"])
async def test_anything_but_yes_pins_nothing(
    typed: Any, till: Till, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    answers(monkeypatch, answer)

    ended = await typed("host-key", "trust", "--config", str(till.config_path))

    assert (ended.code, known_hosts(till).exists()) == (1, False)


async def test_yes_pins_the_key_that_was_shown(
    typed: Any, till: Till, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "yes\n")

    ended = await typed("host-key", "trust", "--config", str(till.config_path))

    assert ended.code == 0
    assert sandbox.host_key_fingerprint in ended.out
    assert known_hosts(till).read_text() == sandbox.host_key_line + "\n"


async def test_a_fingerprint_that_was_told_pins_without_a_question_only_if_it_is_the_one(
    typed: Any, till: Till, sandbox: Sandbox
) -> None:
    trust = ("host-key", "trust", "--config", str(till.config_path), "--fingerprint")

    other = await typed(*trust, "SHA256:" + "A" * 43)
    pinned_by_then = known_hosts(till).exists()
    right = await typed(*trust, sandbox.host_key_fingerprint)

    assert (other.code, pinned_by_then, right.code) == (1, False, 0)
    assert known_hosts(till).exists()


async def test_a_running_agent_goes_on_once_the_new_key_is_trusted(
    start: Start, typed: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.set_fault("host_key_changed")
    world = await start()
    sandbox.set_fault("refuse", target="engage")
    change_id = await world.pos.create()

    async def halted() -> bool:
        return bool((await world.pos.status())["routes"]["file"]["state"] == "halted")

    await eventually(halted, "the file route is halted")
    answers(monkeypatch, "yes\n")
    ended = await typed("host-key", "trust", "--config", str(world.till.config_path))

    assert ended.code == 0
    await world.pos.until(change_id, "uploaded")


@pytest.mark.parametrize("name", ["127.0.0.1", "*", "other.example"])
async def test_a_revoked_key_is_not_pinned_and_its_line_is_named(
    typed: Any, till: Till, sandbox: Sandbox, name: str
) -> None:
    _, algorithm, encoded = sandbox.host_key_line.split()
    content = f"# kept\n@revoked {name} {algorithm} {encoded}\n"
    known_hosts(till).write_text(content)

    shown = await typed("host-key", "show", "--config", str(till.config_path))
    ended = await typed(
        *("host-key", "trust", "--config", str(till.config_path)),
        *("--fingerprint", sandbox.host_key_fingerprint),
    )

    assert (shown.code, ended.code) == (1, 1)
    assert f"revoked in {known_hosts(till)}, line 2" in shown.out
    assert f"is revoked in {known_hosts(till)}, line 2. Nothing was pinned." in ended.err
    assert known_hosts(till).read_text() == content


# --- a file of pinned keys that is no use ------------------------------------------------------


def not_text(place: Path) -> None:
    place.write_bytes(b"# kept\n\xff\xfe\n")


def a_folder(place: Path) -> None:
    place.mkdir()


def a_loop(place: Path) -> None:  # what the system refuses to open, root's process too
    place.symlink_to(place)


@pytest.mark.parametrize("verb", ["show", "trust"])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (not_text, "line 2 is not UTF-8 text"),
        (a_folder, "Is a directory"),
        (a_loop, "Too many levels of symbolic links"),
    ],
)
async def test_pinned_keys_that_cannot_be_read_are_told_in_words(
    typed: Any, till: Till, *, spoil: Callable[[Path], None], why: str, verb: str
) -> None:
    spoil(known_hosts(till))

    ended = await typed("host-key", verb, "--config", str(till.config_path))

    assert ended.code == 1
    assert f"cannot be read: {why}" in ended.err
    assert "Correct the file; until then no server is trusted." in ended.err


async def test_a_key_that_cannot_be_written_down_is_told_and_nothing_is_changed(
    typed: Any, till: Till, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_hosts(till).write_text("# kept\n")

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("agent.delivery.batch.host_keys.os.replace", full)
    ended = await typed(
        *("host-key", "trust", "--config", str(till.config_path)),
        *("--fingerprint", sandbox.host_key_fingerprint),
    )

    assert ended.code == 1
    assert "No space left on device. The file is as it was." in ended.err
    assert known_hosts(till).read_text() == "# kept\n"
    assert not list(till.folder.glob(".known_hosts.*"))


# --- a server with keys of several kinds ------------------------------------------------------


@dataclass
class SeveralKeys:
    """A server that has two kinds of keys, and a till whose pins a test lays."""

    till: Till
    port: int
    ed25519: HostKey
    ecdsa: HostKey

    def pin(self, *keys: HostKey) -> None:
        known_hosts(self.till).write_text("".join(self.line(key) for key in keys))

    def line(self, key: HostKey) -> str:
        return f"[127.0.0.1]:{self.port} {key.algorithm} {key.base64}\n"

    def pinned(self) -> list[HostKey]:
        return pinned_keys(known_hosts(self.till), "127.0.0.1", self.port)


def new_key(algorithm: str) -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(algorithm)


def public(key: asyncssh.SSHKey) -> HostKey:
    algorithm, encoded = key.export_public_key().decode().split()[:2]
    return HostKey(algorithm, encoded)


ED25519, ECDSA = "ssh-ed25519", "ecdsa-sha2-nistp256"


@pytest.fixture
async def several(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[SeveralKeys]:
    keys = [new_key(ED25519), new_key(ECDSA)]
    listener = await asyncssh.listen("127.0.0.1", 0, server_host_keys=keys)
    port = listener.get_port()
    till = lay_till(sandbox, tmp_path / "till", sftp_port=port)
    yield SeveralKeys(till, port, *map(public, keys))
    listener.close()
    await listener.wait_closed()


async def test_a_right_key_of_another_kind_than_the_server_s_first_is_said_to_be_pinned(
    typed: Any, several: SeveralKeys
) -> None:
    several.pin(several.ecdsa)

    shown = await typed("host-key", "show", "--config", str(several.till.config_path))

    assert shown.code == 0
    assert several.ed25519.fingerprint in shown.out
    assert shown.out.count(several.ecdsa.fingerprint) == 2


async def test_json_tells_the_key_that_the_agent_looks_at_and_all_others(
    typed: Any, several: SeveralKeys
) -> None:
    former = public(new_key(ECDSA))
    several.pin(former)

    shown = await typed("host-key", "show", "--json", "--config", str(several.till.config_path))

    told = json.loads(shown.out)
    assert shown.code == 1
    assert (told["shown"]["fingerprint"], told["same"]) == (several.ecdsa.fingerprint, False)
    assert [key["algorithm"] for key in told["keys"]] == [ECDSA, ED25519]
    assert [key["fingerprint"] for key in told["pinned"]] == [former.fingerprint]


async def test_yes_pins_the_key_that_the_agent_looks_at_and_no_former_one_stays(
    typed: Any, several: SeveralKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    several.pin(public(new_key(ECDSA)))
    answers(monkeypatch, "yes\n")

    ended = await typed("host-key", "trust", "--config", str(several.till.config_path))

    assert ended.code == 0
    assert several.pinned() == [several.ecdsa]
    assert "No longer trusted: SHA256:" in ended.out


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
async def test_a_fingerprint_of_any_kind_of_key_pins_that_one_alone(
    typed: Any, several: SeveralKeys, kind: str
) -> None:
    told = getattr(several, kind)
    several.pin(public(new_key(ED25519)), public(new_key(ECDSA)), told)
    trust = ("host-key", "trust", "--config", str(several.till.config_path), "--fingerprint")

    ended = await typed(*trust, told.fingerprint)
    again = await typed(*trust, told.fingerprint)

    assert (ended.code, again.code) == (0, 0)
    assert several.pinned() == [told]
    assert "pinned already" in again.out


async def test_a_fingerprint_that_the_server_does_not_show_leaves_the_pins_alone(
    typed: Any, several: SeveralKeys
) -> None:
    former = public(new_key(ECDSA))
    several.pin(former)

    ended = await typed(
        *("host-key", "trust", "--config", str(several.till.config_path)),
        *("--fingerprint", former.fingerprint),
    )

    assert ended.code == 1
    assert several.pinned() == [former]
