"""What a payload sets, and what is left of it."""

from __future__ import annotations

from agent.change import Payload

PAYLOAD = Payload(
    attributes={
        "city": "Lund",
        "preferences": {"acceptsEmail": True, "acceptsSms": False},
        "consents": [{"id": "terms", "value": True}, {"id": "club", "value": False}],
    },
    clear=("street",),
)


def test_flags_and_consents_are_named_one_by_one() -> None:
    assert PAYLOAD.names() == {
        "city",
        "street",
        "preferences.acceptsEmail",
        "preferences.acceptsSms",
        "consents.terms",
        "consents.club",
    }


def test_a_later_flag_takes_out_that_flag_alone() -> None:
    left = PAYLOAD.without({"preferences.acceptsSms", "consents.terms"})

    assert left == {
        "city": "Lund",
        "preferences": {"acceptsEmail": True},
        "consents": [{"id": "club", "value": False}],
    }


def test_nothing_is_left_of_what_was_set_again_as_a_whole() -> None:
    assert PAYLOAD.without(PAYLOAD.names()) == {}


def test_without_names_everything_stays() -> None:
    assert PAYLOAD.without(()) == PAYLOAD.attributes
