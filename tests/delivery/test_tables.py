"""The pure modules of delivery, as tables: a row each, with why it is there."""

from __future__ import annotations

from typing import Any

import pytest
from patience import PATIENCE_S

from agent.change import Change, Kind, Payload, Route, State
from agent.contact import Contact, Key
from agent.delivery.engage import mapping
from agent.delivery.engage.pace import Pace
from agent.delivery.halts import RouteGate
from agent.delivery.link import Link, LinkState
from agent.delivery.retry import LONGEST_WISH_S, next_wait
from agent.delivery.routing import file_part

# --- retry --------------------------------------------------------------------------------------

WAITS = (10.0, 30.0, 60.0, 300.0)


@pytest.mark.parametrize(
    ("tries", "given", "least", "most"),
    [
        (1, {}, 10, 20),
        (2, {}, 30, 60),
        (4, {}, 300, 600),
        (1000, {}, 300, 600),  # the last one repeats for ever
        (0, {}, 10, 20),  # nothing counted yet: an offline link
        (9, {"soon": True}, 2, 4),
        (9, {"retry_after_s": 120.0}, 120, 144),
        (1, {"retry_after_s": 0.0}, 0, 1),
        (1, {"retry_after_s": 1e9}, LONGEST_WISH_S, LONGEST_WISH_S * 1.2),  # capped at an hour
    ],
)
def test_wait_grows_and_its_jitter_comes_on_top(
    tries: int, given: dict[str, Any], least: float, most: float
) -> None:
    assert next_wait(WAITS, tries, lambda low, high: low, **given) == pytest.approx(least)
    assert next_wait(WAITS, tries, lambda low, high: high, **given) == pytest.approx(most)


def test_soon_is_never_later_than_the_first_wait() -> None:
    assert next_wait((0.5,), 1, lambda low, high: low, soon=True) == 0.5


# --- link ---------------------------------------------------------------------------------------


def test_link_becomes_suspect_then_offline_and_keeps_the_reason(clock: Any) -> None:
    link = Link(clock, offline_after=3)
    seen = []

    for _ in range(3):
        link.failed("no route")
        seen.append(link.state)

    assert seen == [LinkState.SUSPECT, LinkState.SUSPECT, LinkState.OFFLINE]
    assert link.reason == "no route"


def test_any_answer_makes_the_link_online_and_starts_the_count_anew(clock: Any) -> None:
    link = Link(clock, offline_after=2)
    link.failed("lost")

    link.heard()
    link.failed("lost")

    assert link.state is LinkState.SUSPECT


def test_probe_alone_does_not_end_an_outage_and_one_failure_ends_the_trial(clock: Any) -> None:
    link = Link(clock, offline_after=2)
    link.failed("lost")
    link.failed("lost")

    link.probe_succeeded()
    assert (link.state, link.on_trial) == (LinkState.OFFLINE, True)
    link.failed("lost again")

    assert (link.state, link.on_trial) == (LinkState.OFFLINE, False)


def test_return_is_counted_once_and_tells_how_long_the_outage_was(clock: Any) -> None:
    link = Link(clock, offline_after=1)
    link.failed("lost")
    clock.pass_s(90)
    link.failed("still lost")
    link.heard()
    link.heard()

    assert (link.returns, link.last_outage_s) == (1, 90)
    assert (link.state, link.reason) == (LinkState.ONLINE, None)


def test_probe_means_nothing_while_the_line_is_up(clock: Any) -> None:
    link = Link(clock, offline_after=3)

    link.probe_succeeded()

    assert not link.on_trial


# --- halts --------------------------------------------------------------------------------------


def test_halted_gate_lets_one_probe_through_each_interval(clock: Any) -> None:
    gate = RouteGate(Route.API, clock, probe_s=15)
    gate.stop("The key is refused.")
    at_once = gate.takes_probe()
    clock.pass_s(15)

    assert [at_once, gate.takes_probe(), gate.takes_probe()] == [False, True, False]
    assert (gate.state, gate.reason, gate.is_open) == ("halted", "The key is refused.", False)


def test_gate_spreads_its_probes_if_it_is_told_to(clock: Any) -> None:
    gate = RouteGate(Route.FILE, clock, probe_s=10, spread=lambda: 1.2)
    gate.stop("refused")

    clock.pass_s(11.9)
    before = gate.takes_probe()
    clock.pass_s(0.2)

    assert [before, gate.takes_probe()] == [False, True]


