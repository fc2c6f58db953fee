"""The pictures in the README: `make screenshots` puts them into docs/images.

Everything on them is made up here; nobody's data is on the page anyhow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from page_shop import PageShop
from playwright.sync_api import Browser, Page

from .conftest import TILL_SCREEN, sign_in_at

pytestmark = pytest.mark.system

SMALL = 150_000  # bytes: a clone carries them all


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Give where the pictures go; into the documents only when they are asked for."""
    asked_for = os.environ.get("TILL_AGENT_SCREENSHOTS")
    return Path(asked_for) if asked_for else tmp_path


@pytest.fixture
def quiet_shop(tmp_path: Path, stockholm: None) -> Iterator[PageShop]:
    with PageShop(tmp_path / "shop") as shop:
        yield shop


def take(
    chromium: Browser,
    shop: PageShop,
    path: Path,
    sentence: str,
    scheme: str = "light",
    act: Callable[[Page], None] | None = None,
) -> None:
    """Take a picture of what stands on a till's screen at first view."""
    context = chromium.new_context(
        viewport=TILL_SCREEN, color_scheme=scheme, locale="en-GB", reduced_motion="reduce"
    )
    page: Page = context.new_page()
    if act is not None:
        act(page)
    page.goto(shop.url)
    page.get_by_role("status").filter(has_text=sentence).wait_for()
    page.screenshot(path=str(path), animations="disabled", caret="hide")
    context.close()
    assert 10_000 < path.stat().st_size < SMALL


def test_pictures_of_the_page(album: Path, chromium: Browser, quiet_shop: PageShop) -> None:
    shop = quiet_shop
    shop.until(shop.create(lastName="Lind"), "delivered")

    take(chromium, shop, album / "page-light.png", "All well")
    take(chromium, shop, album / "page-dark.png", "All well", scheme="dark")
    shop.refused(firstName="Vera")
    shop.refused(firstName="Nils")
    take(
        chromium,
        shop,
        album / "page-needs-a-person.png",
        "2 changes were refused.",
        act=partial(sign_in_at, shop),
    )
    shop.calm_down()
    shop.line_has_been_down_for(timedelta(minutes=26), waiting=36)
    take(chromium, shop, album / "page-offline.png", "since 14:02; 37 wait")

    assert len(list(album.glob("page-*.png"))) == 4
