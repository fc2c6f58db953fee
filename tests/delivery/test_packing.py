"""How what waits becomes a batch: in small transactions, each contact through the gate."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from journal_helpers import GUID
from sealing import SealingTill

from agent.change import Change, Kind, State
from agent.delivery.batch import packing
from agent.delivery.batch.schema import read_document
from agent.delivery.batch.stylesheet import StylesheetProblem
from agent.journal import batches
from agent.journal.driver import Connection

CHUNK = 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_CHUNK", CHUNK)


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[SealingTill]:
    async with SealingTill(tmp_path / "till") as opened:
        yield opened


async def sign_ups(till: SealingTill, count: int) -> list[Change]:
    return list(await asyncio.gather(*(till.book.create() for _ in range(count))))


# --- in small transactions ------------------------------------------------------------------------


async def test_a_batch_is_filled_in_many_small_transactions(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_at_once: list[int] = []
    seal = batches.seal

    def counted(db: Connection, *args: Any, **more: Any) -> Any:
        sealed_at_once.append(len(more["members"]))
        return seal(db, *args, **more)

    monkeypatch.setattr(batches, "seal", counted)
    await sign_ups(till, 3 * CHUNK + 1)

    await till.sealer.seal_now()

    assert max(sealed_at_once) == CHUNK
    assert await till.sizes() == [3 * CHUNK + 1]


async def test_sign_ups_are_taken_while_a_batch_is_filled(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_ups(till, 3 * CHUNK)
    read, pages = till.book.journal.read, itertools.count(1)
    half_full: list[int] = []

    async def with_a_sign_up(work: Any) -> Any:
        if getattr(work, "func", None) is batches.idle_lanes and next(pages) == 3:
            half_full.extend(batch.contacts for batch in await read(filling))
            await till.book.create()
        return await read(work)

    filling = partial(batches.in_state, states=("filling",))
    monkeypatch.setattr(till.book.journal, "read", with_a_sign_up)

    await till.sealer.seal_now()

    assert half_full == [2 * CHUNK]
    assert await till.sizes() == [3 * CHUNK + 1]


async def test_a_file_holds_what_was_sealed_in_the_order_of_capture(till: SealingTill) -> None:
    made = await sign_ups(till, 2 * CHUNK + 1)

    await till.sealer.seal_now()

    (path,) = till.spool.directory.iterdir()
    in_file = [element.attributes["email"] for element in read_document(path)]
    assert in_file == [change.payload.attributes["email"] for change in made]


async def copy_of(till: SealingTill, folder: Path) -> None:
    """Copy the till as it stands on disk: what a kill at this moment would leave."""
    shutil.copytree(till.folder, folder, ignore=shutil.ignore_patterns("*.lock", "*-shm"))


async def test_killed_at_any_moment_of_sealing_every_change_is_in_one_file_or_free(
    till: SealingTill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await sign_ups(till, 2 * CHUNK)
    made += [await till.book.update(change.contact.ref) for change in made]
    made += [await till.book.update(GUID)]
    left: list[Path] = []
    write = till.book.journal.write

    async def leaving_a_copy(work: Any) -> Any:
        answer = await write(work)
        left.append(tmp_path / f"left{len(left)}")
        await copy_of(till, left[-1])
        return answer

    monkeypatch.setattr(till.book.journal, "write", leaving_a_copy)
    await till.sealer.seal_now()
    assert len(left) >= 5

    for folder in left:
        async with SealingTill(folder) as again:
            await again.turn()
            found = {
                batch.name: batch for batch in await again.batches() if batch.state != "settled"
            }
            assert {batch.state for batch in found.values()} <= {"written"}
            assert set(again.files()) == set(found)
            now = [await again.book.now(change) for change in made]
            assert all((change.batch in found) == (change.state == "batched") for change in now)
            assert {change.state for change in now} <= {State.BATCHED, State.WAITING}
            # The lane as a whole: what is sealed and what is free is never the same customer.
            by_lane = Counter((change.contact.lane, change.state) for change in now)
            assert len({lane for lane, _ in by_lane}) == len(by_lane)

            await again.sealer.seal_now()

            in_files = [
                element.attributes.get("email", element.contact_id)
                for path in again.spool.directory.iterdir()
                for element in read_document(path)
            ]
            assert len(in_files) == len(set(in_files)) == 2 * CHUNK + 1


async def test_a_fault_in_the_middle_leaves_a_smaller_batch_and_the_rest_goes_later(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_ups(till, 3 * CHUNK)
    read = till.book.journal.read
    reads = 0

    async def failing(work: Any) -> Any:
        nonlocal reads
        reads += getattr(work, "func", None) is batches.idle_lanes
        if reads == 3:
            raise asyncio.CancelledError
        return await read(work)

    with monkeypatch.context() as patch:
        patch.setattr(till.book.journal, "read", failing)
        with pytest.raises(asyncio.CancelledError):
            await till.sealer.seal_now()
    await till.turn()
    before = await till.sizes()

    await till.sealer.seal_now()

    assert before == [2 * CHUNK]
    assert await till.sizes() == [2 * CHUNK, CHUNK]


async def test_a_batch_of_which_everything_moved_on_is_closed_without_a_file(
    till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await sign_ups(till, 2)
    seal = batches.seal

    def after_a_claim(db: Connection, *args: Any, **more: Any) -> Any:
        db.execute("UPDATE changes SET state = 'sending', lease = 'x' WHERE state = 'waiting'")
        return seal(db, *args, **more)

    monkeypatch.setattr(batches, "seal", after_a_claim)

    assert await till.sealer.seal_now() == 0
    assert await till.states(*made) == [State.SENDING] * 2
    assert till.files() == {}


# --- what no file can hold ------------------------------------------------------------------------


async def spoilt(till: SealingTill, **attributes: Any) -> Change:
    """Record a sign-up that intake would have refused."""
    known = {"email": f"spoilt.by.{len(attributes)}@example.test", **attributes}
    recorded = await till.book.record(Kind.CREATE, known, contact_type="Member")
    return cast(Change, recorded.change)


async def why(till: SealingTill, change: Change) -> tuple[str, list[str]]:
    """Give code and fields of what is wrong with a change."""
    error = (await till.book.now(change)).error
    assert error is not None
    return error.code, [field["field"] for field in error.fields]


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"city": "a\x00b"}, "city"),  # XML forbids it
        ({"jeans size": "32"}, "jeans size"),  # no name of an element
        ({"preferences": {"acceptsSms": "perhaps"}}, "preferences"),  # contacts.xsd forbids it
        ({"consents": [{"id": "news"}]}, "consents"),
    ],
)
async def test_a_contact_that_no_file_can_hold_is_rejected_alone_and_its_neighbours_go(
    till: SealingTill, attributes: dict[str, Any], field: str
) -> None:
    before = await till.book.create()
    bad = await spoilt(till, **attributes)
    after = await till.book.create()

    await till.sealer.seal_now()

    assert await till.states(before, bad, after) == [
        State.BATCHED,
        State.REJECTED,
        State.BATCHED,
    ]
    assert await why(till, bad) == ("CannotBeWritten", [field])
    assert await till.sizes() == [2]


async def test_of_a_contacts_changes_only_the_one_that_spoils_the_file_is_rejected(
    till: SealingTill,
) -> None:
    create = await till.book.create()
    bad = await till.book.update(create.contact.ref, {"city": "a\x00b"})
    worse = await till.book.update(create.contact.ref, {"street": "\x0b"})
    good = await till.book.update(create.contact.ref, {"zipCode": "22222"})

    await till.sealer.seal_now()

    assert await till.states(create, bad, worse, good) == [
        State.BATCHED,
        State.REJECTED,
        State.REJECTED,
        State.BATCHED,
    ]
    (document,) = till.files().values()
    assert b"22222" in document


async def test_what_follows_a_sign_up_that_no_file_can_hold_waits_for_a_person(
    till: SealingTill,
) -> None:
    bad = await spoilt(till, street="a\x00b")
    follower = await till.book.update(bad.contact.ref)

    made = await till.sealer.seal_now()

    assert made == 0
    assert await till.states(bad, follower) == [State.REJECTED, State.WAITING]


# --- what is said of whom Engage has already --------------------------------------------------


async def test_what_a_sign_up_fills_in_is_said_of_a_new_contact_only(till: SealingTill) -> None:
    filled_in = {"defaults": {"countryCode": "SE"}, "source": "POS", "store_external_id": "0042"}
    known = await till.book.create("ola@example.test", **filled_in)
    await till.book.deliver(known)
    await till.book.create("ola@example.test", **filled_in)
    await till.book.create("vera@example.test", **filled_in)

    await till.sealer.seal_now()

    read = {
        element.attributes["email"]: element
        for path in till.spool.directory.iterdir()
        for element in read_document(path)
    }
    ola, vera = read["ola@example.test"], read["vera@example.test"]
    assert (ola.contact_id, ola.source, ola.store_external_id) == (GUID, None, None)
    assert "countryCode" not in ola.attributes
    assert (vera.contact_id, vera.source, vera.store_external_id) == (None, "POS", "0042")
    assert vera.attributes["countryCode"] == "SE"


# --- the tenant's stylesheet ----------------------------------------------------------------------

STYLESHEET = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:i="http://eClub.Schemas.ImportContact">
  <xsl:template match="/"><people><xsl:apply-templates select="//i:new/*"/></people></xsl:template>
  <xsl:template match="i:*"><xsl:if test="%s"><xsl:message terminate="yes">no</xsl:message></xsl:if>
  <one><xsl:value-of select="i:email"/></one></xsl:template>
</xsl:stylesheet>"""
FAILS_ON_MALMO = STYLESHEET % "i:city = 'Malm&#xf6;'"
FAILS_ALWAYS = STYLESHEET % "true()"
NEVER_FAILS = STYLESHEET % "false()"


