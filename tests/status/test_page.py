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
LIVE = {
    "verdict", "needs", "figures", "chart", "lines", "batches", "errors", "counts", "identity",
}  # fmt: skip


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


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("assets", "templates")
        for path in (files("agent.status") / folder).iterdir()
    ],
    ids=lambda path: path.name,
)
def test_assets_and_templates_name_no_foreign_address(path: Any) -> None:
    # The one address is SVG's namespace, which nobody fetches.
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\"' ]*", path.read_text("utf-8"))) <= {
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

    items = [text_of(item) for item in document.xpath("//*[@id='needs']//ol/li")]
    assert items[0] == (
        "Sending to Engage is halted: Engage refuses the API key. Put in the right one."
    )
    assert items[1].startswith("1 change was refused. Each stands below with its cause.")


async def test_a_refused_change_stands_with_its_cause_and_what_to_do(
    till: Till, serve: Client
) -> None:
    refused = await till.sign_up("anna@example.com")
    fields = ({"field": "Email", "code": "x", "message": "anna@example.com is taken"},)
    await till.reject(refused, "anna@example.com is taken", fields=fields)

    document = await page(till, serve)

    (row,) = document.xpath("//*[@id='needs']//ul/li")
    assert text_of(row) == (
        "Sign-up, refused at 12:00 Engage found its data wrong ValidationError Fields: email "
        f"See what Engage says, and mend it. {refused.id}"
    )


async def test_many_refused_changes_are_cut_and_lead_to_all_of_them(
    till: Till, serve: Client
) -> None:
    for number in range(7):
        await till.reject(await till.sign_up(f"customer-{number}@example.com"), "No.")

    document = await page(till, serve)

    assert len(document.xpath("//*[@id='needs']//ul/li")) == 5
    assert document.xpath("string(//*[@id='needs']//a[@id='all-refused']/@href)") == "/page/refused"
    assert "and 2 more refused changes" in text_of(document.get_element_by_id("needs"))


async def test_all_refused_changes_are_listed_in_parts_without_anybodys_data(
    till: Till, serve: Client
) -> None:
    made = [await till.sign_up(f"customer-{number}@example.com") for number in range(27)]
    for change in made:
        await till.reject(change, f"Sigrid of {change.id}")
    client = await serve(till.observer())

    seen, address, shown = [], "/page/refused", ""
    while address:
        text = await (await client.get(address)).text()
        document: Any = lxml.html.document_fromstring(text)
        seen += document.xpath("//li//p[@class='number-of']/code/text()")
        address = document.xpath("string(//main//a[contains(@href, 'after=')]/@href)")
        shown += text

    assert seen == [change.id for change in reversed(made)]
    assert not re.search(r"example\.com|Sigrid", shown)


async def test_todays_figures_are_those_of_the_journal(till: Till, serve: Client) -> None:
    await till.deliver(await till.sign_up("anna@example.com"))
    await till.reject(await till.sign_up("bo@example.com"), "No.")
    await till.sign_up("cia@example.com")

    document = await page(till, serve)

    figures = {
        text_of(each.find("dt")): text_of(each.find("dd"))
        for each in document.xpath("//*[@id='figures']//dl/div")
    }
    assert figures == {
        "Not in Engage yet": "1",
        "Oldest waiting": "< 1 min",
        "Accepted": "3",
        "Delivered": "1",
        "By file": "0",
        "Refused": "1",
    }


async def test_chart_says_the_same_in_its_table(till: Till, serve: Client) -> None:
    await till.deliver(await till.sign_up("anna@example.com"))
    till.clock.pass_by(3600)
    await till.sign_up("bo@example.com")

    document = await page(till, serve)

    rows = [[text_of(cell) for cell in row] for row in document.xpath("//*[@id='chart']//tbody/tr")]
    assert len(rows) == 24
    assert rows[-3:] == [
        ["11:00", "0", "0", "0"],
        ["12:00", "1", "1", "0"],
        ["13:00 until now", "1", "0", "1"],
    ]
    (picture,) = document.xpath("//*[@id='chart']//svg[@role='img']")
    assert len(picture.xpath(".//rect[@class='accepted']")) == 2
    assert len(picture.xpath(".//rect[@class='delivered']")) == 1
    assert picture.xpath("string(desc)").endswith("Most in an hour: 1.")


async def test_last_errors_are_grouped_by_code(till: Till, serve: Client) -> None:
    for name in ("anna", "bo"):
        await till.reject(await till.sign_up(f"{name}@example.com"), "Sigrid is refused.")

    document = await page(till, serve)

    (row,) = document.xpath("//*[@id='errors']//tbody/tr")
    assert [text_of(cell) for cell in row] == [
        "12:00",
        "Engage found its data wrong",
        "ValidationError API",
        "2",
    ]


async def test_identity_says_who_where_and_on_what(till: Till, serve: Client) -> None:
    till.clock_ahead_s = -7.4

    document = await page(till, serve)

    known = {
        text_of(row.find("th")): text_of(row.find("td"))
        for row in document.xpath("//*[@id='identity']//tr")
    }
    assert (known["Store"], known["Till"], known["Version"]) == ("0042", "3", "0.1.0")
    assert known["Clock"] == "7 s behind Engage's"
    assert re.fullmatch(r"SQLite 3\.\d+\.\d+, not encrypted", known["Journal"])
    assert re.fullmatch(r"[0-9a-f]{12}", known["Settings"])
    assert known["Disk"].endswith("free")
    assert known["Running for"] == "< 1 min"


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
    assert len(tables) == 5
    assert all(table.xpath("caption | @aria-labelledby") for table in tables)
    assert all(row.xpath("th[@scope]") for row in document.xpath("//tr"))


async def test_each_live_part_has_an_id_for_the_script(till: Till, serve: Client) -> None:
    document = await page(till, serve)

    ids = document.xpath("//*[@data-live]/@id")
    assert len(ids) == len(document.xpath("//*[@data-live]")) == len(LIVE)
    assert set(ids) == LIVE


@pytest.mark.parametrize(
    "path",
    ["/", "/assets/page.css", "/agent/v1/status", "/healthz", "/readyz", "/page/sign-in"],
)
async def test_head_is_answered_like_get_without_a_body(
    till: Till, serve: Client, path: str
) -> None:
    client = await serve(till.observer())

    answer = await client.head(path)

    assert (answer.status, await answer.read()) == (200, b"")


# --- languages ------------------------------------------------------------------------------------

ENGLISH = re.compile(r"\b(the|is|are|was|were|has|and|of|to|it|not|none|refused)\b", re.IGNORECASE)


@pytest.mark.parametrize("accepted", ["sv", "sv-SE,sv;q=0.9,en;q=0.8", "de, sv;q=0.5, en;q=0.4"])
async def test_page_speaks_the_language_that_the_browser_asks_for(
    till: Till, serve: Client, accepted: str
) -> None:
    client = await serve(till.observer())

    answer = await client.get("/", headers={"Accept-Language": accepted})
    document: Any = lxml.html.document_fromstring(await answer.text())

    assert answer.headers["Content-Language"] == document.get("lang") == "sv"
    assert document.xpath("string(//title)") == "Allt är bra · kassa 3, butik 0042"
    assert text_of(document.get_element_by_id("verdict")).startswith("Allt är bra Redo för")


@pytest.mark.parametrize(
    "accepted", ["", "en", "de", "en, sv;q=0.9", "sv;q=0", "sv;q=nonsense", "*"]
)
async def test_page_is_english_where_nothing_else_is_asked_for(
    till: Till, serve: Client, accepted: str
) -> None:
    client = await serve(till.observer())

    answer = await client.get("/", headers={"Accept-Language": accepted})

    assert answer.headers["Content-Language"] == "en"


async def test_a_language_that_was_chosen_is_remembered(till: Till, serve: Client) -> None:
    client = await serve(till.observer())

    switched = await client.get("/page/language/sv", allow_redirects=False)
    later = await client.get("/", headers={"Accept-Language": "en"})

    assert (switched.status, switched.headers["Location"]) == (303, "/")
    assert "max-age=31536000" in switched.headers["Set-Cookie"].lower()
    assert later.headers["Content-Language"] == "sv"
    assert (await client.get("/page/language/xx")).status == 404


async def test_swedish_page_has_no_english_word_in_trouble(till: Till, serve: Client) -> None:
    till.link.state, till.link.reason = "offline", "Engage's name cannot be resolved (DNS)."
    till.sftp.state = "suspect"
    till.sftp.reason = "The SFTP server sftp.example:22 did not answer in time while logging in."
    till.gates[Route.API].state = "halted"
    till.gates[Route.API].reason = (
        "Engage refuses the API key (HTTP 401). Nothing is lost: everything waits. Put the right "
        "key into the file named by engage.api_key_file; no restart is needed."
    )
    till.gates[Route.FILE].state = "paused"
    till.gates[Route.FILE].reason = "Paused by hand. Nothing is lost; resume it when you are ready."
    till.problems = [
        "The till's clock is wrong: it is behind Engage's by about 3 hours. Set it, or let it be "
        "set from the network; with a wrong clock Engage's certificate may look invalid. What "
        "waits is kept."
    ]
    await till.reject(await till.sign_up("anna@example.com"), "No.")
    await till.seal("one_contacts.xml", await till.sign_up("bo@example.com"))
    client = await serve(till.observer())

    text = await (await client.get("/", headers={"Accept-Language": "sv"})).text()

    document: Any = lxml.html.document_fromstring(text)
    for code in document.xpath("//code | //nav"):
        code.drop_tree()
    assert ENGLISH.findall(text_of(document.find("body"))) == []
    shown = [*document.xpath("//@aria-label | //@data-words | //@data-since | //title/text()")]
    assert ENGLISH.findall(" ".join(shown)) == []
