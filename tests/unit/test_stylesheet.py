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
    '<xsl:template match="/"><people><xsl:for-each select="//i:member"><name>'
    '<xsl:value-of select="i:firstName"/></name></xsl:for-each></people></xsl:template>'
)


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

    assert stream.getvalue().count(b"<name>Vera</name>") == 2


def test_the_stylesheet_says_how_its_output_is_written(tmp_path: Path) -> None:
    latin = NAMES.replace("<xsl:template", '<xsl:output encoding="iso-8859-1"/><xsl:template')

    turned = Stylesheet(sheet(tmp_path, latin)).turn_elements(
        [dataclasses.replace(VERA, attributes={"firstName": "Åsa"})]
    )

    assert turned.startswith(b'<?xml version="1.0" encoding="iso-8859-1"?>')
    assert "Åsa".encode("latin-1") in turned


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
    ],
)
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
        "x</a>"
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


def test_check_says_that_nothing_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    till = till_with(tmp_path / "till", body(""))

    code = commands.main(["check", "--config", str(till.config_path)])

    assert code == 2
    assert "gives nothing" in capsys.readouterr().err
