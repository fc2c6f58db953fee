"""The page in a real browser: true at once, live, usable by everybody, closed to everybody else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_shop import PageShop, somebody
from playwright.sync_api import Browser, Page, expect

from .conftest import PHONE, ZOOMED, Visit

pytestmark = pytest.mark.system

SignIn = Callable[[Page], None]

PERSON = {
    "email": "vera.lind@example.test",
    "firstName": "Vera",
    "lastName": "Lindqvist",
    "mobilePhone": "+46701234567",
    "socialSecurityNumber": "19900101-2385",
    "street": "Storgatan 17",
}


# --- what is seen first ---------------------------------------------------------------------------


def test_first_view_answers_in_words_icon_and_colour(shop: PageShop, visit: Visit) -> None:
    page = visit()

    verdict = page.get_by_role("status")
    expect(verdict).to_contain_text("All well")
    expect(verdict).to_contain_text("Sign-ups are safe.")
    expect(verdict.locator("svg.sign-good")).to_be_visible()
    box = verdict.bounding_box()
    assert box
    assert box["y"] + box["height"] < 250, "it stands at the top of the till's screen"
    expect(page).to_have_title("All well · till 3, store 0042")
    expect(page.locator("#figures")).to_contain_text("Accepted")
    expect(page.get_by_role("img", name="The last 24 hours")).to_be_visible()
    expect(page.locator("#lines")).to_contain_text("Line to Engage")
    expect(page.locator("#identity")).to_contain_text("SQLite")


def test_chart_stands_in_a_table_too(shop: PageShop, visit: Visit) -> None:
    page = visit()
    table = page.locator("#chart table")

    expect(table).to_be_hidden()
    page.get_by_text("As a table").click()

    expect(table.locator("tbody tr")).to_have_count(24)
    busiest = shop.status()["hours"][-2]
    row = table.locator("tbody tr").nth(-2)
    expect(row.locator("td").nth(0)).to_have_text(str(busiest["accepted"]))


# --- live -----------------------------------------------------------------------------------------


def test_outage_and_its_end_are_shown_within_two_seconds(shop: PageShop, visit: Visit) -> None:
    page = visit()
    with page.expect_request("**/agent/v1/events"):
        page.reload()
    verdict = page.get_by_role("status")
    expect(verdict).to_contain_text("All well")

    # Other programs may take the machine's time away; one quick time of three shows that it can.
    down, back = [], []
    for _ in range(3):
        shop.line_goes_down()
        down.append(seconds_until(lambda: expect(verdict).to_contain_text("has been down since")))
        shop.line_comes_back()
        back.append(seconds_until(lambda: expect(verdict).not_to_contain_text("has been down")))

    assert min(down) <= 2
    assert min(back) <= 2


def seconds_until(holds: Callable[[], None]) -> float:
    began = time.monotonic()
    holds()
    return time.monotonic() - began


def test_renewing_keeps_the_focus_and_the_opened_table(
    shop: PageShop, visit: Visit, sign_in: SignIn
) -> None:
    page = visit()
    sign_in(page)
    page.get_by_text("As a table").click()
    page.locator("#route-api").focus()

    shop.line_goes_down()

    expect(page.locator("#lines")).to_contain_text("offline")
    expect(page.locator("#chart table")).to_be_visible()
    expect(page.locator("#route-api")).to_be_focused()


def test_page_says_when_the_agent_does_not_answer(
    tmp_path: Path, chromium: Browser, stockholm: None
) -> None:
    with PageShop(tmp_path) as mortal:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(mortal.url)
        expect(page.get_by_role("status")).to_be_visible()

        mortal.do(mortal.agent.stop())

        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        expect(page.get_by_role("status")).to_be_hidden()  # no old "All well"
        expect(page).to_have_title("No answer")
        context.close()


# --- a person acts --------------------------------------------------------------------------------


def test_a_person_signs_in_mends_what_was_refused_and_signs_out(
    shop: PageShop, visit: Visit, sign_in: SignIn
) -> None:
    change_id = shop.refused(email := somebody(), firstName="Vera")
    page = visit()
    expect(page.locator("#needs")).to_contain_text("1 change was refused.")
    expect(page.locator("#needs button")).to_have_count(0)

    sign_in(page)
    page.get_by_role("link", name="Mend").click()
    field = page.get_by_label("Last name")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("lastName is required"))
    expect(page.get_by_label("E-mail", exact=False).first).to_have_value(email)
    field.fill("Lind")
    page.get_by_role("button", name="Send it corrected").click()

    expect(page.locator("#message")).to_contain_text("It was mended and is being sent again")
    shop.until(change_id, "delivered")
    expect(page.get_by_role("status")).to_contain_text("All well")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#message")).to_have_text("You are signed out.")
    expect(page.locator("#lines button")).to_have_count(0)


def test_a_person_sends_again_and_discards(shop: PageShop, visit: Visit, sign_in: SignIn) -> None:
    first = shop.refused()
    second = shop.refused()
    page = visit()
    sign_in(page)

    page.locator(f"#retry-{first}").click()
    expect(page.locator("#message")).to_contain_text(f"It is being sent again: Sign-up {first}")
    shop.until(first, "rejected")
    page.locator(f"#discard-{second}").click()
    page.get_by_label("Why").fill("signed up twice")
    page.get_by_role("button", name="Discard it for good").click()

    expect(page.locator("#message")).to_contain_text("It was discarded and will never be sent")
    assert shop.state(second) == "discarded"


def test_a_person_pauses_seals_and_resumes(shop: PageShop, visit: Visit, sign_in: SignIn) -> None:
    page = visit()
    sign_in(page)

    page.get_by_role("button", name="Pause sending directly").click()
    expect(page.locator("#message")).to_contain_text("is paused until somebody resumes it")
    expect(page.get_by_role("status")).to_contain_text("Sending to Engage was paused by hand.")
    shop.create(lastName="Lind")
    page.get_by_role("button", name="Seal now").click()
    expect(page.locator("#message")).to_have_text("1 file was made.")
    expect(page.locator("#batches")).to_contain_text("_contacts.xml")
    page.locator("#need-api").click()

    expect(page.locator("#message")).to_have_text("Sending directly goes on.")
    assert shop.status()["routes"]["api"]["state"] == "running"


def test_a_person_checks_the_till_and_takes_a_support_bundle_away(
    shop: PageShop, visit: Visit, sign_in: SignIn
) -> None:
    page = visit()
    sign_in(page)

    with page.expect_download() as download:
        page.get_by_role("link", name="Download support bundle").click()
    page.locator("#doctor").click()

    assert download.value.suggested_filename.endswith(".zip")
    expect(page.get_by_role("row", name=re.compile("disk space"))).to_contain_text("ok")


def test_a_wrong_token_is_said(shop: PageShop, visit: Visit) -> None:
    page = visit("/page/sign-in")

    page.get_by_label("Token").fill("not a token")
    page.get_by_role("button", name="Sign in").click()

    expect(page.locator("#message")).to_contain_text("This token is not known here.")


def test_page_can_be_used_with_the_keyboard_alone(shop: PageShop, visit: Visit) -> None:
    change_id = shop.refused()
    page = visit()

    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    tab_to(page, "sign-in")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type(shop.till.token)
    page.keyboard.press("Enter")
    page.locator("#sign-out").wait_for()
    tab_to(page, f"mend-{change_id}")
    page.keyboard.press("Enter")
    page.locator("#field-1").wait_for()
    tab_to(page, "field-1")
    page.keyboard.type("Lind")
    page.keyboard.press("Enter")

    expect(page.locator("#message")).to_contain_text("It was mended")
    shop.until(change_id, "delivered")


def tab_to(page: Page, element_id: str) -> None:
    """Press Tab until an element has the focus, which must be seen on everything on the way."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused, outline = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")
        if focused == element_id:
            return
    raise AssertionError(f"Tab never comes to {element_id}")


