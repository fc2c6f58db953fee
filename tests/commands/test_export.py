"""`changes export`: what is not in Engage yet, in a file that a person can carry away."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from command_line import Said, till_agent
from journal_helpers import raw_key
from world import World, lay_till, write_secret

from agent.errors import JournalUnavailable
from agent.journal import changes
from agent.sandbox import Sandbox

Start = Callable[..., Awaitable[World]]
VERA, PER = "vera@example.test", "per@example.test"


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text("utf-8").splitlines()]


async def offline(start: Start, **settings: Any) -> World:
    """Give a till whose line is down, with a customer who waits at it."""
    world = await start(fallback={"seal_after_s": 3600}, **settings)
    world.sandbox.down()
    return world


async def test_what_is_not_in_engage_is_written_in_the_order_of_asking(
    start: Start, run: Any, tmp_path: Path
) -> None:
    world = await start()
    await world.pos.until(await world.pos.create("there@example.test"), "delivered")
    world.sandbox.set_fault("refuse", target="engage")
    by_file = await world.pos.create(VERA, city="Lund")
    await world.pos.until(by_file, "uploaded")
    await world.pos.call("POST", "/agent/v1/routes/file/pause")
    later = await world.pos.update(await world.pos.ref_of(by_file), city="Ystad")

    exported = await run(world, "changes", "export", str(tmp_path / "out.jsonl"))

    first, second = lines(tmp_path / "out.jsonl")
    assert (first["id"], first["state"]) == (by_file, "uploaded")
    assert (second["id"], second["kind"]) == (later, "update")
    assert second["request"] == {
        "method": "PATCH",
        "path": f"/api/v3/contacts/{first['contactRef']}",
        "body": {"city": "Ystad"},
    }
    assert first["request"]["method"] == "POST"
    assert first["request"]["path"].startswith("/api/v3/contacts?source=POS&storeExternalId=0042")
    assert first["request"]["body"].items() >= {"email": VERA, "city": "Lund"}.items()
    assert exported.out.startswith("2 changes written to ")


async def test_what_was_refused_is_carried_away_too(
    start: Start, run: Any, tmp_path: Path, sandbox: Sandbox
) -> None:
    world = await start()
    sandbox.tenant.required["Member"] = ("lastName",)
    refused = await world.pos.until(await world.pos.create(VERA), "rejected")

    await run(world, "changes", "export", str(tmp_path / "out.jsonl"))

    (line,) = lines(tmp_path / "out.jsonl")
    assert (line["id"], line["state"]) == (refused["id"], "rejected")
    assert line["error"]["code"] == refused["error"]["code"]


async def test_many_changes_are_written_in_pages_and_only_those_that_were_there(
    start: Start, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await offline(start)
    made = [await world.pos.create(f"vera{number}@example.test") for number in range(7)]
    monkeypatch.setattr("agent.intake.export._PAGE", 3)
    unsettled, pages = changes.unsettled, []

    def noted(db: Any, **given: Any) -> Any:
        pages.append(unsettled(db, **given))
        return pages[-1]

    monkeypatch.setattr(changes, "unsettled", noted)

    await run(world, "changes", "export", str(tmp_path / "out.jsonl"))

    assert [each["id"] for each in lines(tmp_path / "out.jsonl")] == made
    assert [len(page) for page in pages] == [3, 3, 1, 0]


async def test_exporting_marks_nothing(start: Start, run: Any, tmp_path: Path) -> None:
    world = await offline(start)
    change_id = await world.pos.create()
    await world.pos.until_link("offline")
    before = await world.pos.change(change_id)

    await run(world, "changes", "export", str(tmp_path / "out.jsonl"))

    assert await world.pos.change(change_id) == before
    world.sandbox.up()
    await world.pos.until(change_id, "delivered")


async def test_the_file_is_private_and_never_takes_another_ones_place(
    start: Start, run: Any, tmp_path: Path
) -> None:
    world = await offline(start)
    await world.pos.create()
    place, taken = tmp_path / "out.jsonl", tmp_path / "taken.jsonl"
    taken.write_text("somebody else's")

    await run(world, "changes", "export", str(place))
    refused = await run(world, "changes", "export", str(taken))

    assert place.stat().st_mode & 0o777 == 0o600
    assert (refused.code, taken.read_text()) == (1, "somebody else's")
    assert "exists already and is not overwritten" in refused.err
    assert {each.name for each in tmp_path.glob("*.part")} == set()


async def export(world: World, place: Path) -> Said:
    """Export as on the till itself: by its settings, whether an agent runs or not."""
    return await till_agent(
        "changes", "export", str(place), "--config", str(world.till.config_path)
    )


async def test_without_an_agent_the_journal_is_read_and_left_as_it_is(
    start: Start, run: Any, tmp_path: Path
) -> None:
    world = await offline(start)
    ids = [await world.pos.create(VERA, city="Lund"), await world.pos.create(PER)]
    await run(world, "changes", "export", str(tmp_path / "running.jsonl"))
    await world.stop()

    stopped = await export(world, tmp_path / "stopped.jsonl")
    again = await export(world, tmp_path / "again.jsonl")

    assert [line["id"] for line in lines(tmp_path / "stopped.jsonl")] == ids
    asked = [line["request"] for line in lines(tmp_path / "running.jsonl")]
    assert [line["request"] for line in lines(tmp_path / "stopped.jsonl")] == asked
    assert lines(tmp_path / "again.jsonl") == lines(tmp_path / "stopped.jsonl")
    assert (stopped.code, again.code) == (0, 0)
    assert stopped.out.startswith("2 changes written to ")
    assert "No agent runs" in stopped.out
    await world.start()
    assert (await world.pos.change(ids[0]))["state"] == "waiting"


async def test_without_an_agent_a_key_is_needed_for_an_encrypted_journal(
    start: Start, tmp_path: Path
) -> None:
    pytest.importorskip("sqlcipher3")
    key = tmp_path / "journal_key"
    write_secret(key, raw_key())
    world = await offline(start, journal={"key_file": str(key)})
    await world.pos.create(VERA)
    await world.stop()

    exported = await export(world, tmp_path / "out.jsonl")

    assert exported.code == 0
    assert lines(tmp_path / "out.jsonl")[0]["request"]["body"]["email"] == VERA


async def test_an_agent_that_holds_the_journal_and_does_not_answer_is_told(
    start: Start, tmp_path: Path
) -> None:
    world = await offline(start)
    await world.agent.server.stop()

    refused = await export(world, tmp_path / "out.jsonl")

    assert refused.code != 0
    assert "does not answer" in refused.err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("place", ["", ".", "/"])
async def test_what_names_no_file_is_told(start: Start, run: Any, place: str) -> None:
    world = await offline(start)

    refused = await run(world, "changes", "export", place)

    assert refused.code == 1
    assert "Nothing was written" in refused.err


async def test_a_folder_that_is_not_there_is_told(start: Start, run: Any, tmp_path: Path) -> None:
    world = await start()

    refused = await run(world, "changes", "export", str(tmp_path / "none" / "out.jsonl"))

    assert refused.code == 1
    assert "No such file or directory" in refused.err


async def test_an_export_without_a_token_is_refused(start: Start, session: Any) -> None:
    world = await start()

    async with session.get(f"{world.pos.url}/agent/v1/changes/export") as answer:
        assert answer.status == 401


async def test_an_export_that_breaks_off_leaves_no_file(
    start: Start, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await offline(start)
    for number in range(3):
        await world.pos.create(f"vera{number}@example.test")
    monkeypatch.setattr("agent.intake.export._PAGE", 1)
    unsettled, calls = changes.unsettled, iter(range(2))

    def fails_in_the_middle(*given: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise JournalUnavailable
        return unsettled(*given, **named)

    monkeypatch.setattr(changes, "unsettled", fails_in_the_middle)

    broken = await run(world, "changes", "export", str(tmp_path / "out.jsonl"))

    assert broken.code == 1
    assert "broke off" in broken.err
    assert list(tmp_path.glob("out*")) == []


async def test_changes_of_an_export_can_be_asked_for_at_another_till(
    start: Start,
    run: Any,
    tmp_path: Path,
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
) -> None:
    broken = await offline(start)
    sign_up = await broken.pos.create(VERA, city="Lund")
    ref = await broken.pos.ref_of(sign_up)
    await broken.pos.update(ref, city="Ystad")
    await broken.pos.create(PER)
    await run(broken, "changes", "export", str(tmp_path / "out.jsonl"))
    await broken.stop()
    sandbox.up()
    sandbox.seed(email=PER)  # signed up elsewhere meanwhile
    other = World(sandbox, lay_till(sandbox, tmp_path / "other"), session)

    await other.start()
    ids: dict[str, str] = {}
    for line in lines(tmp_path / "out.jsonl"):
        path = line["request"]["path"]
        for known, now in ids.items():
            path = path.replace(known, now)
        status, body, _ = await other.pos.call(
            line["request"]["method"], path, line["request"]["body"], Idempotency_Key=line["id"]
        )
        assert status in (200, 201), body
        ids[line["contactRef"]] = body["id"]
    await other.stop()

    assert other.attributes(VERA)["city"] == "Ystad"
    assert sandbox.counts()["duplicates"] == 0
