"""One Chromium and one shop for all tests of a file; each test finds the shop calm.

Not for the whole run: as long as Playwright's plain functions have a browser open, no other test's
event loop can run in this thread.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_shop import PageShop
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

TILL_SCREEN = {"width": 1024, "height": 768}
PHONE = {"width": 390, "height": 844}
# As a browser at 200 % on the till's screen lays it out.
ZOOMED = {"width": 512, "height": 384}

# As long as a busy machine may need; what is to be quick says so itself.
PATIENCE_MS = 15_000

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def stockholm() -> Iterator[None]:
    """Give the agent a time zone that is not UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Stockholm"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            # Pictures are to look the same everywhere; root has no sandbox.
            args=["--no-sandbox", "--font-render-hinting=none", "--force-color-profile=srgb"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running_shop(tmp_path_factory: pytest.TempPathFactory, stockholm: None) -> Iterator[PageShop]:
    with PageShop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def shop(running_shop: PageShop) -> PageShop:
    """Give the shop with its line up, both routes running, and nothing under way or refused."""
    running_shop.calm_down()
    return running_shop


class Watched:
    """A browser's window in which nothing may happen that the page does not allow itself."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.troubles: list[str] = []
        self._own = urlsplit(url).netloc
        context.on("request", self._requested)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.troubles.append(str(error.error)))
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) =>"
            " console.error('violates', event.violatedDirective, event.blockedURI))"
        )

    def _requested(self, request: Any) -> None:
        if urlsplit(request.url).netloc != self._own:
            self.troubles.append(f"asked another host: {request.url}")

    def _said(self, message: ConsoleMessage) -> None:
        # An answer of 4xx is said there as well; those are the tests' own doing.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.troubles.append(message.text)


@pytest.fixture
def visit(chromium: Browser, shop: PageShop) -> Iterator[Visit]:
    """Open the page in a window of its own: `visit("/", locale="sv-SE")`.

    At the end of the test every window is checked: no other host was asked, no script failed, and
    the Content-Security-Policy was not violated.
    """
    opened: list[Watched] = []

    def go(path: str = "/", **options: Any) -> Page:
        context = chromium.new_context(**{"viewport": TILL_SCREEN, "locale": "en-GB", **options})
        context.set_default_timeout(PATIENCE_MS)
        opened.append(Watched(context, shop.url))
        page = context.new_page()
        page.goto(shop.url + path)
        return page

    yield go
    for each in opened:
        each.context.close()
    assert [trouble for each in opened for trouble in each.troubles] == []


def sign_in_at(shop: PageShop, page: Page) -> None:
    """Sign in on a page, as a person does."""
    page.goto(shop.url + "/page/sign-in")
    page.locator("#token").fill(shop.till.token)
    page.locator("main button").click()
    page.locator("#sign-out").wait_for()


@pytest.fixture
def sign_in(shop: PageShop) -> Callable[[Page], None]:
    return partial(sign_in_at, shop)
