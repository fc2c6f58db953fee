"""The values by which a person is found, in the one form in which they are sent and compared.

E-mail addresses, phone numbers and personal numbers; each function gives the form, or None for what
is no such value. Pure: nothing is asked of the network, and today's date is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

import phonenumbers
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from stdnum import luhn
from stdnum.exceptions import ValidationError
from stdnum.fi import hetu

from agent.contact import Key, comparable

EARLIEST_BIRTH = date(1900, 1, 1)  # nobody alive was born before

# Fast paths: email-validator and phonenumbers take about 45 µs each. What these accept, the
# libraries accept with the same result (property tests compare); the rest asks the library.
_PLAIN_EMAIL = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+[a-z]{2,}\Z"
)
_PLAIN_EMAIL_MAX = 63  # so that neither a label nor the local part can be too long
_RESERVED_ENDINGS = tuple(f".{name}" for name in SPECIAL_USE_DOMAIN_NAMES if name != "test")
_PLAIN_MOBILE = re.compile(r"\+467[02369][0-9]{7}\Z")
_GROUPED = re.compile(r"\+?[0-9]+(?:[ -][0-9]+)*\Z")  # as a cashier types it: 070-000 00 01

_EMAIL_MAX = 254  # octets of the whole address, RFC 5321 with RFC 3696's errata
_PHONE_MAX = 40  # more than any spelling of fifteen digits needs; keeps the library's work small
_PHONE_CHARACTERS = re.compile("[0-9 \u00a0()+./\u2010-\u2013-]+\\Z")

_SWEDISH = re.compile(r"([0-9]{2})?([0-9]{6})([-+ ]?)([0-9]{4})\Z")
_COORDINATION = 60  # is added to the day of birth in a coordination number


def email(value: str) -> str | None:
    """Give an e-mail address with its domain in lower case; None for what is none.

    Names under `.test` pass, other reserved ones do not. An international domain stays in the form
    in which it was written.
    """
    if (
        len(value) <= _PLAIN_EMAIL_MAX
        and _PLAIN_EMAIL.match(value)
        and not value.endswith(_RESERVED_ENDINGS)
    ):
        return value
    if len(value) > _EMAIL_MAX:
        return None
    try:
        found = validate_email(
            value, check_deliverability=False, test_environment=True, strict=True
        )
    except EmailNotValidError:
        return None
    if "." not in found.ascii_domain:
        return None
    domain = found.ascii_domain if value.rpartition("@")[2].isascii() else found.domain
    return f"{found.local_part}@{domain}"


def mobile_phone(value: str, region: str | None) -> str | None:
    """Give a phone number in E.164, e.g. `+46700000001`; None for what is none.

    `region` (ISO 3166) is where a number without a country code belongs; without it such a number
    is wrong. The number must be in a range that its country has given out: a digit too few is
    found while the customer still stands there.
    """
    plain = _plain_mobile(value, region)
    if plain is not None:
        return plain
    if len(value) > _PHONE_MAX or not _PHONE_CHARACTERS.match(value):
        return None
    try:
        found = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(found):
        return None
    return phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)


def phone_region(value: str) -> str | None:
    """Give the region (ISO 3166) of a number's country code; None for one without such a code."""
    if len(value) > _PHONE_MAX:
        return None
    try:
        found = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.region_code_for_country_code(found.country_code or 0)


def _plain_mobile(value: str, region: str | None) -> str | None:
    """Give a Swedish mobile number in E.164, or None if the library has to look at it."""
    if not _GROUPED.match(value):
        return None
    digits = value.replace(" ", "").replace("-", "")
    if region == "SE" and digits.startswith("07"):
        digits = "+46" + digits[1:]
    return digits if _PLAIN_MOBILE.match(digits) else None


