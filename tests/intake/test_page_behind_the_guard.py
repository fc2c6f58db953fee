"""The page's forms through the whole agent: the guard lets them in, and nothing else with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import lxml.html
import pytest
from running_agent import Shop, eventually, open_shop

from agent import tokens


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop whose Engage demands a last name."""
    async with open_shop(tmp_path, required={"Member": ("lastName",)}) as opened:
        yield opened


class Browser:
    """Keeps its cookies, and says where its forms come from."""

    def __init__(self, shop: Shop, session: aiohttp.ClientSession) -> None:
        self.shop = shop
        self.session = session
        self.document: Any = None

    @property
    def origin(self) -> dict[str, str]:
        return {"Origin": self.shop.agent.url, "Sec-Fetch-Site": "same-origin"}

    async def get(self, path: str, **headers: str) -> int:
        async with self.session.get(self.shop.agent.url + path, headers=headers) as answer:
            return await self._read(answer)

    async def post(self, path: str, data: Any, **headers: str) -> int:
        sent = {**self.origin, **{key.replace("_", "-"): text for key, text in headers.items()}}
        async with self.session.post(self.shop.agent.url + path, data=data, headers=sent) as answer:
            return await self._read(answer)

    async def _read(self, answer: aiohttp.ClientResponse) -> int:
        text = await answer.text()
        if answer.content_type == "text/html":
            self.document = lxml.html.document_fromstring(text)
        return answer.status

    def form(self, action: str) -> dict[str, str]:
        found = next(form for form in self.document.forms if form.get("action") == action)
        return {name: value or "" for name, value in found.form_values()}

    @property
    def message(self) -> str:
        return " ".join(self.document.xpath("string(//*[@id='message'])").split())

    async def sign_in(self, token: str) -> None:
        assert await self.post("/page/sign-in", {"token": token}) == 200
        assert self.message.startswith("You are signed in.")


@pytest.fixture
async def browser(strict: Shop) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # an address is a host like any other
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(strict, session)


async def test_a_person_mends_a_refused_sign_up_and_it_reaches_engage(
    strict: Shop, browser: Browser
) -> None:
    refused = await strict.pos.create("vera@example.test")
    place = f"/page/changes/{refused.headers['Agent-Change']}/mend"
    await browser.sign_in(strict.pos.token)

    await browser.get(place)
    still_wrong = await browser.post(place, {**browser.form(place), "f:email": "vera@"})
    wrong_words = browser.message
    await browser.post(
        place, {**browser.form(place), "f:email": "vera@example.test", "f:lastName": "Lind"}
    )

    await strict.pos.settled(refused, "delivered")
    (contact,) = strict.sandbox.find("email", "vera@example.test")
    assert (still_wrong, wrong_words) == (422, "1 field is not right yet. Nothing was changed.")
    assert contact["attributes"]["lastName"] == "Lind"
    assert browser.message.startswith("It was mended and is being sent again")


async def test_a_person_discards_and_the_reason_is_kept(strict: Shop, browser: Browser) -> None:
    refused = await strict.pos.create("vera@example.test")
    place = f"/page/changes/{refused.headers['Agent-Change']}/discard"
    await browser.sign_in(strict.pos.token)

    await browser.get(place)
    await browser.post(place, {**browser.form(place), "reason": "signed up twice"})

    change = await strict.pos.change(refused)
    assert change["state"] == "discarded"
    assert change["attempts"][-1]["message"] == "signed up twice"


async def test_a_person_takes_a_file_back_and_it_goes_by_the_api(
    strict: Shop, browser: Browser
) -> None:
    await browser.sign_in(strict.pos.token)
    await browser.post("/page/routes/api/pause", browser.form("/page/routes/api/pause"))
    held = await strict.pos.create("vera@example.test", {"lastName": "Lind"})
    await browser.post("/page/seal", browser.form("/page/seal"))
    name = (await strict.pos.settled(held, "uploaded"))["batch"]
    form = browser.form("/page/seal")

    taken_back = await browser.post(f"/page/batches/{name}/withdraw", form)
    words = browser.message
    await browser.post("/page/routes/api/resume", browser.form("/page/routes/api/resume"))
    again = await browser.post(f"/page/batches/{name}/retry", form)

    assert taken_back == 200
    assert words == f"{name} was taken back and will not be imported. Its changes wait again."
    assert not (strict.sandbox.import_path / name).exists()
    assert (again, browser.message) == (
        409,
        f"No change of {name} is rejected. Nothing was changed.",
    )


