"""The model of a disk that loses power: it must lose what a real one may, and keep what it must."""

from __future__ import annotations

import random
from pathlib import Path

from lost_power import Disk
from system_calls import Cut, Event, Made, Removed, Renamed, Synced, Written

ROOT = Path("/till")
FILE = 7


def synced(path: str, file: int, after: int, *, is_good: bool = True) -> Synced:
    """Give a sync that began after so many events."""
    return Synced(path, file, is_good, after)


def left_by(*events: Event, before: dict[str, bytes] | None = None) -> set[tuple[tuple, ...]]:
    """Give every content that the files may have after a cut."""
    disk = Disk(ROOT, before)
    for event in events:
        disk.take(event)
    states = disk.states(random.Random(1), 200)
    return {tuple(sorted(state.files.items())) for state in states}


def of(**files: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple((f"/till/{name}", content) for name, content in files.items())


MADE = (Made("/till/a", FILE), synced("/till", 0, 1))


def test_what_was_not_synced_is_there_or_not_in_any_part() -> None:
    left = left_by(*MADE, Written(FILE, 0, b"one"), Written(FILE, 3, b"two"))

    assert {of(a=b""), of(a=b"one"), of(a=b"\0\0\0two"), of(a=b"onetwo")} <= left


def test_what_was_synced_is_there_whatever_comes_after_it() -> None:
    left = left_by(
        *MADE, Written(FILE, 0, b"one"), synced("/till/a", FILE, 3), Written(FILE, 3, b"two")
    )

    assert {content[:3] for ((_, content),) in left} == {b"one"}
    assert of(a=b"one") in left


def test_write_that_came_while_a_sync_was_under_way_may_be_lost() -> None:
    left = left_by(*MADE, Written(FILE, 0, b"one"), synced("/till/a", FILE, 2))

    assert of(a=b"") in left


def test_large_write_is_torn_at_sectors_and_old_sectors_are_old_or_new() -> None:
    old, new = b"o" * 2048, b"n" * 2048
    left = left_by(Written(1, 0, new), before={"/till/a": old})

    torn = {content for ((_, content),) in left} - {old, new}
    sectors = {content[at : at + 512] for content in torn for at in range(0, 2048, 512)}
    assert torn
    assert sectors == {b"o" * 512, b"n" * 512}


def test_name_may_be_lost_until_its_folder_is_synced() -> None:
    written = (Made("/till/a", FILE), Written(FILE, 0, b"one"), synced("/till/a", FILE, 2))

    assert left_by(*written) == {of(), of(a=b"one")}
    assert left_by(*written, synced("/till", 0, 3)) == {of(a=b"one")}


def test_file_in_a_folder_whose_own_name_is_lost_is_lost_with_it() -> None:
    events = (
        Made("/till/b", 8, is_folder=True),
        Made("/till/b/a", FILE),
        synced("/till/b", 8, 2),
    )

    assert of() in left_by(*events)
    assert left_by(*events, synced("/till", 0, 3)) == {of(**{"b/a": b""})}


def test_rename_happens_or_does_not() -> None:
    before = {"/till/a": b"new", "/till/b": b"old"}

    left = left_by(Renamed("/till/a", "/till/b"), before=before)

    assert left == {of(a=b"new", b=b"old"), of(b=b"new")}


def test_file_that_was_removed_may_come_back() -> None:
    left = left_by(Removed("/till/a"), before={"/till/a": b"one"})

    assert left == {of(), of(a=b"one")}


def test_no_later_sync_brings_what_a_failed_one_gave_up_but_writing_it_again_does() -> None:
    failed = (*MADE, Written(FILE, 0, b"one"), synced("/till/a", FILE, 3, is_good=False))
    after = (*failed, Written(FILE, 3, b"two"), synced("/till/a", FILE, 5))

    assert left_by(*after) == {of(a=b"\0\0\0two"), of(a=b"onetwo")}
    again = (*after, Written(FILE, 0, b"one"), synced("/till/a", FILE, 7))
    assert left_by(*again) == {of(a=b"onetwo")}


def test_cut_file_is_short_for_certain_once_it_is_synced() -> None:
    events = (Cut(1, 1),)
    before = {"/till/a": b"one"}

    assert left_by(*events, before=before) == {of(a=b"one"), of(a=b"o")}
    assert left_by(*events, synced("/till/a", 1, 1), before=before) == {of(a=b"o")}