# --- without JavaScript ---------------------------------------------------------------------------


def test_everything_works_without_javascript(shop: PageShop, visit: Visit, sign_in: SignIn) -> None:
    change_id = shop.refused()
    page = visit(java_script_enabled=False)
    expect(page.get_by_role("status")).to_contain_text("1 change was refused.")
    assert page.locator("meta[http-equiv=refresh]").count() == 1

    sign_in(page)
    page.locator(f"#mend-{change_id}").click()
    assert page.locator("meta[http-equiv=refresh]").count() == 0, "typing is not cut off"
    page.locator("#field-1").fill("Lind")
    page.get_by_role("button", name="Send it corrected").click()
    expect(page.locator("#message")).to_contain_text("It was mended")
    page.locator("#route-file").click()
    expect(page.locator("#message")).to_contain_text("Sending by file is paused")
    page.locator("#route-file").click()

    expect(page.locator("#message")).to_have_text("Sending by file goes on.")
    shop.until(change_id, "delivered")


# --- two languages --------------------------------------------------------------------------------


def test_page_speaks_swedish_to_a_swedish_browser(shop: PageShop, visit: Visit) -> None:
    shop.line_goes_down()

    page = visit(locale="sv-SE")

    expect(page.locator("html")).to_have_attribute("lang", "sv")
    expect(page.get_by_role("status")).to_contain_text("Registreringarna är i säkerhet.")
    expect(page.get_by_role("status")).to_contain_text("Förbindelsen har legat nere sedan")
    expect(page.locator("#lines")).to_contain_text("nere")