@pytest.fixture
async def turning_till(tmp_path: Path) -> AsyncIterator[SealingTill]:
    """A till whose files pass a stylesheet that fails on customers in Malmö."""
    stylesheet = tmp_path / "form.xslt"
    stylesheet.write_text(FAILS_ON_MALMO)
    async with SealingTill(tmp_path / "till", {"xslt": str(stylesheet)}) as opened:
        yield opened


def put_stylesheet(till: SealingTill, content: str) -> None:
    assert till.config.fallback.xslt is not None
    till.config.fallback.xslt.write_text(content)


async def test_files_have_the_form_that_the_stylesheet_gives_them(
    turning_till: SealingTill,
) -> None:
    made = await sign_ups(turning_till, 2)

    await turning_till.sealer.seal_now()

    (document,) = turning_till.files().values()
    assert b"<people " in document
    for change in made:
        assert change.payload.attributes["email"].encode() in document


async def test_a_contact_on_which_the_stylesheet_fails_is_rejected_alone(
    turning_till: SealingTill,
) -> None:
    good = await turning_till.book.create()
    other = await turning_till.book.create()
    bad = await turning_till.book.update(other.contact.ref, {"city": "Malmö"})
    alone = await turning_till.book.update(GUID, {"city": "Malmö"})

    await turning_till.sealer.seal_now()

    assert await turning_till.states(good, other, bad, alone) == [
        State.BATCHED,
        State.BATCHED,
        State.REJECTED,
        State.REJECTED,
    ]
    assert await why(turning_till, bad) == ("StylesheetFailed", [])


