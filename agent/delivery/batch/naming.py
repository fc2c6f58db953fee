"""Whether a turned document still names each contact by what Engage finds it by. Pure.

A stylesheet may write a key as the tenant's import wants it: in another case, without signs or
country code, with something before or behind it. It must stand as a value of its own: an element
that no template matches leaves its texts behind, all in a row (docs/decisions/0023).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from agent.contact import KEY_ATTRIBUTES
from agent.delivery.batch.document import Element

# What two spellings have in common at their end: with a country code or without, with a year in
# four digits or in two.
_TAIL = 8
_NUMBERS = ("mobilePhone", "socialSecurityNumber")
_LONG_ENOUGH = 5  # shorter keys may stand in another value by chance


def unnamed(
    elements: Sequence[Element], values: Collection[str], contact_key: str
) -> tuple[int, ...]:
    """Give the positions of the contacts that none of these texts names.

    `values` are the texts and attribute values of the turned document. A contact is named by
    Engage's GUID where it has one, and by `contact_key` unless it is about to get another; without
    either by its first key. Who has none of them cannot be looked for, and counts as named.
    """
    folded = {_folded(value) for value in values}
    return tuple(
        position
        for position, element in enumerate(elements)
        if (keys := _keys(element, contact_key))
        and not any(_folded(key) in folded for _, key in keys)
        and not any(_names(value, *key, element) for key in keys for value in values)
    )


def _keys(element: Element, contact_key: str) -> list[tuple[str, str]]:
    found = [] if element.contact_id is None else [("contactId", element.contact_id)]
    if element.gets_key:
        return found
    for name in (contact_key, *KEY_ATTRIBUTES):
        if isinstance(value := element.attributes.get(name), str) and _folded(value):
            return [*found, (name, value)]
    return found


def _names(value: str, name: str, key: str, element: Element) -> bool:
    """Say whether a value is the key in another form, and nothing of the contact beside it."""
    if "\n" in value.strip():
        return False
    text, sought = _folded(value), _folded(key)
    if name in _NUMBERS and _TAIL <= len(text) <= len(sought) + 2:
        return text[-_TAIL:] == sought[-_TAIL:]
    if text.lstrip("0") == sought.lstrip("0"):
        return True
    if len(sought) < _LONG_ENOUGH:
        return sought in re.findall(r"\w+", value.casefold())
    before, found, behind = text.partition(sought)
    return bool(found) and not any(
        other in before or other in behind for other in _others(element.attributes, name)
    )


def _others(attributes: Mapping[str, Any], name: str) -> Iterator[str]:
    """Give what else is said of a contact; two letters may be a country in front of a number."""
    for other, value in attributes.items():
        if other != name and isinstance(value, str) and len(text := _folded(value)) > 2:
            yield text


def _folded(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
