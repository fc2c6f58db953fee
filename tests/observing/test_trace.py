"""One id follows a change: from the POS's request to the name of the file in which it went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from log_lines import LogLines
from world import World, eventually

CONTACTS = "/api/v3/contacts"
VERA = {"email": "vera@example.test", "firstName": "Vera"}
OWN_ID = "pos-7-20261121-0042"

Start = Callable[..., Awaitable[World]]


async def test_one_id_leads_from_the_request_over_the_attempts_to_the_files_name(
    start: Start, log: LogLines
) -> None:
    world = await start(retry={"api_attempts": 1}, fallback={"seal_after_s": 0.2})
    world.sandbox.down()

    _, _, headers = await world.pos.call(
        "POST", CONTACTS, VERA, X_Request_ID=OWN_ID, Prefer="respond-async"
    )
    change_id = headers["Agent-Change"]
    await world.pos.tried(change_id)
    batched = await world.pos.until(change_id, "batched", "uploaded")
    world.sandbox.up()
    await world.pos.until(change_id, "uploaded")
    await world.sandbox.import_now()
    await world.pos.until(change_id, "confirmed")

    found = log.naming(OWN_ID)
    events = [line["event"] for line in found]
    assert {"request_answered", "change_tried", "change_sealed", "change_verified"} <= set(events)
    assert {line["change"] for line in found} == {change_id}
    (sealed,) = log.of(request=OWN_ID, event="change_sealed")
    assert sealed["batch"] == batched["batch"]
    assert log.of(event="batch_uploaded", batch=batched["batch"])
    assert batched["requestId"] == OWN_ID
    assert headers["X-Request-ID"] == OWN_ID


async def test_request_without_an_id_gets_one_that_leads_as_far(
    start: Start, log: LogLines
) -> None:
    world = await start()

    _, _, headers = await world.pos.call("POST", CONTACTS, VERA)
    request_id = headers["X-Request-ID"]

    await eventually(lambda: log.of(request=request_id, event="change_tried"))
    (answered,) = log.of(request=request_id, event="request_answered")
    assert answered["change"] == headers["Agent-Change"]
    assert (answered["method"], answered["call"], answered["status"]) == ("POST", CONTACTS, 201)


async def test_id_survives_a_restart_of_the_agent(start: Start, log: LogLines) -> None:
    world = await start(fallback={"seal_after_s": 600})
    world.sandbox.down()
    await world.pos.call("POST", CONTACTS, VERA, X_Request_ID=OWN_ID, Prefer="respond-async")
    await world.stop()
    world.sandbox.up()

    await world.start()

    await eventually(lambda: log.of(request=OWN_ID, outcome="delivered"))


@pytest.mark.parametrize(
    "given", ["vera@example.test", "19811218-9876", "two words", "x" * 200], ids=lambda _: "bad id"
)
async def test_id_that_could_be_a_persons_is_replaced(
    start: Start, log: LogLines, given: str
) -> None:
    world = await start()

    _, _, headers = await world.pos.call("POST", CONTACTS, VERA, X_Request_ID=given)

    assert headers["X-Request-ID"] != given
    assert log.of(request=headers["X-Request-ID"], event="request_answered")
    assert given not in log.text


async def test_error_answers_carry_the_id_in_header_and_body(start: Start, log: LogLines) -> None:
    world = await start()

    status, body, headers = await world.pos.call("POST", CONTACTS, {}, X_Request_ID=OWN_ID)

    assert status == 422
    assert body["requestId"] == headers["X-Request-ID"] == headers["Request-Id"] == OWN_ID
    assert log.of(request=OWN_ID, status=422)


async def test_address_in_an_error_shows_ids_and_nothing_else_that_was_put_into_it(
    start: Start,
) -> None:
    world = await start()
    known = await world.pos.create()

    _, by_id, _ = await world.pos.call("POST", f"/agent/v1/changes/{known}/discard", {})
    _, by_name, _ = await world.pos.call("GET", "/agent/v1/changes/vera@example.test")
    _, nowhere, _ = await world.pos.call("GET", "/vera@example.test")

    assert by_id["instance"] == f"/agent/v1/changes/{known}/discard"
    assert by_name["instance"] == "/agent/v1/changes/*"
    assert nowhere["instance"] == "/"
