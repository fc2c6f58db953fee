"""All words in both languages, and what other parts of the agent say."""

from __future__ import annotations

import ast
import inspect
import re
import string
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import agent
from agent import errors
from agent.change import Kind, Route, State
from agent.status import verdict as verdicts
from agent.status.words import LANGUAGES, Words, first_sentence, preferred, words_of

from .test_verdict import CASES, NOW, facts

PACKAGE = Path(agent.__file__).parent
ENGLISH, SWEDISH = words_of("en"), words_of("sv")


# --- nothing is missing ---------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_words(language: str) -> None:
    assert set(words_of(language).texts) == set(ENGLISH.texts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_filled_in_with_the_same_values(language: str) -> None:
    texts = words_of(language).texts

    assert {key: blanks(text) for key, text in texts.items()} == {
        key: blanks(text) for key, text in ENGLISH.texts.items()
    }
    assert [key for key, text in texts.items() if not text.strip()] == []


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_word_that_is_used_exists_and_every_word_is_used() -> None:
    used = set(words_in_use())
    patterns = [re.compile(re.sub(r"\{[^}]*\}", r"[\\w-]+", key)) for key in used]

    unknown = [
        key
        for key, pattern in zip(used, patterns, strict=True)
        if not any(pattern.fullmatch(known) or pattern.fullmatch(plain(known))
                   for known in ENGLISH.texts)
    ]  # fmt: skip
    unused = [
        known
        for known in ENGLISH.texts
        if not any(pattern.fullmatch(known) or pattern.fullmatch(plain(known))
                   for pattern in patterns)
    ]  # fmt: skip
    assert unknown == []
    assert unused == []


def plain(key: str) -> str:
    """Give the name under which a text with forms for one and many is used."""
    return re.sub(r"\.(one|many)$", "", key)


PARTS = {key.partition(".")[0] for key in ENGLISH.texts}
FILES = (".css", ".js", ".json", ".svg", ".j2")
KEY = re.compile(rf"(?:{'|'.join(sorted(PARTS))})\.[\w{{}}.()' -]+")


def words_in_use() -> Iterator[str]:
    """Give every key that code and templates name; what is filled in stands in braces."""
    for path in (PACKAGE / "status").rglob("*.py"):
        texts = (text for _, text in texts_in(ast.parse(path.read_text("utf-8"))))
        yield from (text for text in texts if KEY.fullmatch(text) and not text.endswith(FILES))
    for path in (PACKAGE / "status" / "templates").iterdir():
        yield from re.findall(r"words\(\"([\w.]+)\"", path.read_text("utf-8"))


def texts_in(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Give every whole text of a module; the parts of f-strings are no texts of their own."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node and not isinstance(part, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if id(node) not in inside and (text := template_of(node)) is not None:
            yield node, text


def template_of(node: ast.AST) -> str | None:
    """Give a text or f-string as written, with what is filled in as {}."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return None


@pytest.mark.parametrize("part", ["state", "kind"])
def test_every_state_and_kind_has_its_words(part: str) -> None:
    names: dict[str, Any] = {"state": State, "kind": Kind}

    assert all(ENGLISH.has(f"{part}.{name}") for name in names[part])
    assert all(ENGLISH.has(f"line.{route}") for route in Route)


def test_every_code_of_a_refusal_or_a_failed_try_has_its_words() -> None:
    text = (PACKAGE.parent / "docs" / "errors.md").read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    told = [part for part in sections if part.startswith(("Why a change", "What an attempt"))]
    # What follows these words stands with a file or a route, in sentences.
    tables = "".join(told).partition("These stand on the page")[0]
    codes = set(re.findall(r"^\| `([A-Z]\w+)` ", tables, re.MULTILINE))
    codes.remove("Superseded")  # delivered, in a way

    assert len(told) == 2
    assert sorted(code for code in codes if not ENGLISH.has(f"code.{code}")) == []


# --- what other parts say -------------------------------------------------------------------------

# Said at the start or by commands only, when there is no page.
NOT_ON_THE_PAGE = (
    "journal/driver.py", "journal/lock.py", "journal/marker.py", "journal/opening.py",
    "journal/remains.py", "delivery/batch/document.py",
    "journal/rescue/rescue.py", "journal/rescue/rebuilding.py", "journal/rescue/report.py",
)  # fmt: skip
NOT_ON_THE_PAGE_EITHER = {
    # at the start only
    "A newer till-agent wrote the journal {} (version {}; this program knows up to {}).",
    "The data is untouched.",
    "Install the newer till-agent again.",
    "The journal's folder {} cannot be made: {}.",
    "Create it, or give the agent's user write access to the folder above.",
    # told before the start, and by till-agent check
    "Correct it, or leave fallback.xslt out.",
    "Correct it: it gets a document in the form and namespace of contacts.xsd.",
    "{} {}{}, when it is tried on a sample.",
    "The key by which Engage finds a contact must come out as a value of its own.",
    "Its match patterns and paths need a prefix for the namespace"
    ' http://eClub.Schemas.ImportContact, as in match="c:member"; without it they match nothing.',
    "Take out what changes: a file must be the same when it is made again.",
    # put together from parts: the whole is told below
    "{} and whole, but its -wal has grown to {} MiB.", "{} and whole.",
    "{}, but no file can be made: all inodes are used.",
    "{}, too large to be checked in the time there is.",
    "{} systemd had to start it {} times again.",
    # answered to the POS
    "This till knows no contact with that id.",
    "Use the `id` that a sign-up or a look-up answered.",
    # answered to who erases a customer
    "A change of this customer is just being sent or looked up.",
    "Changes of this customer are in a file on its way to Engage ({}).",
    "{} of this customer's changes wait to be sent or for a person.", "Nothing was erased.",
    "Try again in a moment; while Engage cannot be reached, pause the routes first.",
    "Take the file back, or wait until Engage has imported it.",
    "Wait until they are in Engage, or give them up as well: ?open=discard.",
    "The customer was erased on this till; nothing of it was sent any more.",
    "The journal cannot be written anew ({}).", "The journal {} cannot be looked through: {}.",
    "The journal's -wal cannot be emptied ({}).",
    "What was erased may still stand in it until it is written anew.",
}  # fmt: skip
SPEAKERS = ("delivery", "doctor", "journal", "register", "assembly.py", "secrets.py", "tls.py",
            "intake/listening.py")  # fmt: skip


def sentences_of_other_parts() -> set[str]:
    """Give every sentence in the code that may reach the page, with {} where it is filled in."""
    found: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if name.startswith(SPEAKERS) and name not in NOT_ON_THE_PAGE:
            found.update(spoken(ast.parse(path.read_text("utf-8"))))
    found.update(first_words(kind) for kind in vars(errors).values() if is_told(kind))
    return {part for text in found for part in sentences(text)}


def sentences(text: str) -> list[str]:
    """Split a template; what another part said stands in some, with a full stop of its own."""
    said = re.sub(r"(^|: )\{\} (?=[A-Z])", r"\1{}<said>. ", text)
    return [part.replace("{}<said>.", "{}") for part in re.split(r"(?<=[.!?]) ", said)]


def spoken(tree: ast.Module) -> Iterator[str]:
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node, text in texts_in(tree):
        sentence = re.sub(r"\{\w+\}", "{}", text).strip()  # or a template that is filled in later
        ends = (".", "host-key trust", ". {}")
        is_sentence = re.match(r"[A-Z{]", sentence) and sentence.endswith(ends)
        if is_sentence and " " in sentence.strip("{}. ") and id(node) not in described:
            yield sentence


def is_told(kind: Any) -> bool:
    return (
        inspect.isclass(kind)
        and issubclass(kind, errors.RouteError | errors.JournalError)
        and kind not in (errors.JournalError, errors.JournalInUse, errors.SchemaTooNew,
                         errors.ForbiddenMove)
    )  # fmt: skip


def first_words(kind: type[errors.AgentError]) -> str:
    return " ".join(kind().message.split())


def test_every_sentence_that_may_reach_the_page_is_known_in_swedish() -> None:
    spoken_here = sentences_of_other_parts() - NOT_ON_THE_PAGE_EITHER

    missing = sorted(text for text in spoken_here if not said_in_swedish(text))
    assert len(spoken_here) > 100
    assert missing == [], "Add these to [sayings] of agent/status/languages/sv.toml."


def said_in_swedish(template: str) -> bool:
    """Say whether a sentence is translated with everything that was filled in."""
    if template in ("{}", "{}.", "{} {}"):
        return True  # another part's sentence, passed on
    values = (f"X{number}" for number in range(1, 20))
    text = re.sub(r"\{\}", lambda _: next(values), template)
    return SWEDISH.knows(text) and set(re.findall(r"X\d", text)) <= set(
        re.findall(r"X\d", SWEDISH.said(text))
    )


def test_a_saying_fills_in_what_it_was_filled_with() -> None:
    sayings = SWEDISH._table["sayings"]

    strange = [
        english for english, swedish in sayings.items() if not blanks(swedish) <= blanks(english)
    ]
    assert strange == []


@pytest.mark.parametrize(
    ("english", "swedish"),
    [
        ("No answer within 2.5 seconds.", "Inget svar inom 2.5 sekunder."),
        (
            "The SFTP server sftp.example:22 closed the connection while sending a_b.xml.",
            "SFTP-servern sftp.example:22 stängde anslutningen vid: sändning av a_b.xml.",
        ),
        (
            "No host key is pinned for the SFTP server s:22. It shows SHA256:abc (ssh-ed25519).",
            "Ingen värdnyckel är fäst för SFTP-servern s:22. Den visar SHA256:abc (ssh-ed25519).",
        ),
        (
            "A change has waited for 5 minutes although the line is up: no answer within 3 "
            "seconds. It is kept and tried again by itself.",
            "En ändring har väntat i 5 minuter fast förbindelsen är uppe: inget svar inom 3 "
            "sekunder. Den finns kvar och prövas igen av sig själv.",
        ),
        (
            "The till cannot write a batch file in /var/spool: the disk is full. Free some space; "
            "the changes are kept and tried again.",
            "Kassan kan inte skriva en fil i /var/spool: disken är full. Frigör utrymme; "
            "ändringarna finns kvar och skickas senare.",
        ),
        ("/var/j.db is 1.2 MiB and whole.", "/var/j.db är 1.2 MiB och hel."),
        (
            "till-agent.service is active (running). systemd had to start it 9 times again.",
            "till-agent.service är active (running). systemd har fått starta om den 9 gånger.",
        ),
        ("Something nobody knows. Nothing was changed.", "Something nobody knows. Inget ändrades."),
    ],
)
def test_other_parts_are_understood_sentence_by_sentence(english: str, swedish: str) -> None:
    assert SWEDISH.said(english) == swedish
    assert ENGLISH.said(english) == english


@pytest.mark.parametrize(
    "changed", [changed for _, changed, _, _ in CASES], ids=[name for _, _, name, _ in CASES]
)
def test_the_verdict_is_the_same_in_swedish(changed: dict[str, Any]) -> None:
    now = facts(**changed)

    english, swedish = verdicts.verdict(now), verdicts.verdict(now, words=SWEDISH)

    assert (swedish.level, swedish.can_accept) == (english.level, english.can_accept)
    assert swedish.sentence != english.sentence
    assert re.findall(r"\d+:\d+", swedish.sentence) == re.findall(r"\d+:\d+", english.sentence)


def test_the_verdict_in_swedish() -> None:
    down = facts(
        link=replace(facts().link, state="offline", since=NOW.replace(hour=13, minute=2)),
        unsent=37,
        oldest_waiting_s=26 * 60,
    )

    assert verdicts.verdict(down, words=SWEDISH).sentence == (
        "Registreringarna är i säkerhet. Förbindelsen har legat nere sedan 14:02; 37 väntar, den "
        "äldsta sedan 26 minuter. Fortsätt som vanligt."
    )


# --- numbers and times ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"), ("sv", "sv"), ("sv-FI", "sv"), ("SV;q=1.0", "sv"), ("fr, sv;q=0.2", "sv"),
        ("en;q=0.5, sv;q=0.6", "sv"), ("sv;q=0", "en"), ("sv;q=2", "en"), (";;,=,", "en"),
    ],
)  # fmt: skip
def test_the_language_that_is_liked_best_is_taken(header: str, language: str) -> None:
    assert preferred(header) == language


@pytest.mark.parametrize(
    ("seconds", "long", "short", "swedish"),
    [
        (0, "less than a minute", "< 1 min", "mindre än en minut"),
        (59.9, "less than a minute", "< 1 min", "mindre än en minut"),
        (60, "1 minute", "1 min", "1 minut"),
        (119 * 60, "119 minutes", "119 min", "119 minuter"),
        (120 * 60, "2 hours", "2 h", "2 timmar"),
        (47.9 * 3600, "47 hours", "47 h", "47 timmar"),
        (48 * 3600, "2 days", "2 days", "2 dygn"),
    ],
)
def test_span_is_rounded_down_to_its_fitting_unit(
    seconds: float, long: str, short: str, swedish: str
) -> None:
    assert ENGLISH.span(seconds) == long
    assert ENGLISH.brief(seconds) == short
    assert SWEDISH.span(seconds) == swedish


@pytest.mark.parametrize(
    ("seconds", "english", "swedish"),
    [
        (0.5, "0.5 seconds", "0,5 sekunder"),
        (1, "1 second", "1 sekund"),
        (20, "20 seconds", "20 sekunder"),
        (90, "1 minute", "1 minut"),
        (7200, "2 hours", "2 timmar"),
    ],
)
def test_limit_is_exact_where_it_is_short(seconds: float, english: str, swedish: str) -> None:
    assert ENGLISH.limit(seconds) == english
    assert SWEDISH.limit(seconds) == swedish


@pytest.mark.parametrize(
    ("when", "english", "swedish"),
    [
        (NOW, "14:28", "14:28"),
        (datetime(2026, 11, 20, 23, 30, tzinfo=UTC), "00:30", "00:30"),
        (datetime(2026, 7, 1, 10, 0, tzinfo=UTC), "1 Jul, 12:00", "1 juli 12:00"),
        (datetime(2025, 7, 1, 10, 0, tzinfo=UTC), "1 Jul 2025, 12:00", "1 juli 2025 12:00"),
    ],
)
def test_moments_are_on_the_tills_own_clock(when: datetime, english: str, swedish: str) -> None:
    assert ENGLISH.moment(when, NOW) == english
    assert SWEDISH.moment(when, NOW) == swedish


@pytest.mark.parametrize(
    ("words", "number", "size", "files_"),
    [
        (ENGLISH, "1,204", "80.0 GB", "and 1,204 more files"),
        (SWEDISH, "1\u00a0204", "80,0 GB", "och 1\u00a0204 filer till"),
    ],
)
def test_numbers_and_sizes_read_well(words: Words, number: str, size: str, files_: str) -> None:
    assert words.number(1204) == number
    assert words.size(80 * 1024**3) == size
    assert words.size(640 * 1024**2) == "640 MB"
    assert words.counted("batch.more", 1204) == files_


def test_first_sentence_is_split_from_the_rest() -> None:
    assert first_sentence("It broke. Mend it. Soon.") == ("It broke.", "Mend it. Soon.")
    assert first_sentence("See docs/errors.md") == ("See docs/errors.md", "")


def test_a_language_is_one_file() -> None:
    found = {path.name for path in (files("agent.status") / "languages").iterdir()}

    assert found == {f"{language}.toml" for language in LANGUAGES}
