"""Commands that ask a running agent: tables for people, JSON for scripts."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Terminal
from world import eventually

from agent.commands.drain import progress_words
from agent.commands.progress import Counted, ProgressLine, Rate, span
from agent.sandbox import Sandbox

Asked = Callable[..., Awaitable[Any]]


async def test_changes_are_listed_and_shown_as_a_table_and_as_json(ask: Asked) -> None:
    world, said = await ask()
    change_id = await world.pos.create()
    await world.pos.until(change_id, "delivered")

    table, data = await said("changes", "list"), await said("changes", "list", "--json")
    shown = await said("changes", "show", change_id)

    assert table.out.splitlines()[0].split()[:3] == ["CHANGE", "KIND", "STATE"]
    assert change_id in table.out
    assert data.json["items"][0]["id"] == change_id
    assert "state:      delivered" in shown.out
    assert "try 1:" in shown.out
    assert (table.code, data.code, shown.code) == (0, 0, 0)


async def test_long_list_says_how_to_go_on_and_goes_on(ask: Asked) -> None:
    world, said = await ask()
    for number in range(3):
        await world.pos.create(f"person{number}@example.test")

    first = await said("changes", "list", "--limit", "2")
    after = first.out.split("--after ")[1].split()[0]
    rest = await said("changes", "list", "--limit", "2", "--after", after, "--json")

    assert len(rest.json["items"]) == 1


async def test_change_that_is_not_there_is_an_error_in_words(ask: Asked) -> None:
    _, said = await ask()

    gone = await said("changes", "show", "0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d")

    assert (gone.code, gone.out) == (1, "")
    assert "There is no change with that id" in gone.err


async def test_data_to_mend_with_must_be_json_and_is_not_repeated(
    ask: Asked, tmp_path: Path
) -> None:
    _, said = await ask()
    path = tmp_path / "corrected.json"
    path.write_text('{"firstName": "Vera"')

    wrong = await said("changes", "mend", "some-id", str(path))
    missing = await said("changes", "mend", "some-id", str(tmp_path / "nothing.json"))

    assert (wrong.code, missing.code) == (1, 1)
    assert "is not JSON" in wrong.err
    assert "Vera" not in wrong.err
    assert "cannot be read" in missing.err


async def is_paused(said: Callable[..., Awaitable[Any]]) -> None:
    """Wait until the picture that all share for half a second shows it."""

    async def shown() -> bool:
        listed = await said("routes", "list", "--json")
        return bool(listed.json["api"]["state"] == "paused")

    await eventually(shown, "route api is paused")


async def test_all_that_were_rejected_with_one_code_are_sent_again_at_once(
    ask: Asked, sandbox: Sandbox
) -> None:
    world, said = await ask()
    sandbox.tenant.required["Member"] = ("lastName",)
    made = [await world.pos.create(f"vera{number}@example.test") for number in range(3)]
    gone = await world.pos.update("0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", city="Lund")
    refused = [await world.pos.until(each, "rejected") for each in (*made, gone)]
    code = refused[0]["error"]["code"]
    sandbox.tenant.required["Member"] = ()

    again = await said("changes", "retry", "--all", code)
    for change_id in made:
        await world.pos.until(change_id, "delivered")
    nobody = await said("changes", "retry", "--all", code, "--json")

    assert again.out == f"3 changes with {code} are sent again.\n"
    assert nobody.json == {"items": []}
    assert (await world.pos.change(gone))["state"] == "rejected"


async def test_routes_are_paused_and_resumed_by_hand(ask: Asked) -> None:
    _, said = await ask()

    paused = await said("routes", "pause", "api")
    await is_paused(said)
    resumed = await said("routes", "resume", "api")

    assert "Route api is paused. Paused by hand." in paused.out
    assert resumed.out == "Route api is running.\n"


async def test_batches_are_sealed_listed_and_shown(ask: Asked) -> None:
    world, said = await ask(fallback={"seal_after_s": 600}, sftp={"poll_s": 60})
    world.sandbox.down()
    await world.pos.tried(await world.pos.create(), 2)

    sealed = await said("batches", "seal")
    listed = await said("batches", "list", "--json")
    shown = await said("batches", "show", listed.json["items"][0]["name"])

    assert sealed.out == "1 batch sealed.\n"
    assert "contacts:   1" in shown.out


# --- drain --------------------------------------------------------------------------------------


async def test_drain_without_waiting_says_what_waits_and_tries_it_now(ask: Asked) -> None:
    world, said = await ask(retry={"waits_s": [3600]}, fallback={"seal_after_s": 3600})
    fault = world.sandbox.set_fault("status", status=503)
    change_id = await world.pos.create()
    await world.pos.tried(change_id)
    world.sandbox.clear_faults(fault_id=fault.id)

    asked = await said("drain")

    assert asked.code == 0
    assert asked.out.startswith("1 wait; they are tried now.")
    await world.pos.until(change_id, "delivered")


async def test_drain_waits_until_nothing_waits_any_more(ask: Asked) -> None:
    world, said = await ask(retry={"waits_s": [3600]}, fallback={"seal_after_s": 3600})
    fault = world.sandbox.set_fault("status", status=503)
    change_id = await world.pos.create()
    await world.pos.tried(change_id)
    world.sandbox.clear_faults(fault_id=fault.id)

    drained = await said("drain", "--wait", "--timeout", "30")

    assert (drained.code, drained.out) == (0, "Nothing waits any more.\n")
    assert (await world.pos.change(change_id))["state"] == "delivered"


async def test_drain_ends_with_5_when_its_time_is_over_and_loses_nothing(ask: Asked) -> None:
    world, said = await ask(fallback={"seal_after_s": 600})
    world.sandbox.down()
    change_id = await world.pos.create()

    over = await said("drain", "--wait", "--timeout", "0.2", "--json")

    assert over.code == 5
    assert over.json["unsent"] == 1
    assert over.json["timedOut"] is True
    assert (await world.pos.change(change_id))["state"] == "waiting"


async def test_drain_leaves_a_paused_route_paused(ask: Asked) -> None:
    world, said = await ask()
    await said("routes", "pause", "api")
    await world.pos.create()

    over = await said("drain", "--wait", "--timeout", "0.2")

    assert over.code == 5
    await is_paused(said)


async def test_drain_of_nothing_ends_at_once(ask: Asked) -> None:
    _, said = await ask()

    assert (await said("drain", "--wait")).out == "Nothing waits any more.\n"


def picture(unsent: int | None, **more: Any) -> dict[str, Any]:
    running = {"state": "running", "reason": None}
    return {
        "unsent": unsent,
        "link": {"state": "online"},
        "routes": {"api": running, "file": running},
        "batches": [],
        **more,
    }


def test_progress_tells_the_rate_and_how_long_it_will_take() -> None:
    rate = Rate()
    for second in range(11):
        rate.note(float(second), 1000 - 5 * second)

    assert rate.per_s == 5.0
    assert rate.seconds_left == 190.0
    assert progress_words(picture(950), rate) == "950 wait, 5.0 a second, about 3 minutes to go."


def test_progress_promises_nothing_before_it_knows() -> None:
    rate = Rate()
    rate.note(0.0, 10)
    rate.note(1.0, 5)

    assert rate.seconds_left is None
    assert progress_words(picture(5), rate) == "5 wait."


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"link": {"state": "offline"}}, "the line to Engage is offline."),
        ({"routes": {"api": {"state": "halted"}}}, "route api is halted."),
        ({"batches": [{"state": "uploaded"}]}, "Engage has not imported the uploaded files yet."),
    ],
)
def test_progress_that_stands_still_says_why(more: dict[str, Any], words: str) -> None:
    rate = Rate()
    rate.note(0.0, 7)
    rate.note(10.0, 7)

    assert progress_words(picture(7, **more), rate) == f"7 wait; nothing moves: {words}"


def test_rate_forgets_what_is_long_past() -> None:
    rate = Rate()
    rate.note(0.0, 1000)
    for second in range(100, 160):
        rate.note(float(second), 500 - (second - 100))

    assert rate.per_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "a second"), (45, "45 seconds"), (150, "2 minutes"), (7200, "2 hours")],
)
def test_span_is_said_as_one_would(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_progress_is_one_line_on_a_terminal_and_few_lines_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        line = ProgressLine(stream)
        line.show("10 wait.")
        line.show("9 wait.")
        line.end()

    assert terminal.getvalue().count("\r") == 4
    assert "\n" not in terminal.getvalue()
    assert file.getvalue() == "10 wait.\n"


def test_nothing_is_said_of_what_is_done_within_a_second() -> None:
    said, now = io.StringIO(), [0.0]
    progress = Counted("changes", 100, stream=said, clock=lambda: now[0])

    now[0] = 0.9
    progress.reached(50)
    progress.end()

    assert said.getvalue() == ""


def test_what_is_counted_is_shown_with_what_is_left() -> None:
    said, now = Terminal(), [0.0]
    progress = Counted("changes", 100_000, stream=said, clock=lambda: now[0])

    for second in (2.0, 2.5, 4.0):
        now[0] = second
        progress.reached(int(second * 10_000))
    progress.end()

    assert [line.strip() for line in said.getvalue().split("\r") if line.strip()] == [
        "20,000 of about 100,000 changes.",
        "40,000 of about 100,000 changes, about 6 seconds to go.",
    ]
