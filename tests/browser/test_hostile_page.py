"""A hostile web page in a browser on the same till: it can neither read nor write.

Chromium's own protection of the local network is switched off, a person is signed in at the agent's
page in the next window, and the hostile page even knows a right token: nothing but the guard is in
its way.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, Response, async_playwright
from running_agent import CONTACTS, Shop, open_shop

CHROMIUM = "/usr/bin/chromium"

pytestmark = [
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),  # one browser for all: it takes seconds to start
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="apt-get install chromium"),
]

# Each attempt gives what it could read, "" if nothing, or throws.
ATTEMPTS = """
async ({base, token, contact}) => {
  const json = {"Content-Type": "application/json", "apikey": token};
  const plain = new Blob([contact], {type: "text/plain"});
  const loaded = (tag, attributes) => new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("");
    document.body.append(element);
  });
  const sent = (action, fields, enctype) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), {name: "f" + Math.random()});
    const form = Object.assign(document.createElement("form"),
      {action: base + action, method: "POST", enctype, target: frame.name});
    for (const [name, value] of Object.entries(fields))
      form.append(Object.assign(document.createElement("input"), {name, value}));
    document.body.append(frame, form);
    frame.onload = () => {
      try { resolve(frame.contentDocument ? frame.contentDocument.body.innerText : ""); }
      catch { resolve(""); }
    };
    form.submit();
  });
  const streamed = (make) => new Promise((resolve) => {
    const line = make();
    line.onopen = () => resolve("open");
    line.onmessage = (event) => resolve(event.data);
    line.onerror = () => { line.close(); resolve(""); };
  });
  const attempts = {
    "fetch what is public": async () => (await fetch(base + "/agent/v1/status")).text(),
    "fetch the page": async () => (await fetch(base + "/")).text(),
    "fetch without CORS": async () =>
      (await fetch(base + "/agent/v1/status", {mode: "no-cors"})).text(),
    "fetch with the token": async () =>
      (await fetch(base + "/agent/v1/changes", {headers: json})).text(),
    "fetch with cookies": async () =>
      (await fetch(base + "/agent/v1/status", {credentials: "include"})).text(),
    "sign up": async () =>
      (await fetch(base + "/api/v3/contacts", {method: "POST", headers: json, body: contact}))
        .text(),
    "sign up as plain text": async () =>
      (await fetch(base + "/api/v3/contacts", {method: "POST", body: plain})).text(),
    "sign up without CORS": async () =>
      (await fetch(base + "/api/v3/contacts", {method: "POST", mode: "no-cors", body: plain}))
        .text(),
    "sign up as the page is left": async () =>
      (await fetch(base + "/api/v3/contacts", {method: "POST", keepalive: true, body: plain}))
        .text(),
    "pause": async () =>
      (await fetch(base + "/agent/v1/routes/api/pause", {method: "POST", headers: json})).text(),
    "pause without CORS": async () =>
      (await fetch(base + "/agent/v1/routes/api/pause", {method: "POST", mode: "no-cors"})).text(),
    "old request": () => new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("GET", base + "/agent/v1/status");
      request.onload = () => resolve(request.responseText);
      request.onerror = () => resolve("");
      request.send();
    }),
    "beacon": async () => { navigator.sendBeacon(base + "/api/v3/contacts", plain); return ""; },
    "form of plain text": () =>
      sent("/api/v3/contacts", {'{"email": "eve@example.test", "x": "': '"}'}, "text/plain"),
    "form": () =>
      sent("/api/v3/contacts", {email: "eve@example.test"}, "application/x-www-form-urlencoded"),
    "form with a file's type": () =>
      sent("/api/v3/contacts", {email: "eve@example.test"}, "multipart/form-data"),
    "form to pause": () => sent("/agent/v1/routes/api/pause", {}, "text/plain"),
    "form of the person's page": () =>
      sent("/page/routes/api/pause", {form_key: "guess"}, "application/x-www-form-urlencoded"),
    "form to sign the person in": () =>
      sent("/page/sign-in", {token}, "application/x-www-form-urlencoded"),
    "fetch what the person may see": async () =>
      (await fetch(base + "/agent/v1/support", {credentials: "include"})).text(),
    "fetch a form of the person's page": async () =>
      (await fetch(base + "/page/sign-in", {credentials: "include"})).text(),
    "picture": () => loaded("img", {src: base + "/assets/icon.svg"}),
    "picture of a call": () => loaded("img", {src: base + "/agent/v1/batches/seal"}),
    "script": () => loaded("script", {src: base + "/assets/page.js"}),
    "module": () => loaded("script", {type: "module", src: base + "/assets/page.js"}),
    "style": () => loaded("link", {rel: "stylesheet", href: base + "/assets/page.css"}),
    "worker": () => new Promise((resolve) => {
      const text = `try { importScripts("${base}/assets/page.js"); postMessage("loaded"); }`
        + ` catch { postMessage(""); }`;
      const worker = new Worker(URL.createObjectURL(new Blob([text])));
      worker.onmessage = (event) => resolve(event.data);
    }),
    "event stream": () => streamed(() => new EventSource(base + "/agent/v1/events")),
    "web socket": () =>
      streamed(() => new WebSocket(base.replace("http", "ws") + "/agent/v1/events")),
  };
  const read = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { read[name] = await attempt(); } catch { read[name] = ""; }
  }
  return read;
}
"""
CONTACT = '{"email": "eve@example.test"}'


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[int]:
    """A web site of somebody else on this machine; gives its port."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>Win a prize</title>", content_type="text/html"
        )

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", show)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(tmp_path: Path, site: int) -> AsyncIterator[Shop]:
    """A shop that allows one page: that of the site, as pos.test."""
    allowed = {"server": {"allowed_origins": [f"http://pos.test:{site}"]}}
    async with open_shop(tmp_path, allowed) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser to which each *.test is this machine, and which protects nothing here."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--no-proxy-server",
                "--host-resolver-rules=MAP *.test 127.0.0.1",
                "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
            ],
        )
        yield started
        await started.close()


