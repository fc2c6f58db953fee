"""A batch as XML: Engage's form, every character safe, the same bytes every time."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery.batch.document import (
    CannotBeWritten,
    Element,
    check_element,
    write_document,
)
from agent.delivery.batch.schema import NotOurDocument, read_document, validate

GUID = "65d152a2-1d2c-4b5f-9c3a-0123456789ab"
VERA = Element(
    "Member",
    {
        "lastName": "Testsson",
        "firstName": "Vera",
        "email": "vera@example.test",
        "preferences": {"acceptsSms": False, "acceptsEmail": True},
        "consents": [{"value": True, "id": "news", "comment": "at the till"}],
        "retail.keyvalue.recency": 12,
    },
    source="POS",
    store_external_id="7",
)


def written(*elements: Element) -> bytes:
    stream = io.BytesIO()
    write_document(elements, stream)
    return stream.getvalue()


def on_disk(content: bytes, folder: Path) -> Path:
    place = folder / "file.xml"
    place.write_bytes(content)
    return place


def read_back(elements: Sequence[Element]) -> list[Element]:
    with tempfile.TemporaryDirectory() as folder:
        place = on_disk(written(*elements), Path(folder))
        validate(place)
        return list(read_document(place))


def test_the_file_has_the_documented_form() -> None:
    assert (
        written(VERA).decode()
        == """\
<?xml version="1.0" encoding="utf-8"?>
<contacts xmlns="http://eClub.Schemas.ImportContact">
  <new>
    <member source="POS">
      <consents><consent><id>news</id><value>true</value><comment>at the till</comment></consent></consents>
      <createdInStore>7</createdInStore>
      <email>vera@example.test</email>
      <firstName>Vera</firstName>
      <lastName>Testsson</lastName>
      <preferences><acceptsEmail>true</acceptsEmail><acceptsSms>false</acceptsSms></preferences>
      <retail.keyvalue.recency>12</retail.keyvalue.recency>
    </member>
  </new>
