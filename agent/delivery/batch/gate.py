"""What may stand in a file: found out for each contact before it is sealed.

Everything that writing, contacts.xsd and the tenant's stylesheet could stumble over is found here,
so that one contact is left out and a file never has to be given up. Blocking: runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config
from agent.delivery.batch.document import CannotBeWritten, Element, check_element
from agent.delivery.batch.schema import check_form
from agent.delivery.batch.stylesheet import NotTurned, Stylesheet, StylesheetProblem, try_on_sample


@dataclass(frozen=True)
class Unfit:
    """Why a contact cannot stand in a file. Names the attribute, never the value."""

    code: str
    what: str  # a sentence
    attribute: str | None = None  # None: nobody can say which one it is


def stylesheet_of(config: Config) -> Path | None:
    """Give the stylesheet that files pass; Engage's bulk calls take no files."""
    return config.fallback.xslt if config.fallback.transport == "sftp" else None


class Gate:
    """Holds contacts against everything that their file will have to pass."""

    def __init__(self, config: Config) -> None:
        """Read the stylesheet anew: a corrected one needs no restart. Raises StylesheetProblem."""
        path = stylesheet_of(config)
        self._config = config
        self._stylesheet = Stylesheet(path) if path is not None else None

    def unfit(self, elements: Sequence[Element]) -> Mapping[int, Unfit]:
        """Give those that cannot stand in a file, by their position.

        Raises StylesheetProblem where it is the stylesheet that is wrong, not a contact: it fails
        on all of several contacts, or on a sample as well.
        """
        found = {
            position: Unfit(code="CannotBeWritten", what=f"{problem}", attribute=problem.attribute)
            for position, problem in _misshapen(elements)
        }
        if self._stylesheet is not None:
            rest = {p: element for p, element in enumerate(elements) if p not in found}
            found |= self._not_turned(self._stylesheet, rest)
        return found

    def _not_turned(
        self, stylesheet: Stylesheet, elements: Mapping[int, Element]
    ) -> dict[int, Unfit]:
        errors: dict[int, NotTurned] = {}
        for position, element in elements.items():
            try:
                stylesheet.turn_elements([element])
            except NotTurned as error:
                errors[position] = error
        if errors and (len(errors) == len(elements) > 1 or self._fails_on_sample(stylesheet)):
            what = next(iter(errors.values())).what
            raise StylesheetProblem(
                f"The stylesheet {stylesheet.path} {what} on every contact, so no file is made. "
                "Correct it; what waits is kept and goes by the API when it can."
            )
        return {
            position: Unfit(
                code="StylesheetFailed",
                what=f"The stylesheet of fallback.xslt {error.what} on this contact.",
            )
            for position, error in errors.items()
        }

    def _fails_on_sample(self, stylesheet: Stylesheet) -> bool:
        try:
            try_on_sample(stylesheet, self._config)
        except NotTurned:
            return True
        return False


def _misshapen(elements: Sequence[Element]) -> list[tuple[int, CannotBeWritten]]:
    """Give those that XML cannot say or contacts.xsd does not allow, with the reason."""
    found: list[tuple[int, CannotBeWritten]] = []
    sound: list[int] = []
    for position, element in enumerate(elements):
        try:
            check_element(element)
            sound.append(position)
        except CannotBeWritten as problem:
            found.append((position, problem))
    for identified in (True, False):
        group = [p for p in sound if (elements[p].contact_id is not None) is identified]
        found += _without_form(elements, group)
    return found


def _without_form(
    elements: Sequence[Element], positions: Sequence[int]
) -> list[tuple[int, CannotBeWritten]]:
    try:
        check_form([elements[position] for position in positions])
    except CannotBeWritten as problem:
        if len(positions) == 1:
            return [(positions[0], problem)]
        # Seldom: usually one look at all of them is enough.
        return [each for position in positions for each in _without_form(elements, [position])]
    return []
