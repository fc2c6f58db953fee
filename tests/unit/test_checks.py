"""What each kind of value may look like, and the form in which Engage gets it."""

from __future__ import annotations

import string
from datetime import date
from typing import Any

import phonenumbers
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st
from stdnum.se import personnummer

from agent import identifiers
from agent.intake import checks, words
from agent.intake.checks import Wrong

TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("vera@example.test", "vera@example.test"),  # integrators test with .test
        ("Vera.Testsson@Example.TEST", "Vera.Testsson@example.test"),  # only the domain has no case
        ("vera+kiosk@mail.example.test", "vera+kiosk@mail.example.test"),  # a tag
        ("o'neil@example.test", "o'neil@example.test"),  # an apostrophe is allowed
        ("vera@provköp.example", "vera@provköp.example"),  # a domain stays as it was written
        ("vera@XN--PROVKP-LXA.example", "vera@xn--provkp-lxa.example"),  # in this form, too
        ("INFO@example.test", "info@example.test"),  # a role name has no case (RFC 2142)
    ],
)
def test_an_email_address_is_accepted(written: str, stored: str) -> None:
    assert checks.email(written) == stored


@pytest.mark.parametrize(
    "written",
    [
        "vera",  # no sign
        "vera@",  # no domain
        "vera@example",  # no dot
        "vera@test",  # a reserved name alone
        "vera@example..test",  # two dots
        ".vera@example.test",  # a dot first
        "vera @example.test",  # a blank
        "Vera <vera@example.test>",  # a name beside it
        '"vera t"@example.test',  # quoted
        "vera@[192.0.2.1]",  # an address in digits
        "vera@printer.local",  # a name that no mail reaches
        "vera@example.invalid",  # a name that never exists
        "vera@example.123",  # no top-level domain
        "vera@ex--ample.local",  # reserved again, past the fast path
        "v" * 65 + "@example.test",  # the part before the sign has 64 at most
        "vera@" + "a" * 64 + ".test",  # a label has 63 at most
        "v@" + "a." * 130 + "test",  # longer than 254
        "v" * 60_000,  # quick, however long
    ],
)
def test_an_email_address_is_refused(written: str) -> None:
    assert checks.email(written) == Wrong("BadEmail")


_MAIL_CHARACTERS = string.ascii_letters + string.digits + "._+-@"


@given(
    st.one_of(
        st.emails(),
        st.from_regex(identifiers._PLAIN_EMAIL, fullmatch=True),
        st.text(_MAIL_CHARACTERS, max_size=80),
        st.builds(
            "{}@{}.{}".format,
            st.text(_MAIL_CHARACTERS, min_size=1, max_size=10),
            st.text(_MAIL_CHARACTERS, min_size=1, max_size=10),
            st.sampled_from(["test", "local", "localhost", "arpa", "onion", "invalid", "se"]),
        ),
    )
)
def test_the_quick_way_for_email_agrees_with_the_library(written: str) -> None:
    try:
        found = validate_email(
            written, check_deliverability=False, test_environment=True, strict=True
        )
        expected = None if "." not in found.ascii_domain else found.ascii_email
    except EmailNotValidError:
        expected = None

    stored = checks.email(written)

    assert (stored if isinstance(stored, str) and stored.isascii() else None) == (
        expected if written.isascii() else None
    )


@pytest.mark.parametrize(
    ("written", "region", "stored"),
    [
        ("+46700000001", None, "+46700000001"),  # as Engage wants it
        ("070-000 00 01", "SE", "+46700000001"),  # as it is said in Sweden
        ("0700000001", "SE", "+46700000001"),  # without separators
        ("+46 (0)70 000 00 01", None, "+46700000001"),  # as it stands on cards
        ("0046700000001", "SE", "+46700000001"),  # the old prefix
        ("(070) 000.00.01", "SE", "+46700000001"),  # brackets and dots
        ("070\u00a0000\u00a000\u00a001", "SE", "+46700000001"),  # blanks pasted from a page
        ("070\u2013000 00 01", "SE", "+46700000001"),  # a dash pasted from a text
        ("+47 400 00 001", "SE", "+4740000001"),  # a neighbour's
        ("400 00 001", "NO", "+4740000001"),  # Norway has no prefix
        ("040 123 4567", "FI", "+358401234567"),  # Finland has
        ("08-123 456 78", "SE", "+46812345678"),  # no mobile, but a number
        ("+12025550100", "SE", "+12025550100"),  # from far away
    ],
)
def test_a_phone_number_is_accepted(written: str, region: str | None, stored: str) -> None:
    assert checks.mobile_phone(written, region) == stored


