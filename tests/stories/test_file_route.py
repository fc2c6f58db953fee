"""What makes a change go by file, what never does, and what a tenant's own form does to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from world import World, eventually

pytestmark = pytest.mark.system

Start = Callable[..., Awaitable[World]]

# Nothing grows old enough by itself.
NO_AGE = {"seal_after_s": 3600}

COPY = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:i="http://eClub.Schemas.ImportContact"><xsl:output encoding="utf-8"/>
  <xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template>%s</xsl:stylesheet>"""
FAILS_ON_MALMO = COPY % (
    "<xsl:template match=\"i:city[. = 'Malm&#xf6;']\">"
    '<xsl:message terminate="yes">no</xsl:message></xsl:template>'
)
FAILS_ALWAYS = COPY % (
    '<xsl:template match="i:contacts"><xsl:message terminate="yes">no</xsl:message></xsl:template>'
)


async def api_down(world: World) -> None:
    """Take Engage's API down, and wait until the agent has noticed; files still go up."""
    world.sandbox.set_fault("refuse", target="engage")
    await world.pos.create("notices@example.test")
    await world.pos.until_link("offline")


async def documents(world: World, count: int) -> list[str]:
    """Wait for so many whole files in the import folder; gives what stands in them."""

    def there() -> list[str]:
        names = [n for n in world.sandbox.waiting_files() if n.endswith("_contacts.xml")]
        return [(world.sandbox.import_path / name).read_text("utf-8") for name in sorted(names)]

    await eventually(lambda: len(there()) == count, f"{count} files")
    return there()


async def seal(world: World) -> int:
    status, answer, _ = await world.pos.call("POST", "/agent/v1/batches/seal")
    assert status == 200, answer
    return int(answer["sealed"])


async def upgrade(world: World, ref: str) -> str:
    path = f"/api/v3/contacts/{ref}/updateContactType?contactTypeId=Member"
    _, _, headers = await world.pos.call("POST", path, Prefer="respond-async")
    return str(headers["Agent-Change"])


async def test_full_file_goes_at_once_and_the_rest_waits(start: Start) -> None:
    world = await start(fallback={**NO_AGE, "max_contacts": 3})
    await api_down(world)
    made = [await world.pos.create(f"vera{number}@example.test") for number in range(3)]

    (document,) = await documents(world, 1)

    assert document.count("<email>") == 3
    assert (await world.pos.change(made[-1]))["state"] == "waiting"


