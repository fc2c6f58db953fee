"""How the export's files are read: in order, once, whole or not at all, and never for ever."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from agent.delivery.batch.sftp_words import ServerRefused
from agent.errors import AgentError, HostKeyChanged, Unreachable
from agent.journal import register

pytestmark = pytest.mark.system

EMAIL = "email=vera%40example.test"
GUID = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
MEMBER = f"<member><contactId>{GUID}</contactId><email>vera@example.test</email></member>"


def document(*containers: str, root: str = "contacts") -> str:
    body = "".join(containers)
    return f'<{root} xmlns="http://eClub.Schemas.ExportMember">{body}</{root}>'


def put(till: Any, name: str, content: str | bytes) -> Path:
    """Lay a file into the folder, as of now on the till's clock."""
    path: Path = till.sandbox.export_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    moment = till.clock.now().timestamp()
    os.utime(path, (moment, moment))
    return path


def reads(till: Any) -> int:
    """Count the logins for reading."""
    return sum(each.operation == "login" for each in till.sandbox.sftp_log)


async def states(till: Any) -> dict[str, str]:
    return dict(await till.rows("SELECT name, state FROM exports"))


# --- which, in which order, how often -------------------------------------------------------------


async def test_files_are_read_as_they_were_made_not_as_they_are_listed(till: Any) -> None:
    for number, kind in ((2, "new"), (16, "deleted"), (3, "deleted")):
        put(till, f"20230507181112_{number}_members.xml", document(f"<{kind}>{MEMBER}</{kind}>"))
    put(till, "20230507181113_0_members.xml", document(f"<new>{MEMBER}</new>"))

    await till.read()

    await till.cut_line()
    assert await till.found(EMAIL) == GUID


async def test_older_file_that_comes_late_brings_nobody_back(till: Any) -> None:
    put(till, "20230507190000_0_members.xml", document(f"<deleted>{MEMBER}</deleted>"))
    await till.read()
    put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER}</new>"))
    await till.read()
    await till.cut_line()

    assert await till.found(EMAIL) is None


async def test_file_is_read_once_and_again_when_it_was_replaced(till: Any) -> None:
    path = put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER}</new>"))
    await till.read(times=2)
    read_at = await till.rows("SELECT read_at FROM exports")
    path.unlink()
    await till.read()
    forgotten = await states(till)
    till.clock.shift_s += 60
    put(till, path.name, document(f"<deleted>{MEMBER}</deleted>"))
    await till.read()

    assert len(read_at) == 1
    assert forgotten == {}
    assert await till.rows("SELECT read_at FROM exports") != read_at
    await till.cut_line()
    assert await till.found(EMAIL) is None


async def test_what_is_no_file_of_the_export_is_left_alone(till: Any) -> None:
    put(till, ".20230507180000_0_members.xml.part", "half")
    put(till, "readme.txt", "no XML")
    (till.sandbox.export_path / "old.xml").mkdir()

    await till.read()

    assert await states(till) == {}


async def test_files_are_never_changed_or_removed(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.export()
    before = {path.name: path.read_bytes() for path in till.sandbox.export_path.iterdir()}

    await till.read(times=2)

    assert {path.name: path.read_bytes() for path in till.sandbox.export_path.iterdir()} == before
    assert {each.operation for each in till.sandbox.sftp_log} == {"login"}


# --- files that cannot be read --------------------------------------------------------------------


async def test_file_that_cannot_be_read_is_set_aside_and_the_next_one_read(till: Any) -> None:
    put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER}</new>")[:-20])
    put(till, "20230507190000_0_members.xml", document(f"<new>{MEMBER}</new>"))

    is_through = [await till.read() for _ in range(3)]

    assert is_through == [False, True, True]  # it might have been on its way the first time
    assert list((await states(till)).values()) == ["broken", "taken"]
    await till.cut_line()
    assert await till.found(EMAIL) == GUID


async def test_nothing_of_a_broken_file_is_used(till: Any) -> None:
    put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER * 500}</new>")[:-30])

    await till.read(times=2)

    assert await till.rows("SELECT count(*) FROM members") == [(0,)]


async def test_page_names_the_file_that_was_set_aside_and_what_to_do(till: Any) -> None:
    put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER}</new>")[:-20])
    await till.read(times=2)
    till.clock.shift_s += 1  # a picture is shared for half a second

    status = await till.pos.status()

    (need,) = status["needsPerson"][:1]
    assert "20230507180000_0_members.xml (line 1 is not well-formed XML)" in need["what"]
    assert "Voyado" in need["whatToDo"]
    assert status["register"]["setAside"] == [
        "20230507180000_0_members.xml (line 1 is not well-formed XML)"
    ]
    assert "vera" not in str(status)


