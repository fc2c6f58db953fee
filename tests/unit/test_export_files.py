"""Which files are the export's, in which order they were made, and of what moment they tell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.register.files import ExportFile, in_order, is_meant, moment_of

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
LATE = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("20230507181112_16_members.xml", True),
        ("20190723144514_0_customers.XML", True),
        ("by-hand.xml", True),
        ("20230507181112_16_members.xml.part", False),
        (".20230507181112_16_members.xml", False),
        ("20230507181112_16_members.csv", False),
        ("a/b.xml", False),
        ("line\nbreak.xml", False),
        ("x" * 200 + ".xml", False),
    ],
)
def test_only_finished_xml_files_are_meant(name: str, meant: bool) -> None:
    assert is_meant(name) is meant


def test_files_go_by_their_time_and_then_by_their_number() -> None:
    names = [
        "20230507181112_0_members.xml",
        "20230507181112_2_members.xml",
        "20230507181112_16_members.xml",
        "by-hand.xml",
        "20230508000000_0_members.xml",
    ]
    by_hand = int(datetime(2023, 5, 7, 20, 0, tzinfo=UTC).timestamp())
    files = [ExportFile(name, 1, by_hand if name == "by-hand.xml" else LATE) for name in names]

    assert [
        file.name for file in in_order(sorted(files, key=lambda file: file.name[::-1]))
    ] == names


@pytest.mark.parametrize(
    ("name", "modified", "moment"),
    [
        # the stamp, as long as the server does not say that it was earlier
        ("20261121080000_0_members.xml", LATE, "2026-11-21T08:00:00+00:00"),
        # a stamp of a zone to the east of UTC
        ("20261121080000_0_members.xml", 1795244400, "2026-11-21T07:00:00+00:00"),
        ("20261121080000_0_members.xml", 0, "2026-11-21T08:00:00+00:00"),
        ("by-hand.xml", 1795244400, "2026-11-21T07:00:00+00:00"),
        # never one that is still to come
        ("20990101000000_0_members.xml", LATE, "2026-11-21T10:00:00+00:00"),
        ("by-hand.xml", 0, "2026-11-21T10:00:00+00:00"),
        # a stamp that is none
        ("20261399000000_0_members.xml", 1795244400, "2026-11-21T07:00:00+00:00"),
        ("by-hand.xml", 10**18, "1970-01-01T00:00:00+00:00"),
    ],
)
def test_moment_of_a_file_is_the_earliest_that_it_can_be(
    name: str, modified: int, moment: str
) -> None:
    assert moment_of(ExportFile(name, 1, modified), NOW) == datetime.fromisoformat(moment)
