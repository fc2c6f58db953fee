"""The last 24 hours as the marks of a picture. Pure: numbers become places, a template draws them.

The picture is 10 units wide an hour and 100 high; it is stretched to the page's width, so nothing
in it is text. Words and numbers stand beside it, and all of it once more in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.status.day import Hour
from agent.status.words import Words

HEIGHT = 100.0
_STEP = 10.0
_WIDE, _NARROW = 7.0, 3.2


@dataclass(frozen=True)
class Bar:
    """A rectangle that stands on the ground."""

    kind: str  # accepted, delivered
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Row:
    """One hour, for the table and for who points at it."""

    hour: str
    accepted: str
    delivered: str
    waiting: str
    title: str
    x: float
    mark: str  # what to write below it: nothing, "three" or "six" where its number is a multiple


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn and written."""

    width: float
    bars: tuple[Bar, ...]
    lines: tuple[str, ...]  # of what waited: the points of a polyline for each time of waiting
    scale: tuple[str, str, str]  # numbers at the top, in the middle and on the ground
    rows: tuple[Row, ...]
    about: str


def chart(hours: Sequence[Hour], words: Words) -> Chart:
    """Lay the hours out, the oldest at the left."""
    most = max((max(hour.accepted, hour.delivered, hour.waiting) for hour in hours), default=0)
    top = _top(most)
    number = words.number
    return Chart(
        width=_STEP * len(hours),
        bars=tuple(bar for place, hour in enumerate(hours) for bar in _bars(place, hour, top)),
        lines=tuple(_lines(hours, top)),
        scale=(number(top), number(top // 2), number(0)),
        rows=tuple(
            _row(place, hour, words, is_last=place == len(hours) - 1)
            for place, hour in enumerate(hours)
        ),
        about=words("chart.about", most=number(most)) if most else words("chart.nothing"),
    )


def _top(most: int) -> int:
    """Give a round even number that the highest mark reaches or stays below."""
    tens = 1
    while True:
        for first in (4, 6, 8, 10, 20, 30):
            if most <= first * tens:
                return first * tens
        tens *= 10


def _lines(hours: Sequence[Hour], top: int) -> Iterator[str]:
    """Give a line for each time in which something waited, with the hours around it."""
    points: list[str] = []
    for place, hour in enumerate(hours):
        before = hours[place - 1].waiting if place else 0
        after = hours[place + 1].waiting if place + 1 < len(hours) else 0
        if before or hour.waiting or after:
            points.append(f"{place * _STEP + _STEP / 2:g},{_y(hour.waiting, top):g}")
        elif points:
            yield " ".join(points)
            points = []
    if points:
        yield " ".join(points)


def _y(count: int, top: int) -> float:
    return round(HEIGHT * (1 - count / top), 2)


def _bars(place: int, hour: Hour, top: int) -> list[Bar]:
    middle = place * _STEP + _STEP / 2
    marks = (("accepted", hour.accepted, _WIDE), ("delivered", hour.delivered, _NARROW))
    return [
        Bar(kind, middle - width / 2, _y(count, top), width, HEIGHT - _y(count, top))
        for kind, count, width in marks
        if count
    ]


def _row(place: int, hour: Hour, words: Words, *, is_last: bool) -> Row:
    local = hour.begins_at.astimezone()
    text = f"{local:%H:%M}"
    if is_last:
        text = words("chart.until_now", hour=text)
    numbers = {
        "accepted": words.number(hour.accepted),
        "delivered": words.number(hour.delivered),
        "waiting": words.number(hour.waiting),
    }
    mark = "six" if local.hour % 6 == 0 else "three" if local.hour % 3 == 0 else ""
    return Row(
        hour=text,
        title=words("chart.of_hour", hour=text, **numbers),
        x=place * _STEP,
        mark=mark,
        **numbers,
    )
