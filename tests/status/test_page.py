"""The page as a browser gets it: true, safe, and without anything about a customer."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import lxml.html
import pytest

from agent.change import Route

from .conftest import Client, Till

ASSETS = ("page.css", "page.js", "icon.svg")


async def page(till: Till, serve: Client) -> Any:
    client = await serve(till.observer())
    answer = await client.get("/")
    assert answer.status == 200
    return lxml.html.document_fromstring(await answer.text())


def text_of(element: Any) -> str:
    return " ".join(element.text_content().split())


async def test_verdict_is_the_only_live_status_and_comes_first(till: Till, serve: Client) -> None:
    document = await page(till, serve)

    (status,) = document.xpath("//*[@role='status']")
    assert text_of(status) == "All well Ready for sign-ups. Nothing waits."
    assert document.xpath("//main//*[self::table or self::dl][1]/preceding::*[@role='status']")
    assert document.xpath("string(//title)") == "All well · till 3, store 0042"


async def test_page_shows_no_customer_data_even_when_changes_hold_some(
    till: Till, serve: Client
) -> None:
    anna = await till.sign_up("anna@example.com")
    await till.reject(anna, "anna@example.com is on the list of Sigrid")
    await till.seal("one_contacts.xml", await till.sign_up("bo@example.com"))
    till.link.state, till.link.reason = "offline", "Lost while sending cia@example.com."
    client = await serve(till.observer())

    shown = (
        await (await client.get("/")).text() + await (await client.get("/agent/v1/status")).text()
    )

    assert "1 change was refused." in shown
    assert "one_contacts.xml" in shown
    assert not re.search(r"example\.com|anna|Sigrid", shown)


async def test_page_is_escaped(till: Till, serve: Client) -> None:
    till.link.state, till.link.reason = "offline", "<script>alert(1)</script>"

    document = await page(till, serve)

    assert "<script>alert(1)</script>" in text_of(document.get_element_by_id("lines"))
    assert len(document.xpath("//script")) == 1


async def test_page_allows_nothing_from_elsewhere_and_nothing_inline(
    till: Till, serve: Client
) -> None:
    client = await serve(till.observer())
    answer = await client.get("/")
    document: Any = lxml.html.document_fromstring(await answer.text())

    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not document.xpath("//@style | //style | //@*[starts-with(name(), 'on')]")
    assert not document.xpath("//script[not(@src)]")


@pytest.mark.parametrize("name", [*ASSETS, "page.html.j2"])
def test_assets_name_no_foreign_address(name: str) -> None:
    text = (files("agent.status") / "assets" / name).read_text("utf-8")

    # The one address is SVG's namespace, which nobody fetches.
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\"' ]*", text)) <= {
        "http://www.w3.org/2000/svg"
    }


async def test_every_address_on_the_page_is_served_here_and_may_be_kept(
    till: Till, serve: Client
) -> None:
    client = await serve(till.observer())
    document: Any = lxml.html.document_fromstring(await (await client.get("/")).text())
    addresses = document.xpath("//link/@href | //script/@src")

    answers = [await client.get(address) for address in addresses]

    assert len(addresses) == len(ASSETS)
    assert all(address.startswith("/assets/") for address in addresses)
    assert [answer.status for answer in answers] == [200] * len(ASSETS)
    assert all("immutable" in answer.headers["Cache-Control"] for answer in answers)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
async def test_asset_has_its_type_and_is_not_sent_twice(
    till: Till, serve: Client, name: str, media_type: str
) -> None:
    client = await serve(till.observer())

    first = await client.get(f"/assets/{name}")
    again = await client.get(f"/assets/{name}", headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status, first.content_type) == (200, media_type)
    assert first.headers["Cache-Control"] == "no-cache"
    assert (again.status, await again.read()) == (304, b"")


@pytest.mark.parametrize("name", ["page.html.j2", "..%2fpage.py", "other.css"])
async def test_only_known_files_are_served(till: Till, serve: Client, name: str) -> None:
    client = await serve(till.observer())

    assert (await client.get(f"/assets/{name}")).status == 404


async def test_page_works_without_javascript(till: Till, serve: Client) -> None:
    client = await serve(till.observer())

    text = await (await client.get("/")).text()

    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in text


async def test_what_needs_a_person_stands_with_what_to_do(till: Till, serve: Client) -> None:
    till.gates[Route.API].state = "halted"
    till.gates[Route.API].reason = "Engage refuses the API key. Put in the right one."
    await till.reject(await till.sign_up("anna@example.com"), "No.")

    document = await page(till, serve)

    items = [text_of(item) for item in document.xpath("//*[@id='needs']//li")]
    assert items[0] == (
        "Sending to Engage is halted: Engage refuses the API key. Put in the right one."
    )
    assert items[1].startswith("1 change was refused. See why with")


async def test_all_well_shows_no_list_of_needs_and_no_files(till: Till, serve: Client) -> None:
    document = await page(till, serve)

    assert not document.xpath("//*[@id='needs']//li")
    assert not document.xpath("//table[contains(@class, 'batches')]")


async def test_times_are_the_tills_own(till: Till, serve: Client) -> None:
    till.link.heard_at = till.clock.now()

    document = await page(till, serve)

    assert text_of(document.get_element_by_id("taken")) == "12:00:00"
    assert "Last heard from at 12:00" in text_of(document.get_element_by_id("lines"))
    assert "CET (UTC+0100)" in text_of(document.get_element_by_id("identity"))


async def test_page_with_closed_journal_says_so_and_shows_no_zeros(
    till: Till, serve: Client
) -> None:
    await till.journal.close()

    document = await page(till, serve)

    (status,) = document.xpath("//*[@role='status']")
    assert text_of(status).startswith("Stopped Sign-ups cannot be accepted:")
    numbers = document.xpath("//*[@id='counts']//td[contains(@class, 'number')]")
    assert {text_of(number) for number in numbers} == {"unknown"}


async def test_long_list_of_files_is_cut(till: Till, serve: Client) -> None:
    for number in range(12):
        change = await till.sign_up(f"customer-{number}@example.com")
        await till.seal(f"{number:02}_contacts.xml", change)

    document = await page(till, serve)

    assert len(document.xpath("//table[contains(@class, 'batches')]/tbody/tr")) == 10
    assert "and 2 more files" in text_of(document.get_element_by_id("batches"))


async def test_tables_have_captions_and_headers(till: Till, serve: Client) -> None:
    await till.seal("one_contacts.xml", await till.sign_up("anna@example.com"))

    document = await page(till, serve)

    tables = document.xpath("//table")
    assert len(tables) == 4
    assert all(table.xpath("caption") for table in tables)
    assert all(row.xpath("th[@scope]") for row in document.xpath("//tr"))


async def test_each_live_part_has_an_id_for_the_script(till: Till, serve: Client) -> None:
    document = await page(till, serve)

    ids = document.xpath("//*[@data-live]/@id")
    assert len(ids) == len(document.xpath("//*[@data-live]")) == len(set(ids)) == 7


@pytest.mark.parametrize(
    "path", ["/", "/assets/page.css", "/agent/v1/status", "/healthz", "/readyz"]
)
async def test_head_is_answered_like_get_without_a_body(
    till: Till, serve: Client, path: str
) -> None:
    client = await serve(till.observer())

    answer = await client.head(path)

    assert (answer.status, await answer.read()) == (200, b"")
