"""One check per kind of value: the value in the form in which Engage wants it, or what is wrong.

Owns the standard attributes of a contact (Engage's docs, "Contact field definitions"). Pure:
today's date is an argument. Knows no requests, settings or sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from agent import identifiers

# What Engage knows by itself and a POS may write, apart from preferences and consents.
STANDARD_ATTRIBUTES = (
    "firstName",
    "lastName",
    "memberNumber",
    "socialSecurityNumber",
    "email",
    "mobilePhone",
    "createdInStore",
    "store",
    "street",
    "zipCode",
    "city",
    "careOf",
    "country",
    "countryCode",
    "lang",
    "birthDay",
    "gender",
    "externalId",
)

# What Engage works out by itself: exact names, and beginnings of names.
READ_ONLY = frozenset({"age", "rfm"})
READ_ONLY_PREFIXES = ("retail.keyvalue.", "nps.")

# As Engage wants them written; some of its answers spell them AcceptsEmails and so on.
PREFERENCES = ("acceptsEmail", "acceptsSms", "acceptsPostal")

CONSENT_MEMBERS = ("id", "value", "date", "source", "comment")

GENDERS = ("Male", "Female", "Other")

# ISO 3166-1 alpha-2, officially assigned codes.
_ISO_3166 = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_ISO_3166.split())

# A name that can be written as an XML element, too.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}\Z")

# What XML 1.0 cannot hold (its production 2, Char); lone surrogates break UTF-8 as well.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

# What Python takes for white space, but for the control characters among it: those are no blanks.
_BLANKS = "".join(
    character
    for character in map(chr, range(0x3001))
    if character.isspace() and not _FORBIDDEN.match(character)
)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})\Z"
)


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a value; never carries the value."""

    code: str  # one of words.CODES
    at: str = ""  # where inside the value: ".acceptsSms", "[0].value"
    suggestion: str = ""  # the nearest known name


def is_empty(value: Any) -> bool:
    """Say whether a value holds nothing: null, or a text of blanks at most."""
    if not isinstance(value, str):
        return value is None
    return not value or (value.isspace() and not trimmed(value))


def trimmed(text: str) -> str:
    """Return a text without blanks at its ends; what XML cannot hold is no blank and stays."""
    return text.strip(_BLANKS)


def is_name(text: str) -> bool:
    """Say whether a text can be an attribute's name, in JSON as well as in XML."""
    return _NAME.match(text) is not None


def has_forbidden(text: str) -> bool:
    """Say whether a text holds a character that XML 1.0 or UTF-8 cannot hold."""
    return not text.isprintable() and _FORBIDDEN.search(text) is not None


def number(value: float) -> bool:
    """Say whether a number can be sent: finite, and in 64 bits if it is whole."""
    return math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63


def text(value: Any) -> str | Wrong:
    """Return a text trimmed at its ends; a whole number becomes its digits.

    Engage turns numbers into texts by itself, and POS software does send `"zipCode": 11122`.
    """
    if isinstance(value, str):
        written = trimmed(value)
        return Wrong("ControlCharacter") if has_forbidden(written) else written
    if isinstance(value, int) and not isinstance(value, bool) and number(value):
        return str(value)
    return Wrong("WrongType")


def custom(value: Any) -> str | int | float | bool | Wrong:
    """Return what a tenant's own attribute holds; its type is the tenant's affair."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if number(value) else Wrong("WrongType")
    return text(value)


def email(value: str) -> str | Wrong:
    """Return an e-mail address with its domain in lower case."""
    return identifiers.email(value) or Wrong("BadEmail")


def mobile_phone(value: str, region: str | None) -> str | Wrong:
    """Return a phone number in E.164; `region` is where one without a country code belongs."""
    return identifiers.mobile_phone(value, region) or Wrong("BadPhone")


def birth_day(value: str, today: date) -> str | Wrong:
    """Return a day of birth, `YYYY-MM-DD`, from 1900 until today."""
    if not _DATE.match(value):
        return Wrong("BadBirthDay")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return Wrong("BadBirthDay")
    if day > today:
        return Wrong("BirthDayInFuture")
    return Wrong("BirthDayTooEarly") if day < identifiers.EARLIEST_BIRTH else value


def personal_number(value: str, today: date) -> str | Wrong:
    """Return a Swedish personal number in 12 digits, or a Finnish one with its sign."""
    return identifiers.personal_number(value, today) or Wrong("BadPersonalNumber")


def age_of(born: date, today: date) -> int:
    """Return how many years somebody has completed; who was born on a leap day, on 1 March."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


