"""The file import: takes `*_contacts.xml` from its folder now and then, and says nothing back.

What it did is in the integration log only, as in Engage, where a person reads it in the UI. Codes
and counts, no personal data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxml import etree

from agent.sandbox import checks
from agent.sandbox.errors import EngageError
from agent.sandbox.faults import Fault, Faults
from agent.sandbox.register import Contact, Register
from agent.sandbox.written import Written, take_apart

NAMESPACE = "http://eClub.Schemas.ImportContact"
ENDING = "_contacts.xml"
_LOGGED_FILES = 1000
_MOST_NOTES = 100
_BREATHE_EVERY = 200  # contacts between two turns of the event loop
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass
class ImportedFile:
    """One line of the integration log."""

    file: str
    at: str
    outcome: str = "imported"  # or "skipped", the whole file
    reason: str | None = None  # why it was skipped
    contacts: int = 0
    created: int = 0
    updated: int = 0
    skipped: int = 0
    fields_skipped: int = 0
    notes: list[str] = field(default_factory=list)  # "contact 3: …", the first hundred

    def note(self, place: int, text: str) -> None:
        """Say something about one contact, counted from 1."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"contact {place}: {text}")


@dataclass(frozen=True)
class Element:
    """One contact of a file."""

    contact_type: str  # the element's name
    contact_id: str | None
    source: str | None
    body: Mapping[str, Any]  # as the API would take it


class UnreadableFileError(Exception):
    """A file that is skipped whole."""