async def sign_in(page: Page, shop: Shop) -> None:
    """Sign in as a person does, who then leaves the window open."""
    await page.goto(shop.agent.url + "/page/sign-in")
    await page.fill("#token", shop.till.token)
    await page.click("main button")
    await page.wait_for_selector("#sign-out")


async def attack(page: Page, shop: Shop, base: str) -> dict[str, Any]:
    return await page.evaluate(
        ATTEMPTS, {"base": base, "token": shop.till.token, "contact": CONTACT}
    )


def statuses_for(page: Page, base: str) -> list[int]:
    """Gather the statuses of what the browser is answered from here on."""
    statuses: list[int] = []

    def note(answer: Response) -> None:
        if answer.url.startswith(base):
            statuses.append(answer.status)

    page.on("response", note)
    return statuses


async def check_that_nothing_happened(shop: Shop) -> None:
    status = (await shop.pos("GET", "/agent/v1/status")).body
    assert await shop.pos.changes() == []
    assert status["routes"]["api"]["state"] == "running"
    assert shop.sandbox.requests == []


def heard(shop: Shop) -> int:
    """Give how many requests the agent got."""
    manager = shop.agent.server._runner.server
    assert manager is not None
    return manager.requests_count


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1"])
async def test_page_from_elsewhere_reads_nothing_and_changes_nothing(
    browser: Browser, shop: Shop, site: int, host: str
) -> None:
    page = await browser.new_page()
    await page.goto(f"http://{host}:{site}/")

    statuses = statuses_for(page, shop.agent.url)

    read = await attack(page, shop, shop.agent.url)

    assert {name: text for name, text in read.items() if text} == {}
    assert heard(shop) > len(read) / 2  # it was the agent that refused, not the browser
    assert set(statuses) == {403}
    await check_that_nothing_happened(shop)


async def test_page_whose_name_was_rebound_to_this_machine_gets_421(
    browser: Browser, shop: Shop
) -> None:
    page = await browser.new_page()
    base = f"http://evil.test:{urlsplit(shop.agent.url).port}"
    prize = "<!doctype html><title>Win a prize</title>"

    async def show(route: Any) -> None:
        await route.fulfill(body=prize, content_type="text/html")

    # Loaded while the name still meant the attacker's machine; everything else goes to the agent.
    await page.route(f"{base}/prize", show)
    await page.goto(f"{base}/prize")
    statuses = statuses_for(page, base)

    read = await attack(page, shop, base)

    refusals = [text for text in read.values() if text]
    assert {answer for answer in refusals if '"errorCode": "WrongHost"' not in answer} == set()
    assert set(statuses) == {421}
    await check_that_nothing_happened(shop)


async def test_page_cannot_be_put_into_a_frame(browser: Browser, shop: Shop, site: int) -> None:
    page = await browser.new_page()
    await page.goto(f"http://evil.test:{site}/")

    await page.evaluate(
        """(base) => new Promise((resolve) => {
          const frame = Object.assign(document.createElement("iframe"), {src: base + "/"});
          frame.onload = resolve;
          document.body.append(frame);
        })""",
        shop.agent.url,
    )

    shown = await page.frames[1].evaluate("document.documentElement.innerText")
    assert page.frames[1].url.startswith("chrome-error:")
    assert "Sign-ups" not in shown


async def test_page_that_opens_ours_cannot_look_into_it(
    browser: Browser, shop: Shop, site: int
) -> None:
    page = await browser.new_page()
    await page.goto(f"http://evil.test:{site}/")
    async with page.context.expect_page() as opening:
        await page.evaluate("(base) => { window.other = window.open(base) }", shop.agent.url)
    other = await opening.value
    await other.wait_for_load_state()

    looked = await page.evaluate(
        "() => { try { return other.document.body.innerText } catch { return '' } }"
    )

    assert "Nothing waits" in await other.inner_text("body")  # it is a visit, and harmless
    assert looked == ""


async def test_page_that_is_allowed_signs_customers_up_and_reads_the_answer(
    browser: Browser, shop: Shop, site: int
) -> None:
    page = await browser.new_page()
    await page.goto(f"http://pos.test:{site}/")

    answer = await page.evaluate(
        """async ({base, token, contact}) => {
          const headers = {"Content-Type": "application/json", "apikey": token};
          const asked = {method: "POST", headers, body: contact};
          const answer = await fetch(base + "/api/v3/contacts", asked);
          const refusal = await fetch(base + "/api/v3/contacts", {...asked, body: "{}"});
          return [answer.status, answer.headers.get("Agent-State"),
                  (await refusal.json()).errorCode];
        }""",
        {"base": shop.agent.url, "token": shop.till.token, "contact": CONTACT},
    )

    assert answer == [201, "delivered", "ValidationError"]


async def test_own_page_works_in_the_browser(browser: Browser, shop: Shop) -> None:
    page = await browser.new_page()

    await page.goto(shop.agent.url)

    assert await page.evaluate("fetch('/agent/v1/status').then((answer) => answer.status)") == 200
    assert CONTACTS not in await page.content()
