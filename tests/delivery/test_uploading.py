"""How the uploader paces itself: one thing that does not work holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uploading import POLL_S, FolderServer, UploadingTill

from agent.change import State
from agent.errors import AgentError, HostKeyChanged, NotAuthorised, NotWithdrawn, Unreachable

HOUR_S = 3600.0


@pytest.fixture
def server(tmp_path: Path) -> FolderServer:
    return FolderServer(tmp_path / "server")


@pytest.fixture
async def till(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[UploadingTill]:
    async with UploadingTill(tmp_path / "till", server, monkeypatch) as opened:
        yield opened


async def states(till: UploadingTill) -> list[str]:
    return [batch.state for batch in await till.batches()]


# --- settings that name another place -------------------------------------------------------------

OTHER_PLACES: list[dict[str, Any]] = [
    {"directory": "/elsewhere"},
    {"host": "localhost"},
    {"port": 2},
    {"username": "staging"},
]


@pytest.mark.parametrize("change", OTHER_PLACES)
async def test_a_file_is_not_taken_for_imported_where_it_was_never_put(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    async with UploadingTill(tmp_path / "till", server, monkeypatch) as till:
        name, _ = await till.file()
        await till.upload_turn()
        await till.file()
    (server.folder / name).rename(server.root / "not here")

    async with UploadingTill(tmp_path / "till", server, monkeypatch, **change) as till:
        await till.upload_turns(for_s=HOUR_S)
        changed, said = await states(till), till.uploader.problems
        with pytest.raises(NotWithdrawn, match="settings name another place"):
            await till.uploader.withdraw(name)

    async with UploadingTill(tmp_path / "till", server, monkeypatch) as till:
        await till.upload_turn()
        put_back = await till.batches()

    assert changed == ["uploaded", "uploaded"]
    assert ["127.0.0.1:1:/import" in text and name in text for text in said] == [True]
    assert put_back[0].state == "imported"


async def test_a_file_that_a_person_removed_from_a_former_place_is_given_up(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with UploadingTill(tmp_path / "till", server, monkeypatch) as till:
        name, change = await till.file()
        await till.upload_turn()
    (server.folder / name).unlink()

    elsewhere = UploadingTill(tmp_path / "till", server, monkeypatch, directory="/elsewhere")
    async with elsewhere as till:
        await till.upload_turn()
        withdrawn = await till.uploader.withdraw(name, removed=True)
        await till.upload_turn()

        assert withdrawn.state == "withdrawn"
        assert await till.states(change) == [State.WAITING]
        assert till.uploader.problems == ()


async def test_the_server_is_asked_whatever_a_person_says_where_the_settings_lead_to_the_file(
    till: UploadingTill, server: FolderServer
) -> None:
    name, _ = await till.file()
    await till.upload_turn()

    await till.uploader.withdraw(name, removed=True)

    assert server.files == []


async def test_a_rename_that_was_tried_elsewhere_is_not_settled_here(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuses["rename"] = ""
    async with UploadingTill(tmp_path / "till", server, monkeypatch) as till:
        await till.file()
        await till.upload_turn()
    server.refuses.clear()

    elsewhere = UploadingTill(tmp_path / "till", server, monkeypatch, directory="/elsewhere")
    async with elsewhere as till:
        await till.upload_turns(for_s=HOUR_S)

        assert await states(till) == ["written"]  # and not uploaded, as if the importer had it


async def test_a_file_of_a_version_that_noted_no_place_is_looked_for_here(
    till: UploadingTill, server: FolderServer
) -> None:
    name, _ = await till.file()
    await till.upload_turn()
    await till.book.journal.write(lambda db: db.execute("UPDATE batches SET place = NULL"))
    (server.folder / name).unlink()

    await till.upload_turns(for_s=HOUR_S)

    assert await states(till) == ["imported"]


# --- one file that is refused ---------------------------------------------------------------------


async def test_of_several_files_the_refused_one_alone_waits_with_its_error(
    till: UploadingTill, server: FolderServer
) -> None:
    names = [(await till.file())[0] for _ in range(3)]
    server.refuses["open"] = names[0]

    await till.upload_turn()

    found = await till.batches()
    assert [batch.state for batch in found] == ["written", "uploaded", "uploaded"]
    assert [names[0] in (batch.error or "") for batch in found] == [True, False, False]
    assert [(batch.attempts, batch.error) for batch in found[1:]] == [(1, None)] * 2
    assert server.logins == 2


async def test_a_refused_file_in_front_puts_off_no_newer_one(
    till: UploadingTill, server: FolderServer
) -> None:
    first, _ = await till.file()
    server.refuses["open"] = first
    await till.upload_turns(for_s=HOUR_S)

    await till.file()
    await till.upload_turn()

    assert await states(till) == ["written", "uploaded"]
    assert [first in problem for problem in till.uploader.problems] == [True]


async def test_a_line_that_breaks_is_noted_with_the_file_that_it_broke(
    till: UploadingTill, server: FolderServer
) -> None:
    names = [(await till.file())[0] for _ in range(3)]

    def break_the_line(name: str) -> None:
        if names[1] in name:
            raise EOFError

    server.on_sending = break_the_line

    await till.upload_turn()

    found = await till.batches()
    assert [batch.state for batch in found] == ["uploaded", "written", "written"]
    assert [batch.error is None for batch in found] == [True, False, True]


async def test_a_fault_of_the_agent_itself_is_noted_with_the_file_and_holds_up_no_other(
    till: UploadingTill, server: FolderServer
) -> None:
    names = [(await till.file())[0] for _ in range(2)]

    def fail(name: str) -> None:
        if names[0] in name:
            raise ZeroDivisionError

    server.on_sending = fail
    await till.upload_turn()
    before = server.logins

    await till.upload_turns(for_s=HOUR_S)

    found = await till.batches()
    assert [batch.state for batch in found] == ["written", "uploaded"]
    assert "ZeroDivisionError" in (found[0].error or "")
    assert [problem.count("ZeroDivisionError") for problem in till.uploader.problems] == [1]
    assert server.logins - before <= 36  # slower and slower, and the polls


async def test_a_fault_before_any_file_is_noted_and_not_repeated_at_once(
    till: UploadingTill, server: FolderServer
) -> None:
    await till.file()
    server.refuses_login = ZeroDivisionError()

    await till.upload_turns(for_s=HOUR_S)

    (batch,) = await till.batches()
    assert 5 <= batch.attempts <= 16
    assert "ZeroDivisionError" in (batch.error or "")


async def test_a_file_that_cannot_be_made_again_for_an_unknown_cause_holds_up_no_other(
    till: UploadingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt, _ = await till.file()
    await till.file()
    till.spool.path(spoilt).unlink()

    async def fail(_batch: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(till.sealer, "write_file", fail)

    await till.upload_turn()

    found = await till.batches()
    assert [batch.state for batch in found] == ["written", "uploaded"]
    assert "ZeroDivisionError" in (found[0].error or "")


# --- each at its own pace -------------------------------------------------------------------------


async def test_what_the_server_refuses_is_told_until_it_is_taken_however_well_polling_goes(
    till: UploadingTill, server: FolderServer
) -> None:
    await till.file()
    await till.upload_turn()
    server.refuses["open"] = ""
    await till.file()
    await till.upload_turn()
    told = []

    for _ in range(100):
        await till.upload_turn(after_s=POLL_S)
        told.append([problem.count("Permission denied") for problem in till.uploader.problems])

    assert told == [[1]] * 100
    server.refuses.clear()
    await till.upload_turn(after_s=HOUR_S)
    assert till.uploader.problems == ()
    assert await states(till) == ["uploaded", "uploaded"]


async def test_tries_get_slower_however_well_polling_goes(
    till: UploadingTill, server: FolderServer
) -> None:
    await till.file()
    await till.upload_turn()
    server.refuses["open"] = ""
    await till.file()

    await till.upload_turns(for_s=HOUR_S)

    tries = (await till.batches())[-1].attempts
    assert 3600 / 600 <= tries <= 4 + 3600 / 300  # as retry.waits_s, each up to twice as long


async def test_a_clean_up_that_fails_holds_up_no_upload(
    till: UploadingTill, server: FolderServer
) -> None:
    name, _ = await till.file()
    await till.upload_turn()
    server.refuses["remove"] = ""
    await till.uploader.withdraw(name)
    await till.upload_turns(for_s=HOUR_S)

    newer, _ = await till.file()
    await till.upload_turn()

    assert await states(till) == ["withdrawn", "uploaded"]
    assert server.files == [f".{name}.withdrawn", newer]
    assert [problem.count("removing") for problem in till.uploader.problems] == [1]


async def test_a_clean_up_that_fails_is_tried_slowly_and_ends_in_time(
    till: UploadingTill, server: FolderServer
) -> None:
    name, _ = await till.file()
    await till.upload_turn()
    server.refuses["remove"] = ""
    await till.uploader.withdraw(name)
    before = server.logins

    await till.upload_turns(for_s=HOUR_S)

    assert 5 <= server.logins - before <= 15  # about every poll_s
    server.refuses.clear()
    await till.upload_turn(after_s=HOUR_S)
    assert server.files == []
    assert till.uploader.problems == ()


# --- a pile that goes up slowly -------------------------------------------------------------------


async def test_several_files_go_over_one_connection_and_then_it_is_looked_at_them(
    till: UploadingTill, server: FolderServer
) -> None:
    for _ in range(4):
        await till.file()

    await till.upload_turn()

    assert await states(till) == ["uploaded"] * 4
    assert server.logins == 2


async def test_an_import_is_noticed_while_a_pile_goes_up_slowly(
    till: UploadingTill, server: FolderServer
) -> None:
    first, _ = await till.file()
    await till.upload_turn()
    for _ in range(4):
        await till.file()

    def be_slow(_name: str) -> None:
        till.clock.pass_s(POLL_S / 1.5)
        (server.folder / first).unlink(missing_ok=True)

    server.on_sending = be_slow

    await till.upload_turn()
    at_first = await states(till)
    await till.upload_turn()
    await till.upload_turn()

    assert at_first == ["imported", "uploaded", "uploaded", "written", "written"]
    assert await states(till) == ["imported"] + ["uploaded"] * 4


async def test_the_import_of_a_piles_first_file_is_noticed_while_the_rest_goes_up_slowly(
    till: UploadingTill, server: FolderServer
) -> None:
    for _ in range(4):
        await till.file()

    def be_slow(_name: str) -> None:
        till.clock.pass_s(POLL_S * 1.3)
        for there in server.folder.glob("*.xml"):
            there.unlink()

    server.on_sending = be_slow

    await till.upload_turn()

    assert await states(till) == ["imported", "uploaded", "written", "written"]


async def test_a_person_does_not_wait_for_a_whole_pile(
    till: UploadingTill, server: FolderServer
) -> None:
    first, _ = await till.file()
    await till.upload_turn()
    for _ in range(4):
        await till.file()
    asked: list[asyncio.Task[object]] = []

    def ask(_name: str) -> None:
        if not asked:
            asked.append(asyncio.create_task(till.uploader.withdraw(first)))

    server.on_sending = ask

    await till.upload_turn()
    await asked[0]
    at_first = await states(till)
    await till.upload_turn()

    assert at_first == ["withdrawn", "uploaded", "written", "written", "written"]
    assert await states(till) == ["withdrawn"] + ["uploaded"] * 4


# --- a login that is refused ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [NotAuthorised, HostKeyChanged])
async def test_a_refused_login_is_tried_once_at_every_probe(
    till: UploadingTill, server: FolderServer, error: type[AgentError]
) -> None:
    withdrawn, _ = await till.file()
    await till.file()
    await till.upload_turn()
    server.refuses["remove"] = ""
    await till.uploader.withdraw(withdrawn)
    await till.file()
    server.refuses_login = error()
    before = server.logins

    await till.upload_turn(after_s=HOUR_S)
    at_first = server.logins - before
    for _ in range(5):
        await till.upload_turn(after_s=POLL_S + 1)

    assert at_first == 1
    assert server.logins - before == 6
    assert await states(till) == ["withdrawn", "uploaded", "written"]


async def test_the_probe_that_is_let_in_goes_on_with_everything(
    till: UploadingTill, server: FolderServer
) -> None:
    imported, _ = await till.file()
    await till.upload_turn()
    await till.file()
    server.refuses_login = NotAuthorised()
    await till.upload_turn(after_s=HOUR_S)
    (server.folder / imported).unlink()
    server.refuses_login = None

    await till.upload_turn(after_s=POLL_S + 1)

    assert await states(till) == ["imported", "uploaded"]
    assert till.gate.is_open


async def test_a_poll_that_fails_is_no_try_to_upload_and_its_error_ends_with_it(
    till: UploadingTill, server: FolderServer
) -> None:
    await till.file()
    await till.upload_turn()
    server.refuses_login = Unreachable("The line is down.")
    await till.upload_turns(for_s=HOUR_S)
    (failed,) = await till.batches()
    server.refuses_login = None

    await till.upload_turns(for_s=HOUR_S)

    (polled,) = await till.batches()
    assert (failed.attempts, failed.error) == (1, "The line is down.")
    assert (polled.attempts, polled.error) == (1, None)
