"""Which attributes a contact has at Engage, and what makes a value wrong. Pure.

Names and formats as in Engage's docs, "Contact field definitions". Each check answers in one
sentence what is wrong, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any

Check = Callable[[Any], str | None]

_EMAIL = re.compile(r"[^@\s<>,;\"]{1,64}@(?:[\w](?:[\w-]*[\w])?\.)+[^\W\d_]{2,}\Z")
_PHONE = re.compile(r"\+[1-9]\d{6,14}\Z")
_SWEDISH = re.compile(r"(?:\d{2})?(\d{2})(\d{2})(\d{2})[-+]?(\d{4})\Z")
_FINNISH = re.compile(r"(\d{2})(\d{2})(\d{2})[-+A-FU-Y](\d{3})([0-9A-Y])\Z")
_FINNISH_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_COORDINATION_DAYS = 60  # a Swedish coordination number carries the day of birth plus 60


def text(value: Any) -> str | None:
    """Accept a string."""
    return None if isinstance(value, str) else "must be a text"


def email(value: Any) -> str | None:
    """Accept an e-mail address; only the form is looked at."""
    if isinstance(value, str) and _EMAIL.match(value):
        return None
    return "is not a valid e-mail address"


def phone(value: Any) -> str | None:
    """Accept E.164 with the plus sign and without blanks, e.g. `+46700000001`."""
    if isinstance(value, str) and _PHONE.match(value):
        return None
    return "is not a valid phone number with its calling code"


def personal_number(value: Any) -> str | None:
    """Accept a Swedish personal or coordination number, or a Finnish personal identity code."""
    if isinstance(value, str) and (_is_swedish(value) or _is_finnish(value)):
        return None
    return "is not a valid social security number"


def birth_day(value: Any) -> str | None:
    """Accept `YYYY-MM-DD`, not in the future."""
    day = day_of(value)
    if day is None:
        return "must be a date as YYYY-MM-DD"
    return "lies in the future" if day > date.today() else None


def country_code(value: Any) -> str | None:
    """Accept two letters."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2}", value):
        return None
    return "must be a country code of two letters"


def gender(value: Any) -> str | None:
    """Accept one of Engage's three values."""
    return None if value in {"Male", "Female", "Other"} else "must be Male, Female or Other"


def scalar(value: Any) -> str | None:
    """Accept what a custom attribute may hold; its type is the tenant's affair."""
    if isinstance(value, str | int | float | bool):
        return None
    return "must be a text, a number, true or false"


def day_of(value: Any) -> date | None:
    """Return the day written as `YYYY-MM-DD`, or None."""
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def age_on(day: date, today: date) -> int:
    """Return full years."""
    return today.year - day.year - ((today.month, today.day) < (day.month, day.day))


def _is_swedish(value: str) -> bool:
    match = _SWEDISH.match(value)
    if match is None:
        return False
    year, month, day, last = match.groups()
    if not 1 <= int(month) <= 12 or not 1 <= int(day) % _COORDINATION_DAYS <= 31:
        return False
    total = 0
    for place, digit in enumerate(year + month + day + last):
        product = int(digit) * (2 if place % 2 == 0 else 1)
        total += product // 10 + product % 10
    return total % 10 == 0


def _is_finnish(value: str) -> bool:
    match = _FINNISH.match(value.upper())
    if match is None:
        return False
    day, month, year, number, sign = match.groups()
    if not 1 <= int(day) <= 31 or not 1 <= int(month) <= 12:
        return False
    return _FINNISH_SIGNS[int(day + month + year + number) % 31] == sign


def same_key(key: str, value: Any) -> str:
    """Return the form in which two values of a key attribute are compared.

    E-mail addresses compare without case, phone numbers without blanks, Swedish personal numbers
    by their last ten digits.
    """
    spelled = str(value).strip()
    if key == "mobilePhone":
        return re.sub(r"[\s()-]", "", spelled)
    if key == "socialSecurityNumber":
        digits = re.sub(r"\D", "", spelled)
        return digits[-10:] if _is_swedish(spelled) else spelled.upper()
    return spelled.casefold()


KEYS = ("email", "mobilePhone", "socialSecurityNumber", "externalId", "memberNumber")

# Engage's docs, "Contact field definitions".
STANDARD: dict[str, Check] = {
    "firstName": text,
    "lastName": text,
    "memberNumber": text,
    "socialSecurityNumber": personal_number,
    "email": email,
    "mobilePhone": phone,
    "createdInStore": text,
    "store": text,
    "street": text,
    "zipCode": text,
    "city": text,
    "careOf": text,
    "country": text,
    "countryCode": country_code,
    "lang": text,
    "birthDay": birth_day,
    "gender": gender,
    "externalId": text,
}

# As written; the answers spell them in another way (PREFERENCES_AS_READ).
PREFERENCES = ("acceptsEmail", "acceptsSms", "acceptsPostal")
PREFERENCES_AS_READ = {
    "acceptsEmail": "AcceptsEmails",
    "acceptsPostal": "AcceptsPostals",
    "acceptsSms": "AcceptsSms",
}
