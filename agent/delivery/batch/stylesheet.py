"""A tenant's own form of the file: the XSLT 1.0 stylesheet of `fallback.xslt`.

Reads it, tries it on a sample, and turns written files. A stylesheet can read and write nothing
else: no files, no network. Knows nothing of changes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from agent.config import Config
from agent.delivery.batch.document import Element, write_document
from agent.delivery.batch.schema import safe_parser
from agent.errors import Problem, RouteError

if TYPE_CHECKING:
    from lxml import etree

_PLACE: Final = "[fallback] xslt"


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
            self._turn = etree.XSLT(
                etree.fromstring(content, safe_parser()), access_control=access.DENY_ALL
            )
        except (etree.XSLTError, etree.XMLSyntaxError) as error:
            # Nobody's data stands in a stylesheet: what is wrong with it may be quoted.
            raise StylesheetProblem(
                f"{path} is no XSLT 1.0 stylesheet: {_one_line(error)}."
            ) from None

    def turn(self, path: Path, stream: BinaryIO) -> None:
        """Turn a written file. Holds all of it in memory. Raises NotTurned."""
        from lxml import etree

        stream.write(self._turned(etree.parse(str(path), safe_parser())))

    def turn_elements(self, elements: Sequence[Element]) -> bytes:
        """Give what a file with only these contacts becomes. Raises NotTurned."""
        from lxml import etree

        plain = io.BytesIO()
        write_document(elements, plain)
        return self._turned(etree.ElementTree(etree.fromstring(plain.getvalue(), safe_parser())))

    def _turned(self, tree: etree._ElementTree) -> bytes:
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
        return content


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
                "Correct it: it gets a document in the form and namespace of contacts.xsd.",
            ),
        )
    return ()


def _readable(config: Config) -> Path | None:
    """Give the stylesheet if it can be read; where not, config.check_files() says so."""
    path = config.fallback.xslt
    return path if path is not None and path.is_file() and os.access(path, os.R_OK) else None


def try_on_sample(stylesheet: Stylesheet, config: Config) -> None:
    """Turn invented contacts, with contactId and without. Raises NotTurned."""
    for element in _sample(config):
        stylesheet.turn_elements([element])


def _sample(config: Config) -> tuple[Element, Element]:
    engage = config.engage
    attributes: dict[str, Any] = {
        **{name: "sample" for name in engage.attributes if not name.startswith("preferences.")},
        "email": "vera.testsson@example.test",
        "mobilePhone": "+46700000001",
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
    attributes.setdefault(engage.contact_key, "sample")
    new = Element(
        engage.default_contact_type,
        attributes,
        source=config.store.source,
        store_external_id=config.store.id,
    )
    known = Element(
        engage.default_contact_type, attributes, contact_id="65d152a2-1d2c-4b5f-9c3a-0123456789ab"
    )
    return new, known
