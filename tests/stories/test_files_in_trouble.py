"""A file with a trouble of its own: it is told, it can be taken back, and the others go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from patience import eventually
from world import World

from agent.delivery.batch import sftp
from agent.delivery.batch.sftp import Upload
from agent.delivery.batch.spool import Spool, SpoolProblem
from agent.journal import batches

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]

BY_HAND = {"seal_after_s": 3600}
COPY = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template></xsl:stylesheet>"""


async def written(world: World, email: str) -> tuple[str, str]:
    """Let a sign-up get into a file of its own that does not go up; gives change and file."""
    for route in ("api", "file"):
        await world.pos.call("POST", f"/agent/v1/routes/{route}/pause")
    change_id = await world.pos.create(email)
    await world.pos.call("POST", "/agent/v1/batches/seal")
    return change_id, str((await world.pos.change(change_id))["batch"])


async def go_up(world: World) -> None:
    await world.pos.call("POST", "/agent/v1/routes/file/resume")


async def batch(world: World, name: str) -> dict[str, Any]:
    return dict(await world.pos.get(f"/agent/v1/batches/{name}"))


@pytest.mark.parametrize("trouble", ["no stylesheet", "folder in its place"])
async def test_a_file_that_cannot_be_made_again_is_told_alone_and_the_others_go(
    start: Start, tmp_path: Path, trouble: str
) -> None:
    stylesheet = tmp_path / "form.xslt"
    stylesheet.write_text(COPY)
    world = await start(fallback={**BY_HAND, "xslt": str(stylesheet)})
    first, spoilt = await written(world, "first@example.test")
    second, _ = await written(world, "second@example.test")
    place = world.till.folder / "spool" / spoilt
    place.unlink()
    if trouble == "no stylesheet":
        stylesheet.write_text("<broken")
    else:
        place.mkdir()

    await go_up(world)

    assert (await world.pos.until(second, "uploaded"))["state"] == "uploaded"
    told = await batch(world, spoilt)
    assert (told["state"], (await world.pos.change(first))["state"]) == ("written", "batched")
    assert told["error"] and told["attempts"] > 0
    (_, other) = sorted(await world.pos.batches(), key=lambda each: str(each["name"]))
    assert other["error"] is None
    (need,) = [
        each for each in (await world.pos.status())["needsPerson"] if spoilt in each["whatToDo"]
    ]
    assert f"till-agent batches withdraw {spoilt}" in need["whatToDo"]
    status, _, _ = await world.pos.call("POST", f"/agent/v1/batches/{spoilt}/withdraw")
    assert status == 200
    await world.pos.call("POST", "/agent/v1/routes/api/resume")
    await world.pos.until(first, "delivered")


async def test_a_file_that_is_changed_while_others_go_up_is_made_again_before_it_is_imported(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await start(fallback=BY_HAND)
    change_id, name = await written(world, "vera@example.test")
    place = world.till.folder / "spool" / name
    sealed = place.read_bytes()
    send = sftp._Session._send

    def change_then_send(session: sftp._Session, upload: Upload) -> None:
        monkeypatch.setattr(sftp._Session, "_send", send)  # once
        place.write_bytes(sealed.replace(b"vera@", b"evil@"))
        send(session, upload)

    monkeypatch.setattr(sftp._Session, "_send", change_then_send)

    await go_up(world)

    await world.pos.until(change_id, "uploaded")
    assert (world.sandbox.import_path / name).read_bytes() == sealed
    assert (await batch(world, name))["attempts"] == 2


async def test_a_file_whose_upload_was_done_needs_no_file_any_more(
    start: Start, tmp_path: Path
) -> None:
    stylesheet = tmp_path / "form.xslt"
    stylesheet.write_text(COPY)
    world = await start(fallback={**BY_HAND, "xslt": str(stylesheet)})
    change_id, name = await written(world, "vera@example.test")
    assert world.agent is not None
    # As far as a kill right after the rename leaves it.
    await world.agent.journal.write(partial(batches.note_full_size, name=name))
    (world.till.folder / "spool" / name).rename(world.sandbox.import_path / name)
    stylesheet.write_text("<broken")

    await go_up(world)

    await world.pos.until(change_id, "uploaded")


async def test_files_that_cannot_be_removed_hold_up_no_others_and_go_when_that_works_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.delivery.batch.sealer._AFTER_TROUBLE_S", 0.1)
    world = await start(fallback=BY_HAND, retry={"waits_s": [3600]})
    made = [(await written(world, f"vera{number}@example.test"))[0] for number in range(2)]
    spool = world.till.folder / "spool"

    def refuse(*_: Any) -> None:
        raise SpoolProblem("The till cannot remove a batch file.")

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "remove", refuse)
        await go_up(world)
        for change_id in made:
            await world.pos.until(change_id, "uploaded")
        assert len(list(spool.iterdir())) == 2

    await eventually(lambda: list(spool.iterdir()) == [], "nothing is left in the spool")
