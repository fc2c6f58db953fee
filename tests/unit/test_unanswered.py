"""Which look-ups Engage does not answer, and how long nobody is looked up because of them."""

from __future__ import annotations

from agent.delivery.batch.unanswered import Failures, Unanswered

FIRST, SECOND, THIRD, FOURTH = [(1, position) for position in range(4)]


def failures() -> Failures:
    return Failures(lambda tries: 10.0 * tries)


def test_the_one_that_failed_first_is_told_with_its_last_cause() -> None:
    found = failures()

    found.failed(FIRST, "a", "It hangs.", 100.0)
    found.failed(SECOND, "b", "It fails.", 101.0)
    found.failed(FIRST, "a", "It fails.", 150.0)

    assert found.oldest == Unanswered("a", 100.0, "It fails.")
    found.answered(FIRST)
    assert found.oldest == Unanswered("b", 101.0, "It fails.")
    found.answered(SECOND)
    assert found.oldest is None


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    found = failures()

    for now in range(100, 120):
        found.failed(FIRST, "a", "It fails.", now)
        found.answered(SECOND)

    assert not found.rests(119)


def test_after_some_in_a_row_the_rest_grows_until_one_is_answered() -> None:
    found = failures()
    for place in (FIRST, SECOND, THIRD):
        assert not found.rests(100)
        found.failed(place, "a", "It fails.", 100)
    rests = [found.rests(109), found.rests(110)]

    found.failed(FOURTH, "a", "It fails.", 110)
    rests += [found.rests(129), found.rests(130)]
    found.answered(FIRST)
    found.failed(SECOND, "a", "It fails.", 131)

    assert rests == [True, False, True, False]
    assert not found.rests(131)


def test_a_person_ends_the_rest() -> None:
    found = failures()
    for place in (FIRST, SECOND, THIRD):
        found.failed(place, "a", "It fails.", 100)

    found.rest_no_more()

    assert not found.rests(100)
