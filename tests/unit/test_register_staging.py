"""What lies between the server and the journal: digests only, in small chunks."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from agent.config import Engage
from agent.contact import Key
from agent.register.digests import Digests, RegisterKeyProblem
from agent.register.document import ExportedMember
from agent.register.staging import CHUNK, Stage

TODAY = date(2026, 11, 21)
SETTINGS = Engage(base_url="https://acme.voyado.com", phone_region="SE")
VERA = ExportedMember(
    is_deleted=False,
    contact_type="member",
    contact_id=None,
    keys={"email": "Vera@example.test", "mobilePhone": "070-123 45 67", "memberNumber": ""},
)


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    made = Digests(tmp_path / "key")
    made.open()
    return made


def test_member_is_found_by_what_a_look_up_says(tmp_path: Path, digests: Digests) -> None:
    with Stage(tmp_path, SETTINGS, digests, TODAY) as stage:
        stage.add([VERA])
        ((entry,),) = stage.chunks()

    assert entry.digests == {
        "email": digests.of(Key("email", "vera@example.test")),
        "mobilePhone": digests.of(Key("mobilePhone", "+46701234567")),
    }
    assert entry.emptied == ["memberNumber"]
    assert entry.contact_type == "Member"  # as the settings spell it


def test_nothing_that_is_written_down_can_be_read(tmp_path: Path, digests: Digests) -> None:
    with Stage(tmp_path, SETTINGS, digests, TODAY) as stage:
        stage.add([VERA])
        ((entry,),) = stage.chunks()

    written = json.dumps(vars(entry)).casefold()
    assert "vera" not in written
    assert "1234567" not in written


def test_chunks_are_small_and_keep_the_order(tmp_path: Path, digests: Digests) -> None:
    members = [ExportedMember(False, "member", None, {"email": f"{n}"}) for n in range(CHUNK + 1)]
    with Stage(tmp_path, SETTINGS, digests, TODAY) as stage:
        count = stage.add(members)
        chunks = list(stage.chunks())

    assert count == CHUNK + 1
    assert [len(chunk) for chunk in chunks] == [CHUNK, 1]
    assert chunks[1][0].digests == {"email": digests.of(Key("email", f"{CHUNK}"))}


def test_member_without_key_and_guid_is_left_out(tmp_path: Path, digests: Digests) -> None:
    with Stage(tmp_path, SETTINGS, digests, TODAY) as stage:
        count = stage.add([ExportedMember(False, "member", None, {"email": ""})])

    assert count == 0


# --- the key of the digests -----------------------------------------------------------------------


def test_same_key_gives_the_same_digests_after_a_restart(tmp_path: Path, digests: Digests) -> None:
    again = Digests(tmp_path / "key")
    again.open()

    key = Key("email", "vera@example.test")
    assert (again.of(key), again.check) == (digests.of(key), digests.check)
    assert digests.of(key) != digests.of(Key("externalId", "vera@example.test"))


@pytest.mark.parametrize("content", ["", "no key", "ab" * 31, "\x00" * 64])
def test_key_that_is_none_is_made_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    digests = Digests(tmp_path / "key")

    digests.open()

    assert len((tmp_path / "key").read_text().strip()) == 64
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_key_that_cannot_be_made_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(RegisterKeyProblem, match="agent's user"):
        Digests(tmp_path / "missing" / "key").open()


def test_forgotten_key_is_gone(tmp_path: Path, digests: Digests) -> None:
    digests.forget()
    digests.forget()

    assert not (tmp_path / "key").exists()
    assert not digests.is_open
