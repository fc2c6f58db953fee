"""Takes out of a text what may tell of a person. Pure.

`mask` knows shapes: what looks like an e-mail address or a long number. `without` knows the values
themselves: what the POS sent, in whatever spelling Engage or a library may quote it.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

# An address, also as it stands in a URL.
_EMAIL = re.compile(r"[^\s@\"'<>]+(?:@|%40)[^\s@\"'<>]+", re.IGNORECASE)
# The numbers in a batch file's name say when and where it was made, and of whom it tells nothing.
_LONG_NUMBER = re.compile(
    r"(?<![0-9A-Za-z-])(?:\+|%2B)?\d[\d -]{6,}\d(?![0-9A-Za-z-])(?![\w-]*_contacts\.xml)", re.I
)

# What a contact's data says of the tenant, not of the person.
_IMPERSONAL = frozenset(
    ("contactType", "countryCode", "createdInStore", "gender", "language", "source", "id", "date")
)
_SHORTEST = 2  # a single letter names nobody, and its loss would spoil every text
_SHORTEST_WORD = 4  # of a value of several words
_SHORTEST_NUMBER = 6


def mask(text: str) -> str:
    """Remove what looks like an e-mail address, a phone or a personal number from a text."""
    return _LONG_NUMBER.sub("[number]", _EMAIL.sub("[e-mail]", text))


def is_plain(text: str) -> bool:
    """Say whether nothing in a text looks personal."""
    return mask(text) == text


def without(text: str, *data: Mapping[str, Any]) -> str:
    """Remove every value of a contact's data from a text, and what looks personal besides.

    `data` are attributes as a POS sends them; values are found in any case, and also quoted as in
    a URL, in JSON or in HTML. In their place stands the attribute's name: `[firstName]`.
    """
    if not text:
        return text
    values = [found for attributes in data for found in _values(attributes)]
    found: dict[str, str] = {}
    for name, value in values:
        for pattern in _patterns(value):
            found.setdefault(pattern, name)
    for name, value in values:
        for word in _words(value):
            for spelling in _spellings(word):
                found.setdefault(re.escape(spelling), name)
    # The longest first, so that no part of a value is left over.
    patterns = sorted(found, key=len, reverse=True)
    if not patterns:
        return mask(text)
    groups = "|".join(f"(?P<v{number}>{pattern})" for number, pattern in enumerate(patterns))

    def name_of(match: re.Match[str]) -> str:
        return f"[{found[patterns[int((match.lastgroup or 'v0')[1:])]]}]"

    return mask(re.sub(rf"(?<!\w)(?:{groups})(?!\w)", name_of, text, flags=re.I))


def _values(attributes: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if name in _IMPERSONAL:
            continue
        yield from _texts(under or name, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield from _values(value, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(name, item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value).strip()
        if len(text) >= _SHORTEST:
            yield name, text


def _patterns(value: str) -> Iterator[str]:
    """Give regular expressions for a value in all its spellings."""
    for spelling in _spellings(value):
        yield re.escape(spelling)
    digits = re.sub(r"\D", "", value)
    if len(digits) >= _SHORTEST_NUMBER and not re.search(r"[^\W\d_]", value):
        # A number is written with blanks, dashes or brackets in between, as one likes.
        yield r"[^\w]{0,2}".join(digits)


def _words(value: str) -> Iterable[str]:
    """Give the words of a value that has several; of an address those before its domain."""
    parts = re.findall(r"\w+", value.partition("@")[0])
    return [part for part in parts if len(part) >= _SHORTEST_WORD] if len(parts) > 1 else ()


def _spellings(part: str) -> set[str]:
    return {
        part,
        quote(part, safe=""),
        quote_plus(part),
        json.dumps(part)[1:-1],
        html.escape(part),
        base64.b64encode(part.encode(errors="replace")).decode().rstrip("="),
    }
