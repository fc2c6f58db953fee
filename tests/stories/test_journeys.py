"""A day at the till: the whole agent, its two routes, and what goes wrong with each."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import eventually
from world import World, write_secret

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]
VERA = "vera@example.test"
PER = "per@example.test"


def documents(world: World) -> dict[str, bytes]:
    """Give the files that lie in the import folder, whole ones only."""
    return {
        name: (world.sandbox.import_path / name).read_bytes()
        for name in world.sandbox.waiting_files()
        if name.endswith("_contacts.xml")
    }


async def files_wait(world: World, count: int = 1) -> dict[str, bytes]:
    await eventually(lambda: len(documents(world)) == count, f"{count} files")
    return documents(world)


def api_down(world: World) -> None:
    """Take Engage's API down; its SFTP server stays up."""
    world.sandbox.set_fault("refuse", target="engage")


async def file_route(world: World, state: str) -> str:
    async def there() -> dict[str, Any] | None:
        route = (await world.pos.status())["routes"]["file"]
        return route if route["state"] == state else None

    return str((await eventually(there, f"file route {state}"))["reason"])


async def test_online_day_goes_by_the_api_alone(start: Start) -> None:
    world = await start()

    status, created, _ = await world.pos.call(
        "POST", "/api/v3/contacts", {"email": VERA, "firstName": "Vera"}
    )
    assert status == 201, created
    guid = created["id"]
    status, updated, _ = await world.pos.call("PATCH", f"/api/v3/contacts/{guid}", {"city": "Lund"})

    assert (status, updated["attributes"]["city"]) == (200, "Lund")
    status, found, _ = await world.pos.call("GET", f"/api/v3/contacts/id?email={VERA}")
    assert (status, found) == (200, guid)
    again, _, _ = await world.pos.call("POST", "/api/v3/contacts", {"email": VERA, "city": "Ystad"})
    assert again == 200
    assert world.attributes()["city"] == "Ystad"
    assert await world.pos.batches() == []
    assert world.sandbox.counts()["duplicates"] == 0


async def test_long_outage_ends_in_a_file_whose_contacts_are_confirmed(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 1})
    world.sandbox.down()
    sign_up = await world.pos.create(city="Lund")
    ref = await world.pos.ref_of(sign_up)
    update = await world.pos.update(ref, city="Ystad")
    await world.pos.until(update, "batched")

    world.sandbox.set_fault("refuse", target="engage")
    world.sandbox.up()
    (document,) = (await files_wait(world)).values()
    assert document.count(b"<email>") == 1
    assert b"Ystad" in document
    assert b"Lund" not in document
    await world.pos.until(sign_up, "uploaded")
    await world.sandbox.import_now()
    await world.pos.until(sign_up, "imported")
    world.sandbox.clear_faults()

    for change_id in (sign_up, update):
        change = await world.pos.until(change_id, "confirmed")
        assert change["route"] == "file"
        assert change["contactId"] == world.sandbox.find("email", VERA)[0]["id"]
    assert world.attributes()["city"] == "Ystad"
    assert world.sandbox.counts()["duplicates"] == 0
    (batch,) = await world.pos.batches()
    assert batch["state"] == "settled"
    assert batch["name"].endswith("_0042-1-000001_contacts.xml")
    later = await world.pos.until(await world.pos.update(ref, street="Provgatan 1"), "delivered")
    assert later["route"] == "api"


async def test_short_outage_makes_no_file(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 60})
    world.sandbox.down()
    changes = [await world.pos.create(f"vera{number}@example.test") for number in range(5)]
    await world.pos.tried(changes[0])

    world.sandbox.up()

    for change_id in changes:
        assert (await world.pos.until(change_id, "delivered"))["route"] == "api"
    assert await world.pos.batches() == []


async def test_cashier_who_waits_while_the_line_goes_down_is_answered_then(start: Start) -> None:
    world = await start(
        engage={"timeout_s": 0.5, "create_timeout_s": 0.5},
        retry={"waits_s": [0.05]},
        link={"offline_after": 2, "probe_s": 3600},
    )
    world.sandbox.set_fault("hang")

    status, answer, headers = await world.pos.call(
        "POST", "/api/v3/contacts", {"email": "vera@example.test"}, Prefer="wait=9"
    )

    assert (status, headers["Agent-State"]) == (202, "waiting")
    assert answer["agent"]["durable"] is True
    assert (await world.pos.status())["link"]["state"] == "offline"


