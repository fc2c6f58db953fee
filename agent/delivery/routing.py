"""API or file, for one lane: which of its open changes a file could take. Pure.

Never by file (docs/decisions/0005): upgrades, unapproved sign-ups, changes that clear attributes,
what may have happened already, and an update that changes the key itself while Engage's GUID is
not known: the file could not say whom it means.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.change import Change, Kind, State, foldable
from agent.contact import Key
from agent.delivery.folding import changes_key


def file_part(
    changes: Sequence[Change], keys: Sequence[Key], *, contact_key: str
) -> tuple[Change, ...]:
    """Give the changes at a lane's head that one element of a file can carry; empty if none can.

    `changes` are the open ones in capture order, `keys` what the contact is found by.
    """
    part: list[Change] = []
    for change in changes:
        if not _fits(change) or not _finds_contact(change, part, keys, contact_key):
            break
        part.append(change)
    return tuple(part)


def _fits(change: Change) -> bool:
    return (
        change.state is State.WAITING
        and not change.unknown
        and not change.retried
        and not change.damaged
        and foldable(change.kind, change.payload)
    )


def _finds_contact(
    change: Change, before: Sequence[Change], keys: Sequence[Key], contact_key: str
) -> bool:
    if change.contact.contact_id is not None or change.kind is Kind.CREATE:
        return True
    if changes_key(change.payload, contact_key):
        return False
    return bool(before) or key_value(keys, contact_key) is not None


def key_value(keys: Sequence[Key], contact_key: str) -> str | None:
    """Give the value by which Engage's import finds the contact."""
    return next((key.value for key in keys if key.name == contact_key), None)
