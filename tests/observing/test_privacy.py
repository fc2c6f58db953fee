"""What a customer gave, and every secret, stays out of all that others see.

Known people, keys and passwords go through everything: sign-ups, updates, upgrades, reads,
refusals, outages, files, mending, malformed requests, with an Engage that repeats whatever it was
sent. Then each of them is looked for, in every spelling, in the log, the metrics, the page, the
status, the events, the support bundle, the doctor's rows and every error answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from log_lines import LogLines, caught
from quoting_engage import QuotingEngage, spellings
from world import Pos, World, eventually, lay_till, write_secret

from agent import tokens
from agent.commands.doctor import lines
from agent.sandbox import Sandbox

pytestmark = pytest.mark.system

CONTACTS = "/api/v3/contacts"
API_KEY = "engage-key-7Qx9ZrV2"
SFTP_PASSWORD = "sftp-Tjolahopp-88"
TORKEL = "Torkel Bäckvall"  # another customer of Engage's, whom this till never heard of

SIGFRIDA = {
    "email": "Sigfrida.Qvarnhagen@privat.example.test",
    "firstName": "Sigfrida",
    "lastName": "Qvarnhägen",
    "mobilePhone": "073-987 01 23",
    "socialSecurityNumber": "19640823-3234",
    "street": "Hjortronvägen 17",
    "city": "Kvikkjokk",
    "zipCode": "962 02",
    "memberNumber": "MBR-77412-X",
    "externalId": "EXT-KUND-5521",
    "favouritePet": "Tussilago",
    "consents": [{"id": "memberTerms", "value": True, "comment": "Lovat av Sigfrida"}],
}
BJORN = {
    "email": "bjorn+klubb@xn--sm-xka.example.test",
    "firstName": "Björn-Åke",
    "lastName": "O'Hjärne",
    "mobilePhone": "+46739870456",
    "street": 'Stora "Gränden" <3>',
    "city": "Övertorneå",
}
# What may not be found anywhere; in whole words of several, also a part of them.
VALUES = [
    *("Sigfrida.Qvarnhagen@privat.example.test", "Sigfrida", "Qvarnhägen", "Qvarnhagen"),
    *("073-987 01 23", "0739870123", "+46739870123", "739870123"),
    *("19640823-3234", "196408233234", "6408233234", "640823-3234"),
    *("Hjortronvägen", "Kvikkjokk", "962 02", "MBR-77412-X", "EXT-KUND-5521", "Tussilago"),
    *("bjorn+klubb@xn--sm-xka.example.test", "bjorn+klubb", "Björn-Åke", "O'Hjärne"),
    *("+46739870456", "0739870456", "Gränden", "Övertorneå"),
    *(API_KEY, SFTP_PASSWORD),
]


def found_in(text: str, values: list[str]) -> list[str]:
    """Give what of the values stands in a text, in whatever spelling."""
    folded = text.casefold()
    return [
        value
        for value in values
        if any(each.casefold() in folded for each in spellings(value)) or _encoded(value, text)
    ]


def _encoded(value: str, text: str) -> bool:
    """Say whether a value stands in a text as a part of something in Base64."""
    raw = value.encode()
    for shift in range(3):
        inner = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        core = inner[(0, 2, 3)[shift] : -1]
        if len(core) >= 8 and core in text:
            return True
    return False


class Answers:
    """Every answer that was an error, headers and all."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def note(self, status: int, headers: Any, body: str) -> None:
        if status >= 400:
            self.errors.append(f"{status} {dict(headers)} {body}")


class Caller(Pos):
    """A POS that lets its error answers be read by others."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession, to: Answers) -> None:
        super().__init__(url, token, session)
        self._to = to

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, Any]:
        status, answer, got = await super().call(method, path, body, **headers)
        self._to.note(status, got, str(answer))
        return status, answer, got

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        port = urlsplit(self.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        with contextlib.suppress(OSError):
            await writer.drain()
            async with asyncio.timeout(5):
                text = (await reader.read(65536)).decode("utf-8", "replace")
            self._to.note(400, {}, text)
        writer.close()


@pytest.fixture
def log() -> Iterator[LogLines]:
    with caught() as lines_:
        yield lines_


@pytest.fixture
async def engage() -> AsyncIterator[QuotingEngage]:
    running = QuotingEngage(TORKEL)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Only its SFTP server is used."""
    async with Sandbox(
        tmp_path / "sandbox", import_every_s=0, sftp_password=SFTP_PASSWORD
    ) as running:
        yield running


