"""When what waits is put into files: by age, count or hand, on return, after enough attempts."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from journal_helpers import GUID, GUID_2, FakeClock
from sealing import SealingTill

from agent.change import Change, State
from agent.clock import SystemClock
from agent.journal import states as moves

AGE_S = 300.0
MOST = 5


@pytest.fixture
def in_stockholm() -> Iterator[None]:
    """Let the machine's local time be that of a shop with summer time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Stockholm")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[SealingTill]:
    settings = {"seal_after_s": AGE_S, "max_contacts": MOST, "api_drain_max": 3}
    async with SealingTill(tmp_path / "till", settings) as opened:
        yield opened


async def sign_ups(till: SealingTill, count: int) -> list[Change]:
    return list(await asyncio.gather(*(till.book.create() for _ in range(count))))


async def try_in_vain(till: SealingTill, change: Change, times: int = 4) -> None:
    """Use up attempts of a change, as an Engage does that fails while the line is up."""
    for _ in range(times):
        await till.book.settle(await till.book.claim(change), moves.DEFER, counts=True)


# --- by age ---------------------------------------------------------------------------------------


async def test_offline_what_waits_is_sealed_once_the_oldest_of_it_is_old_enough(
    till: SealingTill,
) -> None:
    till.go_offline()
    oldest = await till.book.create()
    till.clock.pass_s(AGE_S - 1)
    younger = await till.book.create()

    await till.turn()
    before = await till.states(oldest, younger)
    await till.turn(after_s=1)

    assert before == [State.WAITING] * 2
    assert await till.states(oldest, younger) == [State.BATCHED] * 2


async def test_age_is_counted_by_the_clock_that_does_not_jump(till: SealingTill) -> None:
    till.go_offline()
    change = await till.book.create()
    await till.turn()

    till.clock.wall = till.clock.wall.replace(year=2036)
    await till.turn(after_s=AGE_S - 1)

    assert await till.states(change) == [State.WAITING]


async def test_online_nothing_is_sealed_because_of_its_age(till: SealingTill) -> None:
    change = await till.book.create()

    await till.turn(after_s=10 * AGE_S)

    assert await till.states(change) == [State.WAITING]


async def test_what_no_file_can_say_does_not_make_the_rest_ripe(till: SealingTill) -> None:
    till.go_offline()
    await till.book.create(as_unapproved=True)
    await till.book.update(GUID, clear=("city",))
    till.clock.pass_s(AGE_S - 1)
    young = await till.book.create()

    await till.turn(after_s=1)

    assert await till.states(young) == [State.WAITING]


async def test_a_file_is_not_followed_by_another_before_the_age_is_over_again(
    till: SealingTill,
) -> None:
    # A change that was being sent when the others were sealed is old already when it comes back.
    till.go_offline()
    sealed, sent = await till.book.create(), await till.book.create()
    claim = await till.book.claim(sent)
    await till.turn(after_s=AGE_S)
    await till.upload()
    await till.book.settle(claim, moves.DEFER)

    await till.turn(after_s=AGE_S - 1)
    before = await till.states(sealed, sent)
    await till.turn(after_s=1)

    assert before == [State.UPLOADED, State.WAITING]
    assert await till.states(sent) == [State.BATCHED]


async def test_attempts_that_are_used_up_one_by_one_share_a_file(till: SealingTill) -> None:
    for _ in range(4):
        await try_in_vain(till, await till.book.create())
        await till.turn(after_s=AGE_S / 4)
    for _ in range(4):
        await try_in_vain(till, await till.book.create())
        await till.upload()
        await till.turn(after_s=AGE_S / 4)

    assert await till.sizes() == [4, 4]


async def test_a_long_outage_makes_a_dozen_files_and_not_hundreds(tmp_path: Path) -> None:
    days = 90
    async with SealingTill(tmp_path / "till", {"seal_after_s": AGE_S}) as till:
        till.go_offline()
        for _ in range(days):
            await till.book.create()
            await till.turn(after_s=86_400)

        sizes = await till.sizes()

    assert len(sizes) <= 14
    assert sum(sizes) > days / 2
    assert sizes == sorted(sizes)


async def test_once_the_server_takes_files_again_the_usual_age_is_enough(
    till: SealingTill,
) -> None:
    till.go_offline()
    await till.book.create()
    await till.turn(after_s=AGE_S)
    change = await till.book.create()
    await till.turn(after_s=2 * AGE_S - 1)
    before = await till.states(change)

    await till.upload()
    await till.turn()

    assert before == [State.WAITING]
    assert await till.states(change) == [State.BATCHED]


