"""From a POS's JSON to the XML file and back, for every text there is.

What a file cannot carry is refused at intake with the field's name, because an import reports
nothing; all else comes out of the file as it went in. What XML can carry, lxml itself says.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from agent.change import Kind, Payload
from agent.delivery.batch.document import Element, check_element, write_document
from agent.delivery.batch.packing import element_of
from agent.delivery.batch.schema import check_form, read_document, validate
from agent.errors import InvalidChange, MalformedRequest
from agent.intake import checks
from agent.intake.payload import (
    Rules,
    create_payload,
    read_json,
    update_payload,
    upgrade_payload,
)
from agent.journal.batches import Entry

TODAY = date(2026, 11, 21)
GUID = "65d152a2-1d2c-4b5f-9c3a-0123456789ab"
RULES = Rules()
KEY = {"email": "vera@example.test"}

# All of Unicode, halves of characters included: JSON can write them.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
# Mostly what is hard: control characters, blanks, halves, non-characters, markup.
HARD = st.text(
    st.sampled_from(
        " \t\r\n\x00\x0b\x1c\x7f\x85\xa0\u2028\ufeff\ud800\udfff\ufffe\uffff<&]>\"'aåé😀"
    ),
    max_size=6,
)
TEXTS = ANY_TEXT | HARD


def xml_carries(text: str) -> bool:
    """Ask lxml, not our own rules."""
    try:
        etree.Element("x").text = text
    except ValueError:
        return False
    return True


def create(data: Mapping[str, Any], **query: str) -> Payload:
    return create_payload({**KEY, **data}, query, RULES, TODAY)


def update(data: Mapping[str, Any]) -> Payload:
    return update_payload(data, (), RULES, TODAY)


def upgrade(data: Mapping[str, Any]) -> Payload:
    return upgrade_payload(data, "Member", RULES, TODAY)


def in_file(payload: Payload) -> Element:
    """Write a payload as the one contact of a file, and read it back."""
    kind = Kind.CREATE if payload.contact_type else Kind.UPDATE
    contact_id = None if kind is Kind.CREATE else GUID
    contact_type = payload.contact_type or "Member"
    entry = Entry(0, 1, contact_id, contact_type, None, ((kind, payload),))
    element = element_of(entry, "email")
    check_element(element)
    check_form([element])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.xml"
        with path.open("wb") as stream:
            write_document([element], stream)
        validate(path)
        (read,) = read_document(path)
    return read


# Each place for a text: what is sent, the field that is named, and where it comes out.
PLACES: dict[str, tuple[Callable[[str], dict[str, Any]], str, Callable[[Element], Any]]] = {
    "standard": (lambda t: {"city": t}, "city", lambda e: e.attributes.get("city")),
    "custom": (lambda t: {"shoeColour": t}, "shoeColour", lambda e: e.attributes.get("shoeColour")),
    "consent's id": (
        lambda t: {"consents": [{"id": t, "value": True}]},
        "consents[0].id",
        lambda e: e.attributes["consents"][0]["id"],
    ),
    "consent's comment": (
        lambda t: {"consents": [{"id": "news", "value": False, "comment": t}]},
        "consents[0].comment",
        lambda e: e.attributes["consents"][0].get("comment"),
    ),
    "consent's source": (
        lambda t: {"consents": [{"id": "news", "value": False, "source": t}]},
        "consents[0].source",
        lambda e: e.attributes["consents"][0].get("source"),
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", [create, update, upgrade])
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
@example(text="a\x00")
@example(text="\ud800")
@example(text="a\r\nb")
def test_a_text_is_refused_by_its_fields_name_or_comes_out_of_the_file_as_it_went_in(
    call: Callable[[Mapping[str, Any]], Payload], place: str, text: str
) -> None:
    data, field, found = PLACES[place]
    text = f"x{text}x"  # blanks at the ends are no data; that is another test

    try:
        payload = call(data(text))
    except InvalidChange as refused:
        assert not xml_carries(text)
        assert [(each.field, each.code) for each in refused.problems] == [
            (field, "ControlCharacter")
        ]
        return

    assert xml_carries(text)
    if call is not upgrade:  # these never go by file
        assert found(in_file(payload)) == text


@pytest.mark.parametrize("parameter", ["source", "storeExternalId"])
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
def test_a_parameter_of_the_address_is_refused_or_comes_out_as_it_went_in(
    parameter: str, text: str
) -> None:
    text = f"x{text}x"

    try:
        read = in_file(create({}, **{parameter: text}))
    except InvalidChange as refused:
        assert not xml_carries(text)
        assert [(each.field, each.code) for each in refused.problems] == [
            (parameter, "ControlCharacter")
        ]
        return

    assert (read.source if parameter == "source" else read.store_external_id) == text


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="\x1f")
@example(text="a\x0b")
def test_blanks_at_the_ends_are_no_data_and_never_make_a_file_fail(text: str) -> None:
    try:
        payload = create({"city": text})
    except InvalidChange:
        assert not xml_carries(text)
        return

    assert in_file(payload).attributes.get("city", "") == text.strip()


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(max_size=8) | st.from_regex(r"[A-Za-z_:][\w.:-]{0,70}", fullmatch=True),
    text=st.text(max_size=3),
)
@example(name="contacts", text="x")
@example(name="contactId", text="x")
@example(name="avoidTriggeringExport", text="x")
@example(name="acceptsEmail", text="perhaps")
@example(name="xml", text="x")
@example(name="a:b", text="x")
def test_an_attribute_of_any_name_that_intake_takes_can_stand_in_a_file(
    name: str, text: str
) -> None:
    try:
        payload = create({name: f"x{text}x"} if name not in KEY else {})
    except InvalidChange:
        return

    read = in_file(payload).attributes
    assert name in read or name in checks.STANDARD_ATTRIBUTES or name == "contactType"


@settings(max_examples=60, deadline=None)
@given(
    flags=st.dictionaries(
        st.text(max_size=8) | st.sampled_from(checks.PREFERENCES), st.booleans() | TEXTS, max_size=3
    )
)
@example(flags={"contactId": True})
@example(flags={"preferences": True})
@example(flags={"Consents": True})
def test_preferences_that_intake_takes_can_stand_in_a_file(flags: dict[str, Any]) -> None:
    try:
        payload = create({"preferences": flags})
    except InvalidChange as refused:
        assert all(each.field.startswith("preferences.") for each in refused.problems)
        return

    kept = {name: flag for name, flag in flags.items() if isinstance(flag, bool)}
    assert in_file(payload).attributes.get("preferences", {}) == kept


@settings(max_examples=60, deadline=None)
@given(contact_type=st.from_regex(r"[A-Za-z_:][\w.:-]{0,20}", fullmatch=True) | TEXTS)
@example(contact_type="Contacts")
@example(contact_type="preferences")
@example(contact_type="Consents")
@example(contact_type="new")
def test_a_contact_type_that_intake_takes_can_stand_in_a_file(contact_type: str) -> None:
    try:
        payload = create({"contactType": contact_type})
    except InvalidChange as refused:
        assert [each.field for each in refused.problems] == ["contactType"]
        return

    assert payload.contact_type is not None
    assert in_file(payload).contact_type == payload.contact_type.lower()


@settings(max_examples=100, deadline=None)
@given(
    value=st.booleans()
    | st.integers()
    | st.floats()
    | st.lists(TEXTS, max_size=2)
    | st.dictionaries(TEXTS, TEXTS, max_size=2)
)
def test_a_value_of_any_type_that_intake_takes_can_stand_in_a_file(value: Any) -> None:
    body = json.dumps({**KEY, "custom": value}).encode()
    try:
        payload = create(read_json(body))
    except (InvalidChange, MalformedRequest):
        return

    read = in_file(payload).attributes["custom"]
    assert read == str(value).lower() if isinstance(value, bool) else float(read) == float(value)


def test_every_character_that_xml_knows_is_taken_and_read_back() -> None:
    # XML 1.0, production [2].
    ranges = (range(0x20, 0xD800), range(0xE000, 0xFFFE), range(0x10000, 0x110000))
    every = "x\t\n\r" + "".join(map(chr, itertools.chain(*ranges))) + "x"

    payload = create({"city": every})

    stream = io.BytesIO()
    write_document([Element("Member", payload.attributes)], stream)
    assert etree.fromstring(stream.getvalue()).findtext(".//{*}city") == every