async def test_line_that_flaps_makes_no_stream_of_tiny_files(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 60})
    changes = []
    for turn in range(6):
        world.sandbox.down()
        changes.append(await world.pos.create(f"vera{turn}@example.test"))
        await world.pos.tried(changes[-1])
        world.sandbox.up()
        await world.pos.until(changes[-1], "delivered")

    assert await world.pos.batches() == []
    assert world.sandbox.counts()["duplicates"] == 0


async def test_the_journal_has_one_connection_that_writes_and_one_that_reads(start: Start) -> None:
    world = await start()
    journal = world.till.folder / "journal.db"
    await asyncio.gather(*(world.pos.create(f"vera{number}@example.test") for number in range(20)))

    opened = [
        entry
        for entry in Path("/proc/self/fd").iterdir()
        if os.path.realpath(entry) == str(journal.resolve())
    ]

    assert len(opened) == 2


async def test_great_backlog_goes_by_file_when_the_line_returns(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 60, "api_drain_max": 3})
    world.sandbox.down()
    changes = [await world.pos.create(f"vera{number}@example.test") for number in range(6)]
    await world.pos.until_link("offline")

    world.sandbox.up()

    await files_wait(world)
    await world.sandbox.import_now()
    states = [(await world.pos.until(each, "confirmed", "delivered"))["state"] for each in changes]
    # One was delivered to show that the line is back; while files are sealed, no other goes so.
    assert states.count("confirmed") == 5
    assert world.sandbox.counts()["duplicates"] == 0


async def test_contacts_with_and_without_guid_go_in_separate_files(start: Start) -> None:
    world = await start()
    known = world.sandbox.seed(email=PER)
    api_down(world)
    new = await world.pos.create(city="Lund")
    update = await world.pos.update(known, city="Ystad")

    files = await files_wait(world, 2)

    with_id = [each for each in files.values() if b"contactId" in each]
    assert len(with_id) == 1
    assert with_id[0].count(b"<member") == 1
    await world.pos.until(new, "uploaded")
    await world.pos.until(update, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    for change_id in (new, update):
        await world.pos.until(change_id, "confirmed")
    assert world.attributes(PER)["city"] == "Ystad"


async def test_contact_that_the_import_skips_is_rejected_and_the_others_are_confirmed(
    start: Start,
) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    world.sandbox.set_fault("skips", keys=["vera1@example.test"])
    async with world.pos.sealing():
        changes = [await world.pos.create(f"vera{number}@example.test") for number in range(3)]
    await files_wait(world)
    await world.pos.until(changes[0], "uploaded")
    await world.sandbox.import_now()

    skipped = await world.pos.until(changes[1], "rejected")
    assert skipped["error"]["code"] == "ImportSkipped"
    for change_id in (changes[0], changes[2]):
        await world.pos.until(change_id, "confirmed")
    assert (await world.pos.status())["needsPerson"]

    await world.pos.call("POST", f"/agent/v1/changes/{changes[1]}/retry")

    assert (await world.pos.until(changes[1], "delivered"))["route"] == "api"
    assert world.sandbox.counts()["duplicates"] == 0


async def test_while_the_importer_sits_on_a_file_its_contacts_stay_off_the_api(
    start: Start,
) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    world.sandbox.set_fault("sits")
    async with world.pos.sealing():
        old = await world.pos.update(contact_id, city="Lund")
    await world.pos.until(old, "uploaded")
    other = await world.pos.create(PER)
    await world.pos.until(other, "delivered")

    new = await world.pos.update(contact_id, city="Ystad")

    waiting = await world.pos.change(new)
    assert (waiting["state"], waiting["waitsFor"]) == ("waiting", old)
    assert world.writes(contact_id) == []
    world.sandbox.clear_faults()
    await world.sandbox.import_now()
    await world.pos.until(old, "confirmed")
    await world.pos.until(new, "delivered")
    assert world.attributes()["city"] == "Ystad"


async def test_key_that_changes_behind_a_file_is_not_what_the_file_is_verified_by(
    start: Start,
) -> None:
    world = await start()
    api_down(world)
    sign_up = await world.pos.create(city="Lund")
    await world.pos.until(sign_up, "uploaded")
    moved = await world.pos.update(await world.pos.ref_of(sign_up), email=PER)
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    await world.pos.until(sign_up, "confirmed")
    await world.pos.until(moved, "delivered")
    assert [each["attributes"]["email"] for each in world.sandbox.contacts()] == [PER]


async def test_file_names_the_key_that_engage_holds_not_one_that_still_waits(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 0.2, "verify": "none"})
    api_down(world)
    sign_up = await world.pos.create(city="Lund")
    await world.pos.until(sign_up, "uploaded")
    await world.sandbox.import_now()
    await world.pos.until(sign_up, "imported")
    ref = await world.pos.ref_of(sign_up)
    await world.pos.call("POST", "/agent/v1/routes/file/pause")
    update = await world.pos.update(ref, city="Ystad")
    moved = await world.pos.update(ref, email=PER)
    await world.pos.call("POST", "/agent/v1/routes/file/resume")
    await world.pos.until(update, "uploaded")
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    await world.pos.until(moved, "delivered")
    (contact,) = world.sandbox.contacts()
    assert contact["attributes"] | {"email": PER, "city": "Ystad"} == contact["attributes"]


