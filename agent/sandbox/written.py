"""What somebody wrote about a contact, taken apart: what counts, what is wrong, what is dropped.

Pure. The API refuses the whole when anything is wrong; the file import takes what is right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.sandbox import checks

# Members of a body that are not attributes. A contactType in an update is ignored: Engage's docs,
# "Update contact", know only updateContactType for that.
_NOT_ATTRIBUTES = {"contactType", "contactId", "id", "preferences", "consents"}


@dataclass
class Written:
    """One body or one element of a file."""

    attributes: dict[str, Any] = field(default_factory=dict)  # right and in the data model
    erased: list[str] = field(default_factory=list)  # sent as null or ""
    preferences: dict[str, bool] = field(default_factory=dict)  # acceptsEmail, …
    consents: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)  # {field, errorDescription}
    unknown: list[str] = field(default_factory=list)  # dropped without a word by the API


def take_apart(body: Mapping[str, Any], custom_attributes: Collection[str]) -> Written:
    """Take apart a flat contact: attributes at the top, `preferences`, `consents`.

    Attributes that are not in the data model are dropped silently, null and "" erase (Engage's
    docs, "Update contact").
    """
    written = Written()
    for name, value in body.items():
        if name not in _NOT_ATTRIBUTES:
            _take_attribute(written, name, value, custom_attributes)
    _take_preferences(written, body.get("preferences"))
    _take_consents(written, body.get("consents"))
    return written


def problem(name: str, description: str) -> dict[str, str]:
    """Return one member of `validationErrors`."""
    return {"field": name, "errorDescription": f"{name} {description}"}


def _take_attribute(
    written: Written, name: str, value: Any, custom_attributes: Collection[str]
) -> None:
    check = checks.scalar if name in custom_attributes else checks.STANDARD.get(name)
    if check is None:
        written.unknown.append(name)
    elif value is None or value == "":
        written.erased.append(name)
    elif wrong := check(value):
        written.problems.append(problem(name, wrong))
    else:
        written.attributes[name] = value


def _take_preferences(written: Written, preferences: Any) -> None:
    if preferences is None:
        return
    if not isinstance(preferences, Mapping):
        written.problems.append(problem("preferences", "must be an object"))
        return
    for name, value in preferences.items():
        if name not in checks.PREFERENCES:
            written.unknown.append(f"preferences.{name}")
        elif not isinstance(value, bool):
            written.problems.append(problem(f"preferences.{name}", "must be true or false"))
        else:
            written.preferences[name] = value


def _take_consents(written: Written, consents: Any) -> None:
    if consents is None:
        return
    if not isinstance(consents, list):
        written.problems.append(problem("consents", "must be a list"))
        return
    for place, consent in enumerate(consents):
        wrong = _wrong_with_consent(consent)
        if wrong:
            written.problems.append(problem(f"consents[{place}]", wrong))
        else:
            written.consents.append(
                {
                    "id": consent["id"],
                    "value": consent["value"],
                    "date": consent.get("date"),
                    "source": consent.get("source"),
                    "comment": consent.get("comment"),
                }
            )


def _wrong_with_consent(consent: Any) -> str | None:
    if not isinstance(consent, Mapping):
        return "must be an object"
    if not isinstance(consent.get("id"), str) or not consent["id"]:
        return "must have an id"
    if not isinstance(consent.get("value"), bool):
        # Engage's docs, "Consents": once set it is yes or no and never "not set" again.
        return "must have a value that is true or false"
    return None