def personal_number(value: str, today: date) -> str | None:
    """Give a Swedish or Finnish personal number; None for what is none.

    The form decides which of them it is. Swedish personal and coordination numbers, 10 or 12
    digits, become 12 digits without a sign: `198112289874`. Ten digits mean somebody under 100
    years, with `+` somebody who turns 100 this year or has done so. Finnish codes keep their sign
    and are in upper case: `131052-308T`; those with the individual number 900 to 999, which are for
    tests, pass.
    """
    match = _SWEDISH.match(value)
    if match is not None:
        century, birth, sign, serial = match.groups()
        digits = _twelve_digits(century, birth, sign, serial, today)
        return digits if digits is not None and luhn.is_valid(digits[2:]) else None
    code = _finnish_code(value)
    if code is None:
        return None
    century = 2000 if code[6] in "ABCDEF" else 1900
    birth = code[4:6] + code[2:4] + code[:2]
    is_born = code[6] != "+" and _day_of(century + int(birth[:2]), birth, today) is not None
    return code if is_born else None


def born_on(number: str) -> date:
    """Give the day of birth that a personal number tells, as personal_number() has returned it."""
    if number.isdigit():  # Swedish, twelve digits
        return _date(int(number[:4]), number[2:8])
    century = 2000 if number[6] in "ABCDEF" else 1900
    return _date(century + int(number[4:6]), number[4:6] + number[2:4] + number[:2])


def _twelve_digits(
    century: str | None, birth: str, sign: str, serial: str, today: date
) -> str | None:
    """Give year, month, day as written and the last four, or None if there is no such day."""
    if century is not None:
        year = int(century + birth[:2])
    else:
        year = today.year - (today.year - int(birth[:2])) % 100
        if sign == "+" or _day_of(year, birth, today) is None:
            year -= 100
    if _day_of(year, birth, today) is None:
        return None
    return f"{year}{birth[2:]}{serial}"


def _finnish_code(value: str) -> str | None:
    if len(value) != 11:
        return None
    try:
        code = str(hetu.validate(value, allow_temporary=True))
    except ValidationError:
        return None
    return code if code.isascii() else None  # the library takes digits of other scripts, too


def _day_of(year: int, birth: str, today: date) -> date | None:
    try:
        born = _date(year, birth)
    except ValueError:
        return None
    return born if EARLIEST_BIRTH <= born <= today else None


def _date(year: int, birth: str) -> date:
    """Give the day of YYMMDD in a year; a coordination number has 60 added to the day."""
    day = int(birth[4:])
    return date(year, int(birth[2:4]), day - _COORDINATION if day > _COORDINATION else day)


# --- keys as somebody else wrote them -------------------------------------------------------------


def key_as_stored(name: str, value: str, region: str | None, today: date) -> Key:
    """Give a key as intake would have stored it, however it was written.

    A look-up may say `070-000 00 01` or `811228-9874` for what a sign-up stored as `+46700000001`
    and `198112289874`. What is no such value is compared as it is.
    """
    value = value.strip()
    return Key(name, comparable(name, _checked(name, value, region, today) or value))


def keys_as_stored(keys: Iterable[Key], region: str | None, today: date) -> tuple[Key, ...]:
    """Give several keys as intake would have stored them."""
    return tuple(key_as_stored(key.name, key.value, region, today) for key in keys)


def key_that_any_means(value: str, custom_key: str, region: str | None, today: date) -> Key:
    """Give the one key for which Engage takes the parameter `any`.

    It stops at the first kind of key for which the value is valid, hit or not: e-mail, personal
    number, phone, and only then the tenant's own key (Engage's docs, "Find contact").
    """
    for name in ("email", "socialSecurityNumber", "mobilePhone"):
        if _checked(name, value.strip(), region, today) is not None:
            return key_as_stored(name, value, region, today)
    return Key(custom_key, comparable(custom_key, value))


def _checked(name: str, value: str, region: str | None, today: date) -> str | None:
    if name == "email":
        return email(value)
    if name == "mobilePhone":
        return mobile_phone(value, region)
    if name == "socialSecurityNumber":
        return personal_number(value, today)
    return None