@pytest.fixture
async def world(
    engage: QuotingEngage,
    sandbox: Sandbox,
    tmp_path: Path,
    session: aiohttp.ClientSession,
    log: LogLines,
) -> AsyncIterator[World]:
    till = lay_till(
        sandbox,
        tmp_path / "till",
        {"retry": {"api_attempts": 1000}, "fallback": {"seal_after_s": 3600}},
        engage_url=engage.url,
        api_key=API_KEY,
    )
    running = World(sandbox, till, session)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def pos(world: World, session: aiohttp.ClientSession, answers: Answers) -> Caller:
    return Caller(world.pos.url, world.till.token, session, answers)


# --- the story ----------------------------------------------------------------------------------


async def sign_up(pos: Caller, person: dict[str, Any], **headers: str) -> str:
    """Sign somebody up and do not wait; gives the change's id."""
    _, _, got = await pos.call("POST", CONTACTS, person, Prefer="respond-async", **headers)
    return str(got["Agent-Change"])


async def good_day(pos: Caller) -> str:
    """Sign up, read, update, upgrade; gives the GUID."""
    change = await pos.until(await sign_up(pos, SIGFRIDA), "delivered")
    contact_id = str(change["contactId"])
    await pos.call("PATCH", f"{CONTACTS}/{contact_id}", {"street": BJORN["street"]})
    await pos.call(
        "POST",
        f"{CONTACTS}/{contact_id}/updateContactType?contactTypeId=Member",
        {"city": "Kvikkjokk"},
    )
    for name in ("email", "mobilePhone", "socialSecurityNumber", "customKey", "any"):
        for value in (SIGFRIDA["email"], "+46739870123", "196408233234", "MBR-77412-X"):
            await pos.call("GET", f"{CONTACTS}/id?{name}={quote(str(value), safe='')}")
    await pos.call("GET", f"{CONTACTS}/{contact_id}")
    await pos.call("GET", f"{CONTACTS}/transactions?contactId={contact_id}")
    await pos.call("GET", f"/api/v3/promotion-assignments?contactId={contact_id}")
    return contact_id


async def refusals(pos: Caller, engage: QuotingEngage, contact_id: str) -> None:
    """Let Engage refuse everything, in its many ways, while the POS waits for the answer."""
    engage.mode = "refuse"
    _, _, got = await pos.call("POST", CONTACTS, BJORN)
    rejected = got["Agent-Change"]
    await pos.until(rejected, "rejected")
    await pos.call("PATCH", f"{CONTACTS}/{contact_id}", {"lastName": "O'Hjärne"})
    await pos.call("PUT", f"/agent/v1/changes/{rejected}/payload", {**BJORN, "city": "Kvikkjokk"})
    await pos.until(rejected, "rejected")
    await pos.call("PUT", f"/agent/v1/changes/{rejected}/payload", {"email": "Sigfrida"})
    await pos.call("POST", f"/agent/v1/changes/{rejected}/retry")
    await pos.until(rejected, "rejected")
    engage.mode = "refuse_all"
    await pos.call("GET", f"{CONTACTS}/id?email={quote(str(BJORN['email']))}")
    await pos.call("GET", f"{CONTACTS}/id?any=Qvarnh%C3%A4gen")
    await pos.call("GET", f"{CONTACTS}/{contact_id}")
    await pos.call("GET", f"{CONTACTS}/transactions?contactId={contact_id}&offset=Sigfrida")
    await pos.call("PATCH", f"{CONTACTS}/{contact_id}", {"city": "Övertorneå"})
    await pos.call(
        "POST", f"/agent/v1/changes/{rejected}/discard", {"reason": "Sigfrida vill inte"}
    )


async def troubles(pos: Caller, engage: QuotingEngage, contact_id: str) -> None:
    """Let Engage and what stands before it fail, one way after the other."""
    for number, mode in enumerate(
        ("conflict", "fail", "portal", "redirect", "wrong_shape", "lock_out")
    ):
        engage.mode = mode
        calls = engage.calls
        person = {**SIGFRIDA, "email": f"sigfrida.qvarnhagen{number}@privat.example.test"}
        await sign_up(pos, person)
        await pos.call("PATCH", f"{CONTACTS}/{contact_id}", {"city": f"Kvikkjokk {number}"})
        await pos.call("GET", f"{CONTACTS}/id?email=bjorn%2Bklubb@xn--sm-xka.example.test")
        await eventually(lambda before=calls: engage.calls > before + 2, f"Engage says: {mode}")


