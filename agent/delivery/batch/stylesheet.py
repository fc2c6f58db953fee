"""A tenant's own form of the file: the XSLT 1.0 stylesheet of `fallback.xslt`.

Reads it, tries it on a sample, and turns written files. A stylesheet can read and write nothing
else: no files, no network. Knows nothing of changes.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from agent.config import Config
from agent.delivery.batch.document import Element, write_document
from agent.delivery.batch.naming import unnamed
from agent.delivery.batch.schema import safe_parser
from agent.errors import Problem, RouteError

if TYPE_CHECKING:
    from lxml import etree

_PLACE: Final = "[fallback] xslt"
_XSL: Final = "{http://www.w3.org/1999/XSL/Transform}"
# What these answer without being given anything is the time of day, or chance.
_EXSLT: Final = "http://exslt.org/"

# What it does with more than one contact.
LEAVES_OUT: Final = "leaves contacts out"
CHANGES: Final = "gives another file each time"
_REMEDIES: Final = {
    LEAVES_OUT: "The key by which Engage finds a contact must come out as a value of its own. Its "
    "match patterns and paths need a prefix for the namespace http://eClub.Schemas.ImportContact, "
    'as in match="c:member"; without it they match nothing.',
}


class StylesheetProblem(RouteError):
    """The stylesheet of `fallback.xslt` cannot be used."""

    code = "StylesheetProblem"
    retry_after_s = 300  # a person has to mend it; asking again at once helps nobody


class NotTurned(Exception):
    """A document of which the stylesheet does not make a file."""

    def __init__(self, what: str, words: str = "") -> None:
        super().__init__(what)
        self.what = what  # ends a sentence that begins with the stylesheet
        self.words = words  # the stylesheet's own; may quote the document


class Stylesheet:
    """A stylesheet that was read; it keeps nothing of the documents that it turns."""

    def __init__(self, path: Path) -> None:
        """Raise StylesheetProblem for what cannot be read or is no stylesheet."""
        from lxml import etree

        self.path = path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StylesheetProblem(
                f"The stylesheet {path} cannot be read: {error.strerror}."
            ) from None
        access: Any = etree.XSLTAccessControl  # the stubs do not know DENY_ALL
        try:
            root = etree.fromstring(content, safe_parser())
            self._turn = etree.XSLT(root, access_control=access.DENY_ALL)
        except (etree.XSLTError, etree.XMLSyntaxError) as error:
            # Nobody's data stands in a stylesheet: what is wrong with it may be quoted.
            raise StylesheetProblem(
                f"{path} is no XSLT 1.0 stylesheet: {_one_line(error)}."
            ) from None
        for problem in _unusable(root, path):
            raise StylesheetProblem(problem)

    def turn(self, path: Path, stream: BinaryIO) -> None:
        """Turn a written file. Holds all of it in memory. Raises NotTurned."""
        from lxml import etree

        stream.write(self._turned(etree.parse(str(path), safe_parser()))[0])

    def turn_elements(self, elements: Sequence[Element]) -> bytes:
        """Give what a file with only these contacts becomes. Raises NotTurned."""
        return self._turned(_tree(elements))[0]

    def left_out(self, elements: Sequence[Element], contact_key: str) -> tuple[int, ...]:
        """Give the positions of the contacts that a file with these does not name any more.

        Raises NotTurned, also for what comes out otherwise when it is made again.
        """
        first, again = _tree(elements), _tree(elements)  # both at once: at different addresses
        content, root = self._turned(first)
        if self._turned(again)[0] != content:
            raise NotTurned(CHANGES)
        return unnamed(elements, set(_values(root)), contact_key)

    def _turned(self, tree: etree._ElementTree) -> tuple[bytes, etree._Element]:
        from lxml import etree

        try:
            # Heeds xsl:output. Not write_output(): it fails where that names no encoding.
            content = bytes(self._turn(tree))
        except (etree.XSLTError, LookupError) as error:
            raise NotTurned("fails", _one_line(error)) from None
        if not content.strip():
            raise NotTurned("gives nothing")
        try:
            root = etree.fromstring(content, safe_parser())
        except (etree.XMLSyntaxError, ValueError):
            raise NotTurned("gives no well-formed XML") from None
        if not (len(root) or (root.text or "").strip() or root.attrib):
            raise NotTurned("gives an empty document")
        return content, root


def _tree(elements: Sequence[Element]) -> etree._ElementTree:
    from lxml import etree

    plain = io.BytesIO()
    write_document(elements, plain)
    return etree.ElementTree(etree.fromstring(plain.getvalue(), safe_parser()))


def _values(root: etree._Element) -> Iterator[str]:
    """Give the texts and attribute values of a document."""
    for node in root.iter("*"):
        yield from (str(value) for value in node.attrib.values())
        yield from (text for text in (node.text, *(each.tail for each in node)) if text)


def _unusable(root: etree._Element, path: Path) -> Iterator[str]:
    """Say why no file may come from what is XSLT 1.0 all the same."""
    for node in root.iter("*"):
        encoding = str(node.get("encoding", "utf-8"))
        if node.tag == f"{_XSL}output" and encoding.lower() not in ("utf-8", "utf8"):
            yield (
                f"The stylesheet {path} writes {encoding}, and files are UTF-8. "
                'Write encoding="utf-8" in its xsl:output.'
            )
        prefixes = [re.escape(p) for p, uri in node.nsmap.items() if p and uri.startswith(_EXSLT)]
        asks = re.compile(rf"(?:{'|'.join(prefixes)}):[\w-]+\s*\(\s*\)") if prefixes else None
        for value in node.attrib.values():
            if asks is not None and (found := asks.search(str(value))):
                yield (
                    f"The stylesheet {path} asks for {found[0]}, and a file must be the same when "
                    "it is made again. Take that out."
                )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


# --- before the agent starts ------------------------------------------------------------------


def problems(config: Config) -> tuple[Problem, ...]:
    """Give what is wrong with the stylesheet of the settings: it cannot be read as one."""
    path = _readable(config)
    try:
        if path is not None:
            Stylesheet(path)
    except StylesheetProblem as problem:
        return (Problem(_PLACE, problem.message, "Correct it, or leave fallback.xslt out."),)
    return ()


def trial(config: Config) -> tuple[Problem, ...]:
    """Try the stylesheet on a sample of both kinds of file, and give what is wrong with it."""
    path = _readable(config)
    if path is None or problems(config):
        return problems(config)
    try:
        try_on_sample(Stylesheet(path), config)
    except NotTurned as error:
        words = f": {error.words}" if error.words else ""
        return (
            Problem(
                _PLACE,
                f"{path} {error.what}{words}, when it is tried on a sample.",
                _REMEDIES.get(
                    error.what,
                    "Correct it: it gets a document in the form and namespace of contacts.xsd.",
                ),
            ),
        )
    return ()


def _readable(config: Config) -> Path | None:
    """Give the stylesheet if it can be read; where not, config.check_files() says so."""
    path = config.fallback.xslt
    return path if path is not None and path.is_file() and os.access(path, os.R_OK) else None


def try_on_sample(stylesheet: Stylesheet, config: Config) -> None:
    """Turn invented contacts, with contactId and without, alone and two in a file.

    Raises NotTurned.
    """
    for elements in _samples(config):
        if stylesheet.left_out(elements, config.engage.contact_key):
            raise NotTurned(LEAVES_OUT)


def _samples(config: Config) -> Iterator[Sequence[Element]]:
    """Give the contacts of each file: one key of the tenant's is as good as another."""
    vera = _attributes(config, "vera.testsson@example.test", "+46700000001", "5500001")
    per = _attributes(config, "per.provsson@example.test", "+46700000002", "5500002")
    source, store = config.store.source, config.store.id
    kind = config.engage.default_contact_type
    new = [
        Element(kind, attributes, source=source, store_external_id=store)
        for attributes in (vera, per)
    ]
    known = [
        Element(kind, vera, contact_id="65d152a2-1d2c-4b5f-9c3a-0123456789ab"),
        Element(kind, per, contact_id="65d152a2-1d2c-4b5f-9c3a-0123456789ac"),
    ]
    for pair in (new, known):
        yield pair[:1]
        yield pair


def _attributes(config: Config, email: str, phone: str, number: str) -> dict[str, Any]:
    engage = config.engage
    attributes: dict[str, Any] = {
        **{name: "sample" for name in engage.attributes if not name.startswith("preferences.")},
        "email": email,
        "mobilePhone": phone,
        "firstName": "Vera",
        "lastName": "Testsson",
        "birthDay": "1990-01-15",
        "street": "Provgatan 1",
        "zipCode": "22222",
        "city": "Lund",
        "countryCode": "SE",
        "preferences": {"acceptsEmail": True, "acceptsSms": False},
        "consents": [{"id": "sample", "value": True, "source": "POS"}],
    }
    if engage.contact_key not in ("email", "mobilePhone"):
        attributes[engage.contact_key] = number
    return attributes
