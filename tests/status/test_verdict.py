"""The sentence on top of the page, case by case, and what needs a person."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.change import Route, State
from agent.status.facts import (
    Facts,
    Line,
    OpenBatch,
    RegisterFill,
    RouteState,
    SkippedFile,
    Storage,
)
from agent.status.verdict import needs, verdict
from agent.status.words import words_of

NOW = datetime(2026, 11, 21, 13, 28, tzinfo=UTC)  # 14:28 in Stockholm
ZERO = dict.fromkeys(State, 0)
STORAGE = Storage(
    write_problem=None,
    read_problem=None,
    since=None,
    is_full=False,
    free_bytes=80 * 1024**3,
    min_free_bytes=64 * 1024**2,
    sqlite_version="3.40.1",
    is_encrypted=False,
)
FULL = replace(STORAGE, is_full=True, free_bytes=1024)
BROKEN = replace(STORAGE, write_problem="The journal is damaged. Nothing was stored.")
UNREADABLE = replace(STORAGE, read_problem="The till's disk does not answer.")
ONLINE = Line("online", NOW - timedelta(hours=5), None, NOW)
DOWN = Line("offline", NOW - timedelta(minutes=26), "No answer.", None)
SHAKY = Line("suspect", NOW - timedelta(minutes=2), "No answer.", None)
RUNNING = {route: RouteState("running", None) for route in Route}
KEY_REFUSED = {
    **RUNNING,
    Route.API: RouteState("halted", "Engage refuses the API key. Put in the right one."),
}
FILE_PAUSED = {**RUNNING, Route.FILE: RouteState("paused", "Paused by hand.")}


def facts(**changed: Any) -> Facts:
    standard = Facts(
        version="0.1.0",
        store="0042",
        till="3",
        config_hash="9f3ac01b77de",
        retain_days=30,
        started_at=NOW,
        uptime_s=60,
        now=NOW,
        link=ONLINE,
        sftp=ONLINE,
        counts=ZERO,
        unsent=0,
        delivered=0,
        oldest_waiting_s=None,
        routes=RUNNING,
        batches=(),
        import_grace_s=7200,
        storage=STORAGE,
        problems=(),
        last_delivery=None,
        clock_ahead_s=None,
        today=None,
        hours=(),
        refused=(),
        troubles=(),
    )
    return replace(standard, **changed)


def batch(state: str, uploaded_hours_ago: float | None = None) -> OpenBatch:
    sealed_at = NOW - timedelta(hours=9)
    if uploaded_hours_ago is None:
        return OpenBatch("a_contacts.xml", state, 5, 1, None, sealed_at, None)
    age = timedelta(hours=uploaded_hours_ago)
    return OpenBatch(
        "a_contacts.xml", state, 5, 1, None, sealed_at, NOW - age, lies_s=age.total_seconds()
    )


REFUSED = {**ZERO, State.REJECTED: 3}
WAIT_37: dict[str, Any] = {"unsent": 37, "oldest_waiting_s": 26 * 60}

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # a fresh till
    ("good", {}, "fresh", "Ready for sign-ups. Nothing waits."),
    # everything is there; singular and plural
    ("good", {"delivered": 214}, "all", "Sign-ups are safe. All 214 are in Engage."),
    ("good", {"delivered": 1}, "one", "Sign-ups are safe. The one so far is in Engage."),
    # an import that nobody looks up is not "in Engage"
    (
        "good",
        {"delivered": 9, "counts": {**ZERO, State.IMPORTED: 4}},
        "imported",
        "Sign-ups are safe. All 9 were handed over to Engage.",
    ),
    # being sent: its age says nothing yet, later it does
    (
        "busy",
        {"unsent": 1, "oldest_waiting_s": 2},
        "sending",
        "Sign-ups are safe. 1 is on its way to Engage.",
    ),
    (
        "busy",
        {"unsent": 3, "oldest_waiting_s": 180},
        "backlog",
        "Sign-ups are safe. 3 are on their way to Engage, the oldest 3 minutes.",
    ),
    # the line
    (
        "busy",
        {"link": DOWN, **WAIT_37},
        "offline",
        "Sign-ups are safe. The line has been down since 14:02; 37 wait, the oldest 26 minutes. "
        "Go on as usual.",
    ),
    (
        "busy",
        {"link": DOWN, "unsent": 1, "oldest_waiting_s": 60},
        "offline, one",
        "Sign-ups are safe. The line has been down since 14:02; 1 waits, for 1 minute. "
        "Go on as usual.",
    ),
    (
        "busy",
        {"link": DOWN},
        "offline, idle",
        "Sign-ups are safe. The line has been down since 14:02; nothing waits. Go on as usual.",
    ),
    (
        "busy",
        {"link": replace(DOWN, since=NOW - timedelta(days=1))},
        "offline since yesterday",
        "Sign-ups are safe. The line has been down since 20 Nov, 14:28; nothing waits. "
        "Go on as usual.",
    ),
    (
        "busy",
        {"link": SHAKY, "unsent": 2, "oldest_waiting_s": 20},
        "suspect",
        "Sign-ups are safe. The line has been unsteady since 14:26; 2 wait.",
    ),
    # the file server alone: only worth a word while files lie here
    (
        "busy",
        {"sftp": DOWN, "batches": (batch("written"),), **WAIT_37},
        "files stuck",
        "Sign-ups are safe. The file server has been out of reach since 14:02; 37 wait, the "
        "oldest 26 minutes.",
    ),
    (
        "good",
        {"sftp": DOWN, "delivered": 2},
        "sftp idle",
        "Sign-ups are safe. All 2 are in Engage.",
    ),
    # a person is needed
    (
        "warning",
        {"counts": REFUSED},
        "refused",
        "Sign-ups are safe. 3 changes were refused. What to do stands below.",
    ),
    (
        "warning",
        {"counts": {**ZERO, State.REJECTED: 1}},
        "one refused",
        "Sign-ups are safe. 1 change was refused. What to do stands below.",
    ),
    (
        "warning",
        {"counts": REFUSED, "link": DOWN, **WAIT_37},
        "offline and refused",
        "Sign-ups are safe. 3 changes were refused. The line has been down since 14:02; 37 wait, "
        "the oldest 26 minutes. What to do stands below.",
    ),
    # halted before refused; what a halt holds is not on its way
    (
        "warning",
        {"routes": KEY_REFUSED, "counts": REFUSED, **WAIT_37},
        "halted and refused",
        "Sign-ups are safe. Sending to Engage is halted: Engage refuses the API key. 37 wait, the "
        "oldest 26 minutes. 1 more thing needs a person: see below.",
    ),
    (
        "warning",
        {"routes": FILE_PAUSED},
        "paused",
        "Sign-ups are safe. Sending by file was paused by hand. What to do stands below.",
    ),
    (
        "warning",
        {"batches": (batch("uploaded", 3), batch("uploaded", 1)), **WAIT_37},
        "not imported",
        "Sign-ups are safe. 1 uploaded file has not been taken in by Engage for more than 2 hours: "
        "a_contacts.xml. 37 are on their way to Engage, the oldest 26 minutes. What to do stands "
        "below.",
    ),
    (
        "warning",
        {"skipped_files": (SkippedFile("a_contacts.xml", 312, 0, 0),), **WAIT_37},
        "skipped",
        "Sign-ups are safe. Engage's import skipped the file a_contacts.xml: none of its 312 "
        "customers came in. 37 are on their way to Engage, the oldest 26 minutes. What to do "
        "stands below.",
    ),
    (
        "warning",
        {
            "skipped_files": (SkippedFile("a_contacts.xml", 312, 3, 320),),
            "counts": {**ZERO, State.REJECTED: 320},
        },
        "skipped again",
        "Sign-ups are safe. Engage's import skipped the file a_contacts.xml: only 3 of its 312 "
        "customers came in. What to do stands below.",
    ),
    (
        "warning",
        {"problems": ("The spool folder cannot be written. Give the agent's user access.",)},
        "reported",
        "Sign-ups are safe. The spool folder cannot be written. What to do stands below.",
    ),
    (
        "warning",
        {"storage": replace(STORAGE, free_bytes=100 * 1024**2)},
        "disk low",
        "Sign-ups are safe. The till's disk is nearly full. What to do stands below.",
    ),
    # nothing is called safe that nobody could look at
    (
        "warning",
        {"storage": UNREADABLE, "counts": None, "unsent": None, "link": DOWN},
        "unreadable",
        "New sign-ups are stored. The till's disk does not answer. The line has been down since "
        "14:02; how much waits is not known. What to do stands below.",
    ),
    # stopped: before everything else
    (
        "stop",
        {"storage": FULL},
        "full",
        "Sign-ups cannot be accepted: the till's disk is full. What was accepted before is safe. "
        "Free some disk space.",
    ),
    (
        "stop",
        {"storage": FULL, "counts": REFUSED, "routes": KEY_REFUSED, "link": DOWN, **WAIT_37},
        "full and all else",
        "Sign-ups cannot be accepted: the till's disk is full. What was accepted before is safe. "
        "Free some disk space. The line has been down since 14:02; 37 wait, the oldest 26 minutes.",
    ),
    (
        "stop",
        {"storage": BROKEN, "counts": None, "unsent": None},
        "broken",
        "Sign-ups cannot be accepted: the till cannot store anything right now. Write new ones "
        "down and tell whoever looks after this till.",
    ),
]


@pytest.mark.parametrize(
    ("level", "changed", "sentence"),
    [pytest.param(level, changed, words, id=name) for level, changed, name, words in CASES],
)
def test_verdict_says_in_words_how_it_stands(
    level: str, changed: dict[str, Any], sentence: str
) -> None:
    given = verdict(facts(**changed))

    assert (given.level, given.sentence) == (level, sentence)
    assert given.can_accept == (level != "stop")


def test_needs_are_listed_with_the_most_urgent_first() -> None:
    everything = facts(
        storage=FULL,
        routes={Route.API: FILE_PAUSED[Route.FILE], Route.FILE: KEY_REFUSED[Route.API]},
        problems=("The clock is wrong.",),
        counts=REFUSED,
        batches=(batch("uploaded", 3),),
    )

    found = [need.what for need in needs(everything)]

    assert found == [
        "The till's disk is full, so nothing more can be stored safely.",
        "Sending by file is halted: Engage refuses the API key.",
        "The clock is wrong.",
        "3 changes were refused.",
        "1 uploaded file has not been taken in by Engage for more than 2 hours: a_contacts.xml.",
        "Sending to Engage was paused by hand.",
    ]


def test_file_of_the_export_that_cannot_be_read_is_named() -> None:
    broken = ("20230507181112_16_members.xml (line 3 is not well-formed XML)", "b.xml (…)")

    (need,) = needs(facts(register=RegisterFill(5, None, None, broken)))

    assert need.count == 2
    assert need.what == (
        "2 files of Engage's member export cannot be read: "
        "20230507181112_16_members.xml (line 3 is not well-formed XML)."
    )
    assert "Voyado" in need.what_to_do


def test_files_that_lie_too_long_are_named_as_long_as_they_are_few() -> None:
    lying = [replace(batch("uploaded", 3), name=f"{number}.xml") for number in range(5)]

    (need,) = needs(facts(batches=tuple(lying)))

    assert need.what.endswith("2 hours: 0.xml, 1.xml, 2.xml and 2 more.")
    assert "till-agent batches withdraw 0.xml" in need.what_to_do


def test_file_skipped_twice_is_one_need_with_one_way_to_retry_it() -> None:
    skipped = SkippedFile("a_contacts.xml", 312, 0, 320)
    counts = {**ZERO, State.REJECTED: 321}

    of_the_file, of_the_other = needs(facts(counts=counts, skipped_files=(skipped,)))

    assert "till-agent batches retry a_contacts.xml" in of_the_file.what_to_do
    assert (of_the_file.count, of_the_other.what) == (320, "1 change was refused.")


def test_offline_line_needs_nobody() -> None:
    assert needs(facts(link=DOWN, sftp=DOWN, **WAIT_37)) == ()


def test_every_need_says_what_to_do_and_how_many() -> None:
    found = needs(facts(counts=REFUSED, problems=("The clock is wrong.",), routes=KEY_REFUSED))

    assert [need.count for need in found] == [1, 1, 3]
    assert [need.what_to_do for need in found][:2] == [
        "Put in the right one.",
        "Tell whoever looks after this till.",
    ]


def test_advice_for_the_pos_is_not_given_to_a_person() -> None:
    problem = "The journal cannot be written. Nothing was stored; send it again. Mend the disk."
    broken = facts(storage=replace(STORAGE, write_problem=problem))

    (need,) = needs(broken)

    assert need.what == "The journal cannot be written."
    assert need.what_to_do == "Mend the disk. Tell whoever looks after this till."


@pytest.mark.parametrize(
    ("grace_s", "language", "said"),
    [
        (7200, "en", "has not been taken in by Engage for more than 2 hours: a_contacts.xml."),
        (3, "en", "has not been taken in by Engage for more than 3 seconds: a_contacts.xml."),
        (3, "sv", "har inte hämtats av Engage på mer än 3 sekunder: a_contacts.xml."),
    ],
)
def test_file_left_lying_is_named_with_the_grace_in_words(
    grace_s: float, language: str, said: str
) -> None:
    lying = facts(batches=(batch("uploaded", 3),), import_grace_s=grace_s)

    (need,) = needs(lying, words_of(language))

    assert need.what.endswith(said)
