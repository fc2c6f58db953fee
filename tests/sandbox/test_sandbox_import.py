"""The file import: what it takes, what it skips, and that it says nothing back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.sandbox import Sandbox

FILE_NAME = "20261121101500_0600_contacts.xml"
VERA = "<email>vera@example.test</email>"
SVEN = "<email>sven@example.test</email>"


def member(*children: str) -> str:
    return f"<member>{''.join(children)}</member>"


def put(sandbox: Sandbox, content: bytes, name: str = FILE_NAME) -> Path:
    path = sandbox.import_path / name
    path.write_bytes(content)
    return path


async def test_uploaded_file_becomes_a_contact_and_goes_away(
    sandbox: Sandbox, uploader: Any, xml: Callable[..., bytes]
) -> None:
    await uploader.upload(
        xml(
            '<member source="POS"><email>vera@example.test</email><firstName>Vera</firstName>'
            "<createdInStore>600</createdInStore><birthDay>1990-01-15</birthDay>"
            "<preferences><acceptsEmail>true</acceptsEmail><acceptsSms>0</acceptsSms>"
            "</preferences><consents><consent><id>memberTerms</id><value>true</value>"
            "<date>2026-11-21T10:15:00+01:00</date><source>POS</source><comment/></consent>"
            "</consents></member>"
        )
    )

    assert await sandbox.import_now() == 1

    (contact,) = sandbox.contacts()
    assert contact["attributes"] == {
        "email": "vera@example.test",
        "firstName": "Vera",
        "createdInStore": "600",
        "store": "600",
        "birthDay": "1990-01-15",
        "memberNumber": "1000001",
    }
    assert contact["meta"]["sourceType"] == "POS"
    assert contact["meta"]["contactType"] == "Member"
    assert contact["preferences"]["AcceptsEmails"] is True
    assert contact["preferences"]["AcceptsSms"] is False
    assert contact["consents"] == [
        {
            "id": "memberTerms",
            "value": True,
            "date": "2026-11-21T10:15:00+01:00",
            "source": "POS",
            "comment": "",
        }
    ]
    assert sandbox.waiting_files() == []


async def test_importer_comes_by_itself(
    tmp_path: Path, xml: Callable[..., bytes], eventually: Callable[..., Any]
) -> None:
    async with Sandbox(tmp_path, import_every_s=0.02) as sandbox:
        put(sandbox, xml(member(VERA)))

        await eventually(sandbox.contacts)
        await eventually(lambda: not sandbox.waiting_files())


async def test_only_names_of_the_import_are_taken(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    put(sandbox, xml(member(VERA)), f"{FILE_NAME}.tmp")
    put(sandbox, xml(member(VERA)), "contacts.xml")

    assert await sandbox.import_now() == 0
    assert len(sandbox.waiting_files()) == 2


async def test_known_key_is_updated_and_empty_elements_leave_values_alone(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    contact_id = sandbox.seed(email="vera@example.test", city="Teststad")
    put(sandbox, xml(member(VERA, "<city/>", "<street>Provgatan 1</street>")))

    await sandbox.import_now()

    (contact,) = sandbox.contacts()
    assert contact["id"] == contact_id
    assert contact["attributes"]["city"] == "Teststad"
    assert contact["attributes"]["street"] == "Provgatan 1"
    assert sandbox.integration_log[0].updated == 1


async def test_contact_of_another_type_is_updated_rather_than_doubled(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    sandbox.seed(email="vera@example.test", contactType="Contact")
    put(sandbox, xml(member(VERA, "<city>Teststad</city>")))

    await sandbox.import_now()

    (contact,) = sandbox.contacts()
    assert contact["meta"]["contactType"] == "Contact"
    assert contact["attributes"]["city"] == "Teststad"


async def test_element_is_named_by_the_contact_type(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    put(sandbox, xml(f"<contact>{VERA}</contact>", f"<vip>{SVEN}</vip>"))

    await sandbox.import_now()

    assert [each["meta"]["contactType"] for each in sandbox.contacts()] == ["Contact"]
    assert sandbox.integration_log[0].notes == ["contact 2: there is no contact type 'vip'"]


async def test_contact_id_finds_the_contact_and_may_change_its_key(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    contact_id = sandbox.seed(email="vera@example.test")
    put(
        sandbox,
        xml(
            member(
                f"<contactId>{contact_id.upper()}</contactId>", "<email>new@example.test</email>"
            )
        ),
    )

    await sandbox.import_now()

    assert sandbox.find("email", "new@example.test")[0]["id"] == contact_id


async def test_one_contact_id_acts_on_the_whole_file(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    contact_id = sandbox.seed(email="vera@example.test")
    put(
        sandbox,
        xml(
            member(f"<contactId>{contact_id}</contactId>", "<city>Teststad</city>"),
            member(SVEN),
        ),
    )

    await sandbox.import_now()

    assert len(sandbox.contacts()) == 1
    assert sandbox.integration_log[0].skipped == 1


async def test_unknown_contact_id_is_skipped(sandbox: Sandbox, xml: Callable[..., bytes]) -> None:
    unknown = "6f1c0a52-3f0e-4d6b-9f4f-6a4d2f6f9d10"
    put(sandbox, xml(member(f"<contactId>{unknown}</contactId>", VERA)))

    await sandbox.import_now()

    assert sandbox.contacts() == []
    assert sandbox.integration_log[0].notes == ["contact 1: ContactNotFound"]


async def test_bad_fields_are_skipped_one_by_one(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    put(
        sandbox,
        xml(
            member(
                VERA,
                "<firstName>Vera</firstName><mobilePhone>0700000001</mobilePhone>",
                "<shoeSize>42</shoeSize>",
                "<preferences><acceptsSms>perhaps</acceptsSms></preferences>",
                "<consents><consent><id>memberTerms</id></consent></consents>",
            )
        ),
    )

    await sandbox.import_now()

    (contact,) = sandbox.contacts()
    assert contact["attributes"]["firstName"] == "Vera"
    assert "mobilePhone" not in contact["attributes"]
    assert contact["consents"] == []
    (entry,) = sandbox.integration_log
    assert (entry.created, entry.fields_skipped) == (1, 4)
    assert "contact 1: field mobilePhone is not valid" in entry.notes
    assert "0700000001" not in str(entry)


@pytest.mark.parametrize(
    "children",
    ["<firstName>Vera</firstName>", "<email/>", "<email>not-an-address</email>"],
)
async def test_contact_without_a_valid_key_is_skipped_whole(
    sandbox: Sandbox, xml: Callable[..., bytes], children: str
) -> None:
    put(sandbox, xml(member(children), member(SVEN)))

    await sandbox.import_now()

    assert [each["attributes"]["email"] for each in sandbox.contacts()] == ["sven@example.test"]
    assert sandbox.integration_log[0].skipped == 1


async def test_contact_below_the_minimum_age_is_skipped_whole(
    tmp_path: Path, xml: Callable[..., bytes]
) -> None:
    async with Sandbox(tmp_path, import_every_s=0, minimum_age=18) as sandbox:
        put(sandbox, xml(member(VERA, "<birthDay>2020-01-01</birthDay>"), member(SVEN)))

        await sandbox.import_now()

        assert len(sandbox.contacts()) == 1
        assert sandbox.integration_log[0].notes == ["contact 1: below the minimum age"]


async def test_required_attributes_count_in_files_too(
    tmp_path: Path, xml: Callable[..., bytes]
) -> None:
    async with Sandbox(tmp_path, import_every_s=0, required={"Member": ("firstName",)}) as sandbox:
        put(sandbox, xml(member(VERA)))

        await sandbox.import_now()

        assert sandbox.integration_log[0].notes == ["contact 1: ValidationError"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not readable as XML"),
        (b"<contacts", "not readable as XML"),
        (b"<contacts/>", "the root must be contacts in the namespace"),
        (b'<!DOCTYPE contacts [<!ENTITY a "b">]><contacts/>', "a document type is not allowed"),
        (b"\xff\xfe\x00", "not readable as XML"),
    ],
)
async def test_unreadable_file_is_skipped_whole_and_deleted(
    sandbox: Sandbox, content: bytes, reason: str
) -> None:
    put(sandbox, content)

    assert await sandbox.import_now() == 1

    (entry,) = sandbox.integration_log
    assert entry.outcome == "skipped"
    assert reason in str(entry.reason)
    assert sandbox.waiting_files() == []
    assert sandbox.counts()["imports"]["skipped_files"] == 1


async def test_avoiding_the_export_fails_with_standard_attributes(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    root = ' avoidTriggeringExport="true"'
    put(sandbox, xml(member(VERA, "<firstName>Vera</firstName>"), root=root), "1_contacts.xml")
    put(sandbox, xml(member(SVEN), root=root), "2_contacts.xml")

    await sandbox.import_now()

    assert [each.outcome for each in sandbox.integration_log] == ["skipped", "imported"]


async def test_large_file_is_imported_while_engage_answers(
    sandbox: Sandbox, engage: Any, xml: Callable[..., bytes]
) -> None:
    put(sandbox, xml(*(member(f"<email>v{number}@example.test</email>") for number in range(2000))))

    await sandbox.import_now()

    assert await engage("GET", "/api/v2/contacts/count") == (200, 2000)
    assert sandbox.counts()["imports"]["created"] == 2000


# --- faults ---------------------------------------------------------------------------------------


async def test_importer_can_sit_on_files(sandbox: Sandbox, xml: Callable[..., bytes]) -> None:
    put(sandbox, xml(member(VERA)))
    sandbox.set_fault("sits", times=1)

    assert await sandbox.import_now() == 0
    assert await sandbox.import_now() == 1


async def test_importer_can_skip_a_file_whole(sandbox: Sandbox, xml: Callable[..., bytes]) -> None:
    put(sandbox, xml(member(VERA)))
    sandbox.set_fault("skips_file")

    await sandbox.import_now()

    assert sandbox.contacts() == []
    assert sandbox.waiting_files() == []
    assert sandbox.integration_log[0].outcome == "skipped"


async def test_importer_can_skip_contacts_by_key(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    put(sandbox, xml(member(VERA), member(SVEN)))
    sandbox.set_fault("skips", keys=["VERA@example.test"])

    await sandbox.import_now()

    assert [each["attributes"]["email"] for each in sandbox.contacts()] == ["sven@example.test"]
    assert sandbox.integration_log[0].skipped == 1


async def test_importer_can_skip_every_third_contact(
    sandbox: Sandbox, xml: Callable[..., bytes]
) -> None:
    put(sandbox, xml(*(member(f"<email>v{number}@example.test</email>") for number in range(9))))
    sandbox.set_fault("skips", every=3)

    await sandbox.import_now()

    assert len(sandbox.contacts()) == 6


@pytest.mark.parametrize("posix", [True, False])
async def test_importer_can_take_a_file_before_its_rename_is_answered(
    sandbox: Sandbox, uploader: Any, xml: Callable[..., bytes], posix: bool
) -> None:
    sandbox.set_fault("takes_at_once")

    await uploader.upload(xml(member(VERA)), posix=posix)

    assert sandbox.waiting_files() == []
    assert len(sandbox.contacts()) == 1


async def test_importer_can_take_a_file_uploaded_under_its_final_name(
    sandbox: Sandbox, uploader: Any, xml: Callable[..., bytes]
) -> None:
    sandbox.set_fault("takes_at_once")
    path = f"{sandbox.import_directory}/{FILE_NAME}"

    def upload(sftp: Any) -> None:
        with sftp.open(path, "wb") as file:
            file.write(xml(member(VERA)))

    await uploader.do(upload)

    assert sandbox.waiting_files() == []
    assert len(sandbox.contacts()) == 1
