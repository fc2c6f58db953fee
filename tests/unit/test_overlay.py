"""This till's changes over Engage's contact, and what differs from what a POS was shown."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agent.change import Kind, Payload, State
from agent.contact import Contact
from agent.journal.served import Kept, Own
from agent.lookup import overlay

GUID = "2e40b702-2767-4abe-ae99-aa510108e22b"
BASE: dict[str, Any] = {
    "id": GUID,
    "attributes": {"email": "vera@example.test", "city": "Malmö", "careOf": None, "points": 12},
    "meta": {"contactType": "Contact", "approved": True},
    "preferences": {"AcceptsEmails": False, "AcceptsSms": False},
    "consents": [{"id": "newsletter", "value": False, "source": "web"}],
    "somethingNew": [1, 2],
}
KEPT = Kept(BASE, 10.0, told=7, fetched_at="2026-11-21T10:00:00.000Z")


def laid(kind: Kind = Kind.UPDATE, clear: tuple[str, ...] = (), **attributes: Any) -> Any:
    return overlay.laid_over(BASE, [(kind, Payload(attributes, clear=clear))])


def own(
    kind: Kind = Kind.UPDATE,
    state: State = State.WAITING,
    *,
    holds: bool | None = None,
    existed: bool = False,
    ended: int = 0,
    settled_at: str | None = None,
    clear: tuple[str, ...] = (),
    **attributes: Any,
) -> Own:
    still = state not in (State.DELIVERED, State.CONFIRMED, State.REJECTED)
    held = still if holds is None else holds
    return Own(kind, Payload(attributes, clear=clear), state, held, existed, ended, settled_at)


# --- laying over --------------------------------------------------------------------------------


def test_nothing_asked_changes_nothing() -> None:
    assert overlay.laid_over(BASE, []) == BASE


def test_members_that_nobody_knows_are_kept() -> None:
    body = laid(city="Lund")

    assert body == {**BASE, "attributes": {**BASE["attributes"], "city": "Lund"}}


def test_what_is_laid_over_leaves_the_kept_answer_alone() -> None:
    before = copy.deepcopy(BASE)

    laid(
        clear=("careOf",),
        city="Lund",
        preferences={"acceptsEmail": True},
        consents=[{"id": "newsletter", "value": True}],
    )

    assert before == BASE


def test_later_change_wins() -> None:
    asked = [(Kind.UPDATE, Payload({"city": city, "street": "1"})) for city in ("Lund", "Ystad")]

    assert overlay.laid_over(BASE, asked)["attributes"]["city"] == "Ystad"


def test_attribute_is_found_in_another_case() -> None:
    body = overlay.laid_over(
        {"attributes": {"City": "Malmö"}}, [(Kind.UPDATE, Payload({"city": "Lund"}))]
    )

    assert body["attributes"] == {"City": "Lund"}


@pytest.mark.parametrize("name", ["acceptsEmail", "AcceptsEmails", "acceptsemails"])
def test_preference_keeps_engages_spelling(name: str) -> None:
    assert laid(preferences={name: True})["preferences"] == {
        "AcceptsEmails": True,
        "AcceptsSms": False,
    }


def test_preference_that_engage_did_not_tell_is_added() -> None:
    assert laid(preferences={"acceptsPostal": True})["preferences"]["acceptsPostal"] is True


def test_consents_are_merged_by_id() -> None:
    body = laid(consents=[{"id": "newsletter", "value": True}, {"id": "profiling", "value": True}])

    assert body["consents"] == [
        {"id": "newsletter", "value": True, "source": "web"},
        {"id": "profiling", "value": True},
    ]


def test_cleared_attribute_is_gone() -> None:
    assert "city" not in laid(clear=("City",))["attributes"]


def test_default_of_a_sign_up_fills_only_what_is_empty() -> None:
    asked = Payload({}, defaults={"city": "Ystad", "careOf": "Per", "countryCode": "SE"})

    attributes = overlay.laid_over(BASE, [(Kind.CREATE, asked)])["attributes"]

    assert (attributes["city"], attributes["careOf"]) == ("Malmö", "Per")
    assert attributes["countryCode"] == "SE"


@pytest.mark.parametrize(
    ("kind", "wanted", "becomes"),
    [
        (Kind.UPGRADE, "Vip", "Vip"),
        (Kind.CREATE, "Member", "Member"),
        (Kind.CREATE, "Vip", "Contact"),  # a sign-up changes an existing type only to Member
    ],
)
def test_contact_type_is_what_it_will_be(kind: Kind, wanted: str, becomes: str) -> None:
    body = overlay.laid_over(BASE, [(kind, Payload({}, contact_type=wanted))])

    assert body["meta"] == {"contactType": becomes, "approved": True}


def test_contact_without_the_usual_members_gets_them() -> None:
    asked = Payload({"city": "Lund", "preferences": {"a": True}, "consents": [{"id": "n"}]})

    body = overlay.laid_over({"id": GUID, "attributes": None}, [(Kind.UPDATE, asked)])

    assert body == {
        "id": GUID,
        "attributes": {"city": "Lund"},
        "preferences": {"a": True},
        "consents": [{"id": "n"}],
    }


def test_contact_of_which_nothing_is_known_has_engages_shape() -> None:
    body = overlay.blank(Contact(1, "ref", None, "Member"))

    assert body == {
        "id": "ref",
        "attributes": {},
        "meta": {"contactType": "Member"},
        "preferences": {},
        "consents": [],
    }


# --- which changes count ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (own(city="Lund"), True),
        (own(state=State.UPLOADED, city="Lund"), True),
        # Delivered before Engage was asked: it is in the answer. After it: it may not be.
        (own(state=State.DELIVERED, ended=7, city="Lund"), False),
        (own(state=State.DELIVERED, ended=8, city="Lund"), True),
        (own(state=State.REJECTED, ended=8, city="Lund"), False),
        # Where imports are not verified, only their time tells.
        (
            own(
                state=State.IMPORTED,
                holds=False,
                settled_at="2026-11-21T09:59:00.000Z",
                city="Lund",
            ),
            False,
        ),
        (
            own(
                state=State.IMPORTED,
                holds=False,
                settled_at="2026-11-21T10:01:00.000Z",
                city="Lund",
            ),
            True,
        ),
    ],
)
def test_what_is_open_or_came_later_lies_over_a_kept_answer(change: Own, counts: bool) -> None:
    assert bool(overlay.since([change], KEPT)) is counts


def test_retried_change_does_not_undo_what_was_delivered_since() -> None:
    changes = [
        own(city="Lund", street="1"),
        own(state=State.DELIVERED, ended=5, city="Ystad"),
    ]

    ((_, payload),) = overlay.since(changes, KEPT)

    assert payload.attributes == {"street": "1"}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (own(), False),  # open: it is laid over, nothing new is in Engage
        (own(state=State.DELIVERED, ended=7), False),
        (own(state=State.DELIVERED, ended=8), True),
        (own(Kind.UPGRADE, State.REJECTED, ended=8), True),  # a part of it may have gone through
    ],
)
def test_kept_answer_is_old_once_this_till_changed_the_contact(change: Own, moved: bool) -> None:
    assert overlay.has_moved([change], KEPT) is moved


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (own(Kind.CREATE), True),
        (own(Kind.CREATE, State.DELIVERED), True),
        (own(Kind.CREATE, State.DELIVERED, existed=True), False),
        (own(Kind.CREATE, State.REJECTED, holds=True), False),
        (own(Kind.UPDATE), False),
    ],
)
def test_only_who_made_a_contact_can_tell_it_without_engage(change: Own, known: bool) -> None:
    assert overlay.tells_the_contact([change]) is known


def test_sign_up_that_waits_for_a_person_is_still_told() -> None:
    changes = [
        own(Kind.CREATE, State.REJECTED, holds=True, city="Lund"),
        own(state=State.REJECTED, city="Ystad"),
    ]

    assert [payload.attributes for _, payload in overlay.all_of(changes)] == [{"city": "Lund"}]


# --- ETag and difference ------------------------------------------------------------------------


def test_etag_is_the_same_for_the_same_content_in_any_order() -> None:
    turned = dict(reversed(BASE.items()))

    assert overlay.etag(turned) == overlay.etag(BASE)
    assert overlay.etag(laid(city="Lund")) != overlay.etag(BASE)


@pytest.mark.parametrize(
    "given",
    [
        {"city": "Malmö"},
        {"city": " Malmö "},
        {"CITY": "Malmö"},
        {"points": 12.0},
        # What is empty and what is not there are the same.
        {"careOf": ""},
        {"street": None},
        {"street": "  "},
        {"contactType": "Contact"},
        {"preferences": {"acceptsEmail": False}},
        {"preferences": {}},
        {"consents": [{"id": "newsletter", "value": False}]},
        {"consents": []},
    ],
)
def test_what_is_so_already_is_no_difference(given: dict[str, Any]) -> None:
    assert overlay.difference(given, BASE) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"city": "Lund"},
        {"city": ""},
        {"city": "malmö"},
        {"points": True},
        {"contactType": "Member"},
        {"preferences": {"acceptsEmail": True}},
        {"preferences": {"acceptsEmail": None}},
        {"preferences": "yes"},
        {"consents": [{"id": "newsletter", "value": True}]},
        {"consents": [{"id": "profiling", "value": False}]},
        {"consents": [{"value": True}]},
        {"consents": "yes"},
    ],
)
def test_what_is_not_so_yet_is_left(given: dict[str, Any]) -> None:
    assert overlay.difference(given, BASE) == given