@pytest.mark.parametrize(
    ("written", "region"),
    [
        ("12345", None),  # no country
        ("0700000001", None),  # no country either
        ("12345", "SE"),  # too short
        ("070-000 00 0", "SE"),  # a digit too few
        ("070-000 00 011", "SE"),  # a digit too many
        ("112", "SE"),  # not a customer's
        ("+999123456789", None),  # no such country
        ("+46700000001 ext 5", None),  # an extension would be lost
        ("tel:+46700000001", None),  # not a number alone
        ("+1-800-FLOWERS", None),  # letters
        ("\u0660\u0667\u0660\u0660\u0660", "SE"),  # digits of another script
        ("0" * 60_000, "SE"),  # quick, however long
        ("+", "SE"),  # nothing
        ("0700000001", "XX"),  # a region that is none
    ],
)
def test_a_phone_number_is_refused(written: str, region: str | None) -> None:
    assert checks.mobile_phone(written, region) == Wrong("BadPhone")


@given(
    st.one_of(
        st.from_regex(identifiers._PLAIN_MOBILE, fullmatch=True),
        st.from_regex(r"\A(?:\+46|\+47|\+45|\+358|0|00|)[ -]?(?:[0-9][ -]?){5,12}\Z"),
        st.from_regex(r"\A0?(?:7[0-9]|4[0-9]|50|9[0-9]|2[0-9])(?:[ -]?[0-9]){5,8}\Z"),
    ),
    st.sampled_from([None, "SE", "NO", "DK", "FI", "DE", "US"]),
)
def test_the_quick_way_for_phones_agrees_with_the_library(written: str, region: str | None) -> None:
    try:
        found = phonenumbers.parse(written.strip(), region)
        is_right = phonenumbers.is_valid_number(found)
    except phonenumbers.NumberParseException:
        is_right = False
    expected: Any = Wrong("BadPhone")
    if is_right:
        expected = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)

    assert checks.mobile_phone(written.strip(), region) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1990-01-15", "1990-01-15"),  # as it should be
        ("2026-11-21", "2026-11-21"),  # born today
        ("2000-02-29", "2000-02-29"),  # a leap day
        ("1900-01-01", "1900-01-01"),  # the first that is taken
        ("2026-11-22", Wrong("BirthDayInFuture")),  # tomorrow
        ("1899-12-31", Wrong("BirthDayTooEarly")),  # nobody alive
        ("1990-02-30", Wrong("BadBirthDay")),  # no such day
        ("1900-02-29", Wrong("BadBirthDay")),  # no leap year
        ("15/01/1990", Wrong("BadBirthDay")),  # another order
        ("19900115", Wrong("BadBirthDay")),  # no dashes
        ("1990-1-15", Wrong("BadBirthDay")),  # a digit too few
        ("1990-01-15T00:00:00", Wrong("BadBirthDay")),  # with a time
        ("1990-01-15\n", Wrong("BadBirthDay")),  # with a line's end
    ],
)
def test_a_day_of_birth(written: str, expected: str | Wrong) -> None:
    assert checks.birth_day(written, TODAY) == expected


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("8112289874", "198112289874"),  # ten digits: under 100 years
        ("811228-9874", "198112289874"),  # with its dash
        ("811228 9874", "198112289874"),  # with a blank
        ("198112289874", "198112289874"),  # twelve
        ("19811228-9874", "198112289874"),  # twelve and a dash
        ("000101-0016", "200001010016"),  # born in 2000
        ("261121-0010", "202611210010"),  # born today
        ("270101-0015", "192701010015"),  # next year's digits: 99 years old
        ("270101+0015", Wrong("BadPersonalNumber")),  # 1827
        ("121212+1212", "191212121212"),  # + for those over 100
        ("120229-0019", "201202290019"),  # a leap day
        ("701063-2391", "197010632391"),  # a coordination number: the day plus 60
        ("19701063-2391", "197010632391"),  # the same with its century
        ("811228-9875", Wrong("BadPersonalNumber")),  # a wrong check digit
        ("811328-9874", Wrong("BadPersonalNumber")),  # no such month
        ("900161-0014", "199001610014"),  # the first coordination day
        ("000229-0013", "200002290013"),  # a leap day that a century has
        ("19000229-0013", Wrong("BadPersonalNumber")),  # and another has not
        ("20270101-0015", Wrong("BadPersonalNumber")),  # not born yet
        ("18811228-9874", Wrong("BadPersonalNumber")),  # nobody alive
        ("131052-308T", "131052-308T"),  # Finnish
        ("131052-308t", "131052-308T"),  # in lower case
        ("131052Y308T", "131052Y308T"),  # a sign that came in 2023
        ("010190-900P", "010190-900P"),  # a Finnish test person
        ("311299A1236", Wrong("BadPersonalNumber")),  # born in 2099
        ("131052+308T", Wrong("BadPersonalNumber")),  # born in 1852
        ("131052-308U", Wrong("BadPersonalNumber")),  # a wrong check character
        ("131052308T", Wrong("BadPersonalNumber")),  # without its sign
        ("811228-987", Wrong("BadPersonalNumber")),  # too short
        ("\u0668112289874", Wrong("BadPersonalNumber")),  # digits of another script
        ("", Wrong("BadPersonalNumber")),  # nothing
    ],
)
def test_a_personal_number(written: str, stored: str | Wrong) -> None:
    assert checks.personal_number(written, TODAY) == stored


