"""What a contact in Engage does not have as it was sent. Pure; used after an import.

Engage's docs do not say in which form it stores what it is sent. Each form that is taken for the
same value is named below, with its source or as an assumption; all else is another value. A wrong
assumption costs one update by the API and a line on the page, a missed difference a customer's
address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from agent import identifiers


def differs(
    wanted: Mapping[str, Any], found: Mapping[str, Any], *, mended: bool = False
) -> tuple[str, ...]:
    """Give the names of attributes that a contact in Engage does not have as they were sent.

    `found` is a contact as Engage answers it. Of a consent only its value is compared: when and
    where it was given is not known to come back as it was sent. `mended`: Engage has taken these
    values by an update since; in which case it writes them then is its own affair.
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
        and not _same(name, value, have.get(name.casefold()), mended=mended)
    ]
    missing += _other_preferences(wanted.get("preferences"), found.get("preferences"))
    missing += _other_consents(wanted.get("consents"), found.get("consents"))
    return tuple(missing)


def _same(name: str, wanted: Any, found: Any, *, mended: bool) -> bool:
    if _is_empty(wanted) or _is_empty(found):
        return _is_empty(wanted) and _is_empty(found)
    if name in _SAME:
        return _SAME[name](_text(wanted), _text(found))
    # Assumption: Engage may give a tenant's own attribute as a text, whatever its type was.
    if isinstance(wanted, bool) or isinstance(found, bool):
        return _text(wanted).lower() == _text(found).lower()
    if isinstance(wanted, int | float) or isinstance(found, int | float):
        return _number(wanted) == _number(found)
    left, right = _text(wanted), _text(found)
    return left == right or (mended and _same_but_for_case(left, right))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> str:
    """Give a text as it was typed; intake trims it, and Unicode's two spellings of é are one."""
    return unicodedata.normalize("NFC", str(value).strip())


# As JSON writes a number, without an exponent: 007 is a text of its own.
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def _number(value: Any) -> Decimal | str:
    text = _text(value)
    if isinstance(value, int | float) or _DECIMAL.fullmatch(text):
        return Decimal(text)
    return text


# --- attributes that may come back in another form ------------------------------------------------


def _same_phone(left: str, right: str) -> bool:
    """Compare phone numbers as such.

    Engage's docs, "Contact field definitions": with the calling code. Assumption: it may be spaced,
    or written as in its own country.
    """
    region = identifiers.phone_region(left) or identifiers.phone_region(right)
    return _phone(left, region) == _phone(right, region)


def _phone(text: str, region: str | None) -> str:
    return identifiers.mobile_phone(text, region) or re.sub(r"[\s()./-]", "", text)


_SWEDISH = re.compile(r"([0-9]{2})?([0-9]{6})([-+ ]?)([0-9]{4})")


def _same_personal_number(left: str, right: str) -> bool:
    """Compare personal numbers, which Engage knows with and without century and dash.

    Engage's docs, "Contact field definitions" and "Preparing your file". In a Finnish one the sign
    says the century, so it counts.
    """
    one, other = _SWEDISH.fullmatch(left), _SWEDISH.fullmatch(right)
    if one is None or other is None:
        return left.upper() == right.upper()
    if one[2] != other[2] or one[4] != other[4]:
        return False
    if one[1] is None and other[1] is None:
        return (one[3] == "+") == (other[3] == "+")
    return one[1] == other[1] or None in (one[1], other[1])


_MIDNIGHT = re.compile(r"[T ]00:00(:00([.]0+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?")


def _same_day(left: str, right: str) -> bool:
    """Compare days of birth; assumption: Engage may add midnight to one."""
    return _day(left) == _day(right)


def _day(text: str) -> str:
    return text[:10] if _MIDNIGHT.fullmatch(text[10:]) else text


def _same_zip_code(left: str, right: str) -> bool:
    """Compare zip codes; assumption: Engage may space them in another way."""
    return "".join(left.split()) == "".join(right.split())


def _same_but_for_case(left: str, right: str) -> bool:
    """Compare what means the same in capitals; assumption: Engage may write it so, or not.

    Two people never have addresses that differ by that alone; countries and languages are codes.
    Names and streets are not among them: a cashier puts their capitals right.
    """
    return left.lower() == right.lower()


_SAME: Mapping[str, Callable[[str, str], bool]] = {
    "mobilePhone": _same_phone,
    "socialSecurityNumber": _same_personal_number,
    "birthDay": _same_day,
    "zipCode": _same_zip_code,
    "email": _same_but_for_case,
    "countryCode": _same_but_for_case,
    "lang": _same_but_for_case,
    "gender": _same_but_for_case,
}


# --- preferences and consents ---------------------------------------------------------------------


def preference_name(name: str) -> str:
    """Give a preference's name in the form in which two spellings of it are equal.

    Engage answers `AcceptsEmails` in one place and `acceptsEmail` in another, as its public clients
    read them.
    """
    return name.casefold().removesuffix("s")


def _other_preferences(wanted: Any, found: Any) -> list[str]:
    if not isinstance(wanted, dict):
        return []
    given = found if isinstance(found, dict) else {}
    have = {preference_name(str(name)): value for name, value in given.items()}
    return [
        f"preferences.{name}"
        for name, value in wanted.items()
        if given.get(name, have.get(preference_name(name))) is not value
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