# --- by count -------------------------------------------------------------------------------------


async def test_offline_a_full_file_is_sealed_at_once_and_the_rest_waits(till: SealingTill) -> None:
    till.go_offline()
    changes = await sign_ups(till, MOST + 2)

    await till.turn()

    assert await till.sizes() == [MOST]
    assert (await till.states(*changes)).count(State.WAITING) == 2


async def test_contacts_of_both_kinds_do_not_fill_a_file_together(till: SealingTill) -> None:
    till.go_offline()
    await sign_ups(till, MOST - 1)
    await till.book.update(GUID)
    await till.turn()
    before = await till.sizes()

    await sign_ups(till, 1)
    await till.turn()

    assert before == []
    assert [(batch.contacts, batch.with_id) for batch in await till.batches()] == [(MOST, False)]


async def test_what_waits_behind_a_file_does_not_fill_the_next_one(till: SealingTill) -> None:
    till.go_offline()
    changes = await sign_ups(till, MOST)
    await till.turn()

    for change in changes:
        await till.book.update(change.contact.ref)
    await till.turn()
    await till.turn(after_s=61)

    assert await till.sizes() == [MOST]


async def test_lanes_that_come_free_by_themselves_fill_a_file_soon(till: SealingTill) -> None:
    till.go_offline()
    made = await sign_ups(till, MOST)
    claims = [await till.book.claim(change) for change in made]
    await sign_ups(till, MOST - 1)
    await till.turn()
    before = await till.sizes()

    for claim in claims:
        await till.book.settle(claim, moves.DEFER)
    await till.turn(after_s=61)

    assert before == []
    assert await till.sizes() == [MOST]


async def test_with_the_line_up_a_full_file_of_used_up_attempts_is_sealed_at_once(
    till: SealingTill,
) -> None:
    for change in await sign_ups(till, MOST):
        await try_in_vain(till, change)

    await till.turn()

    assert await till.sizes() == [MOST]


# --- by hand, on return ---------------------------------------------------------------------------


async def test_by_hand_everything_is_sealed_whatever_its_age(till: SealingTill) -> None:
    await sign_ups(till, 2 * MOST + 1)
    await till.book.update(GUID)

    made = await till.sealer.seal_now()

    assert made == 4
    assert sorted(await till.sizes()) == [1, 1, MOST, MOST]
    assert [batch.with_id for batch in await till.batches()].count(True) == 1


@pytest.mark.parametrize(("waiting", "sealed"), [(3, []), (4, [4])])
async def test_when_the_line_returns_only_a_great_backlog_goes_by_file(
    till: SealingTill, waiting: int, sealed: list[int]
) -> None:
    till.go_offline()
    await sign_ups(till, waiting)
    await till.turn()

    till.come_back()
    decides = till.sealer.decides
    await till.turn()

    assert decides
    assert not till.sealer.decides
    assert await till.sizes() == sealed


async def test_a_line_that_flaps_makes_no_file_each_time_it_returns(till: SealingTill) -> None:
    for _ in range(5):
        till.go_offline()
        await sign_ups(till, 4)
        till.come_back()
        await till.turn()
    soon = await till.sizes()
    till.go_offline()
    till.come_back()
    await till.turn(after_s=2 * AGE_S)

    assert soon == [4]
    assert sum(await till.sizes()) == 20


@pytest.mark.parametrize(
    ("waiting", "age_s", "sealed"), [(3, AGE_S, []), (4, AGE_S, [4]), (4, AGE_S - 1, [])]
)
async def test_a_start_finds_what_waits_from_an_outage_as_a_return_of_the_line_does(
    tmp_path: Path, waiting: int, age_s: float, sealed: list[int]
) -> None:
    settings = {"seal_after_s": AGE_S, "max_contacts": MOST, "api_drain_max": 3}
    async with SealingTill(tmp_path / "till", settings) as till:
        await sign_ups(till, waiting)

        decides = till.sealer.decides
        await till.turn(after_s=age_s)

        assert decides
        assert not till.sealer.decides
        assert await till.sizes() == sealed


async def test_without_an_age_files_are_still_made_less_and_less_often(tmp_path: Path) -> None:
    async with SealingTill(tmp_path / "till", {"seal_after_s": 0}) as till:
        till.go_offline()
        for _ in range(60):
            await sign_ups(till, 1)
            await till.turn(after_s=1)

        assert len(await till.sizes()) < 8


