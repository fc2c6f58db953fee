"""Engage's answers read: every row of the outcome table, and bodies that are not as documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent import errors
from agent.contact import contact_type_of
from agent.delivery.engage import answers
from agent.delivery.engage.answers import Answer

GUID = "2e40b702-2767-4abe-ae99-aa510108e22b"
CONTACT = {"id": GUID, "attributes": {}, "meta": {"contactType": "Member"}}
HTML = b"<html>Welcome to the guest network</html>"

Read = Callable[[Answer], Any]


def answer(status: int, body: Any = b"", **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, raw)


def refusal(code: str, **more: Any) -> dict[str, Any]:
    return {"errorCode": code, "message": "words", "requestId": "r-1", **more}


@pytest.mark.parametrize(
    ("read", "given", "result"),
    [
        (answers.looked_up, answer(200, GUID), GUID),
        (answers.looked_up, answer(200, GUID.upper()), GUID),
        (answers.looked_up, answer(404, refusal("ContactNotFound")), None),
        (answers.created, answer(201, CONTACT), CONTACT),
        (answers.updated, answer(200, CONTACT), CONTACT),
        (answers.updated, answer(200), None),
        (answers.updated, answer(202), None),
        (answers.updated, answer(204), None),
        (answers.updated, answer(202, {"jobId": "7"}), None),
        (answers.updated, answer(200, True), None),
        (answers.read_contact, answer(200, CONTACT), CONTACT),
        (answers.read_any, answer(200, [1]), [1]),
    ],
)
def test_answer_of_the_expected_shape_is_read(read: Read, given: Answer, result: Any) -> None:
    assert read(given) == result


CREATE, UPDATE, LOOK = answers.created, answers.updated, answers.looked_up
FAILURES: list[tuple[Read, Answer, type[errors.RouteError], bool]] = [
    # read, answer, what it means, whether it speaks against the link
    (CREATE, answer(201), errors.AnswerLost, False),
    (CREATE, answer(201, b'{"id": "6f1c'), errors.AnswerLost, False),
    (CREATE, answer(201, {"attributes": {}}), errors.AnswerLost, False),
    (CREATE, answer(201, {"id": "42"}), errors.AnswerLost, False),
    (CREATE, answer(200, {"result": "ok"}), errors.AnswerLost, False),
    (CREATE, answer(202), errors.AnswerLost, False),
    (CREATE, answer(200, HTML), errors.NotEngage, True),
    (UPDATE, answer(200, HTML), errors.NotEngage, True),
    (UPDATE, answer(200, {"result": "ok"}), errors.NotEngage, True),
    (UPDATE, answer(206, b""), errors.EngageFailed, False),
    (LOOK, answer(200, HTML), errors.NotEngage, True),
    (LOOK, answer(200, {"id": GUID}), errors.NotEngage, True),
    (LOOK, answer(200, "not a guid"), errors.NotEngage, True),
    (LOOK, answer(404, HTML), errors.NotEngage, True),
    (LOOK, answer(404, {"message": "no code"}), errors.NotEngage, True),
    (LOOK, answer(404, refusal("NoSuchPath")), errors.Refused, False),
    (LOOK, answer(204), errors.NotEngage, True),
    (CREATE, answer(500, refusal("InternalServerError")), errors.AnswerLost, False),
    (CREATE, answer(502, HTML), errors.AnswerLost, True),
    (CREATE, answer(503), errors.AnswerLost, True),
    (UPDATE, answer(500, refusal("InternalServerError")), errors.EngageFailed, False),
    (UPDATE, answer(503, HTML), errors.EngageFailed, True),
    (LOOK, answer(500, refusal("InvalidSystemConfiguration")), errors.EngageFailed, False),
    (CREATE, answer(504, refusal("RequestTimeOut")), errors.RolledBack, False),
    (CREATE, answer(504, HTML), errors.AnswerLost, True),  # a gateway's, not Engage's
    (CREATE, answer(511, HTML), errors.NotEngage, True),
    (CREATE, answer(302, HTML), errors.NotEngage, True),
    (CREATE, answer(407, HTML), errors.NotEngage, True),
    (CREATE, answer(407, {"errorCode": 7}), errors.NotEngage, True),
    (CREATE, answer(401, HTML), errors.NotAuthorised, False),
    (CREATE, answer(403, refusal("Forbidden")), errors.NotAuthorised, False),
    (CREATE, answer(429), errors.Throttled, False),
    (CREATE, answer(400, refusal("NoData")), errors.Refused, False),
    (CREATE, answer(422, refusal("ValidationError")), errors.Refused, False),
    (CREATE, answer(409, refusal("ContactWithKeyIsBeingCreated")), errors.KeyBusy, False),
    (CREATE, answer(409, refusal("ApprovedContactWithKeyExists")), errors.KeyTaken, False),
    (CREATE, answer(409, refusal("SomethingNew")), errors.Refused, False),
    (LOOK, answer(409, refusal("MultipleMatches")), errors.SeveralMatch, False),
    (UPDATE, answer(404, refusal("ContactNotFound")), errors.ContactGone, False),
    (UPDATE, answer(400, b"[" * 100_000), errors.NotEngage, True),
    (UPDATE, answer(400, b"\xff\xfe"), errors.NotEngage, True),
]


@pytest.mark.parametrize(("read", "given", "meaning", "against_link"), FAILURES)
def test_answer_that_is_no_success_says_what_it_means(
    read: Read, given: Answer, meaning: type[errors.RouteError], against_link: bool
) -> None:
    with pytest.raises(errors.RouteError) as raised:
        read(given)

    assert type(raised.value) is meaning
    assert raised.value.against_link is against_link
    assert raised.value.status == given.status


def test_refusal_carries_engages_words_code_fields_and_request() -> None:
    body = refusal(
        "ValidationError",
        validationErrors=[
            {"errorDescription": "is too short", "field": "firstName", "errorCode": "TooShort"},
            {"message": "is wrong"},
            "nonsense",
        ],
    )

    error = answers.failure(answer(422, body), write=True)

    assert isinstance(error, errors.Refused)
    assert (error.code, error.words, error.request_id) == ("ValidationError", "words", "r-1")
    assert error.fields == (
        {"field": "firstName", "code": "TooShort", "message": "is too short"},
        {"field": "", "code": "ValidationError", "message": "is wrong"},
    )


@pytest.mark.parametrize(
    ("details", "ids"),
    [
        ({"multipleMatchesFound": [GUID.upper(), "x", 7]}, (GUID,)),
        ({"multipleMatchesFound": GUID}, ()),
        (["x"], ()),
        (None, ()),
    ],
)
def test_several_matches_give_their_ids_where_they_stand(
    details: Any, ids: tuple[str, ...]
) -> None:
    error = answers.failure(answer(409, refusal("MultipleMatches", messageDetails=details)),
                            write=False)  # fmt: skip

    assert isinstance(error, errors.SeveralMatch)
    assert error.contact_ids == ids


@pytest.mark.parametrize(
    "more",
    [{"validationErrors": "x"}, {"validationErrors": [None]}, {"message": 7}, {"message": None}],
)
def test_refusal_of_another_shape_is_read_all_the_same(more: dict[str, Any]) -> None:
    error = answers.failure(answer(422, {"errorCode": "ValidationError", **more}), write=True)

    assert isinstance(error, errors.Refused)
    assert error.request_id is None


def test_words_without_end_are_cut() -> None:
    error = answers.failure(answer(422, refusal("V" * 999, message="x" * 10**5)), write=True)

    assert isinstance(error, errors.Refused)
    assert len(error.words) == 500
    assert error.code == "Refused"  # what is no code is not passed on as one


DATE = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        ("120", "", 120),
        ("0", "", 0),
        (" 7 ", "", 7),
        ("1000000000000", "", 100000000),  # capped where the wait is made
        ("Sat, 21 Nov 2026 10:02:00 GMT", DATE, 120),  # by the server's clock, not the till's
        ("Sat, 21 Nov 2026 11:02:00 +0100", DATE, 120),
        ("Sat, 21 Nov 2026 10:02:00", DATE, 120),
        ("Sat, 21 Nov 2026 10:02:00 GMT", "Sat, 21 Nov 2026 10:00:00 -0000", 120),
        ("Sat, 21 Nov 2026 09:00:00 GMT", DATE, None),  # over already
        ("Sat, 21 Nov 1970 10:00:00 GMT", "nonsense", None),
        ("-5", "", None),
        ("1.5", "", None),
        ("soon", "", None),
        ("\u0661\u0662", "", None),  # digits, but none of HTTP's
        ("", "", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_nonsense_is_ignored(
    header: str, date: str, seconds: float | None
) -> None:
    assert answers.retry_after({"retry-after": header, "date": date}) == seconds


def test_no_retry_after_is_none() -> None:
    assert answers.retry_after({}) is None


@pytest.mark.parametrize("contact", [None, {}, {"meta": None}, {"meta": {"contactType": 7}}])
def test_contact_type_is_none_where_it_does_not_stand(contact: Any) -> None:
    assert contact_type_of(contact) is None
