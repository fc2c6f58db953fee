"""The form of a batch's file: held against contacts.xsd, and read back for checking.

Everything here reads what document.py wrote, in flat memory. Entities, DTDs and the network are
never used.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.delivery.batch.document import (
    MAPPING,
    CannotBeWritten,
    Element,
    qualified,
    write_document,
)

if TYPE_CHECKING:
    from lxml import etree

SCHEMA: Final = Path(__file__).with_name("contacts.xsd")


class NotOurDocument(ValueError):
    """A file that does not have the form in which the agent writes it."""


def safe_parser(schema: etree.XMLSchema | None = None) -> etree.XMLParser:
    """Give a parser that resolves nothing and mends nothing."""
    from lxml import etree

    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=False,
        schema=schema,
    )


# --- holding against the schema ---------------------------------------------------------------


def validate(path: Path) -> None:
    """Hold a file against contacts.xsd and the rules that a schema cannot tell.

    For the agent's own form, before any stylesheet. Raises NotOurDocument with the line number and
    no value.
    """
    identified: bool | None = None
    for contact in _contacts(path, _schema()):
        positions = [
            place for place, child in enumerate(_children(contact)) if _local(child) == MAPPING.key
        ]
        if positions not in ([], [0]):
            raise NotOurDocument(f"Line {contact.sourceline}: contactId is not the first child.")
        if identified not in (None, bool(positions)):
            raise NotOurDocument(f"Line {contact.sourceline}: contactId is not in all contacts.")
        identified = bool(positions)


def check_form(elements: Sequence[Element]) -> None:
    """Find out before sealing whether contacts would have the form that the schema wants.

    Raises CannotBeWritten, which names the attribute of the first one that would not.
    """
    from lxml import etree

    stream = io.BytesIO()
    write_document(elements, stream)
    tree = etree.ElementTree(etree.fromstring(stream.getvalue(), safe_parser()))
    schema = _compiled()  # an own one: its list of errors is not shared between threads
    if not schema.validate(tree):
        errors: Any = schema.error_log  # the stubs do not know that it is a list
        raise CannotBeWritten(
            _attribute_at(tree, errors[0].path), "its value is not in the form that the file has"
        )


def _attribute_at(tree: etree._ElementTree, path: str) -> str:
    """Give the attribute of a contact that a place in the document belongs to."""
    found: Any = tree.xpath(path)
    above = [*found[0].iterancestors()]
    # The root, the container and the contact stand above it; what they are, the type decides.
    return _local([*found, *above][-4]) if len(above) >= 3 else "contactType"


def _compiled() -> etree.XMLSchema:
    from lxml import etree

    return etree.XMLSchema(etree.parse(str(SCHEMA), safe_parser()))


_schema = cache(_compiled)


# --- reading ----------------------------------------------------------------------------------


def read_document(path: Path) -> Iterator[Element]:
    """Read back what write_document() wrote, contact by contact.

    Values come as text, except for preferences and a consent's `value`, which come as booleans; the
    contact type comes in lower case. Raises NotOurDocument.
    """
    for contact in _contacts(path, None):
        yield _read_contact(contact)


def _contacts(path: Path, schema: etree.XMLSchema | None) -> Iterator[etree._Element]:
    """Give the contacts' elements one by one and forget each: 20,000 of them need no memory."""
    from lxml import etree

    depth = 0
    # Opened here: lxml leaves a file open that it opened itself when parsing ends early.
    with path.open("rb") as stream:
        parsing = etree.iterparse(
            stream,
            events=("start", "end"),
            schema=schema,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            recover=False,
        )
        try:
            for event, element in parsing:
                depth += 1 if event == "start" else -1
                if event == "start":
                    _check_place(element, depth)
                elif depth == 2:
                    yield element
                    _forget(element)
        except etree.XMLSyntaxError as error:
            # The parser's own words quote the document.
            raise NotOurDocument(f"Line {error.lineno}: not in the agent's form.") from None
    if depth != 0:
        raise NotOurDocument("The file ends too early.")  # iterparse does not always say so


def _check_place(element: etree._Element, depth: int) -> None:
    if depth <= 2:
        expected = qualified(MAPPING.root if depth == 1 else MAPPING.container)
        if element.tag != expected:
            raise NotOurDocument(f"Line {element.sourceline}: this is not a list of contacts.")
    if depth == 1 and element.getroottree().docinfo.internalDTD is not None:
        raise NotOurDocument("A document type is never written, so it is not read.")


def _forget(element: etree._Element) -> None:
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _read_contact(contact: etree._Element) -> Element:
    attributes = {_local(child): _read_value(child) for child in _children(contact)}
    contact_id = attributes.pop(MAPPING.key, None)
    store = attributes.pop(MAPPING.store, None)
    return Element(
        contact_type=_local(contact),
        attributes=attributes,
        contact_id=contact_id,
        source=contact.get(MAPPING.source),
        store_external_id=store,
    )


def _read_value(child: etree._Element) -> Any:
    name = _local(child)
    if name == MAPPING.preferences:
        return {_local(flag): flag.text == "true" for flag in _children(child)}
    if name == MAPPING.consents:
        return [_read_consent(consent) for consent in _children(child)]
    return child.text or ""


def _read_consent(consent: etree._Element) -> dict[str, Any]:
    fields: dict[str, Any] = {_local(field): field.text or "" for field in _children(consent)}
    if "value" in fields:
        fields["value"] = fields["value"] == "true"
    return fields


def _children(element: etree._Element) -> Iterator[etree._Element]:
    return element.iterchildren("*")  # no comments


def _local(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]