async def nonsense(pos: Caller, session: aiohttp.ClientSession, answers: Answers) -> None:
    """Send what no POS should, with people in every place where something can stand."""
    wrong: list[tuple[str, str, Any]] = [
        ("POST", CONTACTS, {**SIGFRIDA, "email": "Sigfrida", "birthDay": "Kvikkjokk"}),
        ("POST", CONTACTS, {"Sigfrida Qvarnhägen": "Tussilago", "email": 7}),
        ("POST", f"{CONTACTS}?createAsUnapproved=Sigfrida", SIGFRIDA),
        ("POST", f"{CONTACTS}/Sigfrida/updateContactType?contactTypeId=Sigfrida Q", {}),
        ("PATCH", f"{CONTACTS}/Sigfrida.Qvarnhagen@privat.example.test", {"city": "Kvikkjokk"}),
        ("PATCH", f"{CONTACTS}/0198f2aa-7c1e-4b3a-9d55-3f0c6a1b2c3d?clear=Sigfrida Q", {}),
        ("GET", f"{CONTACTS}/19640823-3234", None),
        ("GET", f"{CONTACTS}/id?phone=0739870123", None),
        ("GET", f"{CONTACTS}/transactions?contactId=MBR-77412-X", None),
        ("GET", "/agent/v1/changes/Sigfrida", None),
        ("GET", "/agent/v1/changes?state=Sigfrida&limit=0739870123", None),
        ("GET", "/agent/v1/changes?after=Sigfrida", None),
        ("GET", "/agent/v1/contacts/EXT-KUND-5521", None),
        ("GET", "/agent/v1/batches/Sigfrida", None),
        ("POST", "/agent/v1/routes/Sigfrida/pause", None),
        ("DELETE", f"{CONTACTS}/Sigfrida", None),
        ("GET", "/assets/Sigfrida.css", None),
        ("GET", "/Kvikkjokk", None),
    ]
    for method, path, body in wrong:
        await pos.call(method, path, body)
    headers: list[dict[str, str]] = [
        {"apikey": "sigfrida.qvarnhagen@privat.example.test"},
        {"Authorization": "Bearer 196408233234"},
        {"Host": "kvikkjokk.example.test"},
        {"Origin": "https://sigfrida.example.test"},
        {"X-Request-ID": "Sigfrida.Qvarnhagen@privat.example.test"},
        {"X-Request-ID": "19640823-3234"},
        {"Idempotency-Key": "0739870123"},
        {"If-Match": '"Kvikkjokk"'},
        {"Prefer": "wait=0739870123"},
        {"Content-Type": "text/kvikkjokk"},
        {"Accept-Language": "Sigfrida"},
    ]
    for extra in headers:
        given = {"apikey": pos._token, "Content-Type": "application/json", **extra}
        async with session.patch(
            f"{pos.url}{CONTACTS}/0198f2aa-7c1e-4b3a-9d55-3f0c6a1b2c3d",
            data='{"firstName": "Sigfrida", ' + ("}" if "Accept-Language" in extra else '"a": 1}'),
            headers=given,
        ) as answer:
            answers.note(answer.status, answer.headers, await answer.text())
    for raw in (
        b"GET /Sigfrida HTTP/9.9\r\n\r\n",
        b"SIGFRIDA@ / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nKvikkjokk\r\n\r\n",
        b"GET / HTTP/1.1\r\napikey: \x01" + pos._token.encode() + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b"Sigfrida HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: Sigfrida\r\n\r\n",
    ):
        await pos.raw(raw)


async def by_file(world: World, pos: Caller, engage: QuotingEngage) -> None:
    """Send people by file: refused logins, strangers' files, an import that skips and differs."""
    spool = world.till.folder / "spool"
    spool.mkdir(exist_ok=True)
    (spool / "Sigfrida Qvarnhägen 19640823-3234.xml").write_text("<contact>Sigfrida</contact>")
    write_secret(world.till.folder / "sftp_password", "wrong-Tjolahopp")
    engage.mode = "fail"
    change_id = await sign_up(pos, {**BJORN, "email": "bjorn+klubb2@xn--sm-xka.example.test"})

    async def batched() -> str | None:
        await pos.call("POST", "/agent/v1/batches/seal")  # unless it is under way just now
        return (await pos.change(change_id))["batch"]

    batch = await eventually(batched, "it is in a batch")
    await pos.call("GET", f"/agent/v1/batches/{batch}")

    async def halted() -> bool:
        return bool((await pos.status())["routes"]["file"]["state"] == "halted")

    await eventually(halted, "the file route is halted")
    write_secret(world.till.folder / "sftp_password", SFTP_PASSWORD)
    await pos.call("POST", "/agent/v1/routes/file/resume")
    await pos.until(change_id, "uploaded", "imported")
    engage.mode = "ok"
    await world.sandbox.import_now()
    # This Engage knows nobody of the file, which passes for skipped; then it goes by the API.
    await pos.until(change_id, "delivered")


