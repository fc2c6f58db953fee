"""The member export: what is told, when, and in which files."""

from __future__ import annotations

import re

import pytest
from lxml import etree

from agent.sandbox import Sandbox

NAMESPACE = "{http://eClub.Schemas.ExportMember}"


def told(sandbox: Sandbox, names: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Give container and fields of every contact of these files."""
    found = []
    for name in names:
        root = etree.parse(str(sandbox.export_path / name)).getroot()
        assert root.tag == f"{NAMESPACE}contacts"
        for container in root:
            for member in container:
                fields = {etree.QName(field).localname: field.text or "" for field in member}
                found.append((etree.QName(container).localname, fields))
    return found


def emails(sandbox: Sandbox, names: list[str]) -> list[tuple[str, str | None]]:
    return [(kind, fields.get("email")) for kind, fields in told(sandbox, names)]


async def test_first_export_has_all_members_and_nobody_else(sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(email="vera@example.test", firstName="Vera")
    sandbox.seed(email="per@example.test", contactType="Contact")

    (name,) = sandbox.export_now()

    assert re.fullmatch(r"\d{14}_0_members\.xml", name)
    ((kind, fields),) = told(sandbox, [name])
    assert kind == "new"
    assert fields["contactId"] == contact_id
    assert fields["email"] == "vera@example.test"
    assert fields["memberNumber"] == "1000001"


async def test_next_export_has_the_news_only(sandbox: Sandbox) -> None:
    ids = [sandbox.seed(email=f"{name}@example.test") for name in ("vera", "per", "sven")]
    sandbox.export_now()
    sandbox.change(ids[0], email="new@example.test")
    sandbox.erase(ids[1])
    sandbox.seed(email="eva@example.test")

    names = sandbox.export_now()

    assert emails(sandbox, names) == [
        ("new", "eva@example.test"),
        ("updated", "new@example.test"),
        ("deleted", None),
    ]


async def test_value_that_was_cleared_is_an_empty_element(sandbox: Sandbox) -> None:
    contact_id = sandbox.seed(email="vera@example.test", mobilePhone="+46701234567")
    sandbox.export_now()
    sandbox.change(contact_id, mobilePhone=None)

    ((_, fields),) = told(sandbox, sandbox.export_now())

    assert fields["mobilePhone"] == ""


async def test_without_news_there_is_no_file(sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")
    sandbox.export_now()

    assert sandbox.export_now() == []


async def test_full_export_has_everybody_again(sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")
    sandbox.export_now()

    assert emails(sandbox, sandbox.export_now(full=True)) == [("new", "vera@example.test")]


async def test_large_export_is_split_into_numbered_files(sandbox: Sandbox) -> None:
    for number in range(5):
        sandbox.seed(email=f"person{number}@example.test")

    names = sandbox.export_now(per_file=2)

    assert [name.split("_")[1] for name in names] == ["0", "1", "2"]
    assert len(told(sandbox, names)) == 5


async def test_tenant_need_not_export_the_guid(sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")

    ((_, fields),) = told(sandbox, sandbox.export_now(with_ids=False))

    assert "contactId" not in fields


@pytest.mark.parametrize("kind", ["cut_off", "not_xml", "bomb"])
async def test_file_can_be_broken(sandbox: Sandbox, kind: str) -> None:
    sandbox.seed(email="vera@example.test")
    sandbox.set_fault(kind, target="exporter", times=1)

    (name,) = sandbox.export_now()

    parser = etree.XMLParser(resolve_entities=False)
    with pytest.raises(etree.XMLSyntaxError):
        etree.parse(str(sandbox.export_path / name), parser)


async def test_reset_forgets_what_was_told(sandbox: Sandbox) -> None:
    sandbox.seed(email="vera@example.test")
    sandbox.export_now()

    sandbox.reset()

    assert list(sandbox.export_path.iterdir()) == []
    sandbox.seed(email="vera@example.test")
    assert len(sandbox.export_now()) == 1
