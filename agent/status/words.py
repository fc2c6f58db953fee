"""Numbers, times and spans as a shop manager reads them. Pure."""

from __future__ import annotations

from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def counted(count: int, one: str, many: str) -> str:
    """Give a number with its word: `1 file`, `1,204 files`."""
    return f"{count:,} {one if count == 1 else many}"


def span(seconds: float) -> str:
    """Give a length of time in its one fitting unit, rounded down: `26 minutes`."""
    if seconds < _MINUTE:
        return "less than a minute"
    if seconds < 2 * _HOUR:
        return counted(int(seconds // _MINUTE), "minute", "minutes")
    if seconds < 2 * _DAY:
        return counted(int(seconds // _HOUR), "hour", "hours")
    return counted(int(seconds // _DAY), "day", "days")


def moment(when: datetime, now: datetime) -> str:
    """Give a moment on the till's own clock: `14:02`, with the day if it is not today's."""
    local, today = when.astimezone(), now.astimezone().date()
    if local.date() == today:
        return f"{local:%H:%M}"
    year = "" if local.year == today.year else f" {local.year}"
    return f"{local.day} {_MONTHS[local.month - 1]}{year}, {local:%H:%M}"


# Not strftime's: those follow the machine's locale, the rest of the page does not.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def size(count: int) -> str:
    """Give bytes in the unit that a person would use: `640 MB`, `79.8 GB`."""
    if count < 1024**3:
        return f"{count // 1024**2:,} MB"
    return f"{count / 1024**3:,.1f} GB"


def first_sentence(text: str) -> tuple[str, str]:
    """Split what went wrong from what follows it; the latter may be empty."""
    head, stop, rest = text.strip().partition(". ")
    return (f"{head}." if stop else head), rest.strip()
