"""`host-key`: a person sees the SFTP server's key and pins it; nothing is ever pinned by itself."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import eventually
from world import World, lay_till

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