@pytest.mark.parametrize("count", [1, 3])
async def test_a_stylesheet_that_fails_on_everybody_stops_sealing_and_rejects_nobody(
    turning_till: SealingTill, count: int
) -> None:
    put_stylesheet(turning_till, FAILS_ALWAYS)
    turning_till.go_offline()
    made = await sign_ups(turning_till, count)
    sealing = asyncio.create_task(turning_till.sealer.run())

    try:
        turning_till.clock.pass_s(3600)
        async with asyncio.timeout(10):
            while turning_till.sealer.problem is None:
                await asyncio.sleep(0.01)
    finally:
        sealing.cancel()

    assert "fails on every contact" in turning_till.sealer.problem
    assert await turning_till.states(*made) == [State.WAITING] * count
    put_stylesheet(turning_till, NEVER_FAILS)
    assert await turning_till.sealer.seal_now() == 1


async def test_a_stylesheet_that_became_unreadable_stops_sealing_and_rejects_nobody(
    turning_till: SealingTill,
) -> None:
    put_stylesheet(turning_till, "<xsl:")
    change = await turning_till.book.create()

    with pytest.raises(StylesheetProblem):
        await turning_till.sealer.seal_now()

    assert await turning_till.states(change) == [State.WAITING]


async def test_a_stylesheet_that_leaves_everybody_out_stops_sealing_and_rejects_nobody(
    turning_till: SealingTill,
) -> None:
    without_prefix = STYLESHEET.replace("//i:new/*", "//i:new").replace("i:email", "email")
    put_stylesheet(turning_till, without_prefix % "false()")
    made = await sign_ups(turning_till, 2)

    with pytest.raises(StylesheetProblem) as caught:
        await turning_till.sealer.seal_now()

    assert "leaves contacts out, so no file is made" in caught.value.message
    assert await turning_till.states(*made) == [State.WAITING] * 2


