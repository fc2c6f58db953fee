"""Whether the process serves and whether it can store, for programs that watch it."""

from __future__ import annotations

import pytest

from agent.errors import JournalFull

from .conftest import Client, Till


async def test_healthy_as_long_as_it_serves(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    await till.journal.close()

    answer = await client.get("/healthz")

    assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_offline_and_halted_is_ready(till: Till, serve: Client) -> None:
    till.link.state = till.sftp.state = "offline"
    for gate in till.gates.values():
        gate.state = "halted"
    client = await serve(till.observer())

    answer = await client.get("/readyz")

    assert (answer.status, await answer.json()) == (200, {"status": "ready"})


async def test_closed_journal_is_not_ready(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    await till.journal.close()

    answer = await client.get("/readyz")

    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    body = await answer.json()
    assert (body["status"], body["errorCode"]) == (503, "JournalUnavailable")
    assert body["detail"] == body["message"] != ""
    assert answer.headers["Retry-After"] == "5"


async def test_full_disk_is_not_ready(
    till: Till, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise JournalFull

    monkeypatch.setattr(till.journal, "check_room", full)
    client = await serve(till.observer())

    answer = await client.get("/readyz")

    assert answer.status == 503
    assert (await answer.json())["errorCode"] == "JournalFull"


async def test_ready_again_once_the_disk_has_room(
    till: Till, serve: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise JournalFull

    client = await serve(till.observer())
    with monkeypatch.context() as patched:
        patched.setattr(till.journal, "check_room", full)
        assert (await client.get("/readyz")).status == 503

    till.clock.pass_by(1)

    assert (await client.get("/readyz")).status == 200
