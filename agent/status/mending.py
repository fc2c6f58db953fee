"""A rejected change as a form, and the filled-in form as what the POS would send. Pure.

The form is the one place of the page where a customer's data stands, and only for who is signed in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.change import Change, Kind
from agent.errors import FieldProblem
from agent.status.words import Words

_PREFIX = "f:"  # of an input's name; what follows is a JSON pointer (RFC 6901)
_NEW_NAME, _NEW_VALUE = "new-name", "new-value"
_CONTACT_TYPE = "contactType"

# Codes under which the agent speaks for itself; under any other Engage does.
_OURS = frozenset(
    (
        "ApprovedContactWithKeyExists",
        "CannotBeWritten",
        "ContactNotFound",
        "CreateDiscarded",
        "ImportDiffers",
        "ImportSkipped",
        "MultipleMatches",
        "PayloadDamaged",
        "StylesheetFailed",
    )
)

Path = tuple[str, ...]
Problems = Sequence[tuple[str, str]]  # field as it was named, and what is wrong with it


@dataclass(frozen=True)
class Field:
    """One input of the form."""

    name: str  # of the input
    attribute: str  # as Engage spells it: preferences.acceptsEmail
    label: str
    value: str
    is_choice: bool  # yes, no, or left out
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A change that can be corrected."""

    fields: tuple[Field, ...]
    new_name: str
    new_value: str
    general: tuple[str, ...]  # what is wrong and belongs to no field
    seen: str  # tells whether the change is still the one that was shown


def form_of(
    change: Change,
    words: Words,
    problems: Problems,
    given: Mapping[str, str] | None = None,
) -> Form:
    """Lay out a change's data with what is wrong beside it; `given`: what was typed before."""
    leaves, typed = dict(_leaves(change)), given or {}
    for name in typed:
        if name.startswith(_PREFIX):
            leaves.setdefault(_path(name), "")
    for name in _asked_for(problems, words):
        if not _is_there(name, leaves):
            leaves[tuple(name.split(".", 1)) if name.startswith("preferences.") else (name,)] = ""
    laid = [_field(path, value, words, problems, typed) for path, value in leaves.items()]
    fields = tuple(sorted(laid, key=lambda field: not field.problems))  # what is wrong comes first
    placed = {text for field in fields for text in field.problems}
    return Form(
        fields=fields,
        new_name=typed.get(_NEW_NAME, ""),
        new_value=typed.get(_NEW_VALUE, ""),
        general=tuple(dict.fromkeys(text for _, text in problems if text not in placed)),
        seen=digest_of(change),
    )


def engage_words(change: Change, words: Words) -> list[tuple[str, str]]:
    """Give what was said when a change was refused: field by field, and in general.

    Engage's own words stay as they are; ours are given in the person's language.
    """
    fault = change.error
    if fault is None:
        return []
    said = [(field.get("field", ""), field.get("message", "")) for field in fault.fields]
    if fault.message not in {text for _, text in said}:
        said.insert(0, ("", fault.message))
    if fault.code in _OURS:
        said = [(field, words.said(text)) for field, text in said]
    return [(field, text) for field, text in said if text]


def digest_of(change: Change) -> str:
    """Give what tells this change's data from any other; says nothing about it."""
    return hashlib.sha256(change.payload.to_json().encode()).hexdigest()[:32]


def data_of(change: Change, given: Mapping[str, str]) -> dict[str, Any]:
    """Give the body that the POS would send now; what was left empty is left out."""
    kinds = dict(_leaves(change))
    found: dict[str, Any] = {}
    for name, text in given.items():
        if name.startswith(_PREFIX) and text.strip():
            path = _path(name)
            _put(found, path, _typed(text, kinds.get(path, path[0] == "preferences" or "")))
    name, text = given.get(_NEW_NAME, "").strip(), given.get(_NEW_VALUE, "")
    if name and text.strip():
        outer, dot, inner = name.partition(".")
        path = (outer, inner) if dot and outer == "preferences" else (name,)
        _put(found, path, _typed(text, outer == "preferences" or ""))
    return _without_gaps(found)


