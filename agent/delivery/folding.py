"""Open changes of one contact, in order → one set of attributes.

Pure: no I/O. Knows which value wins; not where the result goes. Both routes use it: the file route
writes one element per contact, the API route may send several updates as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.change import Attributes, Kind, Payload, foldable


def changes_key(payload: Payload, key_name: str) -> bool:
    """Say whether a payload sets the key attribute itself, for example `email`.

    An update that does so cannot find its contact by that key: it needs the contactId.
    """
    return key_name in payload.attributes or key_name in payload.clear


def needs_member(existing: str | None, payload: Payload) -> bool:
    """Say whether a sign-up makes a contact of another type a member.

    An existing contact's type changes only towards Member.
    """
    wanted = (payload.contact_type or "").casefold()
    return wanted == "member" and existing is not None and existing.casefold() != "member"


def fold(payloads: Sequence[tuple[Kind, Payload]]) -> Payload:
    """Merge foldable changes of one lane, oldest first, into one payload.

    A later value wins, attribute by attribute; `preferences` are merged flag by flag, `consents` by
    `id` (the last one wins, the order of first appearance stays). A default of a create remains a
    default, as long as no change gives that attribute. Contact type, source and store are those of
    the first create; without a create they are None.

    Raises ValueError when there is nothing to fold, or something that is not foldable.
    """
    if not payloads:
        raise ValueError("nothing to fold")
    if not all(foldable(kind, payload) for kind, payload in payloads):
        raise ValueError("an upgrade, an unapproved create or a clearing update is never folded")
    creates = [payload for kind, payload in payloads if kind is Kind.CREATE]
    attributes = _merged_in_order(payload.attributes for _, payload in payloads)
    defaults = _merged_in_order(payload.defaults for payload in reversed(creates))
    first = creates[0] if creates else Payload({})
    return Payload(
        attributes=attributes,
        defaults={name: value for name, value in defaults.items() if name not in attributes},
        contact_type=first.contact_type,
        source=first.source,
        store_external_id=first.store_external_id,
    )


def _merged_in_order(layers: Iterable[Attributes]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name] = _laid_over(name, merged.get(name), value)
    return merged


def _laid_over(name: str, earlier: Any, later: Any) -> Any:
    if name == "preferences" and isinstance(earlier, Mapping) and isinstance(later, Mapping):
        return {**earlier, **later}
    if name == "consents" and isinstance(later, Sequence) and not isinstance(later, str):
        return _consents_by_id([*(earlier if isinstance(earlier, list) else []), *later])
    return later


def _consents_by_id(consents: Iterable[Any]) -> list[Any]:
    by_id: dict[Any, Any] = {}
    for position, consent in enumerate(consents):
        named = isinstance(consent, Mapping) and isinstance(consent.get("id"), str)
        by_id[consent["id"] if named else position] = consent
    return list(by_id.values())