def born_by(name: str, value: str) -> date:
    """Return the day of birth that a birthDay or socialSecurityNumber tells.

    The value is one that the check of that attribute has returned.
    """
    if name == "birthDay":
        return date.fromisoformat(value)
    return identifiers.born_on(value)


def country_code(value: str) -> str | Wrong:
    """Return an ISO 3166 code of two letters in upper case."""
    code = value.upper()
    return code if value.isascii() and code in COUNTRIES else Wrong("BadCountryCode")


def gender(value: str) -> str | Wrong:
    """Return Male, Female or Other; another case is put right."""
    word = value.capitalize()
    return word if word in GENDERS else Wrong("BadGender")


def preference(value: Any) -> bool | Wrong:
    """Return a preference's value: a boolean, and no text that looks like one."""
    return value if isinstance(value, bool) else Wrong("NotBoolean")


def consents(value: Any) -> tuple[list[dict[str, Any]], list[Wrong]]:
    """Return the consents and what is wrong with them.

    Shape: `[{id, value, date?, source?, comment?}]`, `id` a text, `value` a boolean, `date` in
    ISO 8601 with its zone. Empty optional members are left out. Engage needs `id` and `value`.
    """
    if not isinstance(value, list):
        return [], [Wrong("NotAList")]
    found: list[dict[str, Any]] = []
    problems: list[Wrong] = []
    seen: set[str] = set()
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            problems.append(Wrong("NotAnObject", f"[{index}]"))
            continue
        consent, wrongs = _consent(item)
        identity = consent.get("id")
        if identity in seen:
            wrongs.append(Wrong("DuplicateConsent", ".id"))
        elif identity is not None:
            seen.add(identity)
        problems += [
            Wrong(wrong.code, f"[{index}]{wrong.at}", wrong.suggestion) for wrong in wrongs
        ]
        found.append(consent)
    return found, problems


def _consent(item: Mapping[str, Any]) -> tuple[dict[str, Any], list[Wrong]]:
    consent: dict[str, Any] = {}
    wrongs: list[Wrong] = []
    for position, (name, value) in enumerate(item.items()):
        if name not in CONSENT_MEMBERS:
            wrongs.append(_unknown_member(name, position))
        elif not is_empty(value):
            checked = _CONSENT_CHECKS[name](value)
            if isinstance(checked, Wrong):
                wrongs.append(Wrong(checked.code, f".{name}"))
            else:
                consent[name] = checked
    wrongs += [
        Wrong("Required", f".{name}") for name in ("id", "value") if is_empty(item.get(name))
    ]
    return consent, wrongs


def _unknown_member(name: str, position: int) -> Wrong:
    if not is_name(name):
        return Wrong("BadName", f".#{position + 1}")
    suggestion = name.lower() if name.lower() in CONSENT_MEMBERS else ""
    return Wrong("UnknownAttribute", f".{name}", suggestion)


def _moment(value: Any) -> str | Wrong:
    written = trimmed(value) if isinstance(value, str) else ""
    if not _MOMENT.match(written):
        return Wrong("BadDate")
    try:
        datetime.fromisoformat(written)
    except ValueError:
        return Wrong("BadDate")
    return written


_CONSENT_CHECKS = {
    "id": text,
    "value": preference,
    "date": _moment,
    "source": text,
    "comment": text,
}
