"""What a contact in Engage does not have as it was sent: which forms of a value are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.delivery.difference import differs
from agent.identifiers import mobile_phone, phone_region


def contact(**attributes: Any) -> dict[str, Any]:
    return {
        "id": "guid",
        "attributes": attributes,
        "preferences": {"AcceptsEmails": True, "AcceptsSms": False},
        "consents": [{"id": "memberTerms", "value": True, "date": "2026-11-21"}],
    }


@pytest.mark.parametrize(
    ("wanted", "has", "differing"),
    [
        ({"city": "Lund"}, {"city": "Lund"}, ()),
        ({"city": "Lund"}, {"city": " Lund "}, ()),
        ({"city": "Lund"}, {"City": "Lund"}, ()),
        ({"city": "Lund"}, {"city": "lund"}, ("city",)),  # a cashier puts capitals right
        ({"city": "Malm\u00f6"}, {"city": "Malmo\u0308"}, ()),  # one text, written in two ways
        ({"city": "Lund"}, {"city": "Ystad"}, ("city",)),
        ({"city": "Lund"}, {}, ("city",)),
        ({"preferences": {"acceptsEmail": True}}, {}, ()),
        ({"preferences": {"acceptsSms": True}}, {}, ("preferences.acceptsSms",)),
        ({"preferences": {"acceptsPostal": False}}, {}, ("preferences.acceptsPostal",)),
        ({"consents": [{"id": "memberTerms", "value": True}]}, {}, ()),
        ({"consents": [{"id": "memberTerms", "value": False}]}, {}, ("consents.memberTerms",)),
        ({"consents": [{"id": "other", "value": True}]}, {}, ("consents.other",)),
        ({"contactType": "Member"}, {}, ()),  # compared nowhere: only an upgrade changes it
    ],
)
def test_difference_names_what_is_not_there_as_it_was_sent(
    wanted: dict[str, Any], has: dict[str, Any], differing: tuple[str, ...]
) -> None:
    assert differs(wanted, contact(**has)) == differing


@pytest.mark.parametrize("found", [{}, {"attributes": None, "preferences": [], "consents": {}}])
def test_difference_survives_a_contact_of_another_shape(found: dict[str, Any]) -> None:
    wanted = json.loads('{"city": "Lund", "preferences": {"acceptsSms": true}, "consents": []}')

    assert differs(wanted, found) == ("city", "preferences.acceptsSms")


def test_preference_counts_by_its_own_name_first() -> None:
    found = {"preferences": {"acceptsOffer": True, "acceptsOffers": False}}

    assert differs({"preferences": {"acceptsOffer": True, "acceptsOffers": False}}, found) == ()


def test_case_in_which_engage_writes_what_it_took_by_the_api_is_its_own_affair() -> None:
    found = contact(city="LUND", zipCode="67")

    assert differs({"city": "Lund", "zipCode": "12367"}, found, mended=True) == ("zipCode",)


# --- the same value in two forms ------------------------------------------------------------------


def same(name: str, one: Any, other: Any) -> bool:
    """Compare two values in both directions, which must give the same."""
    there = not differs({name: one}, contact(**{name: other}))
    back = not differs({name: other}, contact(**{name: one}))
    assert there == back, "a value is the same in both directions or in none"
    return there


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("email", "Vera@X.se", "vera@x.se"),
        ("mobilePhone", "+46701234567", "+46 70-123 45 67"),
        ("mobilePhone", "+46701234567", "070-123 45 67"),
        ("mobilePhone", "+46701234567", "0046701234567"),
        ("mobilePhone", "+4520123456", "20 12 34 56"),
        ("mobilePhone", "+46999", "+46 999"),  # no such number, but the same one
        ("socialSecurityNumber", "199001011234", "19900101-1234"),
        ("socialSecurityNumber", "199001011234", "900101-1234"),
        ("socialSecurityNumber", "191001011234", "100101+1234"),
        ("socialSecurityNumber", "131052-308T", "131052-308t"),
        ("zipCode", "111 22", "11122"),
        ("zipCode", "111 22", 11122),
        ("birthDay", "1990-01-15", "1990-01-15T00:00:00"),
        ("birthDay", "1990-01-15", "1990-01-15T00:00:00.000+01:00"),
        ("countryCode", "SE", "se"),
        ("newsletter", True, "True"),
        ("shoeSize", 38, "38"),
        ("shoeSize", 38.5, "38.50"),
        ("shoeSize", 38, 38.0),
        ("nickname", "", None),
        ("nickname", "  ", None),
    ],
)
def test_forms_of_one_value_are_the_same(name: str, one: Any, other: Any) -> None:
    assert same(name, one, other)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("mobilePhone", "+46701234567", ""),
        ("mobilePhone", "+46701234567", "7"),
        ("mobilePhone", "+46701234567", "+46701234"),
        ("mobilePhone", "+46701234567", "234567"),
        ("mobilePhone", "+46701234567", "+45701234567"),
        ("mobilePhone", "+46701234567", "070-123 45 67 ext 5"),
        ("socialSecurityNumber", "199001011234", "1234"),
        ("socialSecurityNumber", "199001011234", "200001011234"),
        ("socialSecurityNumber", "100101-1234", "100101+1234"),  # a hundred years apart
        ("socialSecurityNumber", "131052-308T", "131052A308T"),  # so is a Finnish sign
        ("zipCode", "12345", ""),
        ("zipCode", "12345", "45"),
        ("zipCode", "12367", "67"),
        ("zipCode", "SE-11122", "11122"),
        ("zipCode", "01234", 1234),
        ("birthDay", "1990-01-15", "1990-01-16"),
        ("birthDay", "1990-01-15", "1990-01-15T13:00:00"),
        ("firstName", "VERA", "Vera"),
        ("street", "Storgatan 1", "Storgatan 11"),
        ("newsletter", True, False),
        ("newsletter", False, None),
        ("shoeSize", 38, "38.5"),
        ("shoeSize", 7, "007"),
        ("shoeSize", 38, True),
        ("street", "X", None),
        ("street", "X", ""),
    ],
)
def test_different_values_are_never_the_same(name: str, one: Any, other: Any) -> None:
    assert not same(name, one, other)


DIGITS = "0123456789"
# Engage's own form of each attribute that it may also write in another one.
FORMS = {
    "mobilePhone": st.one_of(
        st.from_regex(r"\+467[02369][0-9]{7}", fullmatch=True),
        st.from_regex(r"\+45[2-9][0-9]{7}", fullmatch=True),
    ).filter(lambda number: mobile_phone(number, None) == number),
    "socialSecurityNumber": st.from_regex(r"(19|20)[0-9]{10}", fullmatch=True),
    "zipCode": st.text(DIGITS + "ABC-", min_size=1, max_size=8),
    "birthDay": st.dates().map(str),
    "email": st.emails().map(str.lower),
    "countryCode": st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2),
    "firstName": st.text(min_size=1).filter(lambda text: text.isalnum() and text.isascii()),
}
VALUES = st.sampled_from(sorted(FORMS)).flatmap(
    lambda name: st.tuples(st.just(name), FORMS[name], FORMS[name])
)


@given(VALUES)
@example(("zipCode", "12367", "67"))
@example(("mobilePhone", "+46701234567", "+4670123456"))
def test_no_two_values_in_engages_own_form_are_the_same(drawn: tuple[str, str, str]) -> None:
    name, one, other = drawn
    assume(one != other)

    assert not same(name, one, other)
    assert same(name, one, one)


@given(VALUES, st.data())
def test_part_of_a_value_is_never_the_value(drawn: tuple[str, str, str], data: Any) -> None:
    name, value, _ = drawn
    begin = data.draw(st.integers(0, len(value)))
    part = value[begin : data.draw(st.integers(begin, len(value)))]
    # The part that says the rest: a national number, and a personal number without its century.
    says_all = {"mobilePhone": mobile_phone(part, phone_region(value)) == value}.get(
        name, name == "socialSecurityNumber" and part == value[2:]
    )
    assume(part != value and not says_all)

    assert not same(name, value, part)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.text()),
)


@given(st.sampled_from([*sorted(FORMS), "shoeSize"]), ANYTHING, ANYTHING)
def test_comparing_is_symmetric_whatever_engage_answers(name: str, one: Any, other: Any) -> None:
    same(name, one, other)
    assert same(name, one, one)


@given(st.sampled_from([*sorted(FORMS), "shoeSize"]), ANYTHING)
def test_empty_is_never_a_value(name: str, value: Any) -> None:
    assume(value is not None and not (isinstance(value, str) and not value.strip()))

    assert not same(name, value, None)
    assert not same(name, value, " ")
