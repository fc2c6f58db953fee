"""The export's XML, read as it comes in: a member at a time, and nothing of it kept in memory.

Read leniently, because what a tenant exports is its own choice: of a member only the keys, the GUID
and the type are looked at, and unknown elements are passed over. Entities, document types and the
network are never used. Facts: root and namespace, `<new>` and `<member>` (Engage's docs, "Contact
XML export"); that the other two containers are called `updated` and `deleted`, or begin so, is
our assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.contact import KEY_ATTRIBUTES, is_ref_shaped, is_uuid

if TYPE_CHECKING:
    from lxml import etree

# The other way: what the agent itself uploads. A folder with those is not the export's.
_IMPORT_NAMESPACE = "http://eClub.Schemas.ImportContact"
_ROOT, _CONTAINER, _MEMBER, _FIELD = 1, 2, 3, 4  # how deep they stand
_DEEPEST = 64
_VALUE_MAX = 500  # a longer value is no key
_KEYS = {name.lower(): name for name in KEY_ATTRIBUTES}
_IDS = ("contactid", "id")


class NotAnExport(Exception):
    """A file that cannot be read as an export; says why, and quotes nothing."""


@dataclass(frozen=True)
class ExportedMember:
    """One member as the file tells it. Personal data."""

    is_deleted: bool
    contact_type: str  # the element's name: "member"
    contact_id: str | None  # Engage's GUID in lower case
    keys: Mapping[str, str] = field(default_factory=dict)  # as written; "" for an empty element


class ExportParser:
    """Takes a file piece by piece and gives the members that are complete."""

    def __init__(self) -> None:
        from lxml import etree

        self._errors = etree.XMLSyntaxError
        target: Any = _Target()  # the stubs want types of lxml's own in its methods
        self._target: _Target = target
        # With a target no tree is built, so memory stays flat whatever stands in the file.
        self._parser = etree.XMLParser(
            target=target,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            recover=False,
        )

    def feed(self, data: bytes) -> list[ExportedMember]:
        """Read on. Raises NotAnExport; nothing of the file may be used then."""
        try:
            self._parser.feed(data)
        except self._errors as error:
            raise self._wrong(error) from None
        return self._target.taken()

    def close(self) -> list[ExportedMember]:
        """End the file. Raises NotAnExport if it ends too early."""
        try:
            self._parser.close()
        except self._errors as error:
            raise self._wrong(error) from None
        return self._target.taken()

    def _wrong(self, error: etree.XMLSyntaxError) -> NotAnExport:
        # The parser's own words quote the document.
        return NotAnExport(f"line {error.lineno or 1} is not well-formed XML")


class _Target:
    """What the parser calls; the names of its methods are the parser's."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_deleted: bool | None = None  # of the container; None: not one of ours
        self._taken: list[ExportedMember] = []
        self._begin("", {})
        self._field = ""
        self._text: list[str] = []
        self._length = 0

    def taken(self) -> list[ExportedMember]:
        """Give the members that are complete, once."""
        taken, self._taken = self._taken, []
        return taken

    def doctype(self, name: str, public_id: str | None, system_url: str | None) -> None:
        """Refuse: a document type is where entities come from, and an export has none."""
        raise NotAnExport("it has a document type")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Go one deeper."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NotAnExport("its elements stand too deep in one another")
        namespace, name = _split(tag)
        if self._depth == _ROOT:
            _refuse_other_documents(namespace, name)
        elif self._depth == _CONTAINER:
            self._is_deleted = _is_deletion(name)
        elif self._depth == _MEMBER:
            self._begin(name, attributes)
        elif self._depth == _FIELD:
            self._field, self._text, self._length = name.lower(), [], 0

    def data(self, text: str) -> None:
        """Gather the text of a field that is looked at."""
        if self._depth != _FIELD or (self._field not in _KEYS and self._field not in _IDS):
            return
        self._length += len(text)
        if self._length <= _VALUE_MAX:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """Come back up."""
        if self._depth == _FIELD:
            if self._length <= _VALUE_MAX:
                self._note(self._field, "".join(self._text).strip())
            self._field = ""
        elif self._depth == _MEMBER and self._is_deleted is not None:
            self._taken.append(
                ExportedMember(self._is_deleted, self._type, self._contact_id, self._keys)
            )
        self._depth -= 1

    def close(self) -> None:
        """End; whether the document is whole is the parser's to say."""

    def _begin(self, name: str, attributes: Mapping[str, str]) -> None:
        self._type = name
        self._contact_id: str | None = None
        self._keys: dict[str, str] = {}
        for attribute, value in attributes.items():
            if len(value) <= _VALUE_MAX:
                self._note(_split(attribute)[1].lower(), value.strip())

    def _note(self, name: str, value: str) -> None:
        if name in _KEYS:
            self._keys[_KEYS[name]] = value
        elif name in _IDS and is_uuid(value) and not is_ref_shaped(value):
            self._contact_id = value.lower()


def _split(tag: str) -> tuple[str, str]:
    namespace, _, name = tag.rpartition("}")
    return namespace.lstrip("{"), name


def _refuse_other_documents(namespace: str, name: str) -> None:
    if name.lower() != "contacts":
        raise NotAnExport("its root is not a list of contacts")
    if namespace == _IMPORT_NAMESPACE:
        raise NotAnExport("it is a file for Engage's import")


def _is_deletion(container: str) -> bool | None:
    """Say what a container holds: members who are there, or who are gone; None: neither."""
    name = container.lower()
    if name.startswith("delete"):
        return True
    return False if name.startswith(("new", "update")) else None