async def test_a_contact_that_the_stylesheet_leaves_out_is_rejected_alone(
    turning_till: SealingTill,
) -> None:
    put_stylesheet(turning_till, STYLESHEET.replace("//i:new/*", "//i:new/*[i:lastName]") % "0")
    good = (await turning_till.book.record(Kind.CREATE, with_name(1), contact_type="Member")).change
    bad = await turning_till.book.create()
    last = (await turning_till.book.record(Kind.CREATE, with_name(2), contact_type="Member")).change

    await turning_till.sealer.seal_now()

    assert await turning_till.states(good, bad, last) == [
        State.BATCHED,
        State.REJECTED,
        State.BATCHED,
    ]
    assert await why(turning_till, bad) == ("StylesheetFailed", [])
    error = (await turning_till.book.now(bad)).error
    assert error is not None
    assert "leaves this contact out" in error.message


def with_name(number: int) -> dict[str, str]:
    return {"email": f"lind{number}@example.test", "lastName": "Lind"}


@pytest.mark.parametrize("count", [2, 3 * CHUNK])
async def test_however_many_the_stylesheet_fails_on_their_neighbours_go(
    turning_till: SealingTill, count: int
) -> None:
    bad = [
        (
            await turning_till.book.record(
                Kind.CREATE,
                {"email": f"malmo{number}@example.test", "city": "Malmö"},
                contact_type="Member",
            )
        ).change
        for number in range(count)
    ]
    good = await sign_ups(turning_till, CHUNK + 1)

    made = await turning_till.sealer.seal_now()

    assert made == 1
    assert await turning_till.states(*good) == [State.BATCHED] * len(good)
    assert await turning_till.states(*bad) == [State.REJECTED] * count
    assert turning_till.sealer.problem is None


async def test_beyond_a_bound_those_on_which_the_stylesheet_fails_wait_and_the_page_says_so(
    turning_till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_FAILED", 2)
    turning_till.go_offline()
    bad = [
        await turning_till.book.update(f"{GUID[:-1]}{digit}", {"city": "Malmö"})
        for digit in "12345"
    ]
    good = await sign_ups(turning_till, 2)

    await turning_till.turn()
    await turning_till.turn(after_s=3600)

    states = await turning_till.states(*bad)
    assert (states.count(State.REJECTED), states.count(State.WAITING)) == (2, 3)
    assert await turning_till.states(*good) == [State.BATCHED] * 2
    assert "fails on more than 2 contacts" in (turning_till.sealer.problem or "")

    put_stylesheet(turning_till, NEVER_FAILS.replace("i:email", "i:email|i:contactId"))
    await turning_till.sealer.seal_now()
    await turning_till.turn()
    assert (await turning_till.states(*bad)).count(State.BATCHED) == 3
    assert turning_till.sealer.problem is None


async def test_those_that_wait_for_a_better_stylesheet_go_by_the_api_meanwhile(
    turning_till: SealingTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_FAILED", 0)
    bad = await turning_till.book.update(GUID, {"city": "Malmö"})
    await turning_till.sealer.seal_now()
    told = turning_till.sealer.problem

    await turning_till.book.deliver(bad)
    await turning_till.turn()

    assert "wait for the API" in (told or "")
    assert turning_till.sealer.problem is None
