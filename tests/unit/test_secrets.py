"""Where secrets are read from, which are refused, and that no message holds one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.secrets import Credential, SecretProblem, read_secret


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    return folder


def written(path: Path, content: str | bytes = "s3cret\n", mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def refusal(name: Credential | Path | str, **where: Path) -> str:
    with pytest.raises(SecretProblem) as caught:
        read_secret(name, **where)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        ("s3cret", "s3cret"),
        ("s3cret\n", "s3cret"),
        ("s3cret\r\n", "s3cret"),
        ("s3cret\n\n", "s3cret\n"),  # one line break, no more
        (" s3 cret ", " s3 cret "),  # blanks may belong to a password
        ("lösen\n", "lösen"),
        ("first\nsecond\n", "first\nsecond"),  # a private key has lines
    ],
)
def test_secret_is_the_file_without_one_line_break(
    tmp_path: Path, content: str, secret: str
) -> None:
    assert read_secret(written(tmp_path / "key", content)) == secret


def test_path_may_be_given_as_text(tmp_path: Path) -> None:
    assert read_secret(str(written(tmp_path / "key"))) == "s3cret"


def test_bare_name_is_looked_up_in_the_credentials_directory(credentials: Path) -> None:
    written(credentials / "engage_api_key", mode=0o444)  # systemd guards the folder

    assert read_secret("engage_api_key", credentials_directory=credentials) == "s3cret"


def test_credentials_directory_comes_from_systemd(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(credentials / "engage_api_key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))

    assert read_secret("engage_api_key") == "s3cret"


def test_credential_goes_before_the_file_beside_agent_toml(
    credentials: Path, tmp_path: Path
) -> None:
    written(credentials / "engage_api_key", "from systemd")
    written(tmp_path / "engage_api_key", "from the file")
    name = Credential("engage_api_key", tmp_path)

    assert read_secret(name, credentials_directory=credentials) == "from systemd"
    assert read_secret(name) == "from the file"


def test_file_beside_agent_toml_is_used_where_systemd_gave_no_such_credential(
    credentials: Path, tmp_path: Path
) -> None:
    written(tmp_path / "engage_api_key")

    got = read_secret(Credential("engage_api_key", tmp_path), credentials_directory=credentials)

    assert got == "s3cret"


def test_path_is_never_looked_up_in_the_credentials_directory(
    credentials: Path, tmp_path: Path
) -> None:
    written(credentials / "key", "from systemd")

    got = read_secret(written(tmp_path / "key"), credentials_directory=credentials)

    assert got == "s3cret"


def test_bare_name_without_a_credential_is_told_with_both_remedies() -> None:
    message = refusal("engage_api_key")

    assert "LoadCredential=engage_api_key:" in message
    assert "slash" in message


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o644, 0o610])
def test_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", mode=mode)

    assert f"chmod 600 {path}" in refusal(path)


def test_link_is_judged_by_the_file_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written(tmp_path / "key", mode=0o644))

    assert "open to other users" in refusal(tmp_path / "link")


@pytest.mark.parametrize("content", ["", "\n", " \r\n", "\t\n\n"])
def test_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    assert "is empty" in refusal(written(tmp_path / "key", content))


def test_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = refusal(tmp_path / "key")

    assert f"{tmp_path}/key does not exist" in message
    assert "Create it" in message


def test_folder_is_no_secret(tmp_path: Path) -> None:
    assert "is not a file" in refusal(tmp_path)


def test_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    assert "is not a file" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_name_that_names_nothing_is_refused(name: str, tmp_path: Path) -> None:
    assert "names no secret" in refusal(Credential(name, tmp_path))


@pytest.mark.parametrize("content", [b"s3cret\xff", b"s3cret" * 20_000])
def test_message_never_holds_the_content(tmp_path: Path, content: bytes) -> None:
    assert "s3cret" not in refusal(written(tmp_path / "key", content))


def test_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", denied)  # root may read everything

    assert "cannot be read by this user" in refusal(tmp_path / "key")


def test_replaced_file_is_read_at_the_next_call(tmp_path: Path) -> None:
    path = written(tmp_path / "key", "old")
    first = read_secret(path)

    os.replace(written(tmp_path / "key.new", "new"), path)

    assert (first, read_secret(path)) == ("old", "new")


def test_credential_shows_as_its_name(tmp_path: Path) -> None:
    assert str(Credential("engage_api_key", tmp_path)) == "engage_api_key"
