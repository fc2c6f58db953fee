"""Today and the last 24 hours on the till's own clock, worked out from quarters of an hour."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from agent.journal.figures import Figures, Quarter
from agent.status import day

NOW = datetime(2026, 11, 21, 13, 28, tzinfo=UTC)  # 14:28 in Stockholm
MIDNIGHT = datetime(2026, 11, 20, 23, 0, tzinfo=UTC)


def quarter(begins_at: datetime, **numbers: int) -> Quarter:
    usual = {"accepted": 0, "delivered": 0, "by_file": 0, "rejected": 0, "net": 0}
    return Quarter(begins_at, **{**usual, **numbers})


def test_today_begins_at_the_tills_own_midnight() -> None:
    figures = Figures(
        (
            quarter(MIDNIGHT - timedelta(minutes=15), accepted=100, rejected=100),
            quarter(MIDNIGHT, accepted=1, delivered=2, by_file=3, rejected=4),
            quarter(
                NOW - timedelta(minutes=13), accepted=10, delivered=20, by_file=30, rejected=40
            ),
        ),
        open=0,
    )

    assert day.today(figures, NOW) == day.Today(11, 22, 33, 44)


def test_figures_that_a_wrong_clock_put_ahead_are_not_todays() -> None:
    figures = Figures((quarter(NOW + timedelta(days=400), accepted=5, net=5),), open=5)

    assert day.today(figures, NOW).accepted == 0
    assert {hour.accepted for hour in day.hours(figures, NOW)} == {0}


def test_there_are_24_hours_and_the_last_one_is_not_over() -> None:
    hours = day.hours(Figures((), open=0), NOW)

    assert len(hours) == 24
    assert hours[0].begins_at == datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
    assert hours[-1].begins_at == datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


def test_quarters_are_added_up_by_the_hour() -> None:
    ten = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    figures = Figures(
        tuple(
            quarter(ten + timedelta(minutes=15 * number), accepted=1, delivered=2)
            for number in range(5)
        ),
        open=0,
    )

    found = {f"{hour.begins_at:%H}": hour for hour in day.hours(figures, NOW)}

    assert (found["10"].accepted, found["10"].delivered) == (4, 8)
    assert (found["11"].accepted, found["11"].delivered) == (1, 2)


def test_what_waited_is_worked_out_backwards_from_what_waits_now() -> None:
    ten = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    figures = Figures(
        (
            quarter(ten, accepted=9, net=9),
            quarter(ten + timedelta(hours=2), delivered=4, net=-4),
        ),
        open=7,
    )

    waiting = {f"{hour.begins_at:%H}": hour.waiting for hour in day.hours(figures, NOW)}

    assert [waiting[hour] for hour in ("09", "10", "11", "12", "13")] == [2, 11, 11, 7, 7]


def test_waiting_is_never_less_than_nothing() -> None:
    figures = Figures((quarter(NOW, accepted=5, net=5),), open=0)

    assert all(hour.waiting == 0 for hour in day.hours(figures, NOW))


@pytest.mark.parametrize(
    ("zone", "now", "midnight"),
    [
        ("Asia/Kathmandu", "2026-11-21T13:28", "2026-11-20T18:15"),  # 5:45 ahead of UTC
        ("America/St_Johns", "2026-11-21T13:28", "2026-11-21T03:30"),  # 3:30 behind
        ("Europe/Stockholm", "2026-10-25T12:00", "2026-10-24T22:00"),  # clocks went back at 3:00
        ("Europe/Stockholm", "2026-03-29T12:00", "2026-03-28T23:00"),  # and forward
    ],
)
def test_a_day_begins_with_a_quarter_of_an_hour_in_every_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, now: str, midnight: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    first = datetime.fromisoformat(f"{midnight}+00:00")
    figures = Figures(
        (quarter(first - timedelta(minutes=15), accepted=100), quarter(first, accepted=1)), open=0
    )

    moment = datetime.fromisoformat(f"{now}+00:00")

    assert day.today(figures, moment).accepted == 1
    assert day.begin(moment) <= first


def test_enough_is_asked_for_to_fill_today_and_24_hours() -> None:
    late = datetime(2026, 11, 21, 22, 50, tzinfo=UTC)  # 23:50

    assert day.begin(late) == MIDNIGHT
    assert day.begin(NOW) == datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