class Importer:
    """Works on the import folder."""

    def __init__(self, folder: Path, register: Register, faults: Faults) -> None:
        self.log: deque[ImportedFile] = deque(maxlen=_LOGGED_FILES)
        self._folder = folder
        self._register = register
        self._faults = faults
        self._lock = asyncio.Lock()

    async def run(self, every_s: float) -> None:
        """Import again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(OSError):  # a folder that somebody took away
                await self.import_now()

    async def import_now(self) -> int:
        """Import what lies there; returns how many files were taken."""
        names = await asyncio.to_thread(self._waiting_files)
        if not names or self._faults.take("importer", {"sits"}):
            return 0
        taken = [await self.take(path) for path in names]
        return sum(taken)

    async def take(self, path: Path) -> bool:
        """Import one file and delete it; False if it is gone already or is none of ours."""
        if not path.name.endswith(ENDING) or path.parent != self._folder:
            return False
        async with self._lock:
            try:
                content = await asyncio.to_thread(path.read_bytes)
            except FileNotFoundError:
                return False
            entry = ImportedFile(path.name, datetime.now(UTC).isoformat(timespec="milliseconds"))
            try:
                await self._import(content, entry)
            except UnreadableFileError as error:
                entry.outcome, entry.reason = "skipped", str(error)
            await asyncio.to_thread(path.unlink, missing_ok=True)
            self.log.append(entry)
            return True

    def clear(self) -> None:
        """Forget the log."""
        self.log.clear()

    def _waiting_files(self) -> list[Path]:
        return sorted(path for path in self._folder.glob(f"*{ENDING}") if path.is_file())

    async def _import(self, content: bytes, entry: ImportedFile) -> None:
        if self._faults.take("importer", {"skips_file"}):
            raise UnreadableFileError("skipped by a fault that was switched on")
        elements = await asyncio.to_thread(read_file, content)
        entry.contacts = len(elements)
        # Engage's docs, "Contact XML import": a contactId in one contact acts on the whole file.
        by_id = any(element.contact_id for element in elements)
        for place, element in enumerate(elements, start=1):
            if not self._is_spared(place, element, entry):
                self._import_contact(place, element, by_id, entry)
            if place % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)

    def _is_spared(self, place: int, element: Element, entry: ImportedFile) -> bool:
        def hits(fault: Fault) -> bool:
            every = int(fault.number("every"))
            keys = {str(key).casefold() for key in fault.parameters["keys"]}
            own = {str(element.body.get(key, "")).casefold() for key in checks.KEYS}
            return bool(keys & own) or (every > 0 and place % every == 0)

        if self._faults.take("importer", {"skips"}, where=hits) is None:
            return False
        _skip(place, "skipped by a fault that was switched on", entry)
        return True

    def _import_contact(
        self, place: int, element: Element, by_id: bool, entry: ImportedFile
    ) -> None:
        tenant = self._register.tenant
        contact_type = tenant.type_named(element.contact_type)
        if contact_type is None:
            _skip(place, f"there is no contact type {element.contact_type!r}", entry)
            return
        written = self._right_part(place, element, entry)
        if self._is_too_young(written):
            _skip(place, "below the minimum age", entry)
            return
        try:
            if by_id:
                self._update_by_id(place, element, written, entry)
            else:
                self._upsert_by_key(place, contact_type, element, written, entry)
        except EngageError as error:
            _skip(place, error.code, entry)

    def _right_part(self, place: int, element: Element, entry: ImportedFile) -> Written:
        """Return the fields that are right; the bad ones are skipped one by one.

        Empty elements leave what is stored alone: the docs do not say that they erase.
        """
        written = take_apart(element.body, self._register.tenant.custom_attributes)
        written.erased.clear()
        entry.fields_skipped += len(written.problems) + len(written.unknown)
        for problem in written.problems:
            entry.note(place, f"field {problem['field']} is not valid")
        for name in written.unknown:
            entry.note(place, f"field {name} is not known")
        return written

    def _is_too_young(self, written: Written) -> bool:
        day = checks.day_of(written.attributes.get("birthDay"))
        if day is None:
            return False
        return checks.age_on(day, datetime.now(UTC).date()) < self._register.tenant.minimum_age

    def _update_by_id(
        self, place: int, element: Element, written: Written, entry: ImportedFile
    ) -> None:
        if element.contact_id is None:
            _skip(place, "has no contactId, while others in the file have one", entry)
            return
        self._register.apply(self._register.get(element.contact_id), written)
        entry.updated += 1

    def _upsert_by_key(
        self,
        place: int,
        contact_type: str,
        element: Element,
        written: Written,
        entry: ImportedFile,
    ) -> None:
        key = self._register.tenant.contact_key
        value = written.attributes.get(key)
        if value is None:
            _skip(place, f"has no valid key {key}", entry)
            return
        known = self._known(key, value, contact_type)
        if known is not None:
            self._register.apply(known, written)
            entry.updated += 1
            return
        body = {
            **written.attributes,
            "contactType": contact_type,
            "preferences": written.preferences,
            "consents": written.consents,
        }
        self._register.create(body, source=element.source)
        entry.created += 1

    def _known(self, key: str, value: Any, contact_type: str) -> Contact | None:
        found = self._register.find(key, value, contact_type) or self._register.find(key, value)
        return found[0] if found else None


def read_file(content: bytes) -> list[Element]:
    """Return the contacts of a file: `contacts/new/<contact type in lower case>`.

    Engage's docs, "Contact XML import" and "Avoid triggering export". Other containers than `new`
    are passed over.

    Raises:
        UnreadableFileError: No XML, a document type, another root, or `avoidTriggeringExport`
            together with attributes that are not keys.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=False
    )
    try:
        # S320 does not know the settings above: no entities, no network, no DTD, no huge trees.
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableFileError(f"not readable as XML: line {error.lineno}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise UnreadableFileError("a document type is not allowed")
    if root.tag != f"{{{NAMESPACE}}}contacts":
        raise UnreadableFileError(f"the root must be contacts in the namespace {NAMESPACE}")
    elements = [
        _element(each)
        for container in root.iterchildren(f"{{{NAMESPACE}}}new")
        for each in container.iterchildren("*")
    ]
    if root.get("avoidTriggeringExport") == "true":
        _refuse_standard_attributes(elements)
    return elements


def _refuse_standard_attributes(elements: list[Element]) -> None:
    """Fail as Engage does; see its docs, "Avoid triggering export"."""
    refused = set(checks.STANDARD) - set(checks.KEYS)
    if any(refused & element.body.keys() for element in elements):
        raise UnreadableFileError("avoidTriggeringExport with standard attributes")


def _element(element: etree._Element) -> Element:
    body: dict[str, Any] = {}
    for child in element.iterchildren("*"):
        name = _name(child)
        if name == "preferences":
            body[name] = {_name(each): _boolean(each) for each in child.iterchildren("*")}
        elif name == "consents":
            body[name] = [_consent(each) for each in child.iterchildren("*")]
        else:
            body[name] = (child.text or "").strip()
    contact_id = body.pop("contactId", "") or None
    return Element(_name(element), contact_id, element.get("source"), body)


def _consent(element: etree._Element) -> dict[str, Any]:
    consent: dict[str, Any] = {
        _name(each): (each.text or "").strip() for each in element.iterchildren("*")
    }
    consent["value"] = _BOOLEANS.get(str(consent.get("value", "")).lower())
    return consent


def _boolean(element: etree._Element) -> Any:
    spelled = (element.text or "").strip()
    return _BOOLEANS.get(spelled.lower(), spelled)


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname


def _skip(place: int, reason: str, entry: ImportedFile) -> None:
    entry.skipped += 1
    entry.note(place, reason)
