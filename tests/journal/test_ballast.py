"""Room that is held back for a full disk, and what is done with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_helpers import GUID, Book, FakeClock

from agent.change import State
from agent.errors import JournalFull
from agent.journal.ballast import Ballast

MB = 1024**2


@pytest.fixture
def ballast(tmp_path: Path) -> Ballast:
    return Ballast(tmp_path / "journal.db", MB)


def test_it_takes_room_where_there_is_plenty(ballast: Ballast) -> None:
    ballast.balance(100 * MB, 10 * MB)

    facts = ballast.path.stat()
    assert facts.st_size == MB
    assert facts.st_blocks * 512 >= MB  # not a hole
    assert facts.st_mode & 0o077 == 0


def test_it_takes_none_where_that_would_bring_the_disk_near_its_limit(ballast: Ballast) -> None:
    ballast.balance(20 * MB, 10 * MB)

    assert not ballast.path.exists()


def test_it_is_kept_until_hardly_any_room_is_left(ballast: Ballast) -> None:
    ballast.balance(100 * MB, 10 * MB)

    ballast.balance(5 * MB, 10 * MB)
    kept = ballast.path.exists()
    ballast.balance(MB // 2, 10 * MB)

    assert (kept, ballast.path.exists()) == (True, False)


def test_what_is_not_there_gives_no_room(ballast: Ballast) -> None:
    assert not ballast.throw_off()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take every byte that is left."""
    filler = place / "somebody else's"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.system
async def test_on_a_disk_that_others_filled_what_is_stored_is_delivered_and_nothing_taken(
    small_disk: Path, clock: FakeClock
) -> None:
    async with Book(small_disk / "journal.db", clock, min_free_mb=1) as book:
        waiting = [await book.create() for _ in range(200)]
        await book.journal.tidy()
        held = (small_disk / "journal.db.ballast").exists()
        filler = fill(small_disk)

        for change in waiting:
            await book.deliver(change, contact_id=None)

        clock.pass_s(1)
        with pytest.raises(JournalFull):
            await book.create()
        assert {await book.state(change) for change in waiting} == {State.DELIVERED}
        assert (held, (small_disk / "journal.db.ballast").exists()) == (True, False)
        os.unlink(filler)
        clock.pass_s(1)
        await book.journal.tidy()
        assert (await book.create()).state is State.WAITING
        assert (small_disk / "journal.db.ballast").exists()


@pytest.mark.system
async def test_without_room_in_reserve_a_full_disk_stores_nothing_and_loses_nothing(
    small_disk: Path, clock: FakeClock
) -> None:
    async with Book(small_disk / "journal.db", clock, min_free_mb=1) as book:
        change = await book.create()
        filler = fill(small_disk)

        with pytest.raises(JournalFull):
            for number in range(200):
                await book.update(GUID, {"city": f"Town{number}"})
        os.unlink(filler)
        clock.pass_s(1)

        assert await book.now(change) == change
        assert await book.create()
