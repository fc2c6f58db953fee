"""Addresses that could be read in more than one way are refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import MalformedRequest
from agent.intake.addresses import check_names, check_target


@pytest.mark.parametrize(
    "target",
    [
        "/api/v3/contacts",
        "/api/v3/contacts/id?email=vera%40example.test&mobilePhone=%2B46700000001",
        "/api/v3/contacts?source=Prov%C3%B6pare",
        "/a%20b",
        "*",
        "",
    ],
)
def test_address_is_taken(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/a%", "begins no escape"),
        ("/a%2", "begins no escape"),
        ("/a?b=100%&c=1", "begins no escape"),
        ("/a%zz", "begins no escape"),
        ("/a%FF", "not UTF-8"),
        ("/a?b=%C3", "not UTF-8"),  # half a character
        ("/a?b=%C0%AF", "not UTF-8"),  # a slash in disguise
        ("/a?b=%ED%A0%80", "not UTF-8"),  # half of a pair
        ("/a%00", "control character"),
        ("/a?b=%0D%0AX:1", "control character"),
        ("/a?b=%7F", "control character"),
    ],
)
def test_address_is_refused(target: str, why: str) -> None:
    with pytest.raises(MalformedRequest, match=why):
        check_target(target)


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8")))
def test_whatever_is_quoted_properly_is_taken(text: str) -> None:
    check_target("/a?b=" + quote(text, safe=""))


@pytest.mark.parametrize("names", [[], ["email"], ["email", "any"], ["clear", "clear"]])
def test_names_are_taken(names: list[str]) -> None:
    check_names(names)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["source", "source"], "`source` more than once"),
        (["a", "clear", "b", "a"], "`a` more than once"),
        (["vera@example.test"] * 2, "the same parameter more than once"),  # may be anybody's data
    ],
)
def test_name_that_stands_twice_is_refused(names: list[str], why: str) -> None:
    with pytest.raises(MalformedRequest, match=why):
        check_names(names)
