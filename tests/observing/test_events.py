"""What becomes of an event: its line, what is kept of it, and what is never in it."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from log_lines import LogLines

from agent import events


def test_each_event_is_one_json_line_with_name_level_and_time(log: LogLines) -> None:
    events.log().info("change_tried", change="c-1", status=201)

    (line,) = log.all()
    assert (line["event"], line["level"], line["change"]) == ("change_tried", "info", "c-1")
    assert line["timestamp"].endswith("Z")


def test_line_breaks_in_a_text_do_not_make_a_second_line(log: LogLines) -> None:
    events.log().error("trouble", error='first\n{"event": "forged"}')

    assert len(log.text.splitlines()) == 1
    assert log.of(event="forged") == []


def test_field_that_no_event_has_is_masked(log: LogLines) -> None:
    events.log().info("slip", first_name="Vera")

    assert log.all()[0]["first_name"] == "[masked]"


def test_bug_is_logged_by_its_kind_and_places_and_never_by_its_words(log: LogLines) -> None:
    try:
        try:
            int("Vera")
        except ValueError as inner:
            raise KeyError("Lind") from inner
    except KeyError as error:
        events.log().error("request_bug", exception=error)

    (line,) = log.all()
    assert "KeyError at test_events.py:" in line["exception"]
    assert "from ValueError" in line["exception"]
    assert "Vera" not in log.text
    assert "Lind" not in log.text


def test_what_a_library_logs_is_an_event_without_its_words(log: LogLines) -> None:
    handler = events._Libraries(logging.WARNING)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        logger.error("cannot parse %s", "vera@example.test")
    finally:
        logger.removeHandler(handler)

    (line,) = log.of(event="library_event")
    assert line["logger"] == "some.library"
    assert "vera" not in log.text


def test_latest_lines_are_kept_and_bounded_and_troubles_longer(log: LogLines) -> None:
    events.log().error("journal_trouble", where="test")
    for number in range(2000):
        events.log().info("change_tried", number=number)

    lines = events.recent.lines()
    assert len(lines) == 500
    assert json.loads(lines[-1])["number"] == 1999
    assert [json.loads(line)["event"] for line in events.recent.notable()] == ["journal_trouble"]


def test_level_of_the_settings_decides_what_is_logged() -> None:
    stream = io.StringIO()
    events.set_up("warning", "json", stream)
    try:
        events.log().info("quiet")
        events.log().warning("loud")
    finally:
        structlog.reset_defaults()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_without_any_set_up_events_are_masked_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    structlog.reset_defaults()

    events.log().error("slip", name_of_person="Vera", exception=ValueError("Vera"))

    structlog.reset_defaults()
    printed = capsys.readouterr().out
    assert "slip" in printed
    assert "Vera" not in printed
