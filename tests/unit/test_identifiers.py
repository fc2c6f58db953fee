"""Keys as somebody else wrote them, in the form in which this till stores them."""

from __future__ import annotations

from datetime import date

import pytest

from agent.contact import Key, keys_of
from agent.identifiers import key_as_stored, key_that_any_means

TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("name", "written", "stored"),
    [
        ("email", " Vera@Example.TEST ", "vera@example.test"),
        ("mobilePhone", "070-123 45 67", "+46701234567"),
        ("mobilePhone", "+46 70 123 45 67", "+46701234567"),
        ("mobilePhone", "0046701234567", "+46701234567"),
        ("mobilePhone", "no phone", "no phone"),  # compared as it is: it finds nobody
        ("socialSecurityNumber", "811228-9874", "198112289874"),
        ("socialSecurityNumber", "19811228-9874", "198112289874"),
        ("socialSecurityNumber", "131052-308t", "131052308T"),
        ("memberNumber", " M-1 ", "M-1"),
        ("externalId", "STORE-7", "STORE-7"),
    ],
)
def test_key_is_the_same_however_it_is_written(name: str, written: str, stored: str) -> None:
    assert key_as_stored(name, written, "SE", TODAY) == Key(name, stored)


@pytest.mark.parametrize(
    "attributes",
    [
        {"email": "Vera@example.test"},
        {"mobilePhone": "+46701234567"},
        {"socialSecurityNumber": "198112289874"},
        {"socialSecurityNumber": "131052-308T"},
        {"memberNumber": "M-1"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_what_intake_has_stored_is_found_by_its_own_value(attributes: dict[str, str]) -> None:
    ((name, value),) = attributes.items()

    assert (key_as_stored(name, value, "SE", TODAY),) == keys_of(attributes)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("vera@example.test", Key("email", "vera@example.test")),
        ("811228-9874", Key("socialSecurityNumber", "198112289874")),
        ("+46701234567", Key("mobilePhone", "+46701234567")),
        ("070-123 45 67", Key("mobilePhone", "+46701234567")),
        ("M-1", Key("memberNumber", "M-1")),
        ("1000001", Key("memberNumber", "1000001")),
    ],
)
def test_any_means_the_first_kind_of_key_that_fits(value: str, meant: Key) -> None:
    assert key_that_any_means(value, "memberNumber", "SE", TODAY) == meant
