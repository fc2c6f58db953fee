"""A rejected change as a form: what stands in it, what is wrong beside it, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.change import Change, Fault, Kind, Payload, Route, State
from agent.contact import Contact
from agent.status import mending
from agent.status.words import words_of

ENGLISH, SWEDISH = words_of("en"), words_of("sv")
ATTRIBUTES = {
    "email": "vera@example.test",
    "loyalty.level": 3,
    "shoeSize": 38.5,
    "wantsCatalogue": True,
    "preferences": {"acceptsEmail": False},
    "consents": [{"id": "terms", "value": True, "comment": "at the till"}],
}


def change(kind: Kind = Kind.CREATE, fault: Fault | None = None, **payload: Any) -> Change:
    payload.setdefault("attributes", ATTRIBUTES)
    return Change(
        seq=1,
        id="01a20000-0000-7000-8000-000000000001",
        kind=kind,
        state=State.REJECTED,
        unknown=False,
        route=Route.API,
        contact=Contact(1, "01a20000-0000-7000-8000-000000000002", None, None),
        payload=Payload(**payload),
        created_at="2026-11-21T11:00:00.000Z",
        due_at=None,
        settled_at="2026-11-21T11:00:01.000Z",
        attempts=1,
        api_attempts=0,
        step=0,
        existed=False,
        batch=None,
        error=fault,
        repeated=0,
    )


SIGN_UP = change(contact_type="Member")


def values(form: mending.Form) -> dict[str, str]:
    return {field.attribute: field.value for field in form.fields}


def sent(form: mending.Form, **typed: str) -> dict[str, str]:
    """Give what a browser sends: every field, some of them changed."""
    names = {field.attribute: field.name for field in form.fields}
    given = {field.name: field.value for field in form.fields}
    return {**given, **{names.get(attribute, attribute): text for attribute, text in typed.items()}}


def test_every_value_of_a_change_stands_in_the_form() -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, ())

    assert values(form) == {
        "contactType": "Member",
        "email": "vera@example.test",
        "loyalty.level": "3",
        "shoeSize": "38.5",
        "wantsCatalogue": "true",
        "preferences.acceptsEmail": "false",
        "consents[0].id": "terms",
        "consents[0].value": "true",
        "consents[0].comment": "at the till",
    }
    assert [field.attribute for field in form.fields if field.is_choice] == [
        "wantsCatalogue",
        "preferences.acceptsEmail",
        "consents[0].value",
    ]


def test_a_form_that_is_sent_as_it_is_asks_for_the_same() -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, ())

    assert mending.data_of(SIGN_UP, sent(form)) == {"contactType": "Member", **ATTRIBUTES}


def test_values_keep_their_kind_when_they_are_corrected() -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, ())
    typed = {
        "loyalty.level": "4",
        "shoeSize": "39",
        "wantsCatalogue": "false",
        "preferences.acceptsEmail": "true",
        "consents[0].value": "false",
    }

    data = mending.data_of(SIGN_UP, sent(form, **typed))

    assert (data["loyalty.level"], data["shoeSize"], data["wantsCatalogue"]) == (4, 39, False)
    assert data["preferences"] == {"acceptsEmail": True}
    assert data["consents"][0]["value"] is False


def test_what_is_no_number_stays_what_was_typed() -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, ())

    assert mending.data_of(SIGN_UP, sent(form, shoeSize="38½"))["shoeSize"] == "38½"


def test_an_empty_field_is_left_out() -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, ())
    empty = dict.fromkeys(("shoeSize", "preferences.acceptsEmail"), " ")
    gone = dict.fromkeys(("consents[0].id", "consents[0].value", "consents[0].comment"), "")

    data = mending.data_of(SIGN_UP, sent(form, **empty, **gone))

    assert {"shoeSize", "preferences", "consents"}.isdisjoint(data)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lastName", "Lind", {"lastName": "Lind"}),
        ("preferences.acceptsSms", "true", {"preferences": {"acceptsSms": True}}),
        ("a.custom", "1", {"a.custom": "1"}),
        ("", "lost", {}),
        ("lastName", " ", {}),
    ],
)
def test_another_field_can_be_added(name: str, value: str, expected: dict[str, Any]) -> None:
    update = change(Kind.UPDATE, attributes={})

    assert mending.data_of(update, {"new-name": name, "new-value": value}) == expected


@pytest.mark.parametrize(
    ("problems", "wrong"),
    [
        # named by the field, in whatever case
        ((("email", "is taken"),), {"email": ("is taken",)}),
        ((("Email", "is taken"),), {"email": ("is taken",)}),
        ((("preferences.acceptsEmail", "no"),), {"preferences.acceptsEmail": ("no",)}),
        ((("acceptsEmail", "no"),), {"preferences.acceptsEmail": ("no",)}),
        ((("consents[0].value", "no"),), {"consents[0].value": ("no",)}),
        # or spoken of in a sentence
        ((("", "The email is not valid"),), {"email": ("The email is not valid",)}),
        # a known one that is missing gets a field
        ((("lastName", "is required"),), {"lastName": ("is required",)}),
        ((("", "lastName is required"),), {"lastName": ("lastName is required",)}),
        ((("acceptsSms", "is required"),), {"preferences.acceptsSms": ("is required",)}),
        # an ordinary word is no attribute
        ((("", "ask the store"),), {}),
    ],
)
def test_what_is_wrong_stands_beside_its_field(
    problems: mending.Problems, wrong: dict[str, Any]
) -> None:
    form = mending.form_of(SIGN_UP, ENGLISH, problems)

    assert {field.attribute: field.problems for field in form.fields if field.problems} == wrong
    assert form.general == (() if wrong else tuple(text for _, text in problems))


def test_what_is_wrong_comes_first_and_what_was_typed_stays() -> None:
    typed = {"f:lastName": "Lin", "new-name": "city", "new-value": "Lund"}

    form = mending.form_of(SIGN_UP, ENGLISH, [("lastName", "too short")], typed)

    assert (form.fields[0].attribute, form.fields[0].value) == ("lastName", "Lin")
    assert (form.new_name, form.new_value) == ("city", "Lund")


def test_labels_are_in_the_persons_language() -> None:
    form = mending.form_of(SIGN_UP, SWEDISH, ())

    assert [field.label for field in form.fields][:3] == ["Kontakttyp", "E-post", "loyalty.level"]


def test_engages_words_are_given_as_they_are_and_ours_in_the_language() -> None:
    fields = ({"field": "email", "code": "x", "message": "vera@example.test is blocked"},)
    theirs = change(fault=Fault("ValidationError", "Nothing was changed.", fields=fields))
    ours = change(fault=Fault("ImportDiffers", "Engage has another value."))

    assert mending.engage_words(theirs, SWEDISH) == [
        ("", "Nothing was changed."),
        ("email", "vera@example.test is blocked"),
    ]
    assert mending.engage_words(ours, SWEDISH) == [("", "Engage har ett annat värde.")]
    assert mending.engage_words(change(), SWEDISH) == []


def test_a_change_that_was_mended_meanwhile_is_another_one() -> None:
    other = replace(
        SIGN_UP, payload=replace(SIGN_UP.payload, attributes={"email": "x@example.test"})
    )

    assert mending.digest_of(SIGN_UP) == mending.form_of(SIGN_UP, ENGLISH, ()).seen
    assert mending.digest_of(other) != mending.digest_of(SIGN_UP)


def test_names_with_slashes_and_tildes_come_back() -> None:
    strange = change(Kind.UPDATE, attributes={"a/b~c": "1"})

    form = mending.form_of(strange, ENGLISH, ())

    assert mending.data_of(strange, sent(form)) == {"a/b~c": "1"}


def test_a_form_made_up_by_somebody_breaks_nothing() -> None:
    update = change(Kind.UPDATE, attributes={"email": "vera@example.test"})

    data = mending.data_of(update, {"f:email": "a@example.test", "f:email/0/x": "1", "f:": "2"})

    assert data["email"] == "a@example.test"
