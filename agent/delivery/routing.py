"""API or file, for one lane: which of its open changes a file could take. Pure.

Never by file (docs/decisions/0005): upgrades, unapproved sign-ups, changes that clear attributes,
what may have happened already, and an update that changes the key itself while Engage's GUID is
not known: the file could not say whom it means. Nor any sign-up where a contact that exists is to
be left as it is: an import would update it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.change import Change, Kind, State, foldable
from agent.contact import Key
from agent.delivery.folding import changes_key


def file_part(
    changes: Sequence[Change], keys: Sequence[Key], *, contact_key: str, on_existing: str = "update"
) -> tuple[Change, ...]:
    """Give the changes at a lane's head that one element of a file can carry; empty if none can.

    `changes` are the open ones in capture order, `keys` what the contact is found by.
    """
    part: list[Change] = []
    for change in changes:
        if change.kind is Kind.CREATE and not takes_creates(on_existing):
            break
        if not _fits(change) or not _finds_contact(change, part, keys, contact_key):
            break
        part.append(change)
    return tuple(part)


def takes_creates(on_existing: str) -> bool:
    """Say whether a file may sign anybody up, with this `engage.on_existing`.

    Engage's import and its bulk calls update whom they find by the key; only the API tells first.
    """
    return on_existing != "conflict"


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
