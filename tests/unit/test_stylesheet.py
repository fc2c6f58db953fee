"""A tenant's stylesheet: read, tried on a sample, applied; and what it does wrong told in words."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from agent import commands, config
from agent.config import Config
from agent.delivery.batch.document import Element, write_document
from agent.delivery.batch.stylesheet import (
    NotTurned,
    Stylesheet,
    StylesheetProblem,
    problems,
    trial,
)
from agent.trial import Till, write_till

VERA = Element("Member", {"firstName": "Vera", "email": "vera@example.test"})
SETTINGS = Path(__file__).parent.parent / "bad_configs" / "00-valid.toml"

SHEET = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:i="http://eClub.Schemas.ImportContact">%s</xsl:stylesheet>"""
NAMES = SHEET % (
    '<xsl:template match="/"><people><xsl:for-each select="//i:member">'
    '<name mail="{i:email}"><xsl:value-of select="i:firstName"/></name>'
    "</xsl:for-each></people></xsl:template>"
)
DATES = "http://exslt.org/dates-and-times"


def sheet(folder: Path, content: str) -> Path:
    place = folder / "form.xslt"
    place.write_text(content)
    return place


def with_stylesheet(path: Path | None) -> Config:
    settings = config.load(SETTINGS)
    return dataclasses.replace(settings, fallback=dataclasses.replace(settings.fallback, xslt=path))


def test_a_file_is_turned_into_the_form_of_the_tenant(tmp_path: Path) -> None:
    document = tmp_path / "file.xml"
    with document.open("wb") as plain:
        write_document([VERA, VERA], plain)
    stream = io.BytesIO()

    Stylesheet(sheet(tmp_path, NAMES)).turn(document, stream)

    assert stream.getvalue().count(b">Vera</name>") == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "Document is empty"),
        ("no XML", "Start tag expected"),
        ("<a/>", "not a stylesheet"),
        (
            SHEET % '<xsl:template match="/"><a><xsl:value-of select="//["/></a></xsl:template>',
            "//[",
        ),
        (
            SHEET % '<xsl:import href="other.xslt"/><xsl:template match="/"><a/></xsl:template>',
            "other",
        ),
        # A file is UTF-8, and the same byte for byte whenever it is made.
        (NAMES.replace("<xsl:template", '<xsl:output encoding="iso-8859-1"/><xsl:template'),
         "writes iso-8859-1"),
        (NAMES.replace("<xsl:template", '<xsl:output encoding="UTF-16"/><xsl:template'),
         "writes UTF-16"),
        (NAMES.replace('mail="', f'xmlns:d="{DATES}" at="{{d:date-time()}}" mail="'),
         "asks for d:date-time()"),
        (NAMES.replace('mail="', f'xmlns:d="{DATES}" at="{{concat(d:date ( ), 1)}}" mail="'),
         "asks for d:date ( )"),
        (NAMES.replace('mail="', 'xmlns:m="http://exslt.org/math" n="{m:random()}" mail="'),
         "asks for m:random()"),
    ],
)  # fmt: skip
def test_what_is_no_stylesheet_is_told_with_its_fault(
    content: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(StylesheetProblem) as caught:
        Stylesheet(sheet(tmp_path, content))

    assert what in caught.value.message
    assert "\n" not in caught.value.message


def body(template: str, *before: str) -> str:
    return SHEET % f'{"".join(before)}<xsl:template match="/">{template}</xsl:template>'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (body('<xsl:message terminate="yes">no city</xsl:message>'), "fails: no city"),
        (body('<a><xsl:value-of select="unheard(1)"/></a>'), "fails: "),
        (body("<a><xsl:copy-of select=\"document('other.xml')\"/></a>"), "fails: "),
        (body('<xsl:call-template name="x"/>', '<xsl:template name="x">'
              '<xsl:call-template name="x"/></xsl:template>'), "fails: "),
        (body(""), "gives nothing"),
        (body("<a/>"), "gives an empty document"),
        (body("Vera", '<xsl:output method="text"/>'), "gives no well-formed XML"),
        (body("<a/><b/>"), "gives no well-formed XML"),
        # Templates without the namespace match nothing: its texts alone come out.
        (SHEET % '<xsl:template match="member"><a/></xsl:template>', "gives no well-formed XML"),
        (body('<contacts><new><xsl:apply-templates select="//i:new"/></new></contacts>',
              '<xsl:template match="member"><member/></xsl:template>'), "leaves contacts out"),
        (body('<contacts><new><xsl:apply-templates select="//i:new"/></new></contacts>',
              '<xsl:strip-space elements="*"/>'), "leaves contacts out"),
        (body('<contacts><new><xsl:for-each select="contacts/new/member"><member><email>'
              '<xsl:value-of select="email"/></email></member></xsl:for-each></new></contacts>'),
         "leaves contacts out"),
        # Contacts without what Engage finds them by are nobody.
        (body('<a><xsl:for-each select="//i:member"><b><xsl:value-of select="i:firstName"/></b>'
              "</xsl:for-each></a>"), "leaves contacts out"),
        (body('<a><xsl:for-each select="//i:member"><b><xsl:value-of select="email"/></b>'
              "</xsl:for-each></a>"), "leaves contacts out"),
        # The first contact of a file comes out, the others do not.
        (body('<a><xsl:value-of select="//i:email"/></a>'), "leaves contacts out"),
        (body('<a xmlns:d="http://exslt.org/dynamic" xmlns:m="http://exslt.org/math">'
              """<b n="{d:evaluate(concat('m:random', '()'))}"/>"""
              '<xsl:copy-of select="//i:email"/></a>'),
         "gives another file each time"),
    ],
)  # fmt: skip
def test_a_stylesheet_that_makes_no_file_of_a_sample_is_told_before_the_start(
    content: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / "other.xml").write_text("<secret>open sesame</secret>")
    settings = with_stylesheet(sheet(tmp_path, content))

    (problem,) = trial(settings)

    assert what in problem.what
    assert "open sesame" not in str(problem)
    assert problems(settings) == ()


