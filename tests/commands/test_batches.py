"""`batches`: what a person sees of files and may do about them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from world import World

Start = Callable[..., Awaitable[World]]


async def uploaded(world: World) -> str:
    """Let a sign-up go up in a file; gives the file's name."""
    world.sandbox.set_fault("refuse", target="engage")
    change_id = await world.pos.create(city="Lund")
    return str((await world.pos.until(change_id, "uploaded"))["batch"])


async def offline(world: World) -> None:
    """Let the agent notice that the line is down, with a change that waits."""
    world.sandbox.down()
    await world.pos.tried(await world.pos.create(), 2)


async def test_files_are_listed_with_where_they_are(start: Start, run: Any) -> None:
    world = await start()
    name = await uploaded(world)

    listed = await run(world, "batches", "list")

    head, row = listed.out.splitlines()
    assert head.split() == ["BATCH", "STATE", "CONTACTS", "BYTES", "TRIES", "SEALED", "WHERE"]
    assert row.split()[:3] == [name, "uploaded", "1"]
    place = f"sftp://127.0.0.1:{world.sandbox.sftp_port}{world.sandbox.import_directory}/{name}"
    assert row.split()[-1] == place


async def test_a_file_is_shown_with_all_that_is_known_of_it(start: Start, run: Any) -> None:
    world = await start()
    name = await uploaded(world)
    content = (world.sandbox.import_path / name).read_bytes()

    shown = await run(world, "batches", "show", name)
    for_programs = json.loads((await run(world, "batches", "show", name, "--json")).out)

    labels = [line.split(":")[0] for line in shown.out.splitlines()]
    assert labels == [
        *("batch", "state", "where", "contacts", "bytes", "sha256", "sealed", "tries"),
        "uploaded",
    ]
    assert for_programs["bytes"] == len(content)
    assert for_programs["attempts"] == 1
    assert for_programs["importedAt"] is None


async def test_files_are_listed_in_pages_newest_first(start: Start) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    await offline(world)
    for number in range(3):
        await world.pos.create(f"vera{number}@example.test")
        await world.pos.call("POST", "/agent/v1/batches/seal")
    seen: list[str] = []
    after = ""
    while after is not None:
        page = await world.pos.get(f"/agent/v1/batches?limit=2&after={after}")
        seen += [each["name"] for each in page["items"]]
        after = page["next"]

    assert [name[-20:-13] for name in seen] == ["-000003", "-000002", "-000001"]


async def test_what_waits_is_sealed_by_hand(start: Start, run: Any) -> None:
    world = await start(fallback={"seal_after_s": 3600})
    await offline(world)

    sealed = await run(world, "batches", "seal")

    assert (sealed.code, sealed.out) == (0, "1 batch sealed.\n")


async def test_a_file_is_withdrawn(start: Start, run: Any) -> None:
    world = await start()
    name = await uploaded(world)

    withdrawn = await run(world, "batches", "withdraw", name)

    assert withdrawn.code == 0
    assert withdrawn.out.startswith(f"{name} is withdrawn; it will not be imported.")
    assert name not in world.sandbox.waiting_files()


async def test_what_engage_has_is_not_withdrawn_and_told(start: Start, run: Any) -> None:
    world = await start(sftp={"poll_s": 3600})
    name = await uploaded(world)
    await world.sandbox.import_now()

    refused = await run(world, "batches", "withdraw", name)

    assert refused.code == 1
    assert refused.err.startswith(f"till-agent: Engage has taken {name} already")


@pytest.mark.parametrize("verb", ["show", "withdraw", "retry"])
async def test_an_unknown_file_is_told(start: Start, run: Any, verb: str) -> None:
    world = await start()

    refused = await run(world, "batches", verb, "none.xml")

    assert (refused.code, refused.err) == (1, "till-agent: There is no batch with that name.\n")