async def test_a_person_pauses_seals_and_resumes(strict: Shop, browser: Browser) -> None:
    await browser.sign_in(strict.pos.token)

    await browser.post("/page/routes/api/pause", browser.form("/page/routes/api/pause"))
    held = await strict.pos.create("vera@example.test", {"lastName": "Lind"})
    await browser.post("/page/routes/file/pause", browser.form("/page/routes/file/pause"))
    await browser.post("/page/seal", browser.form("/page/seal"))
    sealed = browser.message
    await browser.post("/page/routes/file/resume", browser.form("/page/routes/file/resume"))

    routes = (await strict.pos("GET", "/agent/v1/status")).body["routes"]
    assert sealed == "1 file was made."
    assert (await strict.pos.change(held))["route"] == "file"
    assert (routes["api"]["state"], routes["file"]["state"]) == ("paused", "running")


FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
)


async def test_another_page_cannot_send_the_pages_forms(strict: Shop, browser: Browser) -> None:
    await browser.sign_in(strict.pos.token)
    form = browser.form("/page/routes/api/pause")

    for headers in FOREIGN:
        stolen = await browser.post("/page/routes/api/pause", form, **headers)
        login = await browser.post("/page/sign-in", {"token": strict.pos.token}, **headers)

        assert (stolen, login) == (403, 403), headers
    other_host = await browser.post("/page/sign-in", {"token": "x"}, Host="evil.example")
    status = (await strict.pos("GET", "/agent/v1/status")).body
    assert other_host == 421
    assert status["routes"]["api"]["state"] == "running"


CALLS_OF_A_POS = (
    ("GET", "/agent/v1/changes"),
    ("GET", "/agent/v1/batches"),
    ("POST", "/agent/v1/batches/seal"),
    ("POST", "/agent/v1/routes/api/pause"),
    ("GET", "/api/v3/contacts/id?email=vera@example.test"),
    ("POST", "/agent/v1/support-bundle"),
)


async def test_a_session_opens_the_page_and_not_the_calls_of_a_pos(
    strict: Shop, browser: Browser
) -> None:
    await browser.sign_in(strict.pos.token)

    for method, path in CALLS_OF_A_POS:
        address = strict.agent.url + path
        async with browser.session.request(method, address, headers=browser.origin) as answer:
            assert answer.status == 401, path


async def test_a_session_ends_when_its_token_is_revoked(strict: Shop, browser: Browser) -> None:
    place = strict.agent.config.server.tokens_file
    await browser.sign_in(tokens.new(place, "manager"))
    form = browser.form("/page/routes/api/pause")

    tokens.revoke(place, "manager")
    await browser.post("/page/routes/api/pause", form)

    status = (await strict.pos("GET", "/agent/v1/status")).body
    assert status["routes"]["api"]["state"] == "running"
    assert browser.message.startswith("You were signed out")


async def test_what_people_do_is_logged_with_the_name_of_their_token(
    strict: Shop, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = await strict.pos.create("vera@example.test")
    change_id = refused.headers["Agent-Change"]
    await browser.sign_in(strict.pos.token)

    await browser.post(
        f"/page/changes/{change_id}/retry", browser.form(f"/page/changes/{change_id}/retry")
    )

    log = capsys.readouterr().out
    assert "signed_in" in log
    assert any("change_retried" in line and change_id in line for line in log.splitlines())
    assert strict.pos.token not in log


async def test_the_agent_stops_at_once_although_pages_listen(
    strict: Shop, browser: Browser
) -> None:
    answers = [await browser.session.get(strict.agent.url + "/agent/v1/events") for _ in range(3)]
    for answer in answers:
        assert await answer.content.readline()

    async with asyncio.timeout(10):
        await strict.agent.stop()
        for answer in answers:
            await answer.read()


async def test_listeners_hear_of_the_line_without_a_token(strict: Shop, browser: Browser) -> None:
    heard: list[str] = []

    async def listen() -> None:
        async with browser.session.get(strict.agent.url + "/agent/v1/events") as answer:
            async for line in answer.content:
                heard.append(line.decode())

    listening = asyncio.create_task(listen())
    await eventually(lambda: any("status" in line for line in heard))
    await strict.go_offline()

    await eventually(lambda: any('"state": "offline"' in line for line in heard))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