def test_gate_keeps_since_when_the_cause_stands_and_forgets_it_when_cured(clock: Any) -> None:
    gate = RouteGate(Route.API, clock, probe_s=15)
    gate.stop("refused")
    since = gate.halt.since if gate.halt else None
    clock.pass_s(60)
    gate.stop("refused still")

    assert gate.halt is not None
    assert gate.halt.since == since
    gate.cured()
    assert (gate.state, gate.reason, gate.is_open) == ("running", None, True)


def test_pause_is_stronger_than_a_halt_and_resuming_probes_at_once(clock: Any) -> None:
    gate = RouteGate(Route.FILE, clock, probe_s=300)
    gate.stop("refused")
    gate.paused = True
    clock.pass_s(1000)
    assert (gate.state, gate.takes_probe()) == ("paused", False)

    gate.stop("refused")
    gate.resume()

    assert (gate.state, gate.takes_probe()) == ("halted", True)


# --- pace ---------------------------------------------------------------------------------------


async def spent_pace(clock: Any) -> Pace:
    """Give a pace whose next turn is a twentieth of a second away."""
    pace = Pace(clock, per_s=20, backlog_per_s=20)
    for _ in range(20):
        await pace.turn(person=True)
    return pace


async def test_people_go_before_what_waits_from_an_outage(clock: Any) -> None:
    pace = await spent_pace(clock)
    order: list[str] = []

    async def wait(name: str, person: bool) -> None:
        await pace.turn(person=person)
        order.append(name)

    import asyncio

    tasks = [asyncio.create_task(wait("backlog", False)), asyncio.create_task(wait("person", True))]
    await asyncio.sleep(0)
    clock.pass_s(0.06)  # one turn, not two
    await asyncio.wait_for(tasks[1], PATIENCE_S)
    clock.pass_s(5)
    await asyncio.wait_for(tasks[0], PATIENCE_S)

    assert order == ["person", "backlog"]


async def test_caller_that_gives_up_does_not_use_up_a_turn(clock: Any) -> None:
    import asyncio

    pace = await spent_pace(clock)
    gone = asyncio.create_task(pace.turn(person=True))
    stays = asyncio.create_task(pace.turn(person=True))
    await asyncio.sleep(0)
    gone.cancel()
    clock.pass_s(0.06)  # one turn, not two

    await asyncio.wait_for(stays, PATIENCE_S)

    assert gone.cancelled()


def test_429_halves_the_rate_and_answers_bring_it_back(clock: Any) -> None:
    pace = Pace(clock, per_s=8, backlog_per_s=2)
    pace.throttled()
    halved = pace.per_s
    for _ in range(20):
        pace.throttled()
    slowest = pace.per_s
    for _ in range(200):
        pace.answered()

    assert (halved, pace.per_s) == (4, 8)
    assert slowest > 0  # or nothing would ever make it grow again


# --- routing ------------------------------------------------------------------------------------


def change(
    kind: Kind = Kind.UPDATE,
    *,
    contact_id: str | None = None,
    state: State = State.WAITING,
    unknown: bool = False,
    retried: bool = False,
    damaged: bool = False,
    unapproved: bool = False,
    clear: tuple[str, ...] = (),
    **attributes: Any,
) -> Change:
    payload = Payload(attributes or {"city": "Lund"}, as_unapproved=unapproved, clear=clear)
    return Change(
        seq=1, id="change", kind=kind, state=state, unknown=unknown, route=Route.API,
        contact=Contact(1, "ref", contact_id, None), payload=payload, created_at="", due_at=None,
        settled_at=None, attempts=0, api_attempts=0, step=0, existed=False, batch=None, error=None,
        repeated=0, retried=retried, damaged=damaged,
    )  # fmt: skip


CREATE = change(Kind.CREATE, email="vera@example.test")
BY_EMAIL = (Key("email", "vera@example.test"),)
BY_PHONE = (Key("mobilePhone", "+46701234567"),)