@pytest.mark.parametrize(
    ("night", "names"),
    [
        ("2026-10-25T00:59:59", ["20261025005959", "20261025010000"]),  # summer time ends
        ("2027-03-28T00:59:59", ["20270328005959", "20270328010000"]),  # it begins
        ("2026-12-31T23:59:59", ["20261231235959", "20270101000000"]),  # also a leap second's place
        ("2028-02-28T23:59:59", ["20280228235959", "20280229000000"]),
        ("2028-02-29T23:59:59", ["20280229235959", "20280301000000"]),
    ],
)
async def test_files_are_named_in_utc_and_in_order_on_every_date(
    tmp_path: Path, night: str, names: list[str], in_stockholm: None
) -> None:
    clock = FakeClock()
    clock.wall = datetime.fromisoformat(f"{night}+00:00")
    async with SealingTill(tmp_path / "till", clock=clock) as till:
        for _ in names:
            await sign_ups(till, 1)
            await till.sealer.seal_now()
            clock.pass_s(1)

        made = [batch.name for batch in await till.batches()]

    assert [name.partition("_")[0] for name in made] == names
    assert made == sorted(set(made))
    assert SystemClock().now().utcoffset() == timedelta(0)  # the machine's clock, there too


# --- after enough attempts ------------------------------------------------------------------------


async def test_with_the_line_up_only_used_up_attempts_lead_to_the_file(till: SealingTill) -> None:
    used_up, tried, fresh = await sign_ups(till, 3)
    await try_in_vain(till, used_up)
    await try_in_vain(till, tried, times=3)

    await till.turn(after_s=AGE_S)

    assert await till.states(used_up, tried, fresh) == [
        State.BATCHED,
        State.WAITING,
        State.WAITING,
    ]


async def test_each_contact_type_has_an_element_of_its_own_name(till: SealingTill) -> None:
    await till.book.create(contact_type="Member")
    await till.book.create(contact_type="Contact")
    await till.book.create(contact_type="GoldClub")

    await till.sealer.seal_now()

    (document,) = till.files().values()
    names = [b"<member", b"<contact>", b"<goldclub"]
    assert [document.count(name) for name in names] == [1, 1, 1]


async def test_never_by_file_what_a_file_cannot_say(till: SealingTill) -> None:
    unapproved = await till.book.create(as_unapproved=True)
    upgrade = await till.book.upgrade(GUID)
    clearing = await till.book.update(GUID_2, clear=("city",))

    made = await till.sealer.seal_now()

    assert made == 0
    assert await till.states(unapproved, upgrade, clearing) == [State.WAITING] * 3
    assert till.files() == {}


# --- where a contact that exists is a conflict ----------------------------------------------------


@pytest.mark.parametrize("transport", ["sftp", "bulk"])
async def test_where_who_exists_is_a_conflict_sign_ups_wait_for_the_api(
    tmp_path: Path, transport: str
) -> None:
    settings = {"seal_after_s": AGE_S, "max_contacts": MOST, "transport": transport}
    conflict = {"on_existing": "conflict"}
    async with SealingTill(tmp_path / "till", settings, engage=conflict) as till:
        till.go_offline()
        waiting = await sign_ups(till, MOST)
        known = await till.book.create()
        await till.book.deliver(known)
        again = await till.book.create(known.payload.attributes["email"])
        update = await till.book.update(GUID_2)

        await till.turn()  # as many wait as a file holds
        by_count = await till.sizes()
        await till.turn(after_s=AGE_S)
        await till.sealer.seal_now()

        assert by_count == []
        assert await till.sizes() == [1]
        assert await till.states(*waiting, again) == [State.WAITING] * (MOST + 1)
        assert await till.states(update) == [State.BATCHED]


async def test_what_the_settings_say_when_a_file_is_sealed_counts(
    till: SealingTill, tmp_path: Path
) -> None:
    change = await till.book.create()
    later = tmp_path / "later"
    shutil.copytree(till.folder, later, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
    settings = (later / "agent.toml").read_text()
    (later / "agent.toml").write_text(
        settings.replace("[engage]", '[engage]\non_existing = "conflict"')
    )

    async with SealingTill(later) as again:
        made = await again.sealer.seal_now()
        states = await again.states(change)

    assert (made, states) == (0, [State.WAITING])