</contacts>
"""  # noqa: E501
    )


def test_contact_id_is_the_first_child() -> None:
    content = written(Element("Member", {"age": 40}, contact_id=GUID)).decode()

    assert f"<member>\n      <contactId>{GUID}</contactId>\n      <age>40</age>" in content


def test_the_number_of_contacts_is_given() -> None:
    assert write_document([VERA] * 3, io.BytesIO()) == 3


def test_the_order_of_attributes_does_not_change_a_byte() -> None:
    turned = Element("Member", dict(reversed(VERA.attributes.items())), None, "POS", "7")

    assert written(turned) == written(VERA)


def test_contacts_with_and_without_contact_id_are_never_mixed() -> None:
    with pytest.raises(ValueError, match="never in one file"):
        written(VERA, Element("Member", {}, contact_id=GUID))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-12, "-12"),
        (1.5, "1.5"),
        (1e21, "1000000000000000000000"),  # no exponent
        (0.0000001, "0.0000001"),
        ("  padded ", "  padded "),
    ],
)
def test_values_are_written_plainly(value: object, text: str) -> None:
    assert f"<x>{text}</x>" in written(Element("Member", {"x": value})).decode()


@pytest.mark.parametrize("value", [None, "", "  \t\n", "\x85\u2028", {}, []])
@pytest.mark.parametrize("name", ["city", "preferences", "consents"])
def test_nothing_is_written_for_nothing(name: str, value: Any) -> None:
    nothing = value if name == "city" and not isinstance(value, dict | list) else None

    assert f"<{name}" not in written(Element("Member", {name: nothing})).decode()


@pytest.mark.parametrize(
    "attributes",
    [
        {"preferences": {}},
        {"preferences": {"acceptsSms": None}},
        {"consents": []},
        {"consents": [{}]},
        {"contactType": "Member"},  # the element's name says it
    ],
)
def test_an_empty_nest_is_not_written(attributes: dict[str, Any]) -> None:
    content = written(Element("Member", attributes)).decode()

    assert "<member>\n    </member>" in content


@pytest.mark.parametrize(
    "text",
    [
        "\"quoted\" 'twice'",
        "<b>&amp;]]></b>",
        "a\r\nb\rc\nd\te",  # a plain CR would come back as LF
        "\x85next\u2028line\u2029",
        "e\u0301 \U0001f600 \u202eright to left\u202c \u0645",
        "\ud7ff\ue000\ufffd\U0010ffff",
        "  blanks around  ",
    ],
)
def test_every_lawful_character_survives(text: str) -> None:
    element = Element("member", {"x": text}, source=text, store_external_id=text)

    assert read_back([element]) == [element]


@pytest.mark.parametrize("text", ["a\x00", "\x0b", "\x1f", "\x1c", "\ud800", "\ufffe", "\uffff"])
@pytest.mark.parametrize("place", ["x", "source", "createdInStore", "preferences", "consents"])
def test_a_forbidden_character_is_refused_with_the_attributes_name(place: str, text: str) -> None:
    element = {
        "x": Element("Member", {"x": text}),
        "source": Element("Member", {}, source=text),
        "createdInStore": Element("Member", {}, store_external_id=text),
        "preferences": Element("Member", {"preferences": {"acceptsSms": text}}),
        "consents": Element("Member", {"consents": [{"id": text, "value": True}]}),
    }[place]

    with pytest.raises(CannotBeWritten) as caught:
        check_element(element)

    assert caught.value.attribute == place
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "jeans size",
        "1st",
        "a:b",
        "",
        "a<b",
        "-a",
        "a\n",
        "avoidTriggeringExport",
        "contactId",
        "contacts",
    ],
)
def test_an_attribute_name_that_is_no_element_name_is_refused(name: str) -> None:
    with pytest.raises(CannotBeWritten) as caught:
        check_element(Element("Member", {name: "secret"}))

    assert caught.value.attribute == name
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("contact_type", ["", "Gold Member", "1st", "Contacts", "preferences"])
def test_a_contact_type_that_is_no_element_name_is_refused(contact_type: str) -> None:
    with pytest.raises(CannotBeWritten) as caught:
        check_element(Element(contact_type, {}))

    assert caught.value.attribute == "contactType"


@pytest.mark.parametrize(
    "attributes",
    [
        {"x": float("nan")},
        {"x": ["a"]},
        {"x": {"a": 1}},
        {"preferences": True},
        {"consents": "news"},
        {"consents": ["news"]},
    ],
)
def test_a_value_without_a_place_in_the_file_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(CannotBeWritten):
        check_element(Element("Member", attributes))


LAWFUL = st.characters(
    exclude_categories=["Cs"],
    exclude_characters=[chr(code) for code in range(32) if chr(code) not in "\t\n\r"]
    + ["\ufffe", "\uffff"],
)
# A leading letter: blank values are left out, which is another test.
TEXT = st.text(LAWFUL, max_size=30).map(lambda text: "x" + text)
NAME = st.from_regex(r"[A-Za-z_\u00e5\u0416\u65e5][A-Za-z0-9_.\-\u00e5]{0,10}", fullmatch=True)
PLAIN = NAME.filter(
    lambda name: (
        name.lower()
        not in {"contacttype", "contactid", "contacts", "createdinstore", "avoidtriggeringexport"}
    )
)
ELEMENT = st.builds(
    Element,
    contact_type=PLAIN.map(str.lower),
    attributes=st.dictionaries(
        PLAIN.filter(lambda name: not name.startswith(("accepts", "preferences", "consents"))),
        TEXT,
        max_size=4,
    ),
    contact_id=st.just(GUID),
    source=st.none() | TEXT,
    store_external_id=st.none() | TEXT,
)
NESTS = st.fixed_dictionaries(
    {},
    optional={
        "preferences": st.dictionaries(
            st.sampled_from(["acceptsEmail", "acceptsSms"]), st.booleans(), min_size=1
        ),
        "consents": st.lists(
            st.fixed_dictionaries({"id": TEXT, "value": st.booleans()}, optional={"comment": TEXT}),
            min_size=1,
            max_size=2,
        ),
    },
)


@given(st.lists(ELEMENT, max_size=3), NESTS)
def test_what_is_written_is_read_back(elements: list[Element], nests: dict[str, Any]) -> None:
    elements = [
        Element(
            element.contact_type,
            {**element.attributes, **nests},
            element.contact_id,
            element.source,
            element.store_external_id,
        )
        for element in elements
    ]

    assert read_back(elements) == elements


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2), st.text(max_size=8))
def test_an_element_is_either_refused_or_written_whole(
    attributes: dict[str, str], contact_type: str
) -> None:
    element = Element(contact_type, attributes)
    try:
        check_element(element)
    except CannotBeWritten:
        return

    written_names = {name for name, value in attributes.items() if value.strip()}
    with tempfile.TemporaryDirectory() as folder:
        (read,) = read_document(on_disk(written(element), Path(folder)))
    assert {*read.attributes} - {"preferences", "consents"} <= {*attributes}
    assert written_names - {*read.attributes} <= {"contactType", "createdInStore"}


HEAD = '<contacts xmlns="http://eClub.Schemas.ImportContact"><new>'
TAIL = "</new></contacts>"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<contacts/>",  # no namespace
        '<contacts xmlns="http://eClub.Schemas.ExportMember"><new/></contacts>',
        f"{HEAD}<member><contactId>1</contactId></member>{TAIL}",  # no GUID
        f"{HEAD}<member><city>x</city><contactId>{GUID}</contactId></member>{TAIL}",
        f"{HEAD}<member><contactId>{GUID}</contactId></member><member/>{TAIL}",  # mixed
        f"{HEAD}<member><preferences><acceptsSms>1</acceptsSms></preferences></member>{TAIL}",
        f"{HEAD}<member><consents><consent><id>x</id></consent></consents></member>{TAIL}",
        f'{HEAD[:-5].replace(">", chr(32))}avoidTriggeringExport="true"><new>{TAIL}',
        f"{HEAD}<member>",  # cut off
    ],
)
def test_the_schema_refuses_what_is_not_our_form(content: str, tmp_path: Path) -> None:
    with pytest.raises(NotOurDocument):
        validate(on_disk(content.encode(), tmp_path))


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE contacts [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE contacts [<!ENTITY e "boom">]>',
        '<!DOCTYPE contacts SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
def test_entities_are_never_resolved(doctype: str, tmp_path: Path) -> None:
    place = on_disk(f"{doctype}{HEAD}<member><x>&e;</x></member>{TAIL}".encode(), tmp_path)

    with pytest.raises(NotOurDocument):
        list(read_document(place))


def test_a_full_disk_is_told_as_such() -> None:
    class FullDisk(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 10_000:
                raise OSError(28, "No space left on device")
            return super().write(content)

    with pytest.raises(OSError, match="No space left"):
        write_document([VERA] * 1000, FullDisk())


MEASURE = """
import resource, sys
from agent.delivery.batch.document import Element, write_document
from agent.delivery.batch.schema import validate
from pathlib import Path
def contacts(count):
    return (Element("Member", {"email": f"{n}@example.test", "lang": "sv"}) for n in range(count))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
place = Path(sys.argv[1])
sizes = []
for count in (500, 20_000):
    with place.open("wb") as stream:
        assert write_document(contacts(count), stream) == count
    validate(place)
    sizes.append(peak())
print(sizes[1] - sizes[0])
"""


def test_memory_stays_flat_at_twenty_thousand_contacts(tmp_path: Path) -> None:
    grown_kib = int(
        subprocess.run(
            [sys.executable, "-c", MEASURE, tmp_path / "x"], check=True, capture_output=True
        ).stdout
    )

    assert grown_kib < 4096