async def test_import_that_leaves_an_attribute_out_is_mended_by_the_api(start: Start) -> None:
    world = await start()
    contact_id = world.sandbox.seed(email=VERA, city="Malmö")
    api_down(world)
    change_id = await world.pos.update(contact_id, city="Lund")
    await world.pos.until(change_id, "uploaded")
    world.sandbox.set_fault("skips", keys=[VERA, contact_id])
    world.sandbox.set_fault("skips_file")
    await world.sandbox.import_now()

    world.sandbox.clear_faults()

    await world.pos.until(change_id, "confirmed")
    assert world.attributes()["city"] == "Lund"
    assert world.writes(contact_id) == [{"city": "Lund"}]


async def test_contact_that_became_two_while_its_file_was_imported_is_left_to_a_person(
    start: Start,
) -> None:
    world = await start()
    api_down(world)
    change_id = await world.pos.create(city="Lund")
    await world.pos.until(change_id, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.seed(email=VERA)

    world.sandbox.clear_faults()

    change = await world.pos.until(change_id, "rejected")
    assert change["error"]["code"] == "MultipleMatches"


async def test_changed_host_key_halts_files_with_both_fingerprints_and_the_api_goes_on(
    start: Start,
) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    pinned = world.sandbox.host_key_fingerprint
    world.sandbox.set_fault("host_key_changed")
    async with world.pos.sealing():
        by_file = await world.pos.create()

    reason = await file_route(world, "halted")

    shown = set(re.findall(r"SHA256:[A-Za-z0-9+/]{43}", reason))
    assert pinned in shown
    assert len(shown) == 2
    await world.pos.until(by_file, "batched")
    assert documents(world) == {}
    assert (await world.pos.until(await world.pos.create(PER), "delivered"))["route"] == "api"
    world.sandbox.clear_faults()
    await world.pos.until(by_file, "uploaded")
    await world.sandbox.import_now()
    await world.pos.until(by_file, "confirmed")
    await file_route(world, "running")


async def test_wrong_sftp_password_halts_files_until_the_right_one_is_there(start: Start) -> None:
    world = await start()
    write_secret(world.till.folder / "sftp_password", "wrong")
    api_down(world)
    change_id = await world.pos.create()

    assert await file_route(world, "halted")

    assert (await world.pos.change(change_id))["state"] == "batched"
    write_secret(world.till.folder / "sftp_password", world.sandbox.sftp_password)
    await world.pos.until(change_id, "uploaded")
    await file_route(world, "running")


async def test_missing_import_folder_is_not_taken_for_an_imported_file(start: Start) -> None:
    world = await start()
    api_down(world)
    change_id = await world.pos.create()
    await world.pos.until(change_id, "uploaded")
    missing = world.sandbox.set_fault("folder_missing")

    await eventually(lambda: missing.hits >= 2, "the folder was looked at")

    assert (await world.pos.change(change_id))["state"] == "uploaded"

    async def asks_for_a_person() -> bool:
        needs = (await world.pos.status())["needsPerson"]
        return any("folder" in need["what"] for need in needs)

    async def asks_for_nobody() -> bool:
        return not await asks_for_a_person()

    await eventually(asks_for_a_person, "the page says what the server refuses")
    world.sandbox.clear_faults()
    await eventually(asks_for_nobody, "the page is calm again")


async def test_upload_that_breaks_off_is_repeated_until_the_file_is_whole(start: Start) -> None:
    world = await start()
    world.sandbox.set_fault("cut", after_bytes=100, times=2)
    world.sandbox.set_fault("lose_rename_answer", times=1)
    api_down(world)
    change_id = await world.pos.create()

    await world.pos.until(change_id, "uploaded")

    files = await files_wait(world)
    (batch,) = await world.pos.batches()
    assert {hashlib.sha256(each).hexdigest() for each in files.values()} == {batch["sha256"]}
    assert world.sandbox.waiting_files() == [batch["name"]]


async def test_file_that_was_deleted_or_changed_in_the_spool_is_made_again_byte_for_byte(
    start: Start,
) -> None:
    world = await start()
    world.sandbox.set_fault("refuse", target="sftp")
    api_down(world)
    await world.pos.create("deleted@example.test", city="Lund")
    spool = world.till.folder / "spool"
    first = await eventually(lambda: list(spool.glob("2*-000001_contacts.xml")))
    await world.pos.create("changed@example.test", city="Ystad")
    second = await eventually(lambda: list(spool.glob("2*-000002_contacts.xml")))
    written = {path.name: path.read_bytes() for path in (*first, *second)}
    first[0].unlink()
    second[0].write_bytes(b"<contacts/>")

    world.sandbox.clear_faults(target="sftp")

    assert await files_wait(world, 2) == written


async def test_sign_up_with_an_open_upgrade_behind_it_goes_by_file_and_the_upgrade_by_api(
    start: Start,
) -> None:
    world = await start()
    api_down(world)
    sign_up = await world.pos.create(contactType="Contact")
    ref = await world.pos.ref_of(sign_up)
    _, _, headers = await world.pos.call(
        "POST",
        f"/api/v3/contacts/{ref}/updateContactType?contactTypeId=Member",
        Prefer="respond-async",
    )
    await world.pos.until(sign_up, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()

    await world.pos.until(sign_up, "confirmed")

    upgrade = await world.pos.until(headers["Agent-Change"], "delivered")
    assert upgrade["route"] == "api"
    assert world.sandbox.find("email", VERA)[0]["meta"]["contactType"] == "Member"


async def test_restart_keeps_waits_and_pauses(start: Start) -> None:
    world = await start(retry={"waits_s": [300]})
    world.sandbox.set_fault("rollback_504", method="POST", times=1)
    change_id = await world.pos.create()
    before = await world.pos.tried(change_id)
    await world.pos.call("POST", "/agent/v1/routes/file/pause")

    await world.stop()
    await world.start()

    other = await world.pos.until(await world.pos.create(PER), "delivered")
    assert other["state"] == "delivered"
    after = await world.pos.change(change_id)
    assert (after["state"], after["dueAt"]) == ("waiting", before["dueAt"])
    assert len(after["attempts"]) == 1
    await file_route(world, "paused")


async def test_paused_api_route_survives_a_restart_and_goes_on_when_resumed(start: Start) -> None:
    world = await start()
    await world.pos.call("POST", "/agent/v1/routes/api/pause")
    await world.stop()
    await world.start()
    change_id = await world.pos.create()

    status = await world.pos.status()
    assert status["routes"]["api"]["state"] == "paused"
    assert (await world.pos.change(change_id))["attempts"] == []
    await world.pos.call("POST", "/agent/v1/routes/api/resume")

    await world.pos.until(change_id, "delivered")


async def test_contacts_data_stays_out_of_status_and_log(start: Start, capsys: Any) -> None:
    world = await start()
    api_down(world)
    change_id = await world.pos.create(firstName="Veronika", mobilePhone="+46701234567")
    await world.pos.until(change_id, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    await world.pos.until(change_id, "confirmed")

    shown = str(await world.pos.status()) + capsys.readouterr().out

    for word in (VERA, "Veronika", "701234567"):
        assert word not in shown
