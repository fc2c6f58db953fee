"""`till-agent contacts`: shows what is held of a customer, and asks before it erases."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from running_agent import Shop, open_shop

from agent.commands import main

Typed = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def shop(tmp_path: Path) -> Any:
    async with open_shop(tmp_path) as opened:
        yield opened


@pytest.fixture
def typed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Type a command, and what is answered to its question: gives exit code and output."""
    monkeypatch.setenv("TILL_AGENT_TOKEN", shop.till.token)

    def run(*words: str, answer: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        said = io.StringIO()  # the agent of this process logs into it as well
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(("contacts", *words, "--url", shop.agent.url))
        return code, said.getvalue()

    async def typed(*words: str, answer: str = "") -> tuple[int, str]:
        return await asyncio.to_thread(run, *words, answer=answer)

    return typed


@pytest.fixture
async def vera(shop: Shop) -> str:
    """Give the GUID of a customer whom Engage has."""
    created = await shop.pos.create("vera@example.test", {"mobilePhone": "+46701234567"})
    await shop.pos.settled(created, "delivered")
    return str(created.body["id"])


async def is_held(shop: Shop, public_id: str) -> bool:
    return bool((await shop.pos("GET", f"/agent/v1/contacts/{public_id}")).body["keys"])


async def test_it_shows_what_is_held_without_naming_anybody(typed: Typed, vera: str) -> None:
    code, said = await typed("show", vera)

    assert code == 0
    assert "found by:    email, mobilePhone, memberNumber" in said
    assert "changes:     0 open, 1 settled" in said
    assert "vera@" not in said


async def test_it_shows_what_goes_and_erases_after_a_yes(
    typed: Typed, shop: Shop, vera: str
) -> None:
    code, said = await typed("erase", vera, answer="yes\n")

    assert code == 0
    assert said.index("found by:") < said.index("Type yes:") < said.index("Erased: the data of 1")
    assert "Erase them there too." in said
    assert not await is_held(shop, vera)


@pytest.mark.parametrize("answer", ["no\n", "\n", "", "y\n"])
async def test_anything_else_erases_nothing(
    typed: Typed, shop: Shop, vera: str, answer: str
) -> None:
    code, said = await typed("erase", vera, answer=answer)

    assert code == 1
    assert "Nothing was erased." in said
    assert await is_held(shop, vera)


async def test_a_script_need_not_be_asked(typed: Typed, shop: Shop, vera: str) -> None:
    code, said = await typed("erase", vera, "--yes", "--json")

    assert code == 0
    assert '"inEngage": "yes"' in said
    assert not await is_held(shop, vera)


async def test_open_changes_are_given_up_only_when_it_is_said(typed: Typed, shop: Shop) -> None:
    await shop.pos("POST", "/agent/v1/routes/api/pause")
    created = await shop.pos.create("vera@example.test")

    refused, why = await typed("erase", created.body["id"], "--yes")
    done, said = await typed("erase", created.body["id"], "--yes", "--discard-open")

    assert (refused, done) == (1, 0)
    assert "Nothing was erased" in why
    assert f"{created.headers['Agent-Change']} is discarded." in said


async def test_nobody_of_that_id_is_said(typed: Typed) -> None:
    code, said = await typed("erase", "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", answer="yes\n")

    assert code == 1
    assert "This till knows no contact with that id." in said


async def test_erased_customers_are_listed_by_their_ids(typed: Typed, vera: str) -> None:
    await typed("erase", vera, "--yes")

    code, said = await typed("erased")

    assert code == 0
    assert "IN ENGAGE" in said
    assert vera in said