@pytest.mark.parametrize(
    ("name", "value", "born"),
    [
        ("birthDay", "1990-01-15", date(1990, 1, 15)),
        ("socialSecurityNumber", "198112289874", date(1981, 12, 28)),
        ("socialSecurityNumber", "197010632391", date(1970, 10, 3)),  # a coordination number
        ("socialSecurityNumber", "131052-308T", date(1952, 10, 13)),  # Finnish
        ("socialSecurityNumber", "131010A308T", date(2010, 10, 13)),
        ("socialSecurityNumber", "131052Y308T", date(1952, 10, 13)),
    ],
)
def test_day_of_birth_is_read_from_what_tells_it(name: str, value: str, born: date) -> None:
    assert checks.born_by(name, value) == born


@pytest.mark.parametrize(
    ("born", "age"),
    [
        (date(2008, 11, 21), 18),  # today is the birthday
        (date(2008, 11, 22), 17),  # tomorrow is
        (date(2008, 12, 1), 17),
        (date(2026, 11, 21), 0),  # born today
        (date(1900, 1, 1), 126),
    ],
)
def test_age_grows_on_the_birthday(born: date, age: int) -> None:
    assert checks.age_of(born, TODAY) == age


def test_who_was_born_on_a_leap_day_grows_older_on_the_first_of_march() -> None:
    born = date(2008, 2, 29)

    ages = [checks.age_of(born, date(2026, *day)) for day in ((2, 28), (3, 1))]

    assert ages == [17, 18]


@given(st.dates(date(1900, 1, 1), date(2026, 11, 21)), st.integers(0, 9999))
def test_twelve_digits_are_judged_as_the_library_judges_them(day: date, serial: int) -> None:
    written = f"{day:%Y%m%d}{serial:04d}"

    assert isinstance(checks.personal_number(written, TODAY), str) == personnummer.is_valid(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("SE", "SE"),
        ("se", "SE"),  # put right
        ("UK", Wrong("BadCountryCode")),  # it is GB
        ("XX", Wrong("BadCountryCode")),  # nowhere
        ("SWE", Wrong("BadCountryCode")),  # three letters
        ("Sverige", Wrong("BadCountryCode")),  # the name goes into country
        ("ß", Wrong("BadCountryCode")),  # its upper case is SS, South Sudan
    ],
)
def test_a_country_code(written: str, expected: str | Wrong) -> None:
    assert checks.country_code(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Female", "Female"),
        ("male", "Male"),  # put right
        ("OTHER", "Other"),  # put right
        ("M", Wrong("BadGender")),  # not Engage's word
    ],
)
def test_a_gender(written: str, expected: str | Wrong) -> None:
    assert checks.gender(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (" Vera ", "Vera"),  # trimmed
        ("Provgatan 1\nc/o Test", "Provgatan 1\nc/o Test"),  # lines are allowed
        (11122, "11122"),  # a zip code as a number
        ("Ve\x00ra", Wrong("ControlCharacter")),  # NUL
        ("Ve\x0bra", Wrong("ControlCharacter")),  # XML cannot hold it
        ("Vera\uffff", Wrong("ControlCharacter")),  # nor this
        ("Ve\ud800ra", Wrong("ControlCharacter")),  # half a character
        ("Vera\x1f", Wrong("ControlCharacter")),  # at an end, too: Python calls it white space
        ("\x0bVera", Wrong("ControlCharacter")),
        (" \x1c ", Wrong("ControlCharacter")),  # all of it
        ("\u2003\x85Vera\xa0", "Vera"),  # blanks that XML can hold
        ("Vera \U0001f600", "Vera \U0001f600"),  # a whole one
        (True, Wrong("WrongType")),  # not a text
        (1.5, Wrong("WrongType")),  # nor this
        (2**63, Wrong("WrongType")),  # beyond 64 bits
        (["Vera"], Wrong("WrongType")),  # nested
    ],
)
def test_a_text(written: Any, expected: Any) -> None:
    assert checks.text(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (" blue ", "blue"),
        (42, 42),  # a number stays one
        (4.5, 4.5),
        (True, True),
        (float("nan"), Wrong("WrongType")),
        (float("inf"), Wrong("WrongType")),
        ({"a": 1}, Wrong("WrongType")),
    ],
)
def test_an_attribute_of_the_tenant(written: Any, expected: Any) -> None:
    assert checks.custom(written) == expected