async def test_alarm_ends_when_the_file_is_mended_or_a_week_has_passed(till: Any) -> None:
    path = put(till, "20230507180000_0_members.xml", "")
    put(till, "20230507190000_0_members.xml", "")
    await till.read(times=3)
    both = till.agent.exports.fill.set_aside
    till.clock.shift_s += 60
    put(till, path.name, document(f"<new>{MEMBER}</new>"))
    await till.read()
    one = till.agent.exports.fill.set_aside
    till.clock.shift_s += 8 * 86400
    await till.read()

    assert (len(both), len(one), till.agent.exports.fill.set_aside) == (2, 1, ())


async def test_file_that_is_still_being_written_is_read_when_it_is_whole(till: Any) -> None:
    whole = document(f"<new>{MEMBER}</new>")
    path = put(till, "20230507180000_0_members.xml", whole[:60])
    first = await till.read()
    put(till, path.name, whole[:90])
    second = await till.read()
    put(till, path.name, whole)

    third = await till.read()

    assert (first, second, third) == (False, False, True)
    assert till.agent.exports.fill.set_aside == ()


async def test_entities_that_would_fill_the_memory_are_refused(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test")
    till.sandbox.set_fault("bomb", target="exporter", times=1)
    await till.export()

    await till.read(times=2)

    assert list((await states(till)).values()) == ["broken"]


# --- the line, the server, the disk ---------------------------------------------------------------


async def test_line_that_breaks_in_mid_file_leaves_nothing_half_done(till: Any) -> None:
    for number in range(300):
        till.sandbox.seed(email=f"person{number}@example.test")
    await till.export()
    till.sandbox.set_fault("cut_read", after_bytes=40_000, times=1)

    with pytest.raises(Unreachable):
        await till.read()

    assert await till.rows("SELECT count(*) FROM members") == [(0,)]
    assert await till.read()
    assert await till.rows("SELECT count(*) FROM members") == [(300,)]


async def test_file_that_is_replaced_while_it_is_read_is_read_again(till: Any) -> None:
    path = put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER}</new>"))
    folder = till.agent.exports._folder
    async with folder.opened() as opened:
        (file,) = await opened.listed()
        put(till, path.name, document(f"<deleted>{MEMBER}</deleted>"))

        taken = await till.agent.exports._read(opened, file, is_doubted=False)

    assert taken is False
    assert await states(till) == {}
    assert await till.read()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("export_missing", ServerRefused),
        ("host_key_changed", HostKeyChanged),
        ("hang_read", Unreachable),
    ],
)
async def test_trouble_at_the_server_is_told_and_costs_nothing(
    till: Any, fault: str, error: type[AgentError]
) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.export()
    till.sandbox.set_fault(fault, target="sftp", times=1)

    with pytest.raises(error):
        await till.read()

    assert await till.read()
    assert await till.rows("SELECT count(*) FROM members") == [(1,)]


async def test_missing_folder_is_said_on_the_page_with_its_setting(start: Any) -> None:
    till = await start(register={"export_directory": "/nowhere", "poll_s": 0.2})
    till.agent.gates["file"].paused = False

    async def told() -> list[str]:
        needs = (await till.pos.status())["needsPerson"]
        return [need["what"] for need in needs if "member export" in need["what"]]

    (what,) = await eventually(told, "the page says it")
    assert "register.export_directory" in str((await till.pos.status())["needsPerson"])
    assert what


async def test_more_members_than_allowed_are_said_and_the_first_ones_kept(start: Any) -> None:
    till = await start(
        register={"export_directory": "/integration/customerExport", "max_members": 2}
    )
    for number in range(3):
        till.sandbox.seed(email=f"person{number}@example.test")
    await till.told()

    assert await till.rows("SELECT count(*) FROM members") == [(2,)]
    assert "register.max_members" in till.agent.exports.problem