def test_a_language_that_was_chosen_stays(shop: PageShop, visit: Visit) -> None:
    page = visit()

    page.get_by_role("link", name="Svenska").click()
    expect(page.get_by_role("status")).to_contain_text("Allt är bra")
    shop.line_goes_down()  # the page renews itself in the same language
    expect(page.get_by_role("status")).to_contain_text("Förbindelsen har legat nere")
    page.goto(shop.url + "/page/sign-in")
    expect(page.get_by_role("heading", name="Logga in")).to_be_visible()
    page.get_by_role("link", name="English").click()

    expect(page.locator("html")).to_have_attribute("lang", "en")


# --- for everybody --------------------------------------------------------------------------------

SERIOUS = ("serious", "critical")


def findings(page: Page) -> list[str]:
    """Give what axe finds serious."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    ("scheme", "paths"),
    [
        ("light", ("refused", "changes/{}/mend", "changes/{}/discard", "doctor")),
        ("dark", ("changes/{}/mend",)),
    ],
)
def test_axe_finds_nothing_serious(
    shop: PageShop, visit: Visit, sign_in: SignIn, scheme: str, paths: tuple[str, ...]
) -> None:
    change_id = shop.refused()
    page = visit(color_scheme=scheme)
    sign_in(page)
    page.get_by_text("As a table").click()
    found = {"/": findings(page)}
    for path in paths:
        page.goto(f"{shop.url}/page/{path.format(change_id)}")
        found[path] = findings(page)

    assert {path: each for path, each in found.items() if each} == {}


def test_axe_finds_nothing_serious_offline_and_at_the_sign_in(shop: PageShop, visit: Visit) -> None:
    shop.line_goes_down()
    page = visit()
    expect(page.get_by_role("status")).to_contain_text("has been down since")

    offline = findings(page)
    page.goto(shop.url + "/page/sign-in")

    assert offline == []
    assert findings(page) == []


@pytest.mark.parametrize(
    ("size", "locale"), [(ZOOMED, "en-GB"), (ZOOMED, "sv-SE"), (PHONE, "sv-SE")]
)
def test_at_200_percent_and_on_a_phone_nothing_is_cut(
    shop: PageShop, visit: Visit, sign_in: SignIn, size: dict[str, int], locale: str
) -> None:
    change_id = shop.refused()
    shop.line_goes_down()
    page = visit(viewport=size, locale=locale)
    sign_in(page)
    page.locator("#seal").click()  # a file is under way as well
    page.locator("#message").wait_for()

    cut = {"/": too_wide(page)}
    cut["/page/sign-in"] = too_wide(visit("/page/sign-in", viewport=size, locale=locale))
    for path in (
        "/page/refused",
        "/page/doctor",
        f"/page/changes/{change_id}/mend",
        f"/page/changes/{change_id}/discard",
    ):
        page.goto(shop.url + path)
        cut[path] = too_wide(page)

    assert {path: each for path, each in cut.items() if each} == {}


def too_wide(page: Page) -> list[str]:
    """Give what reaches beyond the window, or beyond the box that it stands in."""
    found: list[str] = page.evaluate(
        """() => {
          const wide = [];
          if (document.documentElement.scrollWidth > innerWidth) wide.push("the page scrolls");
          for (const each of document.querySelectorAll("body *")) {
            if (each.closest(".hidden, .skip, svg, thead, .hours, input, select")) continue;
            if (!each.getClientRects().length) continue;
            const box = each.getBoundingClientRect();
            const leaves = box.right > innerWidth + 1 || box.left < -1;
            const spills = each.clientWidth && each.scrollWidth > each.clientWidth + 1;
            if (leaves || spills) wide.push(each.outerHTML.slice(0, 80));
          }
          return wide;
        }"""
    )
    return found


def test_print_shows_the_picture_and_no_buttons(
    shop: PageShop, visit: Visit, sign_in: SignIn
) -> None:
    page = visit(color_scheme="dark")
    sign_in(page)

    page.emulate_media(media="print", color_scheme="dark")

    expect(page.get_by_role("status")).to_be_visible()
    expect(page.locator("nav")).to_be_hidden()
    expect(page.locator(".button:visible")).to_have_count(0)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


# --- closed to everybody else ---------------------------------------------------------------------


def test_no_page_holds_a_customers_data_but_the_form_for_mending(
    shop: PageShop, visit: Visit, sign_in: SignIn
) -> None:
    without_name = {key: text for key, text in PERSON.items() if key not in ("email", "lastName")}
    change_id = shop.refused(PERSON["email"], **without_name)
    delivered = {key: text for key, text in PERSON.items() if key != "email"}
    shop.until(shop.create(**delivered), "delivered")
    shop.line_goes_down()
    shop.create(**delivered)
    page = visit()
    sign_in(page)
    page.locator("#seal").click()
    page.locator("#message").wait_for()

    seen = ""
    for path in ("/", "/page/refused", f"/page/changes/{change_id}/discard", "/agent/v1/status"):
        page.goto(shop.url + path)
        seen += page.content()
    page.goto(f"{shop.url}/page/changes/{change_id}/mend")

    assert change_id in seen
    people = [*PERSON.values(), "701234567", "900101", "example.test"]
    assert [text for text in people if text.lower() in seen.lower()] == []
    assert PERSON["email"] in page.content()


def test_another_page_in_the_same_browser_gets_nothing(
    shop: PageShop, visit: Visit, sign_in: SignIn, chromium: Browser
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    sign_in(page)
    form_key = page.locator("input[name=form_key]").first.input_value()
    with shop.another_site() as evil:
        page.goto(evil)

        answers = page.evaluate(
            """async ({ url, formKey }) => {
              const tried = {};
              const attempt = async (name, work) => {
                try { tried[name] = await work(); } catch { tried[name] = "refused"; }
              };
              await attempt("fetch", async () => (await fetch(url)).status);
              await attempt("with cookies", async () =>
                (await fetch(url + "/page/refused", { credentials: "include" })).status);
              await attempt("events", () => new Promise((resolve) => {
                const source = new EventSource(url + "/agent/v1/events");
                source.onmessage = source.onopen = () => resolve("heard");
                source.onerror = () => resolve("refused");
              }));
              await attempt("picture", () => new Promise((resolve) => {
                const image = new Image();
                image.onload = () => resolve("seen");
                image.onerror = () => resolve("refused");
                image.src = url + "/assets/icon.svg";
              }));
              await attempt("frame", () => new Promise((resolve) => {
                const frame = document.createElement("iframe");
                frame.src = url + "/";
                frame.onload = () => {
                  try { resolve(frame.contentDocument ? "refused" : "closed"); }
                  catch { resolve("closed"); }
                };
                document.body.append(frame);
              }));
              await attempt("post", async () => (await fetch(url + "/page/routes/api/pause", {
                method: "POST", mode: "no-cors", credentials: "include",
                headers: { "Content-Type": "application/x-www-form-urlencoded" },
                body: "form_key=" + encodeURIComponent(formKey),
              })).type);
              return tried;
            }""",
            {"url": shop.url, "formKey": form_key},
        )
        with page.expect_navigation():
            page.evaluate(
                """({ url, formKey }) => {
                  const form = document.createElement("form");
                  form.method = "post";
                  form.action = url + "/page/routes/api/pause";
                  const key = document.createElement("input");
                  key.name = "form_key";
                  key.value = formKey;
                  form.append(key);
                  document.body.append(form);
                  form.submit();
                }""",
                {"url": shop.url, "formKey": form_key},
            )
        submitted = page.content()
    context.close()

    assert answers["fetch"] == answers["with cookies"] == answers["events"] == "refused"
    assert answers["picture"] == "refused"
    assert answers["frame"] in ("refused", "closed")
    assert answers["post"] in ("opaque", "refused")
    assert "ForbiddenOrigin" in submitted
    assert shop.status()["routes"]["api"]["state"] == "running"
