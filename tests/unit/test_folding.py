"""Open changes of one contact become one set of attributes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.change import Kind, Payload, foldable
from agent.delivery.folding import changes_key, fold

CREATE, UPDATE, UPGRADE = Kind.CREATE, Kind.UPDATE, Kind.UPGRADE


def updates(*attributes: dict[str, object]) -> list[tuple[Kind, Payload]]:
    return [(UPDATE, Payload(given)) for given in attributes]


def test_a_later_value_wins_attribute_by_attribute() -> None:
    folded = fold(updates({"city": "Oslo", "street": "A"}, {"city": "Bergen"}, {"lang": "no"}))

    assert folded == Payload({"city": "Bergen", "street": "A", "lang": "no"})


def test_city_a_b_a_ends_at_a() -> None:
    folded = fold(updates({"city": "A"}, {"city": "B"}, {"city": "A"}))

    assert folded.attributes == {"city": "A"}


def test_preferences_are_merged_flag_by_flag() -> None:
    folded = fold(
        updates(
            {"preferences": {"acceptsEmail": True, "acceptsSms": True}},
            {"preferences": {"acceptsSms": False}},
        )
    )

    assert folded.attributes == {"preferences": {"acceptsEmail": True, "acceptsSms": False}}


def test_consents_are_merged_by_id_in_order_of_first_appearance() -> None:
    folded = fold(
        updates(
            {"consents": [{"id": "news", "value": True, "comment": "c"}, {"id": "b", "value": 1}]},
            {"consents": [{"id": "third", "value": True}, {"id": "news", "value": False}]},
        )
    )

    assert folded.attributes["consents"] == [
        {"id": "news", "value": False},
        {"id": "b", "value": 1},
        {"id": "third", "value": True},
    ]


def test_a_default_stands_until_a_later_value_comes() -> None:
    create = Payload({"email": "v@example.test"}, defaults={"countryCode": "SE", "lang": "sv"})

    folded = fold([(CREATE, create), *updates({"lang": "fi"})])

    assert folded.attributes == {"email": "v@example.test", "lang": "fi"}
    assert folded.defaults == {"countryCode": "SE"}


def test_a_default_of_a_second_create_never_hides_what_was_given() -> None:
    first = Payload({"countryCode": "NO"})
    second = Payload({"city": "Oslo"}, defaults={"countryCode": "SE"})

    folded = fold([(CREATE, first), (CREATE, second)])

    assert folded.attributes == {"countryCode": "NO", "city": "Oslo"}
    assert folded.defaults == {}


def test_type_source_and_store_are_those_of_the_first_create() -> None:
    first = Payload({}, contact_type="Member", source="POS", store_external_id="7")
    second = Payload({}, contact_type="Contact", source="Web", store_external_id="8")

    folded = fold([*updates({"city": "A"}), (CREATE, first), (CREATE, second)])

    assert (folded.contact_type, folded.source, folded.store_external_id) == ("Member", "POS", "7")


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (CREATE, Payload({"a": 1}), True),
        (UPDATE, Payload({"a": 1}), True),
        (UPGRADE, Payload({"a": 1}, contact_type="Member"), False),  # a step of its own
        (CREATE, Payload({"a": 1}, as_unapproved=True), False),  # its approval would be lost
        (UPDATE, Payload({"a": 1}, clear=("city",)), False),  # an empty element is not documented
    ],
)
def test_what_can_be_folded(kind: Kind, payload: Payload, expected: bool) -> None:
    assert foldable(kind, payload) is expected


def test_what_is_not_foldable_is_refused() -> None:
    with pytest.raises(ValueError, match="never folded"):
        fold([(UPGRADE, Payload({}))])


def test_nothing_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="nothing"):
        fold([])


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (Payload({"email": "new@example.test"}), True),
        (Payload({"city": "Oslo"}), False),
        (Payload({}, clear=("email",)), True),
    ],
)
def test_an_update_of_the_key_itself_is_seen(payload: Payload, expected: bool) -> None:
    assert changes_key(payload, "email") is expected


NAMES = st.sampled_from(["a", "b", "c"])
CONSENT = st.fixed_dictionaries({"id": NAMES, "value": st.booleans()})
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "city": st.integers(),
        "lang": st.integers(),
        "preferences": st.dictionaries(NAMES, st.booleans()),
        "consents": st.lists(CONSENT, max_size=4),
    },
)


@given(st.lists(GIVEN, min_size=2, max_size=5), st.data())
def test_folding_in_two_steps_gives_the_same_as_in_one(
    given: list[dict[str, object]], data: st.DataObject
) -> None:
    changes = updates(*given)
    cut = data.draw(st.integers(1, len(changes) - 1))

    in_two = fold([(UPDATE, fold(changes[:cut])), (UPDATE, fold(changes[cut:]))])

    assert in_two == fold(changes)


@given(st.lists(GIVEN, min_size=1, max_size=5))
def test_what_goes_in_is_left_as_it_was(given: list[dict[str, object]]) -> None:
    before = [Payload(payload).to_json() for payload in given]

    fold(updates(*given))

    assert [Payload(payload).to_json() for payload in given] == before
