"""What an address may look like: readable in one way only, so that nobody has to guess. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from agent.errors import MalformedRequest

# The only parameter that may stand there more than once: its values are put together.
_MAY_REPEAT = frozenset({"clear"})
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SAYABLE = re.compile("[A-Za-z]{1,40}")  # any other name may hold somebody's data


def check_target(target: str) -> None:
    """Check a request's path and query as they came.

    Raises MalformedRequest for a % that is no escape, for what is not UTF-8, and for control
    characters.
    """
    if "%" not in target:
        return
    if _BROKEN_ESCAPE.search(target):
        raise _malformed("has a % that begins no escape")
    try:
        plain = unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8") from None
    if _CONTROL.search(plain):
        raise _malformed("has a control character")


def check_names(names: Iterable[str]) -> None:
    """Check the names of a query's parameters: MalformedRequest for one that stands there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen and name not in _MAY_REPEAT:
            which = f"`{name}`" if _SAYABLE.fullmatch(name) else "the same parameter"
            raise _malformed(f"has {which} more than once")
        seen.add(name)


def _malformed(what: str) -> MalformedRequest:
    return MalformedRequest(f"The address {what}. Nothing was stored.")
