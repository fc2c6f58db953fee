"""The doctor in a running agent, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from world import World

from agent.doctor import rows
from agent.doctor.rows import Check, Result, Row


async def test_rows_are_served_with_their_four_members(
    start: Callable[..., Awaitable[World]],
) -> None:
    world = await start()
    await world.pos.until(await world.pos.create(), "delivered")

    status, body, headers = await world.pos.call("GET", "/agent/v1/doctor")

    found = {row["check"]: row for row in body["rows"]}
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert all(set(row) == {"check", "result", "meaning", "whatToDo"} for row in body["rows"])
    for name in ("files", "disk space", "journal", "api key", "clock", "sftp folder", "agent"):
        assert found[name]["result"] == "ok", found[name]
    assert "listens on" in found["port"]["meaning"]


async def test_rows_need_a_token(start: Callable[..., Awaitable[World]]) -> None:
    world = await start()

    async with world.session.get(f"{world.pos.url}/agent/v1/doctor") as answer:
        assert answer.status == 401
    assert world.sandbox.counts()["logins"] == 0


async def test_many_who_ask_at_once_cost_one_examination(
    start: Callable[..., Awaitable[World]],
) -> None:
    world = await start()

    answers = await asyncio.gather(*(world.pos.get("/agent/v1/doctor") for _ in range(5)))

    assert all(answer == answers[0] for answer in answers)
    assert world.sandbox.counts()["logins"] == 1


async def test_it_looks_at_a_journal_that_is_in_use(start: Callable[..., Awaitable[World]]) -> None:
    world = await start(fallback={"seal_after_s": 60})  # examining takes its time
    world.sandbox.down()
    change_id = await world.pos.create()

    found = {row["check"]: row for row in (await world.pos.get("/agent/v1/doctor"))["rows"]}

    assert found["journal"]["result"] == "ok"
    assert found["tcp"]["result"] == "failed"
    world.sandbox.up()
    await world.pos.until(change_id, "delivered", "confirmed")


# --- how checks are run ---------------------------------------------------------------------------


async def test_check_that_breaks_is_a_row_and_hides_no_other() -> None:
    async def breaks() -> list[Row]:
        raise KeyError("vera@example.test")

    async def hangs() -> list[Row]:
        await asyncio.Event().wait()
        return []

    async def works() -> list[Row]:
        return [rows.ok("c", "fine")]

    found = await rows.examine(
        [Check(("a", "b"), breaks, 5), Check(("hung",), hangs, 0.05), Check(("c",), works, 5)]
    )

    assert [(row.check, row.result) for row in found] == [
        ("a", Result.FAILED),
        ("b", Result.FAILED),
        ("hung", Result.FAILED),
        ("c", Result.OK),
    ]
    assert "KeyError" in found[0].meaning
    assert "vera" not in str(found)