async def test_by_hand_a_file_goes_now(start: Start) -> None:
    world = await start(fallback=NO_AGE)
    await api_down(world)
    change_id = await world.pos.create()

    assert await seal(world) == 1

    await world.pos.until(change_id, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    await world.pos.until(change_id, "confirmed")
    assert world.sandbox.counts()["duplicates"] == 0


async def test_with_the_line_up_what_engage_never_manages_goes_by_file_alone(start: Start) -> None:
    world = await start(retry={"api_attempts": 2}, link={"offline_after": 50})
    known = world.sandbox.seed(email="per@example.test")
    world.sandbox.set_fault("rollback_504", method="POST", path="/contacts$")
    never = await world.pos.create()
    other = await world.pos.update(known, city="Lund")

    await world.pos.until(never, "uploaded")

    assert (await world.pos.until(other, "delivered"))["route"] == "api"
    assert (await world.pos.status())["link"]["state"] == "online"
    await world.sandbox.import_now()
    await world.pos.until(never, "confirmed")
    assert world.sandbox.counts()["duplicates"] == 0


async def test_each_contact_type_has_its_own_element_in_one_file(start: Start) -> None:
    world = await start(fallback=NO_AGE)
    await api_down(world)
    for number, contact_type in enumerate(("Member", "Contact", "Member")):
        await world.pos.create(f"vera{number}@example.test", contactType=contact_type)

    await seal(world)

    (document,) = await documents(world, 1)
    assert len(re.findall("<member[ >]", document)) == 3  # one noticed that the line is down
    assert len(re.findall("<contact[ >]", document)) == 1


async def test_upgrades_and_unapproved_sign_ups_wait_for_the_api(start: Start) -> None:
    world = await start()
    known = world.sandbox.seed(email="per@example.test", contactType="Contact")
    await api_down(world)
    _, _, headers = await world.pos.call(
        "POST",
        "/api/v3/contacts?createAsUnapproved=true",
        {"email": "vera@example.test"},
        Prefer="respond-async",
    )
    unapproved = headers["Agent-Change"]
    upgraded = await upgrade(world, known)
    # What is older and can go by file has gone.
    await documents(world, 1)

    await seal(world)

    for change_id in (unapproved, upgraded):
        assert (await world.pos.change(change_id))["state"] == "waiting"
    world.sandbox.clear_faults()
    for change_id in (unapproved, upgraded):
        assert (await world.pos.until(change_id, "delivered"))["route"] == "api"


async def with_stylesheet(start: Start, folder: Path, content: str) -> tuple[World, Path]:
    place = folder / "form.xslt"
    place.write_text(content)
    return await start(fallback={**NO_AGE, "xslt": str(place)}), place


async def page_says(world: World, words: str) -> None:
    """Wait until what needs a person is told in these words; "" for nothing at all."""

    async def says() -> bool:
        needs = (await world.pos.status())["needsPerson"]
        return any(words in need["what"] for need in needs) if words else not needs

    await eventually(says, f"the page says {words!r}")


async def test_contact_on_which_the_stylesheet_fails_is_refused_alone_and_can_go_by_the_api(
    start: Start, tmp_path: Path
) -> None:
    world, _ = await with_stylesheet(start, tmp_path, FAILS_ON_MALMO)
    await api_down(world)
    good = await world.pos.create("lund@example.test", city="Lund")
    bad = await world.pos.create("malmo@example.test", city="Malmö")

    await seal(world)

    refused = await world.pos.until(bad, "rejected")
    assert refused["error"]["code"] == "StylesheetFailed"
    await page_says(world, "1 change was refused")
    await world.pos.until(good, "uploaded")
    await world.sandbox.import_now()
    world.sandbox.clear_faults()
    await world.pos.until(good, "confirmed")
    await world.pos.call("POST", f"/agent/v1/changes/{bad}/retry")
    assert (await world.pos.until(bad, "delivered"))["route"] == "api"


async def test_stylesheet_that_fails_on_everybody_is_said_and_harms_nobody(
    start: Start, tmp_path: Path
) -> None:
    world, place = await with_stylesheet(start, tmp_path, COPY % "")
    place.write_text(FAILS_ALWAYS)
    await api_down(world)
    made = [await world.pos.create(f"vera{number}@example.test") for number in range(2)]

    status, answer, _ = await world.pos.call("POST", "/agent/v1/batches/seal")

    assert (status, answer["errorCode"]) == (503, "StylesheetProblem")
    assert str(place) in answer["detail"]
    for change_id in made:
        assert (await world.pos.change(change_id))["state"] == "waiting"
    world.sandbox.clear_faults()
    for change_id in made:
        assert (await world.pos.until(change_id, "delivered"))["route"] == "api"


async def test_page_says_that_the_stylesheet_is_wrong_until_it_is_corrected(
    start: Start, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("agent.delivery.batch.sealer._AFTER_TROUBLE_S", 0.1)
    place = tmp_path / "form.xslt"
    place.write_text(COPY % "")
    world = await start(fallback={"seal_after_s": 0.1, "xslt": str(place)})
    place.write_text(FAILS_ALWAYS)
    await api_down(world)
    change_id = await world.pos.create()

    await page_says(world, "fails on every contact")
    place.write_text(COPY % "")

    await world.pos.until(change_id, "uploaded")
    await page_says(world, "")
