"""What no file can carry is refused at the till, by the name of its field, in every call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running_agent import CONTACTS, Shop, open_shop

VERA = {"email": "vera@example.test", "lastName": "Lind"}

# Field as it is named → data with a character that XML forbids, at every depth.
UNCARRIABLE: dict[str, dict[str, Any]] = {
    "city": {"city": "Lu\x00nd"},
    "street": {"street": "Provgatan 1\x1f"},  # at an end, where blanks are cut off
    "careOf": {"careOf": "\x0c"},
    "shoeColour": {"shoeColour": "\ud800"},
    "consents[0].id": {"consents": [{"id": "ne\x0bws", "value": True}]},
    "consents[1].comment": {
        "consents": [
            {"id": "a", "value": True},
            {"id": "b", "value": True, "comment": "\uffff"},
        ]
    },
}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop whose Engage demands a last name: a sign-up without one can be mended."""
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as opened:
        yield opened


async def test_what_no_file_can_carry_is_refused_with_the_fields_name(shop: Shop) -> None:
    known = shop.sandbox.seed(email="per@example.test", lastName="Lind")
    refused = await shop.pos.create("vera@example.test")
    calls = (
        ("POST", CONTACTS),
        ("PATCH", f"{CONTACTS}/{known}"),
        ("POST", f"{CONTACTS}/{known}/updateContactType?contactTypeId=Member"),
        ("PUT", f"{refused.headers['Location']}/payload"),
    )
    before = await shop.pos.changes()

    for method, path in calls:
        for field, data in UNCARRIABLE.items():
            answer = await shop.pos(method, path, {**VERA, **data})

            assert (answer.status, answer.code) == (422, "ValidationError")
            assert answer.fields == [(field, "ControlCharacter")]

    assert await shop.pos.changes() == before
