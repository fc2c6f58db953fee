"""A batch → the XML file that Engage's contact import reads.

Owns every name and nesting of that file, in MAPPING; knows nothing of changes, lanes or places.
Imports lxml at first use only: a till may never need a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from agent.contact import NO_ATTRIBUTES, NO_CONTACT_TYPES

if TYPE_CHECKING:
    from lxml import etree


@dataclass(frozen=True)
class Names:
    """Every name and nesting of the import file, so that a correction is made in one place."""

    namespace: str
    root: str
    container: str  # around all contacts
    contact: Callable[[str], str]  # contact type's handle → name of the contact's element
    key: str  # child that holds the contactId; always the first
    source: str  # XML attribute of the contact's element
    store: str  # child that holds the storeExternalId
    preferences: str  # attribute name and child; one grandchild per flag
    consents: str  # attribute name and child; one grandchild `consent` each
    consent: str
    consent_fields: tuple[str, ...]  # in this order, the rest behind it by name
    elsewhere: frozenset[str]  # attributes that the file expresses otherwise: not children
    forbidden: frozenset[str]  # attributes that would change what the file means, in lower case
    taken: frozenset[str]  # names that no contact's element can have


# Namespace, root, container, `<member>`, contactId and the children's names are from Engage's docs,
# "Contact XML import". The element of other types, `source`, `createdInStore` and the nesting of
# preferences and consents are not documented: they follow the export's sample and the API's JSON.
# The import skips a field that it cannot read, and keeps the rest of the contact.
MAPPING: Final = Names(
    namespace="http://eClub.Schemas.ImportContact",
    root="contacts",
    container="new",
    contact=str.lower,
    key="contactId",
    source="source",
    store="createdInStore",
    preferences="preferences",
    consents="consents",
    consent="consent",
    consent_fields=("id", "value", "date", "source", "comment"),
    elsewhere=frozenset({"contactType"}),
    # avoidTriggeringExport makes the import of a file with names or e-mail addresses fail.
    forbidden=NO_ATTRIBUTES,
    taken=NO_CONTACT_TYPES,
)

_DECLARATION: Final = b'<?xml version="1.0" encoding="utf-8"?>\n'

# XML 1.0, production [2]: what a document cannot hold, not even as a character reference.
_FORBIDDEN_CHARACTER: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Namespaces in XML 1.0: a name without a colon.
_NAME_START: Final = (
    "A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c-\u200d\u2070-\u218f"
    "\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
_NAME: Final = re.compile(f"[{_NAME_START}][{_NAME_START}.0-9\xb7\u0300-\u036f\u203f-\u2040-]*")


@dataclass(frozen=True)
class Element:
    """One contact of a file. Personal data."""

    contact_type: str  # Engage's handle: "Member"
    attributes: Mapping[str, Any]  # flat, but for `preferences` and `consents`
    contact_id: str | None = None  # Engage's GUID, once known
    source: str | None = None
    store_external_id: str | None = None
    gets_key: bool = False  # it is about to get another key: contactId alone says whom it means


class CannotBeWritten(ValueError):
    """One contact has something that XML cannot express. Names the attribute, never the value."""

    def __init__(self, attribute: str, reason: str) -> None:
        self.attribute = attribute
        self.reason = reason
        super().__init__(f"{attribute!a} cannot stand in a file: {reason}.")


def write_document(elements: Iterable[Element], stream: BinaryIO) -> int:
    """Write the whole file and give the number of contacts in it; the stream stays open.

    The same elements give the same bytes: children are sorted by name behind contactId, None and
    blank values are left out. Memory stays flat, whatever the number of contacts.

    Raises CannotBeWritten (check_element() finds it before) and ValueError when contacts with and
    without contactId are mixed: a contactId in one contact changes how Engage reads the whole file
    (Engage's docs, "Contact XML import"). What is in the stream is then worthless.
    """
    from lxml import etree

    count = 0
    identified: bool | None = None
    # lxml writes its own declaration with single quotes; the documented file has double ones.
    stream.write(_DECLARATION)
    with (
        etree.xmlfile(stream, encoding="utf-8") as file,
        file.element(qualified(MAPPING.root), nsmap={None: MAPPING.namespace}),
    ):
        file.write("\n  ")
        with file.element(qualified(MAPPING.container)):
            for element in elements:
                if identified not in (None, element.contact_id is not None):
                    raise ValueError("contacts with and without contactId are never in one file")
                identified = element.contact_id is not None
                _write_contact(file, element)
                count += 1
            file.write("\n  ")
        file.write("\n")
    stream.write(b"\n")
    return count


def check_element(element: Element) -> None:
    """Find out before sealing whether a contact can be written at all.

    Raises CannotBeWritten for characters that XML 1.0 forbids, lone surrogates, attribute names and
    contact types that are no XML names, and values that are neither text, number nor boolean.
    """
    name, attributes, children = _contact_parts(element)
    _check_name("contactType", name)
    if name in MAPPING.taken:
        raise CannotBeWritten("contactType", "the file uses this name for something else")
    for attribute, text in attributes:
        _check_text(attribute, text)
    for child in children:
        _check_node(child.name, child)


# --- an element as a small tree of names and texts --------------------------------------------


@dataclass(frozen=True)
class _Node:
    name: str
    content: str | tuple[_Node, ...]


def _contact_parts(element: Element) -> tuple[str, list[tuple[str, str]], list[_Node]]:
    """Give the name, the XML attributes and the children of a contact, in the order written."""
    xml_attributes = [(MAPPING.source, element.source)] if _given(element.source) else []
    key = [_Node(MAPPING.key, element.contact_id)] if element.contact_id is not None else []
    children = _attribute_nodes({MAPPING.store: element.store_external_id, **element.attributes})
    return (
        MAPPING.contact(element.contact_type),
        [(name, text) for name, text in xml_attributes if text is not None],
        key + children,
    )


def _attribute_nodes(attributes: Mapping[str, Any]) -> list[_Node]:
    nodes = []
    for name in sorted(attributes.keys() - MAPPING.elsewhere):
        value = attributes[name]
        if name.lower() in MAPPING.forbidden:
            raise CannotBeWritten(name, "it is not an attribute of a contact")
        content = _content(name, value)
        if content:
            nodes.append(_Node(name, content))
    return nodes


def _content(name: str, value: Any) -> str | tuple[_Node, ...]:
    if name == MAPPING.preferences and value is not None:
        return _leaves(name, value)
    if name == MAPPING.consents and value is not None:
        return _consents(name, value)
    return _text(name, value)


def _consents(name: str, value: Any) -> tuple[_Node, ...]:
    if not isinstance(value, list | tuple):
        raise CannotBeWritten(name, "it is not a list of consents")
    consents = [_Node(MAPPING.consent, _leaves(name, consent)) for consent in value]
    return tuple(consent for consent in consents if consent.content)


def _leaves(name: str, value: Any) -> tuple[_Node, ...]:
    if not isinstance(value, Mapping):
        raise CannotBeWritten(name, "it is not an object")
    leaves = [_Node(field, _text(name, value[field])) for field in sorted(value, key=_field_order)]
    return tuple(leaf for leaf in leaves if leaf.content)


def _field_order(field: str) -> tuple[int, str]:
    known = MAPPING.consent_fields
    return (known.index(field) if field in known else len(known), field)


def _text(name: str, value: Any) -> str:
    """Give the value as it stands in the file; "" for what is not written."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _given(value) else ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        # repr() is the shortest text of this number; Decimal takes the exponent out of it.
        return format(Decimal(repr(value)), "f")
    raise CannotBeWritten(name, "its value is neither a text, a number nor true or false")


def _given(text: str | None) -> bool:
    # Blank text would erase, or be taken for a value. Characters that XML forbids are not blank:
    # Python counts some of them as white space, and they must be found, not dropped.
    return text is not None and text.strip(" \t\n\r\x85\xa0\u2028\u2029") != ""


def _check_node(attribute: str, node: _Node) -> None:
    _check_name(attribute, node.name)
    if isinstance(node.content, str):
        _check_text(attribute, node.content)
        return
    for child in node.content:
        _check_node(attribute, child)


def _check_name(attribute: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CannotBeWritten(attribute, "an XML element cannot have such a name")


def _check_text(attribute: str, text: str) -> None:
    if _FORBIDDEN_CHARACTER.search(text):
        raise CannotBeWritten(attribute, "its value has a character that XML does not allow")


# --- writing ----------------------------------------------------------------------------------


def _write_contact(file: etree._IncrementalFileWriter, element: Element) -> None:
    check_element(element)
    name, attributes, children = _contact_parts(element)
    file.write("\n    ")
    with file.element(qualified(name), dict(attributes)):
        for child in children:
            file.write("\n      ")
            _write_node(file, child)
        file.write("\n    ")


def _write_node(file: etree._IncrementalFileWriter, node: _Node) -> None:
    with file.element(qualified(node.name)):
        if isinstance(node.content, str):
            # libxml2 writes CR as &#13;: a plain one would be read back as LF.
            file.write(node.content)
            return
        for child in node.content:
            _write_node(file, child)


def qualified(name: str) -> str:
    """Give a name in the namespace of the file, as lxml wants it."""
    return f"{{{MAPPING.namespace}}}{name}"
