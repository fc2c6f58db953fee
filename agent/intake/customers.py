"""/agent/v1/contacts and /agent/v1/erasures: what this till holds of a person, and its erasure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import events
from agent.clock import Clock, to_text
from agent.contact import Key
from agent.errors import AgentError, MalformedRequest
from agent.intake.guard import TOKEN_NAME
from agent.journal import erasure
from agent.journal.erasure import Erased, Erasure, Held
from agent.journal.journal import Journal

_MOST = 200


class Customers:
    """The calls; each needs a token."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        digest: Callable[[Key], int | None],
        forget: Callable[[], None],
    ) -> None:
        """`digest`: a key as the register has it; `forget`: drops what is remembered of answers."""
        self._journal = journal
        self._clock = clock
        self._digest = digest
        self._forget = forget

    def routes(self) -> list[web.RouteDef]:
        """Give the calls for the application."""
        return [
            web.get("/agent/v1/contacts/{ref}", self.show),
            web.delete("/agent/v1/contacts/{ref}", self.erase),
            web.get("/agent/v1/erasures", self.list_erasures),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """`GET contacts/{ref}`: ref, contactId, which keys are known (names only), open changes,
        and how much else is held."""
        held = await self._journal.read(partial(erasure.held, public_id=request.match_info["ref"]))
        return _answer(_held_body(held))

    async def erase(self, request: web.Request) -> web.Response:
        """`DELETE contacts/{ref}`, a ref or GUID: erase what this till holds of a customer.

        `?open=discard` gives up what is open of them as well. Safe to repeat.
        """
        wish = request.query.get("open", "")
        if wish not in ("", "discard"):
            raise MalformedRequest("`open` can only be discard. Nothing was erased.")
        erased = await self._journal.write(
            partial(
                erasure.erase,
                public_id=request.match_info["ref"],
                give_up_open=wish == "discard",
                token_name=request[TOKEN_NAME],
                digest=self._digest,
                now=to_text(self._clock.now()),
            )
        )
        self._forget()
        self._journal.tell(erased.discarded)
        events.log().info("contact_erased", changes=erased.changes, count=erased.keys)
        left = [*_left_in_engage(erased), *await self._left_here(erased)]
        return _answer(_erased_body(erased, left))

    async def list_erasures(self, request: web.Request) -> web.Response:
        """`GET erasures` → {items}: who was erased here, the latest first; ids only."""
        found = await self._journal.read(partial(erasure.erasures, limit=_MOST))
        return _answer({"items": [_erasure_body(each) for each in found]})

    async def _left_here(self, erased: Erased) -> list[str]:
        """Say what of it may still stand in a file of this till."""
        try:
            is_clean = await self._journal.remove_traces(erased.traces)
        except AgentError as error:
            events.log().warning("scrub_failed", code=error.code)
            is_clean = False
        left = []
        if not is_clean:
            left.append(
                "The bytes of it may stand in unused parts of the journal's file until the agent "
                "writes them anew. Nothing shows them; it is tried again by itself."
            )
        copies = sorted(path.name for path in _copies(self._journal.database.path))
        if copies:
            left.append(
                f"A copy of the journal that an upgrade made still holds it: {', '.join(copies)}. "
                "Remove it once the upgrade has proved itself."
            )
        return left


def _answer(body: Mapping[str, Any]) -> web.Response:
    """Answer with what nobody may keep: it is about customers."""
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def _copies(journal: Path) -> list[Path]:
    return list(journal.parent.glob(f"{journal.name}.before-*"))


def _left_in_engage(erased: Erased) -> list[str]:
    if erased.in_engage == "yes":
        return ["Engage has this customer. Erase them there too."]
    if erased.in_engage == "maybe":
        return [
            "A sign-up of this customer may have reached Engage, though no answer came. Look them "
            "up there, and erase them if they are found."
        ]
    return []


# --- bodies ---------------------------------------------------------------------------------------


def _held_body(held: Held) -> dict[str, Any]:
    contact = held.contact
    return {
        "ref": contact.ref if contact else None,
        "contactId": held.contact_id,
        "contactType": contact.contact_type if contact else None,
        "keys": list(held.keys),
        "openChanges": [change.id for change in held.open_changes],
        "settledChanges": held.settled_changes,
        "keptAnswers": held.answers,
        "isMember": held.is_member,
        "wasErased": held.was_erased,
    }


def _erased_body(erased: Erased, left: list[str]) -> dict[str, Any]:
    contact = erased.held.contact
    return {
        "ref": contact.ref if contact else None,
        "contactId": erased.held.contact_id,
        "erased": {
            "changes": erased.changes,
            "keys": erased.keys,
            "answers": erased.held.answers,
            "member": erased.held.is_member,
        },
        "discarded": [change.id for change in erased.discarded],
        "inEngage": erased.in_engage,
        "left": left,
    }


def _erasure_body(note: Erasure) -> dict[str, Any]:
    return {
        "ref": note.ref,
        "contactId": note.contact_id,
        "erasedAt": note.erased_at,
        "by": note.token_name,
        "changes": note.changes,
        "discarded": note.discarded,
        "inEngage": note.in_engage,
    }
