"""Each wrong agent.toml in tests/bad_configs has its exact report beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import config
from agent.errors import ConfigError

FOLDER = Path(__file__).parent / "bad_configs"
CASES = sorted(path for path in FOLDER.glob("*.toml") if path.stem != "00-valid")
SECRETS = ("hunter2", "0b9f3e6a", "c2VjcmV0", "PRIVATE KEY")


def report_on(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value).replace(f"{path.parent}/", "") + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_report_says_exactly_what_is_wrong(case: Path) -> None:
    expected = case.with_suffix(".txt").read_text(encoding="utf-8")

    assert report_on(case) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_report_never_repeats_a_secret(case: Path) -> None:
    report = report_on(case)

    assert [secret for secret in SECRETS if secret in report] == []


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_every_problem_comes_with_what_to_write_instead(case: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(case)

    assert [str(problem) for problem in caught.value.problems if not problem.suggestion] == []


def test_config_on_which_the_cases_are_built_is_right() -> None:
    loaded = config.load(FOLDER / "00-valid.toml")

    assert loaded.store.id == "0042"


def test_cases_are_numbered_without_gaps_and_each_has_its_report() -> None:
    numbers = [int(re.match(r"\d+", path.name)[0]) for path in CASES]

    assert numbers == list(range(1, len(CASES) + 1))
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in CASES}