@pytest.mark.parametrize(
    ("changes", "keys", "fitting"),
    [
        ([CREATE], (), 1),
        ([CREATE, change(), change()], (), 3),
        ([change()], BY_EMAIL, 1),
        ([change()], BY_PHONE, 0),  # the import finds nobody by it
        ([change(contact_id="guid")], (), 1),
        # the file could not say whom it means
        ([change(email="new@example.test")], BY_EMAIL, 0),
        ([change(email="new@example.test", contact_id="guid")], BY_EMAIL, 1),
        ([change(), change(email="new@example.test")], BY_EMAIL, 1),
        ([CREATE, change(email="new@example.test")], (), 1),
        # never by file, and what lies behind waits with it
        ([change(Kind.UPGRADE, contact_id="guid")], (), 0),
        ([CREATE, change(Kind.UPGRADE), change()], (), 1),
        ([change(Kind.CREATE, unapproved=True)], BY_EMAIL, 0),
        ([change(clear=("street",), contact_id="guid")], (), 0),
        ([change(unknown=True, contact_id="guid")], (), 0),
        ([CREATE, change(unknown=True)], (), 1),
        ([change(retried=True, contact_id="guid")], (), 0),
        ([change(damaged=True, contact_id="guid")], (), 0),
        ([change(state=State.SENDING, contact_id="guid")], (), 0),
        ([], (), 0),
    ],
)
def test_file_takes_what_it_can_say_and_stops_there(
    changes: list[Change], keys: tuple[Key, ...], fitting: int
) -> None:
    assert file_part(changes, keys, contact_key="email") == tuple(changes[:fitting])


@pytest.mark.parametrize(
    ("changes", "fitting"),
    [
        ([CREATE], 0),
        ([change(Kind.CREATE, contact_id="guid")], 0),  # it exists: the API says 409
        ([change(contact_id="guid"), CREATE, change()], 1),
        ([change(contact_id="guid")], 1),
    ],
)
def test_where_who_exists_is_a_conflict_a_file_signs_nobody_up(
    changes: list[Change], fitting: int
) -> None:
    part = file_part(changes, BY_EMAIL, contact_key="email", on_existing="conflict")

    assert part == tuple(changes[:fitting])


# --- mapping ------------------------------------------------------------------------------------


def test_create_sends_what_was_given_over_what_is_filled_in() -> None:
    payload = Payload(
        {"email": "vera@example.test", "countryCode": "FI"},
        defaults={"countryCode": "SE", "lang": "sv"},
        contact_type="Member",
        source="POS",
        store_external_id="0042",
    )

    assert mapping.create_body(payload) == {
        "email": "vera@example.test",
        "countryCode": "FI",
        "lang": "sv",
        "contactType": "Member",
    }
    assert mapping.create_query(payload) == {"source": "POS", "storeExternalId": "0042"}


def test_unapproved_create_says_so_in_the_query_and_missing_values_are_left_out() -> None:
    assert mapping.create_query(Payload({}, as_unapproved=True)) == {"createAsUnapproved": "true"}


def test_update_sends_only_what_was_given_and_null_for_what_is_cleared() -> None:
    payload = Payload({"city": "Lund", "lang": "sv"}, defaults={"countryCode": "SE"},
                      contact_type="Member", clear=("street", "careOf"))  # fmt: skip

    assert mapping.update_body(payload, leave={"lang", "careOf"}) == {
        "city": "Lund",
        "street": None,
    }


@pytest.mark.parametrize(
    ("keys", "given", "query"),
    [
        ({"email": "v@x.se", "mobilePhone": "+461"}, {}, {"email": "v@x.se"}),
        ({"email": "v@x.se", "mobilePhone": "+461"}, {"first": "mobilePhone"},
         {"mobilePhone": "+461"}),
        ({"memberNumber": "7"}, {}, {"customKey": "7"}),
        ({"externalId": "7"}, {}, None),  # the tenant's custom key is another
        ({"externalId": "7"}, {"custom_key": "externalId"}, {"customKey": "7"}),
        ({"socialSecurityNumber": "199001011234", "memberNumber": "7"}, {},
         {"socialSecurityNumber": "199001011234"}),
        ({"email": "v@x.se"}, {"contact_type": "Member"},
         {"email": "v@x.se", "contactType": "Member"}),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_look_up_asks_by_one_typed_key(
    keys: dict[str, str], given: dict[str, str], query: dict[str, str] | None
) -> None:
    settings = {"first": "email", "custom_key": "memberNumber"} | given

    assert mapping.lookup_query([Key(*each) for each in keys.items()], **settings) == query


def test_look_up_uses_the_newest_value_of_a_key() -> None:
    keys = [Key("email", "new@x.se"), Key("email", "old@x.se")]

    assert mapping.lookup_query(keys, first="email", custom_key="memberNumber") == {
        "email": "new@x.se"
    }
