"""`till-agent setup`, as a roll-out runs it and as a person answers it."""

from __future__ import annotations

import asyncio
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent import config, tokens
from agent.commands import main
from agent.sandbox import Sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "till"
    made.mkdir()
    (made / "agent.toml").write_text(config.example(), "utf-8")
    (tmp_path / "key").write_text("an-api-key\n")
    (tmp_path / "password").write_text("a-password\n")
    return made


def options(folder: Path, **over: str | None) -> list[str]:
    """Give what a roll-out gives; None leaves an option out."""
    given: dict[str, str | None] = {
        "config": str(folder / "agent.toml"),
        "store": "0815",
        "till": "3",
        "engage-url": "http://127.0.0.1:1",
        "api-key-file": str(folder.parent / "key"),
        "sftp-host": "127.0.0.1",
        "sftp-port": "1",  # nobody listens there
        "sftp-user": "chain",
        "sftp-password-file": str(folder.parent / "password"),
        **over,
    }
    named = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return ["setup", "--no-start", "--no-questions", *named, *_here(folder)]


def _here(folder: Path) -> list[str]:
    return [
        f"--set=server.tokens_file='{folder}/tokens'",
        f"--set=journal.path='{folder}/journal.db'",
        "--set=journal.min_free_mb=1",
        f"--set=fallback.spool='{folder}/spool'",
    ]


def written(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "agent.toml").read_text("utf-8"))


def test_a_roll_out_writes_settings_secrets_and_a_token(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(folder)) == 0

    settings = config.load(folder / "agent.toml")
    assert (settings.store.id, settings.store.till) == ("0815", "3")
    assert config.check_files(settings) == ()
    for name, text in (("engage_api_key", "an-api-key\n"), ("sftp_password", "a-password\n")):
        assert (folder / name).read_text() == text
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    token = capsys.readouterr().out.split("not shown again:")[1].split()[0]
    assert tokens.Tokens(folder / "tokens").name_for(token) == "pos"


def test_what_is_not_well_is_said_at_the_end_with_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(folder)) == 0

    rows = capsys.readouterr().out.split("WHAT IT MEANS")[1]
    assert "failed   tcp" in rows
    assert "sftp line" in rows
    assert "→" in rows
    assert "\nok " not in rows


def test_secrets_are_never_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(options(folder))

    told = capsys.readouterr()
    assert "an-api-key" not in told.out + told.err
    assert "a-password" not in told.out + told.err


def test_settings_keep_their_explanations(folder: Path) -> None:
    main(options(folder))

    text = (folder / "agent.toml").read_text("utf-8")
    assert '\nid = "0815"\n' in text
    assert "# Which till in the store this is" in text
    assert "\n#port = 8717\n" in text


def test_a_second_setup_keeps_what_it_is_not_told(folder: Path) -> None:
    main([*options(folder), '--set=engage.phone_region="SE"'])

    assert (
        main(["setup", "--no-start", "--no-questions", f"--config={folder}/agent.toml", "--till=4"])
        == 0
    )

    now = written(folder)
    assert now["store"] == {"id": "0815", "till": "4"}
    assert now["engage"]["phone_region"] == "SE"
    before = tomllib.loads((folder / "agent.toml.before-setup").read_text("utf-8"))
    assert before["store"]["till"] == "3"
    assert (folder / "engage_api_key").read_text() == "an-api-key\n"


def test_what_is_missing_is_said_together_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "agent.toml").read_text("utf-8")

    assert main(options(folder, store=None, **{"sftp-user": None})) == 1

    assert "--store, --sftp-user" in capsys.readouterr().err
    assert (folder / "agent.toml").read_text("utf-8") == before
    assert [each.name for each in folder.iterdir()] == ["agent.toml"]


@pytest.mark.parametrize(
    ("over", "code", "words"),
    [
        ({"engage-url": "http://chain.engage.example"}, 2, "base_url"),
        ({"store": "no blanks here"}, 2, "[store]"),
        ({"set": "engage.nothing=1"}, 1, "engage.nothing"),
        ({"set": "engage.timeout_s=soon"}, 1, "engage.timeout_s"),
        ({"api-key-file": "/nowhere/key"}, 1, "/nowhere/key"),
        ({"api-key-file": None}, 1, "key to Engage's API"),
    ],
)
def test_wrong_answers_change_nothing(
    folder: Path,
    over: dict[str, str | None],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (folder / "agent.toml").read_text("utf-8")

    assert main(options(folder, **over)) == code

    assert words in capsys.readouterr().err
    assert (folder / "agent.toml").read_text("utf-8") == before
    assert [each.name for each in folder.iterdir()] == ["agent.toml"]


def test_bulk_needs_no_sftp(folder: Path) -> None:
    leave_out = dict.fromkeys(("sftp-host", "sftp-user", "sftp-port", "sftp-password-file"))

    assert main([*options(folder, **leave_out), "--bulk"]) == 0

    assert written(folder)["fallback"]["transport"] == "bulk"
    assert "host" not in written(folder)["sftp"]


def test_a_person_is_asked_and_types_secrets_unseen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["0815", "", "https://chain.engage.example", "127.0.0.1", "chain", ""])
    hidden = iter(["typed-key", "typed-password"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    monkeypatch.setattr("getpass.getpass", lambda _: next(hidden))
    path = folder / "agent.toml"

    assert main(["setup", "--no-start", f"--config={path}", "--sftp-port=1", *_here(folder)]) == 0

    assert written(folder)["store"] == {"id": "0815", "till": "1"}
    assert written(folder)["sftp"]["directory"] == "/import"
    assert (folder / "engage_api_key").read_text() == "typed-key\n"
    assert (folder / "sftp_password").read_text() == "typed-password\n"
    assert "typed" not in capsys.readouterr().out


@pytest.mark.parametrize("right", [True, False])
async def test_the_server_s_key_is_pinned_by_its_fingerprint_alone(
    folder: Path, sandbox: Sandbox, right: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = sandbox.host_key_fingerprint if right else "SHA256:" + "A" * 43
    at = {"sftp-port": str(sandbox.sftp_port), "sftp-fingerprint": fingerprint}

    code = await asyncio.to_thread(main, options(folder, **at))

    assert code == (0 if right else 1)
    assert (folder / "known_hosts").exists() is right
    told = capsys.readouterr()
    assert ("Pinned" in told.out) is right
    assert ("another fingerprint" in told.err) is not right
