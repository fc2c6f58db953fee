"""What a contact in Engage does not have as it was sent. Pure; used after an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the names of attributes that a contact in Engage does not have as they were sent.

    `found` is a contact as Engage answers it. Engage spells preferences in two ways (with and
    without a plural s, upper or lower case) and may format values, so spelling is not compared.
    """
    attributes = found.get("attributes")
    have = {
        str(name).casefold(): value
        for name, value in (attributes.items() if isinstance(attributes, dict) else ())
    }
    missing = [
        name
        for name, value in wanted.items()
        if name not in ("preferences", "consents", "contactType")
        and not _same(name, value, have.get(name.casefold()))
    ]
    missing += _other_preferences(wanted.get("preferences"), found.get("preferences"))
    missing += _other_consents(wanted.get("consents"), found.get("consents"))
    return tuple(missing)


def _same(name: str, wanted: Any, found: Any) -> bool:
    if found is None:
        return wanted is None or wanted == ""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return str(wanted).casefold() == str(found).casefold()
    left, right = str(wanted).strip(), str(found).strip()
    if name in ("mobilePhone", "socialSecurityNumber", "zipCode"):
        return _alphanumeric(left).endswith(_alphanumeric(right)) or _alphanumeric(right).endswith(
            _alphanumeric(left)
        )
    if name == "birthDay":
        return left[:10] == right[:10]
    return left.casefold() == right.casefold()


def _alphanumeric(text: str) -> str:
    return "".join(character for character in text if character.isalnum()).casefold()


def preference_name(name: str) -> str:
    """Give a preference's name in the form in which two spellings of it are equal."""
    return name.casefold().removesuffix("s")


def _other_preferences(wanted: Any, found: Any) -> list[str]:
    if not isinstance(wanted, dict):
        return []
    have = {
        preference_name(str(name)): value
        for name, value in (found.items() if isinstance(found, dict) else ())
    }
    return [
        f"preferences.{name}"
        for name, value in wanted.items()
        if have.get(preference_name(name)) is not value
    ]


def _other_consents(wanted: Any, found: Any) -> list[str]:
    if not isinstance(wanted, list):
        return []
    have = {
        str(item.get("id")): item.get("value")
        for item in (found if isinstance(found, list) else ())
        if isinstance(item, dict)
    }
    return [
        f"consents.{item['id']}"
        for item in wanted
        if isinstance(item, dict) and have.get(str(item.get("id"))) is not item.get("value")
    ]
