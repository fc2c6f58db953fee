"""An opening that takes its time says how far it is."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_helpers import Book, FakeClock, make_driver

from agent import config
from agent.assembly import Agent
from agent.journal import migrating
from agent.journal.opening import Opening, Phase
from agent.trial import write_till


def write_old_journal(path: Path, driver_name: str = "sqlite") -> None:
    """Make a journal as the first version did, with something in it."""
    connection = make_driver(driver_name).connect(path)
    number, text = migrating.migrations()[0]
    migrating._apply(connection, number, text)
    connection.execute("INSERT INTO meta VALUES ('journal_id', 'an old one')")
    connection.close()


async def test_old_journal_is_copied_and_migrated_and_both_are_told(
    path: Path, clock: FakeClock, driver_name: str
) -> None:
    write_old_journal(path, driver_name)
    told: list[tuple[Phase | None, str]] = []
    book = Book(path, clock, driver_name)
    book.journal.database.opening.tell = lambda opening: told.append(
        (opening.phase, opening.words())
    )

    async with book:
        kept = await book.rows("SELECT value FROM meta WHERE name = 'journal_id'")

    assert [phase for phase, _ in told] == [
        Phase.COPYING,
        *[Phase.MIGRATING] * (len(migrating.migrations()) - 1),
    ]
    assert all(words.startswith("Migrating the journal") for _, words in told)
    assert kept == [("an old one",)]
    newest = migrating.migrations()[-1][0]
    assert path.with_name(f"{path.name}.before-{newest}").exists()


async def test_upgraded_journal_is_like_a_new_one(tmp_path: Path, clock: FakeClock) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_old_journal(old)
    schemas = []

    for path in (old, new):
        async with Book(path, clock) as book:
            columns = await book.rows(
                "SELECT t.name, c.name, c.type, c.pk FROM sqlite_schema t, "
                "pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY 1, 2"
            )
            others = await book.rows(
                "SELECT name FROM sqlite_schema WHERE type <> 'table' ORDER BY 1"
            )
            schemas.append((columns, others))

    assert schemas[0] == schemas[1]


async def test_new_journal_has_nothing_to_tell(path: Path, clock: FakeClock) -> None:
    told: list[Opening] = []
    book = Book(path, clock)
    book.journal.database.opening.tell = told.append

    async with book:
        pass

    assert told == []


def test_work_of_sqlite_leaves_signs_of_life(path: Path) -> None:
    opening = Opening()
    connection = make_driver("sqlite").connect(path)

    with opening.doing(connection, Phase.MIGRATING):
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
            " SELECT sum(i) FROM n"
        ).fetchone()

    connection.close()
    assert opening.signs > 3
    assert opening.phase is None


@pytest.mark.parametrize(
    ("phase", "share", "words"),
    [
        (
            Phase.COPYING,
            0.25,
            "Migrating the journal to this version: copying it first: 25%, about 30 seconds to go.",
        ),
        (Phase.MIGRATING, None, "Migrating the journal to this version, for 10 seconds so far."),
        (Phase.CHECKING, None, "Checking the journal, for 10 seconds so far."),
    ],
)
def test_words_say_what_is_done_how_far_it_is_and_how_long_it_takes(
    phase: Phase, share: float | None, words: str, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    opening = Opening()
    now = time.monotonic()
    connection = make_driver("sqlite").connect(path)

    with opening.doing(connection, phase, lambda: share):
        monkeypatch.setattr(time, "monotonic", lambda: now + 10.0)
        said = opening.words()

    connection.close()
    assert said == words


# --- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where a service tells how it goes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        address = os.path.relpath(tmp_path / "notify")
        line.bind(address)
        line.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield line


def heard(line: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(line.recv(4096).decode())
        except BlockingIOError:
            return messages


async def test_systemd_hears_of_a_migration_and_gives_it_more_time(
    tmp_path: Path, systemd: socket.socket
) -> None:
    till = write_till(
        tmp_path / "till",
        engage_url="http://127.0.0.1:1",
        api_key="key",
        sftp_host="127.0.0.1",
        sftp_port=1,
        sftp_username="till",
        sftp_password="password",
        sftp_directory="/import",
        host_key_line="",
    )
    write_old_journal(till.folder / "journal.db")
    agent = Agent(config.load(till.config_path))

    await agent.start()
    messages = heard(systemd)
    await agent.stop()

    (copying, *migrating), ready = messages[:-1], messages[-1]
    assert copying.startswith("STATUS=Migrating the journal to this version: copying it first")
    assert all("EXTEND_TIMEOUT_USEC=60000000" in each for each in (copying, *migrating))
    assert ready.startswith("READY=1")