def test_a_good_stylesheet_is_no_problem(tmp_path: Path) -> None:
    settings = with_stylesheet(sheet(tmp_path, NAMES))

    assert problems(settings) == trial(settings) == ()


@pytest.mark.parametrize(
    "written",
    [
        "{translate(i:email, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')}",
        "mailto:{i:email}",
        "{i:email} ",
    ],
)
def test_a_key_may_come_out_in_the_tenants_own_form(written: str, tmp_path: Path) -> None:
    form = NAMES.replace("{i:email}", written)

    assert trial(with_stylesheet(sheet(tmp_path, form))) == ()


def test_a_moment_that_a_contact_tells_may_come_out(tmp_path: Path) -> None:
    form = NAMES.replace('mail="', f'xmlns:d="{DATES}" year="{{d:year(i:birthDay)}}" mail="')

    assert trial(with_stylesheet(sheet(tmp_path, form))) == ()


def test_without_a_stylesheet_there_is_nothing_to_try() -> None:
    settings = with_stylesheet(None)

    assert problems(settings) == trial(settings) == ()


def test_a_stylesheet_that_cannot_be_used_is_a_problem_with_its_place(tmp_path: Path) -> None:
    (problem,) = problems(with_stylesheet(sheet(tmp_path, "<a/>")))

    assert problem.place == "[fallback] xslt"
    assert str(tmp_path / "form.xslt") in problem.what
    assert problem.suggestion


def test_both_kinds_of_file_are_tried(tmp_path: Path) -> None:
    fails_with_id = body(
        '<a><xsl:if test="//i:contactId"><xsl:message terminate="yes">id</xsl:message></xsl:if>'
        '<xsl:copy-of select="//i:email"/></a>'
    )

    (problem,) = trial(with_stylesheet(sheet(tmp_path, fails_with_id)))

    assert "fails: id" in problem.what


def test_what_a_stylesheet_says_of_a_customer_is_not_in_its_error(tmp_path: Path) -> None:
    quotes = body('<xsl:message terminate="yes"><xsl:value-of select="//i:email"/></xsl:message>')

    with pytest.raises(NotTurned) as caught:
        Stylesheet(sheet(tmp_path, quotes)).turn_elements([VERA])

    assert "vera" not in str(caught.value)


# --- the commands -----------------------------------------------------------------------------


def till_with(folder: Path, content: str) -> Till:
    """Write a till's files, all in order but for the stylesheet."""
    return write_till(
        folder,
        engage_url="http://127.0.0.1:1",
        api_key="key",
        sftp_host="127.0.0.1",
        sftp_port=1,
        sftp_username="till",
        sftp_password="password",
        sftp_directory="/",
        host_key_line="127.0.0.1 ssh-ed25519 none",
        settings={"fallback": {"xslt": str(sheet(folder.parent, content))}},
    )


@pytest.mark.parametrize("command", ["check", "run"])
def test_neither_check_nor_run_goes_on_with_what_is_no_stylesheet(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    till = till_with(tmp_path / "till", "<a/>")
    (till.folder / "engage_api_key").unlink()

    code = commands.main([command, "--config", str(till.config_path)])

    said = capsys.readouterr().err
    assert code == 2
    assert "[fallback] xslt: " in said
    assert "[engage] api_key_file: " in said  # together with what else is wrong
    assert not (till.folder / "journal.db").exists()


def test_check_tries_the_stylesheet_on_a_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    till = till_with(tmp_path / "till", NAMES)

    code = commands.main(["check", "--config", str(till.config_path)])

    assert code == 0
    assert "turns a sample into well-formed XML" in capsys.readouterr().out


def test_check_says_what_a_stylesheet_without_the_namespace_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = body('<contacts><new><xsl:copy-of select="//member"/></new></contacts>')
    till = till_with(tmp_path / "till", nobody)

    code = commands.main(["check", "--config", str(till.config_path)])

    said = capsys.readouterr().err
    assert code == 2
    assert "leaves contacts out" in said
    assert "prefix for the namespace http://eClub.Schemas.ImportContact" in said


def test_check_says_that_nothing_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    till = till_with(tmp_path / "till", body(""))

    code = commands.main(["check", "--config", str(till.config_path)])

    assert code == 2
    assert "gives nothing" in capsys.readouterr().err
