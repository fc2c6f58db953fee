"""The picture against a real journal: true counts, ages, and a journal that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.change import Fault, Route, State
from agent.errors import JournalFull
from agent.journal import states
from agent.status.program import to_json

from .conftest import NOON, Till


async def test_counts_are_those_of_the_journal(till: Till) -> None:
    anna, bo, cia = [await till.sign_up(f"{name}@example.com") for name in ("anna", "bo", "cia")]
    await till.deliver(anna)
    await till.reject(bo, "No.")
    await till.seal("one_contacts.xml", cia)
    await till.sign_up("dan@example.com")

    snapshot = await till.observer().look()

    expected = {State.DELIVERED: 1, State.REJECTED: 1, State.BATCHED: 1, State.WAITING: 1}
    assert snapshot.counts == dict.fromkeys(State, 0) | expected
    assert snapshot.unsent == 2
    assert snapshot.delivered == 1


async def test_oldest_waiting_is_the_age_of_the_oldest_open_change(till: Till) -> None:
    first = await till.sign_up("anna@example.com")
    till.clock.pass_by(100)
    await till.sign_up("bo@example.com")
    till.clock.pass_by(20)
    observer = till.observer()

    assert (await observer.look()).oldest_waiting_s == 120
    await till.deliver(first)
    till.clock.pass_by(1)
    assert (await observer.look()).oldest_waiting_s == 21


async def test_nothing_waiting_has_no_age(till: Till) -> None:
    snapshot = await till.observer().look()

    assert snapshot.oldest_waiting_s is None
    assert to_json(snapshot)["oldestWaitingSeconds"] is None


async def test_age_is_never_negative_when_the_wall_clock_goes_back(till: Till) -> None:
    await till.sign_up("anna@example.com")
    till.clock.wall = NOON.replace(year=2020)

    assert (await till.observer().look()).oldest_waiting_s == 0


async def test_uptime_does_not_follow_the_wall_clock(till: Till) -> None:
    observer = till.observer()
    till.clock.pass_by(90)
    till.clock.wall = NOON.replace(year=2020)

    assert (await observer.look()).uptime_s == 90


async def test_many_looks_share_one_picture_for_half_a_second(till: Till) -> None:
    observer = till.observer()
    first = await observer.look()
    await till.sign_up("anna@example.com")

    together = await asyncio.gather(*(observer.look() for _ in range(50)))

    assert all(picture is first for picture in together)
    till.clock.pass_by(0.5)
    assert (await observer.look()).unsent == 1


async def test_open_batches_are_listed_and_settled_ones_are_not(till: Till) -> None:
    anna = await till.sign_up("anna@example.com")
    await till.seal("one_contacts.xml", anna)
    await till.upload("one_contacts.xml")
    observer = till.observer()

    (batch,) = (await observer.look()).batches

    assert (batch.name, batch.state, batch.contacts) == ("one_contacts.xml", "uploaded", 1)
    await till.take_in("one_contacts.xml", verify="none")
    till.clock.pass_by(1)
    assert (await observer.look()).batches == ()


async def test_file_that_engage_leaves_lying_needs_a_person_after_the_grace(till: Till) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    observer = till.observer()
    till.clock.pass_by(till.config.fallback.import_grace_s)

    assert (await observer.look()).needs_person == ()
    till.clock.pass_by(1)
    (need,) = (await observer.look()).needs_person
    assert "not been taken in" in need.what
    assert "one_contacts.xml" in need.what


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
async def test_grace_of_a_file_does_not_follow_the_wall_clock(till: Till, jump: timedelta) -> None:
    observer = till.observer()
    await observer.look()
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")

    till.clock.wall += jump  # before the file was seen
    till.clock.pass_by(1)
    assert (await observer.look()).needs_person == ()
    till.clock.wall += jump  # and again after it
    till.clock.pass_by(till.config.fallback.import_grace_s - 1)
    assert (await observer.look()).needs_person == ()
    till.clock.pass_by(2)
    (need,) = (await observer.look()).needs_person

    assert "one_contacts.xml" in need.what


async def test_grace_of_a_file_goes_on_over_a_restart(till: Till) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    till.clock.pass_by(till.config.fallback.import_grace_s + 1)

    (need,) = (await till.observer().look()).needs_person

    assert "one_contacts.xml" in need.what


async def test_file_uploaded_at_a_moment_yet_to_come_has_its_grace_from_the_start(
    till: Till,
) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    till.clock.wall -= timedelta(days=400)
    observer = till.observer()

    assert (await observer.look()).needs_person == ()
    till.clock.pass_by(till.config.fallback.import_grace_s + 1)
    (need,) = (await observer.look()).needs_person

    assert "one_contacts.xml" in need.what


@pytest.mark.parametrize("verify", ["none", "creates"])
async def test_imports_that_nobody_looks_up_do_not_count_as_open(till: Till, verify: str) -> None:
    till.journal.verify = verify
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    await till.take_in("one_contacts.xml", verify="none")

    snapshot = await till.observer().look()

    assert (snapshot.unsent, snapshot.delivered, snapshot.oldest_waiting_s) == (0, 1, None)


async def test_imports_that_are_to_be_looked_up_count_as_open(till: Till) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    await till.take_in("one_contacts.xml", verify="all")

    snapshot = await till.observer().look()

    assert (snapshot.unsent, snapshot.delivered, snapshot.oldest_waiting_s) == (1, 0, 0)


async def test_closed_journal_is_said_and_not_shown_as_zero(till: Till) -> None:
    await till.journal.close()

    snapshot = await till.observer().look()

    assert snapshot.counts is None
    assert (snapshot.verdict.level, snapshot.verdict.can_accept) == ("stop", False)
    body = to_json(snapshot)
    assert (body["counts"], body["unsent"], body["oldestWaitingSeconds"]) == (None, None, None)
    assert body["journal"]["problem"]


async def test_moved_journal_is_noticed_before_the_next_sign_up(till: Till) -> None:
    path = till.journal.database.path
    path.rename(path.with_suffix(".gone"))

    snapshot = await till.observer().look()

    assert not snapshot.can_accept
    assert "moved or deleted" in snapshot.needs_person[0].what


async def test_old_trouble_is_forgotten_once_the_disk_takes_bytes_again(till: Till) -> None:
    till.journal.database.problem = "The till's disk is almost full."

    assert (await till.observer().look()).can_accept


async def test_old_trouble_stands_as_long_as_the_disk_takes_nothing(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(30, "Read-only file system")

    till.journal.database.problem = "The journal cannot be written (disk I/O error)."
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        snapshot = await till.observer().look()

    assert not snapshot.can_accept
    what = "The journal cannot be written (disk I/O error). It has been so since 12:00."
    assert snapshot.needs_person[0].what == what


async def test_another_programs_lock_is_said_with_the_time_since_when(till: Till) -> None:
    await till.journal.write(lambda db: db.execute("PRAGMA busy_timeout = 10"))
    observer = till.observer()
    with contextlib.closing(sqlite3.connect(till.journal.database.path)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        first = await observer.look()
        till.clock.pass_by(15 * 60)
        later = await observer.look()

    till.clock.pass_by(60)
    after = await observer.look()

    (need,) = later.needs_person
    assert need.what == "Another program has locked the journal. It has been so since 12:00."
    assert need.what_to_do.startswith("What was answered before is safe. End that program:")
    assert [to_json(each)["journal"]["since"] for each in (first, later, after)] == [
        "2026-11-21T11:00:00.000Z",
        "2026-11-21T11:00:00.000Z",
        None,
    ]
    assert (later.can_accept, after.can_accept) == (False, True)


async def test_full_disk_stops_but_still_shows_what_waits(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.sign_up("anna@example.com")

    def full() -> None:
        raise JournalFull

    monkeypatch.setattr(till.journal, "check_room", full)

    snapshot = await till.observer().look()

    assert snapshot.verdict.level == "stop"
    assert (snapshot.storage.is_full, snapshot.unsent) == (True, 1)


async def test_disk_that_hangs_does_not_hang_the_page(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    # Undone before the journal is closed: closing writes too.
    with monkeypatch.context() as patched:
        patched.setattr("agent.status.snapshot._PATIENCE_S", 0.01)
        patched.setattr(till.journal, "write", hang)
        patched.setattr(till.journal, "read", hang)
        snapshot = await till.observer().look()

    assert snapshot.storage.write_problem == "The till's disk does not answer."
    assert len(snapshot.needs_person) == 1


async def test_what_other_parts_say_is_masked(till: Till) -> None:
    till.link.reason = "Could not send anna@example.com."
    till.gates[Route.API].state = "halted"
    till.gates[Route.API].reason = "Refused for +46 70 123 45 67."
    till.problems = ["The spool holds bo@example.com."]

    text = json.dumps(to_json(await till.observer().look()))

    assert "example.com" not in text
    assert "123 45 67" not in text


async def test_status_for_programs_has_the_promised_shape(till: Till) -> None:
    await till.reject(await till.sign_up("anna@example.com"), "No.")
    till.link.state, till.link.reason = "offline", "No answer."
    till.gates[Route.FILE].state, till.gates[Route.FILE].reason = "paused", "Paused by hand."
    till.last_delivery = "2026-11-21T10:59:00.000Z"

    body = json.loads(json.dumps(to_json(await till.observer().look())))

    assert body["link"] == {
        "state": "offline",
        "since": "2026-11-21T11:00:00.000Z",
        "reason": "No answer.",
        "heardAt": None,
    }
    assert body["routes"] == {
        "api": {"state": "running", "reason": None},
        "file": {"state": "paused", "reason": "Paused by hand."},
    }
    assert set(body["counts"]) == {state.value for state in State}
    assert [set(need) for need in body["needsPerson"]] == [{"what", "whatToDo", "count"}] * 2
    assert body["verdict"]["level"] == "warning"
    assert (body["store"], body["till"], body["version"]) == ("0042", "3", "0.1.0")
    assert body["lastDelivery"] == till.last_delivery
    assert body["journal"]["encrypted"] is False


async def test_cost_of_a_look_does_not_grow_with_the_changes(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.status.snapshot._FAILURES_READ", 6)
    steps = 0

    def tick() -> int:
        nonlocal steps
        steps += 1
        return 0

    async def cost() -> int:
        nonlocal steps
        till.clock.pass_by(1)
        steps = 0
        await observer.look()
        return steps

    async def some_of_each(number: int) -> None:
        await till.deliver(await till.sign_up(f"delivered-{number}@example.com"))
        await till.reject(await till.sign_up(f"refused-{number}@example.com"), "No.")
        await till.sign_up(f"waiting-{number}@example.com")

    observer = till.observer()
    await till.journal.read(lambda db: db.set_progress_handler(tick, 1))
    for number in range(6):
        await some_of_each(number)
    few = await cost()
    for number in range(30):
        await some_of_each(number)

    assert 0 < await cost() <= few + 10


async def test_status_says_what_happened_today_and_in_the_last_hours(till: Till) -> None:
    await till.deliver(await till.sign_up("anna@example.com"))
    await till.reject(await till.sign_up("bo@example.com"), "Sigrid.")
    await till.sign_up("cia@example.com")
    till.clock_ahead_s = 61.4

    body = to_json(await till.observer().look())

    assert body["today"] == {"accepted": 3, "delivered": 1, "byFile": 0, "rejected": 1}
    assert len(body["hours"]) == 24
    assert body["hours"][-1] == {
        "beginsAt": "2026-11-21T11:00:00.000Z",
        "accepted": 3,
        "delivered": 1,
        "waiting": 1,
    }
    assert body["lastErrors"] == [
        {
            "code": "ValidationError",
            "route": "api",
            "times": 1,
            "lastAt": "2026-11-21T11:00:00.000Z",
        }
    ]
    assert body["clockAheadSeconds"] == 61


async def test_closed_journal_tells_no_figures(till: Till) -> None:
    await till.journal.close()

    body = to_json(await till.observer().look())

    assert (body["today"], body["hours"], body["lastErrors"]) == (None, [], [])


@pytest.mark.parametrize("code", ["anna@example.com", "Ann Sigrid", "x", "<b>", "A" * 61, ""])
async def test_a_code_that_is_none_is_not_shown(till: Till, code: str) -> None:
    await till.settle(await till.sign_up("anna@example.com"), states.REJECT, Fault(code, "No."))

    snapshot = await till.observer().look()

    assert [change.code for change in snapshot.refused] == ["Refused"]
    assert {trouble.code for trouble in snapshot.troubles} == {"Refused"}


async def test_only_known_names_of_fields_are_shown(till: Till) -> None:
    change = await till.sign_up("anna@example.com")
    named = ("FIRSTNAME", "mobilePhone", "Sigrid", "anna@example.com", "", "email")
    fields = tuple({"field": name, "code": "x", "message": "Sigrid"} for name in named)
    await till.reject(change, "No.", fields=fields)

    (refused,) = (await till.observer().look()).refused

    assert refused.fields == ("firstName", "mobilePhone", "email")


async def test_bulk_transport_has_no_file_server_to_show(till: Till) -> None:
    till.sftp = None  # type: ignore[assignment]

    body = to_json(await till.observer().look())

    assert body["sftp"] is None


def test_fakes_stand_beside_the_real_parts(tmp_path: Path) -> None:
    """The real link and gate have what the observer asks of them."""
    from agent.delivery.halts import RouteGate
    from agent.delivery.link import Link

    from .conftest import FakeClock

    clock = FakeClock()
    link, gate = Link(clock, offline_after=3), RouteGate(Route.API, clock, probe_s=1)

    assert (str(link.state), link.since, link.reason, link.heard_at) == ("online", NOON, None, None)
    assert (gate.state, gate.reason, gate.since) == ("running", None, None)
    gate.stop("No key.")
    assert (gate.state, gate.reason, gate.since) == ("halted", "No key.", NOON)