async def test_nobody_is_named_where_others_look(
    world: World,
    pos: Caller,
    engage: QuotingEngage,
    answers: Answers,
    log: LogLines,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    contact_id = await good_day(pos)
    await refusals(pos, engage, contact_id)
    await troubles(pos, engage, contact_id)
    engage.mode = "ok"
    await pos.call("POST", "/agent/v1/routes/api/resume")
    await by_file(world, pos, engage)
    await nonsense(pos, session, answers)
    engage.mode = "refuse_all"
    last = await sign_up(pos, {**BJORN, "email": "bjorn+klubb3@xn--sm-xka.example.test"})
    await pos.until(last, "rejected")
    engage.mode = "throttle"  # at the end, because everything is slow after it
    await pos.tried(await sign_up(pos, {**BJORN, "email": "bjorn+klubb4@example.test"}))
    pos_token = world.till.token
    command_token = (world.till.folder / "command-token").read_text()
    revoked = tokens.new(world.till.folder / "tokens", "pos-2")

    seen = await all_that_others_see(world, pos, log, answers)

    secrets = [*VALUES, pos_token, command_token, revoked]
    assert len(answers.errors) > 40
    assert engage.calls > 60
    assert len(seen["log"].splitlines()) > 100
    assert leaks(seen, secrets) == {}
    # Whom Engage speaks of besides, its words may name to who asked; nobody else.
    del seen["error answers"]
    assert leaks(seen, ["Torkel", "Bäckvall"]) == {}


def leaks(seen: dict[str, str], values: list[str]) -> dict[str, list[str]]:
    """Give what stands where it should not, by the place."""
    return {name: found for name, text in seen.items() if (found := found_in(text, values))}


async def all_that_others_see(
    world: World, pos: Caller, log: LogLines, answers: Answers
) -> dict[str, str]:
    """Give everything that is made to be looked at, by its name."""
    bundle = await fetched(world, "/agent/v1/support-bundle")
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist()]
    rows = (await pos.get("/agent/v1/doctor"))["rows"]
    return {
        "page": (await fetched(world, "/")).decode(),
        "status": (await fetched(world, "/agent/v1/status")).decode(),
        "metrics": (await fetched(world, "/metrics")).decode(),
        "events": (await fetched(world, "/agent/v1/events")).decode(),
        "health": (await fetched(world, "/readyz")).decode(),
        "batches": str(await pos.get("/agent/v1/batches")),
        "doctor": "\n".join(lines(rows, 80)),
        "bundle": "\n".join(texts),
        "log": log.text,
        "error answers": "\n".join(answers.errors),
    }


async def fetched(world: World, path: str) -> bytes:
    """Get what stands at an address; of a stream, what it says first."""
    headers = {"apikey": world.till.token}
    async with world.session.get(world.pos.url + path, headers=headers) as answer:
        if answer.content_type == "text/event-stream":
            return await answer.content.readany()
        return await answer.read()


# --- the search itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "for Sigfrida",
        "SIGFRIDA",
        "?name=Hjortronv%C3%A4gen",
        "?name=hjortronv%c3%a4gen",
        "Hjortronv\\u00e4gen",
        "O&#x27;Hj\u00e4rne",
        base64.b64encode(b"Sigfrida").decode(),
        base64.b64encode(b"xx Sigfrida is here").decode(),
        base64.b64encode(b"x Sigfrida is here").decode(),
    ],
)
def test_the_search_finds_a_value_in_any_spelling(text: str) -> None:
    assert found_in(text, VALUES) != []


def test_the_search_finds_nothing_in_what_holds_nothing() -> None:
    assert found_in("change 0198f2aa-7c1e-7b3a-9d55-3f0c6a1b2c3d was delivered", VALUES) == []