async def test_file_of_no_chain_is_set_aside_before_it_fills_the_disk(
    till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.register.reader._LARGEST_FILE", 1000)
    put(till, "20230507180000_0_members.xml", document(f"<new>{MEMBER * 20}</new>"))

    await till.read(times=2)

    assert till.agent.exports.fill.set_aside == (
        "20230507180000_0_members.xml (it is larger than 2 GiB)",
    )


async def test_room_that_is_made_is_filled(start: Any) -> None:
    export = {"export_directory": "/integration/customerExport"}
    till = await start(register={**export, "max_members": 2})
    ids = [till.sandbox.seed(email=f"person{number}@example.test") for number in range(3)]
    await till.told()
    till.sandbox.erase(ids[0])
    await till.told()

    await till.read()

    assert await till.rows("SELECT count(*) FROM members WHERE gone IS NULL") == [(2,)]
    assert till.agent.exports.problem is None


# --- stopping in the middle -----------------------------------------------------------------------


async def test_file_that_was_half_stored_is_stored_again_and_ends_the_same(till: Any) -> None:
    for number in range(450):
        till.sandbox.seed(email=f"person{number}@example.test")
    await till.export()
    reading = asyncio.create_task(till.read())

    async def begun() -> bool:
        return (await till.rows("SELECT count(*) FROM members"))[0][0] > 0

    await eventually(begun, "some are stored")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await till.stop()
    await till.start()

    assert await till.read()
    assert await till.rows("SELECT count(*), count(DISTINCT contact_id) FROM members") == [
        (450, 450)
    ]
    assert await till.rows("SELECT count(*) FROM member_keys WHERE name = 0") == [(450,)]


async def test_register_survives_a_restart_and_is_not_read_again(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.told()
    read_at = await till.rows("SELECT read_at FROM exports")
    await till.stop()
    await till.start()
    await till.read()
    await till.cut_line()

    assert await till.found(EMAIL) is not None
    assert await till.rows("SELECT read_at FROM exports") == read_at


async def test_new_files_are_found_without_being_asked(start: Any) -> None:
    till = await start(register={"export_directory": "/integration/customerExport", "poll_s": 0.1})
    till.agent.gates["file"].paused = False
    till.sandbox.seed(email="vera@example.test")
    till.sandbox.export_now()

    async def known() -> bool:
        return bool((await till.pos.status())["register"]["members"] == 1)

    await eventually(known, "the member is known")


async def test_page_and_status_say_how_many_are_known_and_of_when(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.told()
    till.clock.shift_s += 1  # a picture is shared for half a second

    register = (await till.pos.status())["register"]
    async with till.session.get(till.agent.url) as answer:
        page = await answer.text()

    assert register["members"] == 1
    assert register["toldAt"] < register["readAt"] <= till.now_text()
    assert "Members known without a line" in page
    assert "1, as of" in page


async def test_halted_login_is_not_tried_by_the_export_as_well(start: Any) -> None:
    till = await start(register={"export_directory": "/integration/customerExport", "poll_s": 0.05})
    before = reads(till)

    await till.agent.exports._turn()

    assert reads(till) == before


# --- what is stored -------------------------------------------------------------------------------


async def test_nothing_of_a_member_can_be_read_in_the_journal(till: Any) -> None:
    till.sandbox.seed(
        email="vera@example.test",
        firstName="Vera",
        lastName="Testsson",
        mobilePhone="+46701234567",
        socialSecurityNumber="198112189876",
        externalId="STORE-7",
    )
    await till.told()
    await till.agent.journal.scrub()

    stored = b"".join(path.read_bytes() for path in till.till.folder.glob("journal.db*"))

    for text in ("vera@", "Vera", "Testsson", "701234567", "8112189876", "STORE-7", "1000001"):
        assert text.encode() not in stored


async def test_without_the_key_the_digests_are_worth_nothing_and_made_anew(till: Any) -> None:
    contact_id = till.sandbox.seed(email="vera@example.test")
    await till.told()
    before = await till.rows("SELECT digest FROM member_keys")
    await till.stop()
    key = till.till.folder / "journal.db.register-key"
    mode = key.stat().st_mode & 0o777
    key.unlink()
    await till.start()
    await till.read()
    await till.cut_line()

    assert mode == 0o600
    assert await till.rows("SELECT digest FROM member_keys") != before
    assert await till.found(EMAIL) == contact_id


async def test_switched_off_everything_of_the_export_is_erased(till: Any) -> None:
    till.sandbox.seed(email="vera@example.test")
    await till.told()
    await till.stop()
    settings = till.till.config_path.read_text("utf-8")
    till.till.config_path.write_text(settings.replace("export_directory", "#"), "utf-8")
    await till.start()

    async def erased() -> bool:
        return await till.agent.journal.read(register.is_empty)

    await eventually(erased, "the register is empty")
    await eventually(lambda: not (till.till.folder / "journal.db.register-key").exists())
    assert (await till.pos.status())["register"] is None
