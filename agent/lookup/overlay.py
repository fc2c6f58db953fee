"""Changes of this till laid over a contact as Engage gave it; what an ETag stands for; and what a
POS wants to be different from what it was shown. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.change import Kind, Payload, State
from agent.contact import Contact
from agent.journal.served import Kept, Own

Asked = tuple[Kind, Payload]


# --- which changes count ------------------------------------------------------------------------


def has_moved(own: Iterable[Own], kept: Kept) -> bool:
    """Say whether this till changed the contact after a kept answer was asked for."""
    return any(change.ended_after(kept) for change in own if not change.is_open)


def is_on_its_way(own: Iterable[Own]) -> bool:
    """Say whether a sign-up of this till has yet to reach Engage."""
    return any(change.kind is Kind.CREATE and change.is_open for change in own)


def tells_the_contact(own: Iterable[Own]) -> bool:
    """Say whether this till knows the contact without Engage, because it made it."""
    return any(
        change.kind is Kind.CREATE and (change.is_open or (change.is_done and not change.existed))
        for change in own
    )


def since(own: Sequence[Own], kept: Kept) -> list[Asked]:
    """Give what is to be laid over a kept answer: what is open, and what was settled since."""
    return _laid(own, [each.is_open or (each.is_done and each.ended_after(kept)) for each in own])


def all_of(own: Sequence[Own]) -> list[Asked]:
    """Give what this till knows of a contact by itself, a sign-up that waits for a person too."""
    return _laid(own, [each.state is not State.REJECTED or each.holds for each in own])


def _laid(own: Sequence[Own], counts: Sequence[bool]) -> list[Asked]:
    laid: list[Asked] = []
    for place, change in enumerate(own):
        if counts[place]:
            laid.append(
                (change.kind, _without(change.payload, _set_since(change, own[place + 1 :])))
            )
    return laid


def _set_since(change: Own, later: Iterable[Own]) -> set[str]:
    """Delivery leaves out what a later change of the contact has set since; so is it here."""
    names: set[str] = set()
    if change.is_open:
        for each in later:
            if each.is_done:
                names |= each.payload.names()
    return names


def _without(payload: Payload, names: set[str]) -> Payload:
    if not names:
        return payload
    return replace(
        payload,
        attributes=payload.without(names),
        clear=tuple(name for name in payload.clear if name not in names),
    )


# --- laying them over ---------------------------------------------------------------------------


def blank(contact: Contact) -> dict[str, Any]:
    """Give a contact of which nothing is known, in Engage's shape."""
    meta = {"contactType": contact.contact_type} if contact.contact_type else {}
    return {
        "id": contact.public_id,
        "attributes": {},
        "meta": meta,
        "preferences": {},
        "consents": [],
    }


def laid_over(base: Mapping[str, Any], asked: Iterable[Asked]) -> dict[str, Any]:
    """Give a contact as it will be once these changes are in Engage, in order: later wins.

    `base` has Engage's shape, {id, attributes, meta, preferences, consents}; members that are not
    known here are kept as they are. Nothing of `base` is changed.
    """
    body = dict(base)
    for kind, payload in asked:
        given = dict(payload.attributes)
        preferences, consents = given.pop("preferences", None), given.pop("consents", None)
        if given or payload.clear or payload.defaults:
            body["attributes"] = _attributes(body.get("attributes"), given, payload)
        if isinstance(preferences, Mapping):
            body["preferences"] = _preferences(body.get("preferences"), preferences)
        if isinstance(consents, list):
            body["consents"] = _consents(body.get("consents"), consents)
        if payload.contact_type:
            body["meta"] = _meta(body.get("meta"), kind, payload.contact_type)
    return body


def _attributes(found: Any, given: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
    attributes = _object(found)
    spelled = {name.casefold(): name for name in attributes}
    for name, value in given.items():
        attributes[spelled.setdefault(name.casefold(), name)] = value
    for name, value in payload.defaults.items():
        there = spelled.setdefault(name.casefold(), name)
        if _is_empty(attributes.get(there)):
            attributes[there] = value
    for name in payload.clear:
        attributes.pop(spelled.get(name.casefold(), name), None)
    return attributes


def _preferences(found: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    preferences = _object(found)
    spelled = {preference_name(name): name for name in preferences}
    for name, value in given.items():
        preferences[spelled.setdefault(preference_name(name), name)] = value
    return preferences


def preference_name(name: str) -> str:
    """Give a preference's name in the form in which both of its spellings are equal.

    It is written `acceptsEmail`; Engage's answers spell it `AcceptsEmails`.
    """
    return name.casefold().removesuffix("s")


def _consents(found: Any, given: Iterable[Any]) -> list[Any]:
    consents = list(found) if isinstance(found, list) else []
    places = {_consent_id(consent): place for place, consent in enumerate(consents)}
    for consent in given:
        place = places.get(_consent_id(consent)) if _consent_id(consent) else None
        if place is None:
            places[_consent_id(consent)] = len(consents)
            consents.append(consent)
        else:
            consents[place] = {**consents[place], **consent}
    return consents


def _consent_id(consent: Any) -> str | None:
    found = consent.get("id") if isinstance(consent, Mapping) else None
    return found if isinstance(found, str) else None


def _meta(found: Any, kind: Kind, contact_type: str) -> dict[str, Any]:
    meta = _object(found)
    # The type of a contact that exists already changes only towards Member by a sign-up.
    wins = kind is Kind.UPGRADE or contact_type.casefold() == "member"
    if wins or _is_empty(meta.get("contactType")):
        meta["contactType"] = contact_type
    return meta


def _object(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, Mapping) else {}


# --- what was shown -----------------------------------------------------------------------------


def etag(body: Any) -> str:
    """Give the strong ETag of an answer's body."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def difference(given: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an update asks for that is not so already in the contact as it was shown.

    `given` is the body of an update. An empty value and one that is not there are the same, so a
    form can be sent back whole. Of preferences and consents only those that differ are left.
    """
    attributes = {
        name.casefold(): value for name, value in _object(shown.get("attributes")).items()
    }
    attributes["contacttype"] = _object(shown.get("meta")).get("contactType")
    left: dict[str, Any] = {}
    for name, value in given.items():
        if name == "preferences" and isinstance(value, Mapping):
            value = _other_preferences(value, shown.get("preferences"))
        elif name == "consents" and isinstance(value, list):
            value = _other_consents(value, shown.get("consents"))
        elif not _same(value, attributes.get(name.casefold())):
            left[name] = value
            continue
        else:
            continue
        if value:
            left[name] = value
    return left


def _other_preferences(given: Mapping[str, Any], shown: Any) -> dict[str, Any]:
    had = {preference_name(name): value for name, value in _object(shown).items()}
    return {
        name: value
        for name, value in given.items()
        if not _same(value, had.get(preference_name(name)))
    }


def _other_consents(given: Iterable[Any], shown: Any) -> list[Any]:
    had = {_consent_id(consent): consent for consent in (shown if isinstance(shown, list) else ())}
    return [consent for consent in given if not _is_so(consent, had.get(_consent_id(consent)))]


def _is_so(given: Any, had: Any) -> bool:
    if _consent_id(given) is None or had is None:
        return False
    return all(_same(value, had.get(name)) for name, value in given.items())


def _same(given: Any, had: Any) -> bool:
    if _is_empty(given) or _is_empty(had):
        return _is_empty(given) and _is_empty(had)
    if isinstance(given, bool) or isinstance(had, bool):
        return given is had
    if isinstance(given, str) and isinstance(had, str):
        return given.strip() == had.strip()
    return bool(given == had)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
