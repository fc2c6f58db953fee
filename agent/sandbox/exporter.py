"""The member export: writes `[timestamp]_[filenumber]_members.xml` into its folder, on command.

As Engage's docs, "Contact XML export", describe it: Members only, what is new, updated and deleted
since the last one, 10,000 contacts a file, and no file without news. What they leave open is our
guess, and stands in `_CONTAINERS` and `_FIELDS`. Nobody deletes the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from agent.sandbox.faults import Faults
from agent.sandbox.register import Contact, Register

NAMESPACE = "http://eClub.Schemas.ExportMember"
PER_FILE = 10_000
_MEMBER = "Member"
_CONTAINERS = ("new", "updated", "deleted")
_FIELDS = (
    "firstName",
    "lastName",
    "email",
    "mobilePhone",
    "socialSecurityNumber",
    "memberNumber",
    "externalId",
)
_KEYS_OF_DELETED = ("memberNumber", "externalId")
# A small file that would unpack to gigabytes.
_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE contacts [<!ENTITY a "lol">'
    + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + f']><contacts xmlns="{NAMESPACE}"><new><member><email>&i;</email></member></new></contacts>'
)

# By contactId: what the last export told of a member.
_Told = dict[str, dict[str, Any]]


class Exporter:
    """Works on the export folder."""

    def __init__(self, folder: Path, register: Register, faults: Faults) -> None:
        self._folder = folder
        self._register = register
        self._faults = faults
        self._told: _Told = {}
        self._last = datetime.min.replace(tzinfo=UTC)

    def export_now(
        self, *, full: bool = False, with_ids: bool = True, per_file: int = PER_FILE
    ) -> list[str]:
        """Write what there is to tell, and return the names of the files.

        Args:
            full: All members as new, as in the one-off first fill that Voyado makes on request.
            with_ids: Whether a member's contactId is among the tenant's fields.
            per_file: Contacts in one file.
        """
        before = {} if full else self._told
        self._told = {each.contact_id: _fields(each) for each in self._members()}
        news = list(_news(before, self._told))
        self._last = max(datetime.now(UTC), self._last + timedelta(seconds=1))
        names = []
        for number, start in enumerate(range(0, len(news), per_file)):
            name = f"{self._last:%Y%m%d%H%M%S}_{number}_members.xml"
            self._write(name, news[start : start + per_file], with_ids)
            names.append(name)
        return names

    def clear(self) -> None:
        """Forget what was told, and remove the files."""
        self._told = {}
        for path in self._folder.glob("*.xml"):
            path.unlink(missing_ok=True)

    def _members(self) -> Iterator[Contact]:
        return (each for each in self._register.contacts() if each.contact_type == _MEMBER)

    def _write(self, name: str, news: Sequence[_News], with_ids: bool) -> None:
        place = self._folder / name
        temporary = place.with_name(f".{name}.part")
        with temporary.open("wb") as stream:
            if self._faults.take("exporter", {"bomb"}):
                stream.write(_BOMB.encode())
            elif self._faults.take("exporter", {"not_xml"}):
                stream.write(b"\x00\x01 This is no XML. <contacts")
            else:
                _write_document(stream, news, with_ids)
            if self._faults.take("exporter", {"cut_off"}):
                stream.truncate(stream.tell() * 2 // 3)
        temporary.replace(place)


_News = tuple[str, str, dict[str, Any]]  # container, contactId, fields


def _news(before: _Told, now: _Told) -> Iterator[_News]:
    for contact_id, fields in now.items():
        if contact_id not in before:
            yield "new", contact_id, fields
        elif before[contact_id] != fields:
            emptied = dict.fromkeys(before[contact_id].keys() - fields.keys(), "")
            yield "updated", contact_id, {**fields, **emptied}
    for contact_id, fields in before.items():
        if contact_id not in now:
            kept = {name: fields[name] for name in _KEYS_OF_DELETED if name in fields}
            yield "deleted", contact_id, kept


def _fields(contact: Contact) -> dict[str, Any]:
    fields = {name: contact.attributes[name] for name in _FIELDS if name in contact.attributes}
    return {**fields, "consents": [each["id"] for each in contact.consents]}


def _write_document(stream: BinaryIO, news: Sequence[_News], with_ids: bool) -> None:
    with (
        etree.xmlfile(stream, encoding="utf-8") as file,
        file.element(_qualified("contacts"), nsmap={None: NAMESPACE}),
    ):
        for container in _CONTAINERS:
            of_kind = [each for each in news if each[0] == container]
            if not of_kind:
                continue
            with file.element(_qualified(container)):
                for _, contact_id, fields in of_kind:
                    file.write(_member(contact_id if with_ids else None, fields))


def _member(contact_id: str | None, fields: dict[str, Any]) -> etree._Element:
    member = etree.Element(_qualified("member"), {"source": "External system"})
    if contact_id is not None:
        etree.SubElement(member, _qualified("contactId")).text = contact_id
    for name, value in fields.items():
        child = etree.SubElement(member, _qualified(name))
        if isinstance(value, list):
            for each in value:
                consent = etree.SubElement(child, _qualified("consent"))
                etree.SubElement(consent, _qualified("id")).text = each
        else:
            child.text = str(value)
    return member


def _qualified(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
