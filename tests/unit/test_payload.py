"""What a POS may ask for, and everything that is wrong told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent.intake
from agent.change import Payload
from agent.errors import IntakeError, InvalidChange, MalformedRequest, NoData
from agent.intake import checks, words
from agent.intake.payload import (
    Rules,
    create_payload,
    read_json,
    request_fingerprint,
    update_payload,
    upgrade_payload,
)

TODAY = date(2026, 11, 21)
RULES = Rules(phone_region="SE", store_external_id="7")
LISTED = Rules(phone_region="SE", attributes=("shoeSize", "favouriteBrand", "preferences.byPost"))
VERA = {"email": "vera@example.test"}


def create(data: dict[str, Any], rules: Rules = RULES, **query: str) -> Payload:
    return create_payload(data, query, rules, TODAY)


def update(data: dict[str, Any], clear: str = "", rules: Rules = RULES) -> Payload:
    return update_payload(data, [clear], rules, TODAY)


def upgrade(data: dict[str, Any] | None, target: str = "Member", rules: Rules = RULES) -> Payload:
    return upgrade_payload(data, target, rules, TODAY)


def problems(call: Callable[..., Payload], *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
    """Return field and code of everything that is wrong."""
    with pytest.raises(InvalidChange) as caught:
        call(*args, **kwargs)
    return [(problem.field, problem.code) for problem in caught.value.problems]


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"{}", {}),  # nothing, but an object
        (b' {"a": [1, 2.5, null, true]} ', {"a": [1, 2.5, None, True]}),
        ('{"city": "Malmö"}'.encode(), {"city": "Malmö"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),  # a byte-order mark, as Windows writes it
        (rb'{"a": "\ud83d\ude00"}', {"a": "\U0001f600"}),  # two halves make a character
        (rb'{"a": "\u0000"}', {"a": "\x00"}),  # JSON, but not a value: see the checks
        (b'{"a":[[[[[[[1]]]]]]]}', {"a": [[[[[[[1]]]]]]]}),  # eight deep
        (b'{"a": 9223372036854775807}', {"a": 2**63 - 1}),  # the largest
    ],
)
def test_a_body_is_read(body: bytes, data: dict[str, Any]) -> None:
    assert read_json(body) == data


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"city": "Malm\xf6"}', "UTF-8"),  # Latin-1
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": 1', "line 1, column 8"),  # broken off
        (b"{'a': 1}", "not JSON"),  # Python's quotes
        (b'{"a": 1,}', "not JSON"),  # a comma too many
        (b'{"a": 1} x', "not JSON"),  # something after it
        (b'{"a": "1\n2"}', "not JSON"),  # a bare line's end in a text
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "NaN"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"a": 9223372036854775808}', "too large"),
        (b'{"a": 1, "a": 2}', "the same name twice"),
        (b'{"email": 1, "email": 1}', "email twice"),  # an attribute is named
        (b'{"b": {"a": 1, "a": 2}}', "twice"),  # inside, too
        (b'{"a":' * 8 + b"{}" + b"}" * 8, "nested too deeply"),  # nine deep
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'"vera"', "object"),
    ],
)
def test_a_body_is_refused(body: bytes, what: str) -> None:
    with pytest.raises(MalformedRequest, match=what):
        read_json(body)


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\xef\xbb\xbf"])
def test_an_empty_body_has_no_data(body: bytes) -> None:
    with pytest.raises(NoData):
        read_json(body)


@pytest.mark.parametrize("body", [b'{"vera": NaN}', b'{"vera": 1, "vera": 1}', b'{"vera"}'])
def test_what_is_said_about_a_body_holds_nothing_of_it(body: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read_json(body)

    assert "vera" not in str(caught.value)


# --- create -----------------------------------------------------------------------------------


def test_a_create_is_normalised_and_filled_in() -> None:
    payload = create(
        {
            "contactType": "member",
            "firstName": " Vera ",
            "email": " vera@Example.test",
            "mobilePhone": "070-000 00 01",
            "socialSecurityNumber": "811228-9874",
            "zipCode": 11122,
            "countryCode": "se",
            "gender": "female",
            "shoeSize": 38,
            "preferences": {"acceptsEmail": True, "acceptsSms": None},
            "consents": [{"id": "terms", "value": True, "comment": ""}],
        }
    )

    assert payload == Payload(
        attributes={
            "firstName": "Vera",
            "email": "vera@example.test",
            "mobilePhone": "+46700000001",
            "socialSecurityNumber": "198112289874",
            "zipCode": "11122",
            "countryCode": "SE",
            "gender": "Female",
            "shoeSize": 38,
            "preferences": {"acceptsEmail": True},
            "consents": [{"id": "terms", "value": True}],
        },
        contact_type="Member",
        source="POS",
        store_external_id="7",
    )


def test_empty_values_are_left_out_of_a_create() -> None:
    empty = {"city": None, "street": "", "careOf": " \t", "preferences": {}, "consents": []}

    assert create(VERA | empty).attributes == VERA


def test_an_empty_contact_type_is_the_default_one() -> None:
    rules = Rules(default_contact_type="Contact")

    assert create(VERA | {"contactType": " "}, rules).contact_type == "Contact"


def test_the_query_of_a_create_goes_before_the_settings() -> None:
    payload = create(VERA, source="kiosk", storeExternalId=" 600 ", createAsUnapproved="True")

    assert (payload.source, payload.store_external_id) == ("kiosk", "600")
    assert payload.as_unapproved


@pytest.mark.parametrize("value", ["", "false", "FALSE"])
def test_a_create_is_approved_unless_it_says_otherwise(value: str) -> None:
    assert not create(VERA, createAsUnapproved=value).as_unapproved


def test_the_country_of_the_store_is_a_default_only() -> None:
    rules = Rules(country_code="SE")

    assert create(VERA, rules).defaults == {"countryCode": "SE"}
    assert create(VERA | {"countryCode": "NO"}, rules).defaults == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, [("email", "KeyMissing")]),  # nothing at all
        ({"firstName": "Vera"}, [("email", "KeyMissing")]),  # no key
        ({"email": " "}, [("email", "KeyMissing")]),  # an empty key
        ({"email": "vera"}, [("email", "BadEmail")]),  # a wrong key is not a missing one
        (VERA | {"mobilePhone": "12"}, [("mobilePhone", "BadPhone")]),
        (VERA | {"birthDay": "2027-01-01"}, [("birthDay", "BirthDayInFuture")]),
        (VERA | {"birthDay": "1827-01-01"}, [("birthDay", "BirthDayTooEarly")]),
        (VERA | {"birthDay": "1/1/90"}, [("birthDay", "BadBirthDay")]),
        (VERA | {"socialSecurityNumber": "1"}, [("socialSecurityNumber", "BadPersonalNumber")]),
        (VERA | {"countryCode": "XX"}, [("countryCode", "BadCountryCode")]),
        (VERA | {"gender": "x"}, [("gender", "BadGender")]),
        (VERA | {"city": "a\x00"}, [("city", "ControlCharacter")]),
        (VERA | {"city": "\x1f"}, [("city", "ControlCharacter")]),  # not left out as if empty
        (VERA | {"colour": "red\x0c"}, [("colour", "ControlCharacter")]),
        ({"email": "vera@example.test\x1e"}, [("email", "ControlCharacter")]),
        ({"email": "\x1e"}, [("email", "ControlCharacter")]),  # given, and wrong
        (VERA | {"contactType": "Member\x1d"}, [("contactType", "BadContactType")]),
        (
            VERA | {"preferences": {"acceptsSms": "\x1f"}},
            [("preferences.acceptsSms", "NotBoolean")],
        ),
        (
            VERA | {"consents": [{"id": "t", "value": True, "comment": "\x1f"}]},
            [("consents[0].comment", "ControlCharacter")],
        ),
        (VERA | {"city": True}, [("city", "WrongType")]),
        (VERA | {"custom": ["a"]}, [("custom", "WrongType")]),  # nested
        (VERA | {"custom": {"a": 1}}, [("custom", "WrongType")]),
        (VERA | {"contactType": 1}, [("contactType", "WrongType")]),
        (VERA | {"contactType": "a/b"}, [("contactType", "BadContactType")]),
        (VERA | {"preferences": True}, [("preferences", "NotAnObject")]),
        (
            VERA | {"preferences": {"acceptsSms": "true"}},
            [("preferences.acceptsSms", "NotBoolean")],
        ),
        (  # as Engage's answers spell it: it would be dropped
            VERA | {"preferences": {"AcceptsEmails": True}},
            [("preferences.AcceptsEmails", "UnknownAttribute")],
        ),
        (VERA | {"preferences": {"a b": True}}, [("preferences.#1", "BadName")]),
        (VERA | {"consents": {}}, [("consents", "NotAList")]),
        (VERA | {"consents": [{"id": "t"}]}, [("consents[0].value", "Required")]),
        (VERA | {"id": "1"}, [("id", "NotAnAttribute")]),  # an answer sent back
        (VERA | {"contactId": "1"}, [("contactId", "NotAnAttribute")]),
        (VERA | {"contacts": "1"}, [("contacts", "NotAnAttribute")]),  # of the import file
        (VERA | {"ContactId": "1"}, [("ContactId", "NotAnAttribute")]),  # in any case
        (VERA | {"CONTACTS": "1"}, [("CONTACTS", "NotAnAttribute")]),
        (VERA | {"Id": "1"}, [("Id", "NotAnAttribute")]),
        (VERA | {"AvoidTriggeringExport": True}, [("AvoidTriggeringExport", "NotAnAttribute")]),
        (VERA | {"contactType": "Contacts"}, [("contactType", "BadContactType")]),
        (VERA | {"contactType": "preferences"}, [("contactType", "BadContactType")]),
        (VERA | {"contactType": "consents"}, [("contactType", "BadContactType")]),
        (
            VERA | {"preferences": {"ContactId": True}},
            [("preferences.ContactId", "NotAPreference")],
        ),
        (
            VERA | {"preferences": {"preferences": True}},
            [("preferences.preferences", "NotAPreference")],
        ),
        (VERA | {"acceptsEmail": True}, [("acceptsEmail", "UnknownAttribute")]),  # not nested
        ({"attributes": VERA}, [("attributes", "NotAnAttribute"), ("email", "KeyMissing")]),
        (VERA | {"storeExternalId": "7"}, [("storeExternalId", "QueryParameter")]),
        (VERA | {"preferences.acceptsSms": True}, [("preferences.acceptsSms", "UnknownAttribute")]),
        (VERA | {"firstname": "Vera"}, [("firstname", "UnknownAttribute")]),  # Engage drops it
        (VERA | {"shoeSize": 1, "ShoeSize": 2}, [("ShoeSize", "DuplicateName")]),
        (VERA | {"Email": "a@b.test"}, [("Email", "UnknownAttribute")]),  # once, not twice
        (VERA | {"a b": 1}, [("#2", "BadName")]),  # the name may be anything: told by its place
        (VERA | {"": 1}, [("#2", "BadName")]),
        (VERA | {"1st": 1}, [("#2", "BadName")]),  # no XML element begins with a digit
        (VERA | {"x" * 65: 1}, [("#2", "BadName")]),
        (VERA | {"\ud800": 1}, [("#2", "BadName")]),
    ],
)
def test_a_create_is_refused(data: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems(create, data) == expected


def test_everything_that_is_wrong_is_told_at_once() -> None:
    data = {"mobilePhone": "1", "birthDay": "x", "consents": [{}], "countryCode": "Sverige"}

    found = problems(create, data, createAsUnapproved="maybe", source="\x00")

    assert found == [
        ("mobilePhone", "BadPhone"),
        ("birthDay", "BadBirthDay"),
        ("consents[0].id", "Required"),
        ("consents[0].value", "Required"),
        ("countryCode", "BadCountryCode"),
        ("email", "KeyMissing"),
        ("source", "ControlCharacter"),
        ("createAsUnapproved", "NotBoolean"),
    ]


def test_what_a_contact_type_needs_must_be_there() -> None:
    rules = Rules(
        required={"Member": ("email", "firstName", "countryCode", "preferences.acceptsSms")},
        country_code="SE",
    )

    assert problems(create, VERA, rules) == [
        ("firstName", "Required"),
        ("preferences.acceptsSms", "Required"),
    ]
    assert create(VERA | {"contactType": "Contact"}, rules).contact_type == "Contact"


def test_what_a_contact_type_needs_is_found_whatever_its_case() -> None:
    rules = Rules(required={"member": ("firstName",)})

    assert problems(create, VERA | {"contactType": "MEMBER"}, rules) == [("firstName", "Required")]


GROWN_UP = Rules(minimum_age={"member": 18, "Kiosk": 13})
# On TODAY sixteen and eighteen years old.
SIXTEEN = {"birthDay": "2010-01-15"}
EIGHTEEN = {"birthDay": f"{TODAY.year - 18}-{TODAY:%m-%d}"}


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (SIXTEEN, ["birthDay"]),
        ({"socialSecurityNumber": "20100115-0018"}, ["socialSecurityNumber"]),
        ({"socialSecurityNumber": "150110A9003"}, ["socialSecurityNumber"]),  # Finnish
        (
            {**SIXTEEN, "socialSecurityNumber": "20100115-0018"},
            ["birthDay", "socialSecurityNumber"],
        ),
        ({**SIXTEEN, "contactType": "MEMBER"}, ["birthDay"]),
        ({**SIXTEEN, "contactType": "Contact"}, []),  # no age is asked for there
        ({**SIXTEEN, "contactType": "kiosk"}, []),
        (EIGHTEEN, []),
        ({}, []),  # nothing tells the age
    ],
)
def test_who_is_too_young_for_the_contact_type_is_not_signed_up(
    data: dict[str, Any], fields: list[str]
) -> None:
    payload = _problems_or_none(create, VERA | data, GROWN_UP)

    assert payload == [(name, "TooYoung") for name in fields]


def test_who_is_too_young_is_told_together_with_the_rest() -> None:
    found = problems(create, {**SIXTEEN, "email": "vera"}, GROWN_UP)

    assert found == [("email", "BadEmail"), ("birthDay", "TooYoung")]


def test_the_sentence_about_the_age_names_age_and_type() -> None:
    with pytest.raises(InvalidChange) as caught:
        create_payload(VERA | SIXTEEN, {}, GROWN_UP, TODAY, language="sv")

    (problem,) = caught.value.problems
    assert "18" in problem.message
    assert "Member" in problem.message or "member" in problem.message
    assert "2010" not in problem.message


@pytest.mark.parametrize(
    ("contact_type", "expected"),
    [("Member", [("birthDay", "TooYoung")]), ("Contact", []), (None, [])],
)
def test_the_age_in_an_update_is_judged_by_the_type_that_is_known(
    contact_type: str | None, expected: list[tuple[str, str]]
) -> None:
    found = _problems_or_none(
        update_payload, SIXTEEN, [], GROWN_UP, TODAY, contact_type=contact_type
    )

    assert found == expected


def test_the_age_in_an_upgrade_is_judged_by_the_type_that_is_asked_for() -> None:
    assert problems(upgrade, SIXTEEN, "member", GROWN_UP) == [("birthDay", "TooYoung")]
    assert upgrade(SIXTEEN, "Contact", GROWN_UP).contact_type == "Contact"


def _problems_or_none(call: Callable[..., Payload], *args: Any, **kwargs: Any) -> Any:
    try:
        call(*args, **kwargs)
    except InvalidChange as error:
        return [(each.field, each.code) for each in error.problems]
    return []


def test_names_that_the_tenant_does_not_have_are_refused_where_it_is_told() -> None:
    data = VERA | {"shoeSise": 1, "shoeSize": 2, "age": 30, "nps.grade": 1, "zzz": 1}

    assert problems(create, data, LISTED) == [
        ("shoeSise", "UnknownAttribute"),
        ("age", "ReadOnly"),
        ("nps.grade", "ReadOnly"),
        ("zzz", "UnknownAttribute"),
    ]


def test_names_that_nobody_told_about_pass() -> None:
    data = VERA | {"shoeSise": 1, "age": 30, "preferences": {"byPost": True}}

    assert create(data).attributes == data


def test_preferences_of_the_tenant_pass_where_they_are_listed() -> None:
    assert create(VERA | {"preferences": {"byPost": True}}, LISTED).attributes["preferences"]
    assert problems(create, VERA | {"preferences": {"byMail": True}}, LISTED) == [
        ("preferences.byMail", "UnknownAttribute")
    ]


@pytest.mark.parametrize(
    ("data", "rules", "meant"),
    [
        ({"firstname": "Vera"}, RULES, "firstName"),  # another case
        ({"fistName": "Vera"}, LISTED, "firstName"),  # a slip
        ({"shoesize": 1}, LISTED, "shoeSize"),  # the tenant's own
        ({"Preferences": {}}, RULES, "preferences"),
        ({"preferences": {"acceptsSMSs": True}}, RULES, "acceptsSms"),
    ],
)
def test_the_name_that_was_probably_meant_is_told(
    data: dict[str, Any], rules: Rules, meant: str
) -> None:
    with pytest.raises(InvalidChange, match=f"Did you mean '{meant}'"):
        create(VERA | data, rules)


def test_thousands_of_unknown_names_are_answered_without_guessing_for_each() -> None:
    data = VERA | {f"fistName{number}": 1 for number in range(2000)}

    with pytest.raises(InvalidChange) as caught:
        create(data, LISTED)

    assert len(caught.value.problems) == 2000
    assert str(caught.value).count("Did you mean") <= 20


def test_sentences_can_be_swedish() -> None:
    with pytest.raises(InvalidChange, match="saknas"):
        create_payload({}, {}, RULES, TODAY, language="sv")


# --- update -----------------------------------------------------------------------------------


def test_an_update_holds_what_was_given_and_nothing_else() -> None:
    payload = update({"city": " Malmö ", "preferences": {"acceptsSms": False}})

    assert payload == Payload(attributes={"city": "Malmö", "preferences": {"acceptsSms": False}})


@pytest.mark.parametrize(
    ("clear", "names"),
    [
        (["street,city"], ("street", "city")),
        (["street", " city , street,"], ("street", "city")),  # repeated, with blanks
        (["shoeSize"], ("shoeSize",)),  # the tenant's own
    ],
)
def test_attributes_are_emptied_by_naming_them(clear: list[str], names: tuple[str, ...]) -> None:
    assert update_payload({}, clear, RULES, TODAY) == Payload(attributes={}, clear=names)


def test_an_attribute_that_is_cleared_may_stand_there_empty() -> None:
    payload = update({"city": "", "street": "Provgatan 1"}, "city")

    assert payload == Payload(attributes={"street": "Provgatan 1"}, clear=("city",))


@pytest.mark.parametrize(
    ("data", "clear", "expected"),
    [
        ({"city": None}, "", [("city", "EmptyValue")]),
        ({"city": "", "street": " "}, "", [("city", "EmptyValue"), ("street", "EmptyValue")]),
        ({"email": ""}, "", [("email", "EmptyValue")]),
        ({"shoeSize": None}, "", [("shoeSize", "EmptyValue")]),
        ({"preferences": None}, "", [("preferences", "EmptyValue")]),
        ({"preferences": {}}, "", [("preferences", "EmptyValue")]),
        ({"preferences": {"acceptsSms": None}}, "", [("preferences.acceptsSms", "EmptyValue")]),
        ({"consents": []}, "", [("consents", "EmptyValue")]),
        ({"contactType": "Member"}, "", [("contactType", "ContactTypeNotUpdatable")]),
        ({"contactType": ""}, "", [("contactType", "ContactTypeNotUpdatable")]),
        ({}, "contactType", [("contactType", "ContactTypeNotUpdatable")]),
        ({"contactType": "A"}, "contactType", [("contactType", "ContactTypeNotUpdatable")]),
        ({"city": "Malmö"}, "city", [("city", "ClearedAndGiven")]),
        ({}, "email", [("email", "KeyNotClearable")]),
        ({}, "preferences", [("preferences", "NotClearable")]),
        ({}, "preferences.acceptsSms", [("preferences.acceptsSms", "NotClearable")]),
        ({}, "consents", [("consents", "NotClearable")]),
        ({}, "City", [("City", "UnknownAttribute")]),  # Engage would clear nothing
        ({}, "id", [("id", "NotAnAttribute")]),
        ({}, "a b", [("clear", "BadName")]),
        ({"id": "1", "city": "Malmö"}, "", [("id", "NotAnAttribute")]),
    ],
)
def test_an_update_is_refused(
    data: dict[str, Any], clear: str, expected: list[tuple[str, str]]
) -> None:
    assert problems(update, data, clear) == expected


def test_an_update_that_asks_for_nothing_has_no_data() -> None:
    with pytest.raises(NoData):
        update({}, " , ")


def test_an_empty_value_is_refused_with_the_way_to_clear_it() -> None:
    with pytest.raises(InvalidChange, match=re.escape("?clear=city")):
        update({"city": None})


def test_a_contact_type_in_an_update_is_refused_with_the_right_call() -> None:
    call = "POST /api/v3/contacts/{id}/updateContactType?contactTypeId="

    with pytest.raises(InvalidChange, match=re.escape(call)):
        update({"contactType": "Member"})


# --- upgrade ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "attributes"),
    [
        (None, {}),  # no body
        ({}, {}),
        ({"type": "member"}, {}),  # as public clients send it
        ({"contactType": "Member"}, {}),  # says the same
        ({"city": " Malmö "}, {"city": "Malmö"}),  # enriched
        ({"type": "gold"}, {"type": "gold"}),  # an attribute of the tenant
    ],
)
def test_an_upgrade_is_accepted(data: dict[str, Any] | None, attributes: dict[str, Any]) -> None:
    assert upgrade(data, "member") == Payload(attributes=attributes, contact_type="Member")


@pytest.mark.parametrize(
    ("data", "target", "expected"),
    [
        (None, "", [("contactTypeId", "Required")]),
        (None, " ", [("contactTypeId", "Required")]),
        (None, "a b", [("contactTypeId", "BadContactType")]),
        ({"contactType": "Contact"}, "Member", [("contactType", "ContactTypeDiffers")]),
        ({"city": ""}, "Member", [("city", "EmptyValue")]),
        (
            {"city": "", "email": "x"},
            "",
            [
                ("contactTypeId", "Required"),
                ("city", "EmptyValue"),
                ("email", "BadEmail"),
            ],
        ),
    ],
)
def test_an_upgrade_is_refused(
    data: dict[str, Any] | None, target: str, expected: list[tuple[str, str]]
) -> None:
    assert problems(upgrade, data, target) == expected


def test_an_upgrade_keeps_an_attribute_named_type_where_the_tenant_has_one() -> None:
    rules = Rules(attributes=("type",))

    assert upgrade({"type": "Member"}, "Member", rules).attributes == {"type": "Member"}


# --- fingerprints -----------------------------------------------------------------------------


def test_the_same_request_has_the_same_fingerprint_in_any_order() -> None:
    one = request_fingerprint("POST", "/x", [("a", "1"), ("b", "2")], {"c": 1, "d": {"e": 1}})
    other = request_fingerprint("post", "/x", [("b", "2"), ("a", "1")], {"d": {"e": 1}, "c": 1})

    assert one == other
    assert re.fullmatch("[0-9a-f]{64}", one)


def test_another_request_has_another_fingerprint() -> None:
    requests: list[tuple[str, str, list[tuple[str, str]], Any]] = [
        ("POST", "/x", [], {"a": 1}),
        ("PATCH", "/x", [], {"a": 1}),
        ("POST", "/y", [], {"a": 1}),
        ("POST", "/x", [("a", "1")], {"a": 1}),
        ("POST", "/x", [], {"a": "1"}),
        ("POST", "/x", [], {"a": True}),
        ("POST", "/x", [], {}),
        ("POST", "/x", [], None),
    ]

    assert len({request_fingerprint(*request) for request in requests}) == len(requests)


# --- properties -------------------------------------------------------------------------------

_NAMES = st.one_of(
    st.sampled_from(
        [
            *checks.STANDARD_ATTRIBUTES,
            "preferences",
            "consents",
            "contactType",
            "id",
            "Email",
            "age",
        ]
    ),
    st.text(max_size=8),
)
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=12)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(_NAMES, inner, max_size=3),
        st.dictionaries(st.sampled_from([*checks.CONSENT_MEMBERS, *checks.PREFERENCES]), inner),
    ),
    max_leaves=10,
)
_BODIES = st.dictionaries(_NAMES, _JSON, max_size=8)
_RIGHT = st.fixed_dictionaries(
    {"email": st.emails()},
    optional={
        "firstName": st.text(max_size=10),
        "mobilePhone": st.sampled_from(["070-000 00 01", "+46 (0)70 000 00 01", "+12025550100"]),
        "socialSecurityNumber": st.sampled_from(["811228-9874", "121212+1212", "131052-308t"]),
        "birthDay": st.dates(date(1900, 1, 1), TODAY).map(str),
        "countryCode": st.sampled_from(["se", "NO"]),
        "gender": st.sampled_from(["male", "OTHER"]),
        "zipCode": st.one_of(st.integers(), st.text(max_size=5)),
        "shoeSize": _SCALARS,
        "contactType": st.sampled_from(["member", "Contact", " ", None]),
        "preferences": st.dictionaries(st.sampled_from(checks.PREFERENCES), st.booleans()),
        "consents": st.lists(
            st.fixed_dictionaries(
                {"id": st.text(max_size=4), "value": st.booleans()},
                optional={"date": st.just(" 2026-11-21T10:15:00Z "), "comment": st.text()},
            ),
            max_size=2,
        ),
    },
)


@given(
    st.one_of(st.binary(), st.text().map(str.encode), _JSON.map(lambda j: json.dumps(j).encode()))
)
def test_whatever_the_bytes_only_intake_errors_come_of_them(body: bytes) -> None:
    try:
        data = read_json(body)
    except IntakeError:
        return

    assert isinstance(data, dict)


@given(_BODIES, st.lists(_NAMES, max_size=3), st.sampled_from([RULES, LISTED]))
def test_whatever_the_json_only_intake_errors_come_of_it(
    data: dict[str, Any], names: list[str], rules: Rules
) -> None:
    for call in (
        lambda: create_payload(data, {name: name for name in names}, rules, TODAY),
        lambda: update_payload(data, names, rules, TODAY),
        lambda: upgrade_payload(data, "Member", rules, TODAY),
    ):
        try:
            payload = call()
        except IntakeError as error:
            assert error.message.isprintable()
        else:
            assert Payload.from_json(payload.to_json()) == payload
            payload.to_json().encode()


@given(_RIGHT)
def test_a_normalised_create_normalises_to_itself(data: dict[str, Any]) -> None:
    try:
        once = create(data)
    except InvalidChange:
        return

    again = create(
        {**once.attributes, "contactType": once.contact_type},
        source=once.source or "",
        storeExternalId=once.store_external_id or "",
    )

    assert again == once


@given(_RIGHT)
def test_a_normalised_update_normalises_to_itself(data: dict[str, Any]) -> None:
    data.pop("contactType", None)
    try:
        once = update(data)
    except InvalidChange:
        return

    assert update(dict(once.attributes)) == once


def test_the_codes_in_use_are_the_codes_with_a_sentence() -> None:
    folder = Path(agent.intake.__file__).parent
    source = "".join((folder / name).read_text() for name in ("checks.py", "payload.py"))
    used = set(re.findall(r'(?:Wrong\(|\.wrong\([^()"]*(?:"[^"]*")?[^()"]*)"([A-Z]\w+)"', source))

    assert used == set(words.CODES)
