"""What may stand in a file: found out for each contact before it is sealed.

Everything that writing, contacts.xsd and the tenant's stylesheet could stumble over is found here,
so that one contact is left out and a file never has to be given up. Blocking: runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from agent.config import Config
from agent.delivery.batch.document import CannotBeWritten, Element, check_element
from agent.delivery.batch.schema import check_form
from agent.delivery.batch.stylesheet import (
    CHANGES,
    LEAVES_OUT,
    NotTurned,
    Stylesheet,
    StylesheetProblem,
    try_on_sample,
)


@dataclass(frozen=True)
class Unfit:
    """Why a contact cannot stand in a file. Names the attribute, never the value."""

    code: str
    what: str  # a sentence
    attribute: str | None = None  # None: nobody can say which one it is
    by_stylesheet: bool = False  # the tenant's, so that it may be right with another one


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
        on a sample as well.
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
        for identified in (True, False):
            positions = [p for p, e in elements.items() if (e.contact_id is not None) is identified]
            errors |= self._failing(stylesheet, elements, positions)
        if errors and (what := self._fault_on_sample) is not None:
            raise StylesheetProblem(
                f"{_on_everybody(stylesheet.path, what)} "
                "Correct it; what waits is kept and goes by the API when it can."
            )
        return {
            position: Unfit(code="StylesheetFailed", what=_on_one(error.what), by_stylesheet=True)
            for position, error in errors.items()
        }

    def _failing(
        self, stylesheet: Stylesheet, elements: Mapping[int, Element], positions: Sequence[int]
    ) -> dict[int, NotTurned]:
        """Give those that the stylesheet fails on or leaves out; all of one kind of file."""
        if not positions:
            return {}
        part = [elements[position] for position in positions]
        try:
            left_out = stylesheet.left_out(part, self._config.engage.contact_key)
        except NotTurned as error:
            if len(positions) == 1:
                return {positions[0]: error}
            # Seldom: usually one look at all of them is enough.
            alone = [self._failing(stylesheet, elements, [position]) for position in positions]
            return {position: error for found in alone for position, error in found.items()}
        return {positions[place]: NotTurned(LEAVES_OUT) for place in left_out}

    @cached_property
    def _fault_on_sample(self) -> str | None:
        """Say what is wrong with the stylesheet itself: with contacts nobody could find fault."""
        try:
            if self._stylesheet is not None:
                try_on_sample(self._stylesheet, self._config)
        except NotTurned as error:
            return error.what
        return None


def _on_everybody(path: Path, what: str) -> str:
    if what in (LEAVES_OUT, CHANGES):
        return f"The stylesheet {path} {what}, so no file is made."
    return f"The stylesheet {path} {what} on every contact, so no file is made."


def _on_one(what: str) -> str:
    if what == LEAVES_OUT:
        return "The stylesheet of fallback.xslt leaves this contact out."
    return f"The stylesheet of fallback.xslt {what} on this contact."


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
