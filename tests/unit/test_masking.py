"""What is taken out of a text before others see it."""

from __future__ import annotations

import pytest

from agent.delivery.quoting import unquoted
from agent.errors import Refused
from agent.events import is_sane_id
from agent.masking import mask, without

VERA = {
    "email": "Vera.Lind@example.test",
    "firstName": "Åsa",
    "lastName": "Lind",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "19811218-9876",
    "street": "Stora Nygatan 5",
    "preferences": {"acceptsEmail": True},
    "consents": [{"id": "memberTerms", "value": True, "comment": "said by Åsa"}],
    "countryCode": "SE",
}


@pytest.mark.parametrize(
    "text",
    [
        "vera.lind@example.test",
        "vera.lind%40example.test",
        "+46 70 123 45 67",
        "%2B46701234567",
        "19811218-9876",
        "0701234567",
    ],
)
def test_what_looks_personal_is_masked_wherever_it_stands(text: str) -> None:
    assert "[" in mask(text)
    assert text not in mask(f"The value {text} is not right.")


@pytest.mark.parametrize(
    "text",
    [
        "0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d",
        "HTTP 503 after 1200 ms",
        "20261121101500_0042-1-000001_contacts.xml is 12345 bytes",
    ],
)
def test_ids_sizes_and_file_names_stay(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("vera.lind@EXAMPLE.test is taken", "[email] is taken"),
        ("email=vera.lind%40example.test", "email=[email]"),
        ("Åsa Lind exists", "[firstName] [lastName] exists"),
        ("ÅSA exists", "[firstName] exists"),
        ("\\u00c5sa exists", "[firstName] exists"),
        ("%C3%85sa exists", "[firstName] exists"),
        ("call +46 70 123 45 67", "call +[mobilePhone]"),
        ("number 198112189876", "number [socialSecurityNumber]"),
        ("lives at Nygatan", "lives at [street]"),
        ("comment: said by Åsa", "comment: [consents]"),
        ("VmVyYS5MaW5kQGV4YW1wbGUudGVzdA is not known", "[email] is not known"),
        ("country SE, memberTerms true", "country SE, memberTerms true"),
        ("Linden tree", "Linden tree"),
    ],
)
def test_values_that_were_sent_are_taken_out_in_any_spelling(words: str, said: str) -> None:
    assert without(words, VERA) == said


def test_engages_words_keep_what_helps_and_lose_whom_they_quote() -> None:
    error = Refused()
    error.words = "Lind is no valid value for lastName of vera.lind@example.test."
    error.fields = (
        {"field": "lastName", "code": "ValidationError", "message": "'Lind' is too short."},
    )

    said = unquoted(error, VERA)

    assert said.words == "[lastName] is no valid value for lastName of [email]."
    assert said.fields == (
        {"field": "lastName", "code": "ValidationError", "message": "'[lastName]' is too short."},
    )


@pytest.mark.parametrize(
    ("given", "sane"),
    [
        ("pos-1-20261121-0001", True),
        ("0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d", True),
        ("4bf92f3577b34da6a3ce929d0e0e4736", True),
        ("", False),
        ("a b", False),
        ("line\nbreak", False),
        ("vera@example.test", False),
        ("+46701234567", False),
        ("198112189876", False),
        ("a" * 129, False),
    ],
)
def test_request_id_from_outside_must_look_like_one(given: str, sane: bool) -> None:
    assert is_sane_id(given) is sane
