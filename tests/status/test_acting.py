"""What a person does on the page: signed in, from its own forms, and answered in words."""

from __future__ import annotations

import re
from typing import Any

import lxml.html
import pytest
from aiohttp import web

from agent.change import Change, Route
from agent.errors import Conflict, FieldProblem, InvalidChange, JournalUnavailable
from agent.status.session import IDLE_S, LONGEST_S

from .conftest import TOKEN, Client, FakeDesk, FakeTokens, Till

NOBODY = "01a20000-0000-7000-8000-000000000000"


class Browser:
    """A browser without JavaScript: follows links, sends forms, keeps cookies."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.document: Any = None
        self.answer: Any = None

    async def open(self, path: str, **headers: str) -> Any:
        return await self._read(await self.client.get(path, headers=headers))

    async def submit(self, action: str, **fields: str) -> Any:
        """Fill in the form with this action and send it."""
        form = next(each for each in self.document.forms if each.get("action") == action)
        data = {name: value or "" for name, value in form.form_values()}
        return await self.send(action, {**data, **fields})

    async def send(self, action: str, data: dict[str, str]) -> Any:
        return await self._read(await self.client.post(action, data=data))

    async def _read(self, answer: Any) -> Any:
        self.answer = answer
        self.document = lxml.html.document_fromstring(await answer.text())
        return self.document

    async def sign_in(self) -> None:
        await self.open("/page/sign-in")
        await self.submit("/page/sign-in", token=TOKEN)
        assert self.is_signed_in

    @property
    def is_signed_in(self) -> bool:
        return bool(self.document.xpath("//*[@id='sign-out']"))

    @property
    def message(self) -> str:
        return " ".join(self.document.xpath("string(//*[@id='message'])").split())

    @property
    def actions(self) -> set[str]:
        return {form.get("action") for form in self.document.forms}

    @property
    def text(self) -> str:
        return " ".join(self.document.text_content().split())


@pytest.fixture
async def browser(till: Till, serve: Client) -> Browser:
    return Browser(await serve(till.observer()))


@pytest.fixture
async def refused(till: Till) -> Change:
    change = await till.sign_up("vera@example.test")
    fields = ({"field": "lastName", "code": "x", "message": "lastName is required, Sigrid"},)
    await till.reject(change, "Not valid.", fields=fields, request_id="req-1")
    return change


# --- signing in -----------------------------------------------------------------------------------


async def test_without_a_token_the_page_only_shows(browser: Browser, refused: Change) -> None:
    await browser.open("/")

    assert browser.actions == set()
    assert browser.document.xpath("//a[@href='/page/sign-in']")


async def test_a_token_is_entered_once_and_kept_in_a_cookie_that_scripts_cannot_read(
    browser: Browser,
) -> None:
    await browser.open("/page/sign-in")
    await browser.submit("/page/sign-in", token=f" {TOKEN} ")

    cookie = browser.answer.history[0].headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "max-age" not in cookie
    assert "expires" not in cookie
    assert TOKEN not in cookie
    assert browser.is_signed_in
    assert browser.message.startswith("You are signed in.")
    assert "Signed in as pos-1" in browser.text
    assert TOKEN not in browser.text


async def test_cookie_is_secure_where_the_page_comes_over_tls(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.status.session.is_tls", lambda _: True)

    await browser.open("/page/sign-in")
    answer = await browser.client.post(
        "/page/sign-in", data={"token": TOKEN}, allow_redirects=False
    )

    assert "secure" in answer.headers["Set-Cookie"].lower()


@pytest.mark.parametrize("token", ["", "wrong", "ö\U0001f600", "x" * 5000])
async def test_a_wrong_token_is_said_and_opens_nothing(browser: Browser, token: str) -> None:
    await browser.open("/page/sign-in")
    await browser.submit("/page/sign-in", token=token)

    assert browser.answer.status == 403
    assert browser.message == ("This token is not known here. Check that you pasted all of it.")
    assert not browser.is_signed_in
    assert "Set-Cookie" not in browser.answer.headers


async def test_wrong_tokens_are_counted_and_the_right_one_gets_in(browser: Browser) -> None:
    statuses = [
        (await browser.client.post("/page/sign-in", data={"token": f"{number}"})).status
        for number in range(21)
    ]

    await browser.sign_in()

    assert statuses == [403] * 20 + [429]


async def test_signing_out_ends_the_session_on_this_side_too(browser: Browser) -> None:
    await browser.sign_in()
    stolen = browser.client.session.cookie_jar.filter_cookies(browser.client.make_url("/"))
    (name, number) = next((key, cookie.value) for key, cookie in stolen.items())

    await browser.submit("/page/sign-out")
    await browser.open("/", Cookie=f"{name}={number}")

    assert not browser.is_signed_in


async def test_signing_in_anew_ends_the_session_before(browser: Browser) -> None:
    await browser.sign_in()
    jar = browser.client.session.cookie_jar
    first = {
        key: each.value for key, each in jar.filter_cookies(browser.client.make_url("/")).items()
    }
    await browser.send("/page/sign-in", {"token": TOKEN})
    jar.clear()

    await browser.open("/", Cookie="; ".join(f"{key}={value}" for key, value in first.items()))

    assert not browser.is_signed_in


async def test_a_session_ends_when_nothing_is_done_for_a_while(
    browser: Browser, till: Till
) -> None:
    await browser.sign_in()

    till.clock.pass_by(IDLE_S - 1)
    await browser.open("/")
    still = browser.is_signed_in
    till.clock.pass_by(2)  # looking was nothing that was done
    await browser.open("/")

    assert still
    assert not browser.is_signed_in


async def test_a_session_ends_after_a_shift_at_the_latest(browser: Browser, till: Till) -> None:
    await browser.sign_in()

    for _ in range(int(LONGEST_S / IDLE_S)):
        till.clock.pass_by(IDLE_S - 1)
        await browser.open("/")
        assert browser.is_signed_in
        await browser.submit("/page/seal")
    till.clock.pass_by(LONGEST_S / IDLE_S)
    await browser.open("/")

    assert not browser.is_signed_in


async def test_a_session_dies_with_its_token(
    browser: Browser, tokens: FakeTokens, desk: FakeDesk
) -> None:
    await browser.sign_in()

    tokens.revoked = True
    await browser.submit("/page/seal")

    assert desk.done == []
    assert browser.message.startswith("You were signed out: some time has passed, or your token")
    assert not browser.is_signed_in


async def test_sessions_are_bounded_in_number(till: Till, serve: Client) -> None:
    client = await serve(till.observer())
    first = Browser(client)
    await first.sign_in()
    jar = client.session.cookie_jar
    cookies = {key: each.value for key, each in jar.filter_cookies(client.make_url("/")).items()}
    jar.clear()

    for _ in range(20):
        await client.post("/page/sign-in", data={"token": TOKEN}, allow_redirects=False)
        jar.clear()
    await first.open("/", Cookie="; ".join(f"{key}={value}" for key, value in cookies.items()))

    assert not first.is_signed_in


# --- only from the page's own forms ---------------------------------------------------------------

FORMS = (
    "/page/sign-out",
    "/page/seal",
    "/page/batches/a_contacts.xml/withdraw",
    "/page/batches/a_contacts.xml/retry",
    "/page/routes/api/pause",
    "/page/routes/file/resume",
    f"/page/changes/{NOBODY}/retry",
    f"/page/changes/{NOBODY}/mend",
    f"/page/changes/{NOBODY}/discard",
)


async def test_these_are_all_the_forms_that_there_are(till: Till, serve: Client) -> None:
    client = await serve(till.observer())

    posts = {
        re.sub(r"\{[^}]*\}", "*", route.resource.canonical)
        for route in client.app.router.routes()
        if route.method == "POST"
    }

    assert posts - {"/page/sign-in"} == {
        re.sub(rf"(?<=routes/)\w+|a_contacts\.xml|pause|resume|{NOBODY}", "*", path)
        for path in FORMS
    }


async def test_nobody_acts_without_being_signed_in(browser: Browser, desk: FakeDesk) -> None:
    for path in FORMS:
        answer = await browser.client.post(path, data={"form_key": "x"}, allow_redirects=False)

        assert (answer.status, answer.headers["Location"]) == (303, "/?said=expired#message"), path
    assert desk.done == []


@pytest.mark.parametrize("form_key", [None, "", "x", "ä\U0001f600"])
async def test_a_form_without_the_sessions_key_changes_nothing(
    browser: Browser, desk: FakeDesk, form_key: str | None
) -> None:
    await browser.sign_in()

    for path in FORMS:
        await browser.send(path, {} if form_key is None else {"form_key": form_key})

        assert browser.answer.status == 403, path
        assert browser.message.startswith("This form was too old, or came from elsewhere.")
    assert desk.done == []
    assert browser.is_signed_in


async def test_a_form_of_broken_bytes_changes_nothing(browser: Browser, desk: FakeDesk) -> None:
    await browser.sign_in()

    answer = await browser.client.post(
        "/page/seal",
        data=b"form_key=%ff%fe&\xff=\xed\xa0\x80",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert answer.status == 403
    assert desk.done == []


async def test_only_plain_forms_are_read(browser: Browser, desk: FakeDesk) -> None:
    await browser.sign_in()
    key = browser.document.xpath("string(//input[@name='form_key']/@value)")

    answer = await browser.client.post("/page/seal", json={"form_key": key})

    assert answer.status == 403
    assert desk.done == []


@pytest.mark.parametrize(
    "path", [f"/page/changes/{NOBODY}/mend", f"/page/changes/{NOBODY}/discard", "/page/doctor"]
)
async def test_pages_behind_the_token_ask_for_it(browser: Browser, path: str) -> None:
    answer = await browser.client.get(path, allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (303, "/page/sign-in")


# --- what is done ---------------------------------------------------------------------------------


async def test_a_refused_change_is_sent_again(
    browser: Browser, desk: FakeDesk, refused: Change
) -> None:
    await browser.sign_in()

    await browser.submit(f"/page/changes/{refused.id}/retry")

    assert desk.done == [("retry", refused.id)]
    assert browser.answer.url.path == "/"
    assert browser.message == f"It is being sent again: Sign-up {refused.id}."


async def test_renewing_the_page_repeats_nothing(
    browser: Browser, desk: FakeDesk, refused: Change
) -> None:
    await browser.sign_in()
    await browser.submit(f"/page/changes/{refused.id}/retry")

    await browser.open(str(browser.answer.url.relative()))

    assert desk.done == [("retry", refused.id)]
    assert browser.message.startswith("It is being sent again")


async def test_discarding_asks_why_first(browser: Browser, desk: FakeDesk, refused: Change) -> None:
    place = f"/page/changes/{refused.id}/discard"
    await browser.sign_in()

    await browser.open(place)
    asked = browser.text
    await browser.submit(place, reason=" ")
    without = (browser.answer.status, browser.message, list(desk.done))
    await browser.submit(place, reason="left the shop")

    assert "cannot be undone" in asked
    assert without == (422, "Say why. Nothing was changed.", [])
    assert desk.done == [("discard", refused.id, "left the shop")]
    assert browser.message.startswith("It was discarded and will never be sent: Sign-up")


async def test_mending_shows_the_data_and_engages_words_beside_the_fields(
    browser: Browser, refused: Change
) -> None:
    await browser.sign_in()

    document = await browser.open(f"/page/changes/{refused.id}/mend")

    (field,) = document.xpath("//*[@id='field-1']")
    assert (field.get("name"), field.get("aria-invalid")) == ("f:lastName", "true")
    described = document.get_element_by_id(field.get("aria-describedby"))
    assert described.text_content() == "lastName is required, Sigrid"
    assert document.xpath("//input[@value='vera@example.test']")
    assert "Not valid." in browser.text
    assert "Engage's number of the answer: req-1" in browser.text
    assert browser.answer.headers["Cache-Control"] == "no-store"


async def test_a_corrected_change_is_handed_over_whole(
    browser: Browser, desk: FakeDesk, refused: Change
) -> None:
    place = f"/page/changes/{refused.id}/mend"
    await browser.sign_in()
    await browser.open(place)

    await browser.submit(place, **{"f:lastName": "Lind", "new-name": "city", "new-value": "Lund"})

    data = {
        "contactType": "Member",
        "email": "vera@example.test",
        "firstName": "Sigrid",
        "lastName": "Lind",
        "city": "Lund",
    }
    assert desk.done == [("mend", refused.id, data, "en")]
    assert browser.message.startswith("It was mended and is being sent again: Sign-up")


async def test_what_is_still_wrong_stands_beside_what_was_typed(
    browser: Browser, desk: FakeDesk, refused: Change
) -> None:
    place = f"/page/changes/{refused.id}/mend"
    await browser.sign_in()
    await browser.open(place)
    desk.error = InvalidChange([FieldProblem("email", "BadEmail", "email is not an address.")])

    document = await browser.submit(place, **{"f:email": "vera@", "f:lastName": "Lind"})

    assert browser.answer.status == 422
    assert browser.message == "1 field is not right yet. Nothing was changed."
    (field,) = document.xpath("//input[@name='f:email']")
    assert field.get("value") == "vera@"
    assert document.get_element_by_id(field.get("aria-describedby")).text_content() == (
        "email is not an address."
    )
    assert document.xpath("//input[@name='f:lastName']/@value") == ["Lind"]


async def test_a_change_that_somebody_else_mended_is_shown_anew(
    browser: Browser, desk: FakeDesk, refused: Change
) -> None:
    place = f"/page/changes/{refused.id}/mend"
    await browser.sign_in()
    await browser.open(place)

    await browser.submit(place, seen="another", **{"f:lastName": "Lind"})

    assert browser.answer.status == 409
    assert browser.message.startswith("Somebody else changed it meanwhile.")
    assert desk.done == []


@pytest.mark.parametrize("does", ["mend", "discard"])
async def test_what_is_not_refused_any_more_cannot_be_opened(
    browser: Browser, till: Till, does: str
) -> None:
    change = await till.sign_up("vera@example.test")
    await browser.sign_in()

    await browser.open(f"/page/changes/{change.id}/{does}")

    assert browser.answer.status == 409
    assert "this one is waiting" in browser.message
    assert "vera@example.test" not in browser.text


async def test_what_is_not_there_is_said(browser: Browser) -> None:
    await browser.sign_in()

    await browser.open(f"/page/changes/{NOBODY}/mend", Accept_Language="sv")

    assert browser.answer.status == 404
    assert browser.message.startswith("There is no change with that id")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Conflict("Only a rejected or waiting change can be retried; this one is delivered."), 409,
         "Bara en avvisad eller väntande ändring kan skickas igen; den här är delivered."),
        (JournalUnavailable(), 503,
         "Journalen går inte att läsa eller skriva just nu. Inget sparades; skicka det igen."),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_said_in_the_persons_language(
    browser: Browser, desk: FakeDesk, refused: Change, error: Any, code: int, words: str
) -> None:
    await browser.sign_in()
    await browser.open("/page/language/sv")
    desk.error = error

    await browser.submit(f"/page/changes/{refused.id}/retry")

    assert (browser.answer.status, browser.message) == (code, words)


async def test_files_are_made_and_counted(browser: Browser, desk: FakeDesk) -> None:
    await browser.sign_in()

    await browser.submit("/page/seal")

    assert desk.done == [("seal",)]
    assert browser.message == "1 file was made."


async def test_a_file_that_lies_too_long_is_taken_back(
    browser: Browser, till: Till, desk: FakeDesk
) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    till.clock.pass_by(till.config.fallback.import_grace_s + 1)
    await browser.open("/")
    seen_by_anybody = browser.actions
    await browser.sign_in()

    await browser.submit("/page/batches/one_contacts.xml/withdraw")

    assert "/page/batches/one_contacts.xml/withdraw" not in seen_by_anybody
    assert desk.done == [("withdraw", "one_contacts.xml")]
    assert browser.message == (
        "one_contacts.xml was taken back and will not be imported. Its changes wait again."
    )


async def test_a_file_that_engage_has_taken_meanwhile_stays(
    browser: Browser, till: Till, desk: FakeDesk
) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))
    await till.upload("one_contacts.xml")
    till.clock.pass_by(till.config.fallback.import_grace_s + 1)
    await browser.sign_in()
    desk.error = Conflict("Engage has taken one_contacts.xml already. Nothing was changed.")

    await browser.submit("/page/batches/one_contacts.xml/withdraw")

    assert browser.answer.status == 409
    assert "Engage has taken one_contacts.xml already" in browser.message


@pytest.mark.parametrize("route", list(Route))
async def test_a_route_is_paused_and_resumed(
    browser: Browser, till: Till, desk: FakeDesk, route: Route
) -> None:
    await browser.sign_in()

    await browser.submit(f"/page/routes/{route}/pause")
    paused = browser.message
    till.gates[route].state = "paused"
    till.clock.pass_by(1)
    await browser.open("/")
    await browser.submit(f"/page/routes/{route}/resume")

    assert "is paused until somebody resumes it" in paused
    assert desk.done == [("pause", route), ("resume", route)]
    assert browser.message.endswith("goes on.")


async def test_there_are_two_routes(browser: Browser, desk: FakeDesk) -> None:
    await browser.sign_in()
    form = dict(browser.document.forms[-1].form_values())

    await browser.send("/page/routes/pigeon/pause", form)

    assert (browser.answer.status, desk.done) == (404, [])
    assert browser.message == "There are two routes: api and file. Nothing was changed."


async def test_a_halted_route_can_be_tried_at_once(
    browser: Browser, till: Till, desk: FakeDesk
) -> None:
    till.gates[Route.API].state = "halted"
    till.gates[Route.API].reason = "Engage refuses the API key."
    await browser.sign_in()

    assert browser.document.xpath("string(//*[@id='need-api'])") == (
        "Try sending directly again now"
    )
    await browser.submit("/page/routes/api/resume")

    assert desk.done == [("resume", "api")]


# --- what other calls offer -----------------------------------------------------------------------


async def test_page_offers_nothing_that_the_agent_does_not_have(browser: Browser) -> None:
    await browser.sign_in()

    assert not browser.document.xpath("//a[@href='/page/doctor' or contains(@href, 'bundle')]")
    assert (await browser.client.get("/page/doctor")).status == 404


async def test_page_shows_the_rows_of_a_check(till: Till, serve: Client) -> None:
    async def doctor(_: web.Request) -> web.Response:
        rows = [
            {"check": "clock", "result": "ok", "meaning": "It is right.", "whatToDo": ""},
            {
                "check": "disk",
                "result": "failed",
                "meaning": "It was not sent.",
                "whatToDo": "Discard it.",
            },
        ]
        return web.json_response({"rows": rows})

    async def bundle(_: web.Request) -> web.Response:
        return web.Response(body=b"zip")

    more = (web.get("/agent/v1/doctor", doctor), web.get("/agent/v1/support-bundle", bundle))
    browser = Browser(await serve(till.observer(), *more))
    await browser.sign_in()

    till.problems = ["The clock is wrong."]
    till.clock.pass_by(1)
    await browser.open("/")
    assert browser.document.xpath("//*[@id='identity']//a[@href='/agent/v1/support-bundle']")
    assert browser.document.xpath("//*[@id='needs']//a[@href='/page/doctor']")
    document = await browser.open("/page/doctor")
    rows = [
        [" ".join(cell.text_content().split()) for cell in row]
        for row in document.xpath("//tbody/tr")
    ]
    assert rows == [
        ["clock", "ok", "It is right.", ""],
        ["disk", "failed", "It was not sent.", "Discard it."],
    ]


async def test_a_check_that_does_not_work_out_is_said(till: Till, serve: Client) -> None:
    async def doctor(_: web.Request) -> web.Response:
        raise JournalUnavailable

    browser = Browser(await serve(till.observer(), web.get("/agent/v1/doctor", doctor)))
    await browser.sign_in()

    await browser.open("/page/doctor")

    assert "The check did not work out." in browser.text


# --- nobody's data --------------------------------------------------------------------------------


async def test_a_customers_data_stands_nowhere_but_in_the_form_for_mending(
    browser: Browser, refused: Change
) -> None:
    await browser.sign_in()
    shown = ""
    for path in ("/", "/page/refused", f"/page/changes/{refused.id}/discard", "/page/sign-in"):
        await browser.open(path)
        shown += lxml.html.tostring(browser.document, encoding="unicode")

    assert refused.id in shown
    assert not re.search(r"vera@|Sigrid|example\.test", shown)
