"""Key → Engage's GUID, for everybody who is about to send: several matches are never guessed at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agent.config import Engage
from agent.contact import Key
from agent.delivery.engage import mapping
from agent.errors import SeveralMatch

# What is asked, in a word for the attempt, and the query of GET /contacts/id → answers.looked_up.
Ask = Callable[[str, dict[str, str]], Awaitable[str | None]]


async def find_contact(
    ask: Ask, settings: Engage, keys: Sequence[Key], contact_type: str | None
) -> str | None:
    """Ask Engage for a contact's GUID by its best key; several matches are narrowed by type.

    None where Engage says that it has no such contact, or no key can be asked for. Raises
    SeveralMatch when the type does not single one out, and what `ask` raises.
    """
    query = _query(settings, keys, None)
    if query is None:
        return None
    try:
        return await ask("look up", query)
    except SeveralMatch:
        narrowed = _query(settings, keys, contact_type or settings.default_contact_type)
        found = await ask("look up by type", narrowed or query)
        if found is None:
            raise  # several, none of that type: one more would make it worse
        return found


def _query(
    settings: Engage, keys: Sequence[Key], contact_type: str | None
) -> dict[str, str] | None:
    return mapping.lookup_query(
        keys,
        first=settings.contact_key,
        custom_key=settings.custom_key,
        contact_type=contact_type,
    )
