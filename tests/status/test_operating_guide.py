"""Each sentence of the page has its section in docs/operating.md, and each section its sentence."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.change import Change, Kind, Payload, Route, State
from agent.clock import SystemClock
from agent.contact import Contact
from agent.delivery.batch import bulk
from agent.delivery.batch.host_keys import HostKey
from agent.delivery.batch.pacing import Pacing
from agent.delivery.batch.sftp_login import _host_key_words
from agent.delivery.batch.sftp_words import MEANINGS
from agent.delivery.batch.spool import Spool, SpoolProblem
from agent.delivery.batch.stylesheet import Stylesheet, StylesheetProblem
from agent.delivery.batch.unanswered import Unanswered
from agent.delivery.batch.uploader import Uploader, _about_elsewhere, _unforeseen
from agent.delivery.engage.answers import Answer, failure
from agent.delivery.engage.strangeness import Strangeness
from agent.delivery.engage.tls import PeerCertificate
from agent.delivery.stall import StallDetector
from agent.errors import EngageFailed, NotEngage
from agent.journal import driver, origin
from agent.journal.migrating import migrate
from agent.journal.rescue.reminder import LOST, unsettled
from agent.register.reader import _not_read
from agent.status.facts import RegisterFill, RouteState, SkippedFile
from agent.status.verdict import verdict

from .test_verdict import (
    BROKEN,
    DOWN,
    FULL,
    REFUSED,
    RUNNING,
    SHAKY,
    STORAGE,
    UNREADABLE,
    WAIT_37,
    ZERO,
    batch,
    facts,
)

HOST_KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIA==")
GUIDE = Path(__file__).parents[2] / "docs" / "operating.md"


def halted(route: Route, reason: str) -> dict[str, Any]:
    return {"routes": {**RUNNING, route: RouteState("halted", reason)}}


def key_refused() -> str:
    return failure(Answer(401, {}, b"{}"), write=False).message


def rescued(folder: Path) -> str:
    (folder / f"rescued.db.damaged-20261122T050000Z{LOST}").touch()
    return str(unsettled(folder / "rescued.db"))


def asked(path: Path, base_url: str, machine: origin.Machine) -> dict[str, Any]:
    """Give what both routes ask where this is not what the journal knows."""
    with closing(driver.plain().connect(path)) as db:
        migrate(db, path)
        enter = partial(origin.enter, db, base_url="https://acme.voyado.com")
        enter(machine=origin.Machine(frozenset({"a card"})))
        db.execute("INSERT INTO contacts (lane, ref, created_at) VALUES (1, 'ref', '')")
        db.execute(
            "INSERT INTO changes (id, lane, kind, state, payload, payload_sha256, fingerprint, "
            "token_name, created_at) VALUES ('c', 1, 'create', 'waiting', '', '', '', '', '')"
        )
        question = origin.enter(db, base_url, machine)
    return {"routes": dict.fromkeys(Route, RouteState("halted", question, asks=True))}


def engages_certificate() -> str:
    shown = PeerCertificate()
    shown.note({"notAfter": "Nov 30 12:00:00 2026 GMT"})
    return shown.ending(datetime(2026, 11, 22, tzinfo=UTC)) or ""


def strange_answers() -> str:
    strangeness = Strangeness()
    for second in range(0, 200, 20):
        strangeness.note(NotEngage("Another shape.", status=200), second)
    return strangeness.problem(200) or ""


def stalled() -> str:
    detector = StallDetector(None, None, None, SystemClock())  # type: ignore[arg-type]
    contact = Contact(1, "ref", None, None)
    change = Change(
        seq=1, id="c-1", kind=Kind.CREATE, state=State.WAITING, unknown=False, route=Route.API,
        contact=contact, payload=Payload({}), created_at="2026-11-21T13:00:00.000Z", due_at=None,
        settled_at=None, attempts=0, api_attempts=0, step=0, existed=False, batch=None, error=None,
        repeated=0,
    )  # fmt: skip
    return detector._words(change, None)


def not_looked_up() -> str:
    stuck = Unanswered("c-1", SystemClock().monotonic() - 600, "Engage failed (HTTP 500).")
    detector = StallDetector(None, None, None, SystemClock(), lambda: stuck)  # type: ignore[arg-type]
    return str(detector._look_up_words())


def stranded() -> str:
    uploader = object.__new__(Uploader)
    idle = Pacing(SystemClock(), [1.0])
    uploader._shipping = uploader._polling = uploader._cleaning = idle
    uploader._kept_back, uploader._stranded, uploader._elsewhere = {}, ["a_contacts.xml"], []
    (problem,) = uploader.problems
    return problem


def bulk_that_does_not_get_on() -> str:
    batch = SimpleNamespace(name="a_contacts.xml", by_bulk=False)
    return str(bulk._trouble(batch, 5, EngageFailed(status=503)))  # type: ignore[arg-type]


def spool_problem(folder: Path) -> str:
    blocked = folder / "no-folder"
    blocked.write_text("")
    with pytest.raises(SpoolProblem) as found:
        Spool(blocked).prepare("a_contacts.xml", lambda stream: 0)
    return found.value.message


def stylesheet_problem(folder: Path) -> str:
    with pytest.raises(StylesheetProblem) as found:
        Stylesheet(folder / "missing.xslt")
    return found.value.message


def situations(folder: Path) -> list[dict[str, Any]]:
    """Give one of everything that the page can speak of."""
    server = "The SFTP server ftp.voyado.com:22"
    said = {"server": server, "doing": "sending a file", "said": "no space"}
    return [
        {},
        {"delivered": 214},
        {"delivered": 9, "counts": {**ZERO, State.IMPORTED: 4}},
        {"unsent": 3, "oldest_waiting_s": 180},
        {"link": DOWN, **WAIT_37},
        {"link": SHAKY, **WAIT_37},
        {"sftp": DOWN, "batches": (batch("written"),), **WAIT_37},
        halted(Route.API, key_refused()),
        halted(Route.FILE, _host_key_words(server, [], HOST_KEY)),
        halted(Route.FILE, MEANINGS["AuthenticationException"].words.format(**said)),
        asked(folder / "one.db", "https://other.voyado.com", origin.Machine()),
        asked(
            folder / "two.db",
            "https://acme.voyado.com",
            origin.Machine(frozenset({"another card"})),
        ),
        {"routes": {**RUNNING, Route.API: RouteState("paused", "Paused by hand.")}},
        {"counts": REFUSED},
        {"batches": (batch("uploaded", uploaded_hours_ago=3),)},
        {"skipped_files": (SkippedFile("a_contacts.xml", 312, 0, 320),)},
        {"problems": (stranded(),)},
        {"problems": (bulk_that_does_not_get_on(),)},
        {"problems": (_about_elsewhere("a_contacts.xml", "till@ftp.voyado.com:22:/import"),)},
        {"problems": (_unforeseen(ValueError()).message,)},
        {"storage": FULL},
        {"storage": BROKEN},
        {"storage": UNREADABLE, "counts": None, "unsent": None, "delivered": None},
        {"storage": replace(STORAGE, free_bytes=100 * 1024**2)},
        {
            "problems": (
                "The till's clock is wrong: it is behind Engage's by about 2 hours. Set it.",
            )
        },
        {"problems": (stalled(),)},
        {"problems": (not_looked_up(),)},
        {"problems": (spool_problem(folder),)},
        {"problems": (MEANINGS["status"].words.format(**said),)},
        {"problems": (MEANINGS["SFTPError"].words.format(**said),)},
        {"problems": (stylesheet_problem(folder),)},
        {"problems": ("Another program listens on 127.0.0.1, port 8717: it may get requests.",)},
        {"problems": (engages_certificate(),)},
        {"problems": (strange_answers(),)},
        {"problems": ("The agent's own certificate ends on 2026-12-01. Put a new one there.",)},
        {"problems": (_not_read("The SFTP server does not answer."),)},
        {"problems": (rescued(folder),)},
        {"register": RegisterFill(5, None, None, ("full.xml (it ends too early)",))},
    ]


def headings() -> list[str]:
    text = GUIDE.read_text("utf-8")
    part = text.partition("## The page says …")[2].partition("\n## ")[0]
    return re.findall(r"^### “(.+)”$", part, re.MULTILINE)


def fits(heading: str, sentence: str) -> bool:
    """Say whether a heading, in which … stands for anything, is found in a sentence."""
    pattern = ".*".join(re.escape(part.strip()) for part in heading.split("…"))
    return re.search(pattern, sentence) is not None


def sentences(folder: Path) -> list[str]:
    """Give what the page says in each situation; its first need is a part of it."""
    return [verdict(facts(**situation)).sentence for situation in situations(folder)]


def test_every_sentence_of_the_page_has_its_section(tmp_path: Path) -> None:
    said = sentences(tmp_path)

    without = [each for each in said if not any(fits(heading, each) for heading in headings())]

    assert without == []


def test_every_section_is_about_a_sentence_of_the_page(tmp_path: Path) -> None:
    said = sentences(tmp_path)

    idle = [heading for heading in headings() if not any(fits(heading, each) for each in said)]

    assert len(headings()) > 15
    assert idle == []


def test_every_section_says_what_to_do() -> None:
    text = GUIDE.read_text("utf-8")
    part = text.partition("## The page says …")[2].partition("\n## ")[0]

    sections = re.split(r"^### ", part, flags=re.MULTILINE)[1:]

    assert [each.splitlines()[0] for each in sections if len(each.split()) < 20] == []
