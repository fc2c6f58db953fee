"""Who is let in: the tokens file as it is written by the commands and read while running."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import tokens
from agent.tokens import TokenProblem, Tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def line(name: str, token: str) -> str:
    return f"{name}:{hashlib.sha256(token.encode()).hexdigest()}\n"


def test_new_token_lets_its_pos_in(path: Path) -> None:
    token = tokens.new(path, "till-1")

    assert Tokens(path).name_for(token) == "till-1"


def test_each_token_belongs_to_its_own_name(path: Path) -> None:
    made = {name: tokens.new(path, name) for name in ("till-1", "till-2", "till-3")}

    known = Tokens(path)

    assert {name: known.name_for(token) for name, token in made.items()} == {
        name: name for name in made
    }


@pytest.mark.parametrize("token", ["", "wrong", "till-1", "å", "\udce5", "\ud800", "x" * 100_000])
def test_unknown_token_lets_nobody_in(path: Path, token: str) -> None:
    tokens.new(path, "till-1")

    assert Tokens(path).name_for(token) is None


def test_hash_is_not_a_token(path: Path) -> None:
    token = tokens.new(path, "till-1")

    assert Tokens(path).name_for(hashlib.sha256(token.encode()).hexdigest()) is None


def test_missing_file_knows_no_tokens_and_is_no_problem(path: Path) -> None:
    known = Tokens(path)

    assert known.name_for("anything") is None
    assert known.problems == ()


def test_file_holds_the_hash_and_not_the_token(path: Path) -> None:
    token = tokens.new(path, "till-1")

    assert path.read_text() == line("till-1", token)


def test_new_file_is_for_its_owner_alone(path: Path) -> None:
    tokens.new(path, "till-1")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_mode_an_administrator_chose_is_kept_as_far_as_it_is_safe(path: Path) -> None:
    path.touch()
    path.chmod(0o664)

    tokens.new(path, "till-1")

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_token_made_while_running_is_known_at_once(path: Path) -> None:
    known = Tokens(path)
    before = known.names

    token = tokens.new(path, "till-1")

    assert before == ()
    assert known.name_for(token) == "till-1"


def test_token_revoked_while_running_is_refused_at_once(path: Path) -> None:
    kept, gone = tokens.new(path, "till-1"), tokens.new(path, "till-2")
    known = Tokens(path)
    assert known.name_for(gone) == "till-2"

    assert tokens.revoke(path, "till-2") is True

    assert known.name_for(gone) is None
    assert known.name_for(kept) == "till-1"


def test_file_deleted_while_running_lets_nobody_in(path: Path) -> None:
    token = tokens.new(path, "till-1")
    known = Tokens(path)
    assert known.name_for(token) == "till-1"

    path.unlink()

    assert known.name_for(token) is None


def test_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.new(path, "till-1")
    known = Tokens(path)
    known.name_for(token)

    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))

    assert known.name_for(token) == "till-1"


def test_unreadable_file_lets_nobody_in_and_is_told(path: Path) -> None:
    path.mkdir()

    known = Tokens(path)

    assert known.name_for("anything") is None
    assert "cannot be read" in str(known.problems[0])


def test_malformed_lines_are_told_by_number_and_the_rest_works(path: Path) -> None:
    good = line("till-1", "good")
    path.write_text(f"# made by hand\n\n{good}till-2:secret-token\n-x:{'0' * 64}\n:\n")

    known = Tokens(path)

    assert known.name_for("good") == "till-1"
    assert known.names == ("till-1",)
    assert [problem.place for problem in known.problems] == [
        f"{path}, line {number}" for number in (4, 5, 6)
    ]
    assert "secret-token" not in "".join(map(str, known.problems))


@pytest.mark.parametrize("written", ["  {}  ", "{}\r"])
def test_blanks_around_a_line_do_no_harm(path: Path, written: str) -> None:
    path.write_bytes((written.format(line("till-1", "good").strip()) + "\n").encode())

    assert Tokens(path).name_for("good") == "till-1"


def test_hash_may_be_written_in_upper_case(path: Path) -> None:
    path.write_text(line("1", "good").upper())

    assert Tokens(path).name_for("good") == "1"


def test_bytes_that_are_no_text_do_no_harm_and_are_kept(path: Path) -> None:
    path.write_bytes(b"# gr\xf6n\n" + line("till-1", "good").encode())

    tokens.new(path, "till-2")

    assert path.read_bytes().startswith(b"# gr\xf6n\n")
    assert Tokens(path).names == ("till-1", "till-2")


def test_comments_survive_making_and_revoking(path: Path) -> None:
    path.write_text("# the tills of store 42\n")

    tokens.new(path, "till-1")
    tokens.revoke(path, "till-1")

    assert path.read_text() == "# the tills of store 42\n"


def test_name_that_has_a_token_is_refused(path: Path) -> None:
    tokens.new(path, "till-1")
    before = path.read_bytes()

    with pytest.raises(TokenProblem, match="till-agent token revoke till-1"):
        tokens.new(path, "till-1")

    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a:b", "a b", "#a", "-a", "å", "a\nb", "x" * 65, "../x"])
def test_ill_formed_name_is_refused(path: Path, name: str) -> None:
    with pytest.raises(TokenProblem, match="Write for example"):
        tokens.new(path, name)

    assert not path.exists()


def test_revoking_what_is_not_there_says_so(path: Path) -> None:
    assert tokens.revoke(path, "till-1") is False
    assert not path.exists()


def test_names_are_listed_in_the_order_of_the_file(path: Path) -> None:
    for name in ("till-2", "till-1"):
        tokens.new(path, name)

    assert tokens.names(path) == ["till-2", "till-1"]
    assert tokens.names(path.with_name("missing")) == []


def test_commands_at_the_same_time_lose_no_token(path: Path) -> None:
    wanted = [f"till-{number}" for number in range(20)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda name: tokens.new(path, name), wanted))

    known = Tokens(path)
    assert [known.name_for(token) for token in made] == wanted


def test_failed_writing_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tokens.new(path, "till-1")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(TokenProblem, match="No space left"):
        tokens.new(path, "till-2")

    assert list(path.parent.iterdir()) == [path]
    assert Tokens(path).name_for(token) == "till-1"


def test_missing_folder_is_told(path: Path) -> None:
    with pytest.raises(TokenProblem, match="cannot be written"):
        tokens.new(path.parent / "missing" / "tokens", "till-1")


def test_a_new_file_can_be_read_by_its_folders_group(tmp_path: Path) -> None:
    folder = tmp_path / "till-agent"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, -1, 12345)  # as an administrator gives /etc/till-agent to the service

    tokens.new(folder / "tokens", "pos-1")

    facts = (folder / "tokens").stat()
    assert facts.st_gid == folder.stat().st_gid
    assert facts.st_mode & 0o777 == (0o640 if os.geteuid() == 0 else 0o600)