def named_problems(problems: Iterable[FieldProblem]) -> list[tuple[str, str]]:
    """Give what intake's checks found, in the form's own way."""
    return [(problem.field, problem.message) for problem in problems]


# --- a change's data, leaf by leaf ----------------------------------------------------------------


def _leaves(change: Change) -> Iterator[tuple[Path, Any]]:
    if change.kind is Kind.CREATE:
        yield (_CONTACT_TYPE,), change.payload.contact_type or ""
    for name, value in change.payload.attributes.items():
        if isinstance(value, Mapping):
            yield from (((name, inner), leaf) for inner, leaf in value.items())
        elif isinstance(value, list):
            for number, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    yield from (((name, str(number), key), leaf) for key, leaf in entry.items())
        else:
            yield (name,), value


def _name(path: Path) -> str:
    return _PREFIX + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def _path(name: str) -> Path:
    parts = name.removeprefix(_PREFIX).split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def _attribute(path: Path) -> str:
    """Spell a leaf as intake's problems do: `preferences.acceptsEmail`, `consents[0].value`."""
    if len(path) == 3:
        return f"{path[0]}[{path[1]}].{path[2]}"
    return ".".join(path)


def _put(found: dict[str, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        below = found.setdefault(part, {})
        if not isinstance(below, dict):
            return
        found = below
    found[path[-1]] = value


def _without_gaps(found: dict[str, Any]) -> dict[str, Any]:
    """Make lists of objects whose names are numbers again."""
    consents = found.get("consents")
    if isinstance(consents, dict):
        order = sorted((key for key in consents if key.isdecimal()), key=int)
        found["consents"] = [consents[key] for key in order]
    return found


# --- values ---------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _typed(text: str, like: Any) -> Any:
    """Read what was typed as the kind of value that stood there."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    number = text.strip()
    if isinstance(like, int | float) and re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", number):
        return float(number) if "." in number else int(number)
    return text


# --- what is wrong, beside its field --------------------------------------------------------------


def _field(
    path: Path, value: Any, words: Words, problems: Problems, typed: Mapping[str, str]
) -> Field:
    name, attribute = _name(path), _attribute(path)
    return Field(
        name=name,
        attribute=attribute,
        label=_label(path, words),
        value=typed.get(name, _text(value)),
        is_choice=isinstance(value, bool) or path[0] == "preferences",
        problems=tuple(dict.fromkeys(text for at, text in problems if _is_about(at, text, path))),
    )


def _label(path: Path, words: Words) -> str:
    key = f"attribute.{path[-1]}"
    return words(key) if len(path) < 3 and words.has(key) else _attribute(path)


def _is_about(at: str, text: str, path: Path) -> bool:
    """Say whether a problem belongs to a field: it is named, or Engage's words speak of it."""
    attribute = _attribute(path)
    if at:
        return at.lower() in (attribute.lower(), path[-1].lower())
    return re.search(rf"\b{re.escape(attribute)}\b", text, re.IGNORECASE) is not None


def _asked_for(problems: Problems, words: Words) -> Iterator[str]:
    """Give known attributes that were found wrong or missing."""
    known = {
        key.removeprefix("attribute.").lower(): key.removeprefix("attribute.")
        for key in words.texts
        if key.startswith("attribute.")
    }
    for at, text in problems:
        candidates = [at.rpartition(".")[2]] if at else re.findall(r"\b[A-Za-z]+\b", text)
        for candidate in candidates:
            # In a sentence only names that are no ordinary words count: "store" is one.
            if candidate.lower() in known and (at or candidate != candidate.lower()):
                name = known[candidate.lower()]
                yield f"preferences.{name}" if name.startswith("accepts") else name


def _is_there(name: str, leaves: Mapping[Path, Any]) -> bool:
    return any(_attribute(path).lower() == name.lower() for path in leaves)