@pytest.mark.parametrize(
    ("given_consents", "problems"),
    [
        ([{"id": "terms", "value": True}], []),  # the least
        ([{"id": "terms", "value": True, "date": "2026-11-21T10:15:00Z"}], []),  # UTC
        ([{"id": "terms", "value": False, "date": "2026-11-21T10:15:00.1234567+01:00"}], []),
        ([{"id": "terms", "value": True, "comment": ""}], []),  # an empty comment is none
        ([{"value": True}], [Wrong("Required", "[0].id")]),
        ([{"id": "terms"}], [Wrong("Required", "[0].value")]),
        (
            [{"id": " ", "value": None}],
            [Wrong("Required", "[0].id"), Wrong("Required", "[0].value")],
        ),
        ([{"id": "terms", "value": "true"}], [Wrong("NotBoolean", "[0].value")]),
        (
            [{"id": "terms", "value": True}, {"id": "terms", "value": False}],
            [Wrong("DuplicateConsent", "[1].id")],
        ),
        ([{"id": "t", "value": True, "date": "2026-11-21"}], [Wrong("BadDate", "[0].date")]),
        (
            [{"id": "t", "value": True, "date": "2026-11-21T10:15:00"}],  # whose time?
            [Wrong("BadDate", "[0].date")],
        ),
        (
            [{"id": "t", "value": True, "date": "2026-13-21T10:15:00Z"}],  # no such month
            [Wrong("BadDate", "[0].date")],
        ),
        (
            [{"id": "t", "value": True, "Source": "POS"}],
            [Wrong("UnknownAttribute", "[0].Source", "source")],
        ),
        ([{"id": "t", "value": True, "a b": 1}], [Wrong("BadName", "[0].#3")]),
        (["terms"], [Wrong("NotAnObject", "[0]")]),
        ({"id": "terms", "value": True}, [Wrong("NotAList")]),
    ],
)
def test_consents(given_consents: Any, problems: list[Wrong]) -> None:
    assert checks.consents(given_consents)[1] == problems


def test_consents_lose_their_empty_members_and_nothing_else() -> None:
    given_consent = {"id": " terms ", "value": True, "source": "POS", "comment": "", "date": None}

    found, _ = checks.consents([given_consent])

    assert found == [{"id": "terms", "value": True, "source": "POS"}]


DETAILS: dict[str, Any] = {"age": 18, "contact_type": "Member"}  # what some sentences name


@pytest.mark.parametrize("language", words.LANGUAGES)
@pytest.mark.parametrize("code", words.CODES)
def test_every_code_has_a_sentence_that_names_the_field(code: str, language: str) -> None:
    said = words.sentence(code, "someField", language, suggestion="otherField", **DETAILS)

    assert "someField" in said
    assert "otherField" in said
    assert said[0] in "sTN"  # "someField …", "The name …", "Namnet …"
    assert "{" not in said.replace("{id}", "")


def test_every_sentence_is_translated() -> None:
    same = [
        code
        for code in words.CODES
        if words.sentence(code, "x", **DETAILS) == words.sentence(code, "x", "sv-SE", **DETAILS)
    ]

    assert same == []


def test_a_language_that_is_not_known_gives_english() -> None:
    assert words.sentence("BadEmail", "email", "de") == words.sentence("BadEmail", "email", "en")


@pytest.mark.parametrize(
    ("accept_language", "language"),
    [
        ("", "en"),
        ("sv", "sv"),
        ("SV-se", "sv"),
        ("fi, sv", "sv"),
        ("en, sv", "en"),  # of equals the first
        ("en;q=0.5, sv;q=0.9", "sv"),  # the weight counts, not the order
        ("en;q=0.5,sv-SE;q=0.501", "sv"),
        ("sv;q=0.2, en-GB", "en"),
        ("sv;q=0, en", "en"),
        ("sv;q=0", "en"),  # neither is wanted
        ("sv;Q=1.000, en;q=0.999", "sv"),
        ("*", "en"),
        ("*, en;q=0", "sv"),  # anything but English
        ("en;q=0.1, *;q=0.5", "sv"),
        ("fi, *;q=0.1", "en"),
        ("sv;q=2, en;q=0.1", "en"),  # no weight at all
        ("sv;q=, en;q=0.1", "en"),
        ("svx, en;q=0.1", "en"),  # another language
        (";;;,,=", "en"),
    ],
)
def test_language_is_the_one_that_is_wanted_most(accept_language: str, language: str) -> None:
    assert words.preferred_language(accept_language) == language


def test_an_empty_value_that_clear_cannot_help_with_does_not_name_it() -> None:
    assert "?clear=" in words.sentence("EmptyValue", "city")
    assert "?clear=" not in words.sentence("EmptyValue", "consents", clearable=False)
