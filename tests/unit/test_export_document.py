"""The export's XML: what is taken from it, what is passed over, and what is no export at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.register.document import ExportedMember, ExportParser, NotAnExport

GUID = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
MEMBER = f"<member><contactId>{GUID}</contactId><email>vera@example.test</email></member>"
VERA = ExportedMember(False, "member", GUID, {"email": "vera@example.test"})


def document(*containers: str, root: str = "contacts") -> str:
    body = "".join(containers)
    return f'<{root} xmlns="http://eClub.Schemas.ExportMember">{body}</{root}>'


def read(content: str | bytes, piece: int = 7) -> list[ExportedMember]:
    """Read a document in pieces, as it comes from a slow server."""
    data = content.encode() if isinstance(content, str) else content
    parser, members = ExportParser(), []
    for start in range(0, len(data), piece):
        members += parser.feed(data[start : start + piece])
    return members + parser.close()


# --- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        document(f"<new>{MEMBER}</new>"),
        document(f"<New>{MEMBER}</New>"),
        document(f"<updated>{MEMBER}</updated>"),
        document(f"<updatedMembers>{MEMBER}</updatedMembers>"),
        document("<head><made>today</made></head>", f"<new>{MEMBER}</new>", "<tail/>"),
        document(f"<new><!-- a comment --><?pi?>{MEMBER}</new>"),
        document(
            f"<new><member><ContactID> {GUID.upper()}\n</ContactID>"
            "<EMAIL> vera@example.test </EMAIL></member></new>"
        ),
        document(
            f'<new><member contactId="{GUID}" source="External system"><email>vera@example.test'
            "</email><loyalty><email>other@example.test</email><id>5</id></loyalty></member></new>"
        ),
        document(
            f"<new><member><id>{GUID}</id><email><![CDATA[vera@]]>example.test</email>"
            f"<note>{'long ' * 200}</note></member></new>"
        ),
        f"<contacts><new>{MEMBER}</new></contacts>",
        f'<?xml version="1.0" encoding="utf-16"?><contacts><new>{MEMBER}</new></contacts>'.encode(
            "utf-16"
        ),
    ],
    ids=[
        *("plain", "upper case", "updated", "longer name", "unknown containers", "comments"),
        *("other spelling", "unknown elements", "character data", "no namespace", "UTF-16"),
    ],
)
def test_member_is_taken_whatever_else_stands_there(content: str | bytes) -> None:
    assert read(content) == [VERA]


def test_all_keys_are_taken_and_an_empty_one_is_told_from_a_missing_one() -> None:
    (member,) = read(
        document(
            "<new><member><firstName>Vera</firstName><mobilePhone>+46701234567</mobilePhone>"
            "<socialSecurityNumber>19811228-9874</socialSecurityNumber><memberNumber>1</memberNumber>"
            "<externalId>S-7</externalId><email/></member></new>"
        )
    )

    assert member == ExportedMember(
        False,
        "member",
        None,
        {
            "mobilePhone": "+46701234567",
            "socialSecurityNumber": "19811228-9874",
            "memberNumber": "1",
            "externalId": "S-7",
            "email": "",
        },
    )


@pytest.mark.parametrize("name", ["deleted", "Deleted", "deletedMembers", "delete"])
def test_deleted_members_are_told_from_others(name: str) -> None:
    members = read(document(f"<new>{MEMBER}</new>", f"<{name}>{MEMBER}</{name}>"))

    assert [member.is_deleted for member in members] == [False, True]


def test_members_in_another_container_are_passed_over() -> None:
    assert read(document(f"<archived>{MEMBER}</archived>", MEMBER)) == []


@pytest.mark.parametrize(
    "number", ["", "4711", "019d4b5c-0000-7000-8000-000000000000", "x" * 36], ids=str
)
def test_what_is_no_guid_of_engages_is_none(number: str) -> None:
    (member,) = read(document(f"<new><member><contactId>{number}</contactId></member></new>"))

    assert member.contact_id is None


def test_value_that_is_far_too_long_is_no_key() -> None:
    (member,) = read(document(f"<new><member><email>{'x' * 501}</email></member></new>"))

    assert member.keys == {}


# --- what is no export ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not well-formed"),
        (b"\x00\x01 nothing", "line 1 is not well-formed XML"),
        (document(f"<new>{MEMBER}</new>")[:-20], "line 1 is not well-formed XML"),
        (document("\n\n<new></old>"), "line 3 is not well-formed XML"),
        ('<?xml version="1.0" encoding="no-such"?><contacts/>', "not well-formed"),
        (document(root="receipts"), "its root is not a list of contacts"),
        (document().replace("ExportMember", "ImportContact"), "it is a file for Engage's import"),
        ("<!DOCTYPE contacts>" + document(), "it has a document type"),
        (
            '<!DOCTYPE contacts [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
            "<contacts><new><member><email>&x;</email></member></new></contacts>",
            "it has a document type",
        ),
        (document("<new>" + "<member>" * 70), "its elements stand too deep in one another"),
        (document(f"<new>{MEMBER}<member><email>&nbsp;</email></member></new>"), "not well-formed"),
    ],
    ids=[
        *("empty", "no XML", "cut off", "wrong end", "unknown encoding", "another root"),
        *("for the import", "document type", "external entity", "too deep", "unknown entity"),
    ],
)
def test_anything_else_is_refused_with_a_reason_that_quotes_nothing(
    content: str | bytes, reason: str
) -> None:
    with pytest.raises(NotAnExport) as refusal:
        read(content)

    assert reason in str(refusal.value)
    assert "vera" not in str(refusal.value)


def test_entities_that_would_unpack_to_gigabytes_are_not_even_begun() -> None:
    entities = '<!ENTITY a "lol">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    body = "<contacts><new><member><email>&i;</email></member></new></contacts>"

    with pytest.raises(NotAnExport):
        read(f"<!DOCTYPE contacts [{entities}]>{body}", piece=10**6)


# --- how much of it is in memory ------------------------------------------------------------------


def large_document(members: int) -> Iterator[bytes]:
    yield document().removesuffix("</contacts>").encode() + b"<new>"
    for number in range(members):
        yield f"<member><email>p{number}@example.test</email><x><y>z</y></x></member>".encode()
    yield b"</new></contacts>"


def memory_bytes() -> int:
    """Give what the process has in memory; libxml2's part is not Python's to count."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat_however_many_members_there_are() -> None:
    parser, count = ExportParser(), 0
    before = memory_bytes()

    for piece in large_document(20_000):
        count += len(parser.feed(piece))

    assert count == 20_000
    assert memory_bytes() - before < 8 * 1024 * 1024  # a tree of them takes some 60
