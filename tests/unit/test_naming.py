"""Whom a turned document names: each contact by its key, in whatever form the tenant writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.delivery.batch.document import Element
from agent.delivery.batch.naming import unnamed

GUID = "65d152a2-1d2c-4b5f-9c3a-0123456789ab"
VERA = {"email": "vera@example.test", "firstName": "Vera", "city": "Lund", "countryCode": "SE"}


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("email", "vera@example.test", "vera@example.test"),
        ("email", "vera@example.test", "VERA@EXAMPLE.TEST"),
        ("email", "vera@example.test", "  vera@example.test\n"),  # indented
        ("email", "vera@example.test", "mailto:vera@example.test"),
        ("mobilePhone", "+46700000001", "46700000001"),
        ("mobilePhone", "+46700000001", "070-000 00 01"),
        ("mobilePhone", "+46700000001", "0046 70 000 00 01"),
        ("socialSecurityNumber", "198112289874", "19811228-9874"),
        ("socialSecurityNumber", "198112289874", "811228-9874"),
        ("socialSecurityNumber", "131052-308T", "131052308t"),
        ("memberNumber", "12345", "SE-12345"),
        ("memberNumber", "7", "7"),
        ("memberNumber", "7", "000007"),
        ("memberNumber", "7", "SE-7"),
    ],
)
def test_a_key_in_another_form_names_the_contact(key: str, value: str, written: str) -> None:
    contact = Element("Member", {**VERA, key: value})

    assert unnamed([contact], {written}, key) == ()


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("email", "vera@example.test", "Vera"),
        ("email", "vera@example.test", ""),
        ("email", "vera@example.test", "per@example.test"),
        ("email", "vera@example.test", "Lundvera@example.test"),  # texts in a row
        ("email", "vera@example.test", "vera@example.testVera"),
        ("email", "vera@example.test", "SE\n      vera@example.test\n    "),
        ("mobilePhone", "+46700000001", "+46700000002"),
        ("mobilePhone", "+46700000001", "0001"),
        ("memberNumber", "7", "17"),
        ("memberNumber", "12345", "1234"),
    ],
)
def test_what_is_no_form_of_the_key_names_nobody(key: str, value: str, written: str) -> None:
    contact = Element("Member", {**VERA, key: value})

    assert unnamed([contact], {written}, key) == (0,)


@pytest.mark.parametrize(
    ("contact", "values", "left_out"),
    [
        (Element("Member", {"city": "Lund"}, contact_id=GUID), {GUID.upper()}, ()),
        (Element("Member", {"city": "Lund"}, contact_id=GUID), {"Lund"}, (0,)),
        (Element("Member", VERA, contact_id=GUID), {"vera@example.test"}, ()),
        # a new e-mail says whom it means to nobody
        (Element("Member", VERA, contact_id=GUID, gets_key=True), {"vera@example.test"}, (0,)),
        (Element("Member", VERA, contact_id=GUID, gets_key=True), {GUID}, ()),
        # taken while the tenant had another key
        (Element("Member", {"mobilePhone": "+46700000001"}), {"+46700000001"}, ()),
        (Element("Member", {"mobilePhone": "+46700000001"}), set(), (0,)),
        (Element("Member", {"city": "Lund"}), set(), ()),  # nobody could look for it
    ],
)
def test_a_contact_is_named_by_its_guid_or_its_key(
    contact: Element, values: set[str], left_out: tuple[int, ...]
) -> None:
    assert unnamed([contact], values, "email") == left_out


def test_of_several_contacts_those_are_told_that_are_left_out() -> None:
    def contact(**attributes: Any) -> Element:
        said: Mapping[str, Any] = attributes
        return Element("Member", said)

    contacts = [contact(email=f"{name}@example.test") for name in ("vera", "per", "bo")]

    assert unnamed(contacts, {"vera@example.test", "bo@example.test"}, "email") == (1,)
