"""The house rules: what a reader may rely on everywhere, and what no reviewer should have to check.

Which module may import which is checked by import-linter, and docstrings by ruff (make check).
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent import config, errors
from agent.change import State
from agent.intake import server, words
from agent.journal import states

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agent"
DOCS = ROOT / "docs"


def text_of(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def modules(*, without: tuple[str, ...] = ()) -> list[Path]:
    """Give the package's source files, leaving some of its folders out."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in without
    ]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


# --- SQL ----------------------------------------------------------------------------------------

# Upper case, as the journal writes it: words in sentences are not meant.
SQL = re.compile(
    r"\bSELECT\s.+\sFROM\s|\bINSERT\s+(OR\s+\w+\s+)?INTO\s|\bUPDATE\s+\w+\s+SET\s"
    r"|\bDELETE\s+FROM\s|\bCREATE\s+(TABLE|INDEX|TRIGGER)\s|\bBEGIN\s+IMMEDIATE\b|\bPRAGMA\s+\w",
    re.DOTALL,
)


def test_sql_is_written_in_the_journal_only() -> None:
    strangers = [
        place(path, node)
        for path in modules(without=("journal", "sandbox"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]

    assert strangers == []


def test_sql_is_recognised() -> None:
    statements = [
        "SELECT seq FROM changes",
        "\nUPDATE changes SET state = 'sending'",
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        "DELETE FROM keys WHERE lane = ?",
    ]

    assert [text for text in statements if not SQL.search(text)] == []
    assert not SQL.search("Select a customer from the list, then update it and set the type.")


# --- generated files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "generate"),
    [("agent.toml.example", config.example), ("docs/config.md", config.reference)],
)
def test_generated_file_is_current(path: str, generate: object) -> None:
    assert callable(generate)
    assert text_of(path) == generate(), "Generate it anew; the file's head says how."


# --- codes --------------------------------------------------------------------------------------

# Heads of families in errors.py: what is raised is always one of their kinds.
FAMILIES = {"AgentError", "IntakeError", "ReadError", "JournalError", "RouteError"}
# Who takes a code, and at which place; keywords named `code` count everywhere.
CODE_ARGUMENT = {"Fault": 0, "Refusal": 0, "Unfit": 0, "problem": 0, "_problem": 0, "Attempt": 4}


def test_every_code_has_its_entry_in_the_errors_document() -> None:
    documented = set(re.findall(r"^\| `([A-Z]\w+)` ", text_of("docs/errors.md"), re.MULTILINE))
    used = set(words.CODES) | set(server.STATUS_OF) | codes_in_errors() | codes_in_the_tree()

    assert used - documented == set(), "These have no entry."
    assert documented - used == set(), "These are used nowhere."


def codes_in_errors() -> set[str]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {
        kind.code
        for kind in kinds
        if issubclass(kind, errors.AgentError) and kind.__name__ not in FAMILIES
    }


def codes_in_the_tree() -> set[str]:
    found = set()
    for path in modules(without=("sandbox", "demo")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and node.name not in FAMILIES:
                found.update(class_codes(node))
            elif isinstance(node, ast.Call):
                found.update(called_codes(node))
    return found


def class_codes(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.Assign) and [ast.unparse(name) for name in item.targets] == [
            "code"
        ]:
            yield from texts([item.value])


def called_codes(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func).rpartition(".")[2]
    if (position := CODE_ARGUMENT.get(name)) is not None:
        yield from texts(node.args[position : position + 1])
    yield from texts([word.value for word in node.keywords if word.arg == "code"])


def texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# --- states -------------------------------------------------------------------------------------


def table_rows(path: str, head: str) -> list[list[str]]:
    """Give the cells of the table whose head begins so, without the head."""
    lines = iter(text_of(path).splitlines())
    for line in lines:
        if line.startswith(head):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_states_document_has_the_moves_that_the_code_allows() -> None:
    documented = [tuple(row) for row in table_rows("docs/states.md", "| from | move |")]

    coded = [
        (str(source), move.name, str(move.target), move.mover)
        for move in states.MOVES
        for source in move.sources or ("(new)",)
    ]
    assert sorted(documented) == sorted(coded)


def test_states_document_explains_every_state() -> None:
    explained = {row[0]: row[2] for row in table_rows("docs/states.md", "| state | what is true |")}

    assert set(explained) == {str(state) for state in State}
    assert {name for name, end in explained.items() if end == "yes"} == {
        str(state) for state in State if states.is_final(state, verifies=True)
    }


# --- documents ----------------------------------------------------------------------------------


def test_flow_document_names_files_that_exist() -> None:
    named = set(re.findall(r"`([\w/-]+\.(?:py|sql|xsd|yaml))`", text_of("docs/flow.md")))

    assert named
    assert sorted(name for name in named if not (PACKAGE / name).is_file()) == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith("mailto:")
        if not (path.parent / link).exists()
    ]

    assert broken == []


def test_decisions_are_numbered_without_gaps_and_fit_on_a_page() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))

    assert [path.name[:5] for path in decisions] == [
        f"{number:04d}-" for number in range(1, len(decisions) + 1)
    ]
    for path in decisions:
        headings = re.findall(r"^#+ .+$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings[0].startswith(f"# {int(path.name[:4])}. "), path.name
        assert headings[1:] == ["## Context", "## Decision", "## Consequences"], path.name
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name


def test_decisions_that_the_code_names_exist() -> None:
    existing = {path.name[:4] for path in (DOCS / "decisions").glob("*.md")}

    for path in [*modules(), *DOCS.rglob("*.md")]:
        named = re.findall(r"decisions?[/ ](\d{4})", path.read_text(encoding="utf-8"))
        assert set(named) <= existing, path


CASES = 93
UNPROVED = ("proved", "built")  # what a case is not yet


def test_failure_cases_name_tests_that_exist() -> None:
    text = text_of("docs/failure-cases.md")
    rows = re.findall(r"^\| (\d+) \|.+\| (.+) \|$", text, re.MULTILINE)
    proofs = [proof for _, proof in rows]
    open_ends = [re.match(r"not (?:proved|built) yet: ", proof) for proof in proofs]
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", text))

    assert [int(number) for number, _ in rows] == list(range(1, CASES + 1))
    for proof, open_end in zip(proofs, open_ends, strict=True):
        assert open_end or re.fullmatch(r"`[\w/]+\.py::\w+`(, `[\w/]+\.py::\w+`)*", proof)
    assert sorted(f"{path}::{name}" for path, name in named if name not in proofs_in(path)) == []
    without = [sum(proof.startswith(f"not {what} yet") for proof in proofs) for what in UNPROVED]
    assert re.findall(r"(\d+) are proved, (\d+) not proved yet, (\d+) not built yet", text) == [
        tuple(str(count) for count in (CASES - sum(without), *without))
    ]
    assert f"Of {CASES} cases" in text


@functools.cache
def proofs_in(path: str) -> set[str]:
    """Give the names of the tests of a file below tests/; none where it does not exist."""
    place = ROOT / "tests" / path
    found = ast.walk(parsed(place)) if place.is_file() else ()
    return {
        node.name
        for node in found
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


# --- what is in git -----------------------------------------------------------------------------


def files_in_git() -> list[Path]:
    """Give what is in git or would be added; every file where this is no clone."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        return list(files_outside_git())
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def files_outside_git() -> Iterator[Path]:
    made = {".venv", ".cache", "__pycache__", ".hypothesis", "build", "dist"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not made.intersection(parts) and not parts[0].endswith("_cache"):
            yield path


@functools.cache
def lines_in_git() -> list[tuple[str, str]]:
    return list(lines_of(files_in_git()))


def lines_of(files: list[Path]) -> Iterator[tuple[str, str]]:
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


# Put together, so that this file does not find itself.
INDEX_HOST = re.compile(
    "|".join([r"py" + r"pi\.(?:org|python)", r"python" + r"hosted\.org", r"/sim" + "ple/"])
)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|workspace)/[\w.-]+")
OPEN_TASK = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))")
# Names in examples and tests that stand for any user's home.
MADE_UP_HOMES = ("/home/till", "/home/user", "/home/anna", "/root/secret")


def test_no_file_names_a_package_index() -> None:
    assert [where for where, line in lines_in_git() if INDEX_HOST.search(line)] == []


def test_no_file_names_a_path_of_a_developers_machine() -> None:
    named = [
        f"{where}: {found[0]}"
        for where, line in lines_in_git()
        if (found := MACHINE_PATH.search(line)) and not found[0].startswith(MADE_UP_HOMES)
    ]

    assert named == []


def test_open_tasks_have_an_issue_number() -> None:
    assert [where for where, line in lines_in_git() if OPEN_TASK.search(line)] == []


# --- packaging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    lock = text_of(name)
    requirements = re.split(
        r"^(?=\S)", re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE), flags=re.M
    )

    for requirement in filter(str.strip, requirements):
        assert re.match(
            r"[a-z0-9._-]+==[\w.]+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", requirement
        )
    assert "://" not in lock
    assert "--index" not in lock


def test_everything_that_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = project["optional-dependencies"].values()

    assert names_of(project["dependencies"]) <= locked("requirements.lock")
    assert {name for extra in extras for name in names_of(extra)} <= locked("requirements-dev.lock")
    assert locked("requirements.lock") <= locked("requirements-dev.lock")


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=~!\[;]", text)[0].lower().replace("_", "-") for text in requirements}


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", text_of(name), re.MULTILINE))


def test_every_file_of_the_package_that_is_no_code_is_packaged() -> None:
    globs = tomllib.loads(text_of("pyproject.toml"))["tool"]["setuptools"]["package-data"]["agent"]
    packaged = {path for glob in globs for path in PACKAGE.glob(glob)}

    others = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert sorted(others - packaged) == []


def test_version_stands_in_one_place() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))

    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "agent.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", agent.__version__)
    assert agent.__version__ not in text_of("pyproject.toml")


def test_licence_is_apache_2() -> None:
    licence = text_of("LICENSE")

    assert tomllib.loads(text_of("pyproject.toml"))["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = text_of("Makefile")
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony
    inner = {"check-style", "check-types", "check-imports", "system-tools"}

    explained = set(re.findall(r"^([a-z-]+):.* ## ", makefile, re.MULTILINE))

    assert set(phony[1].replace("\\", "").split()) - inner == explained


# --- the service --------------------------------------------------------------------------------

UNIT = ROOT / "systemd" / "till-agent.service"


@pytest.fixture
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    return program


@pytest.mark.system
def test_service_is_confined(systemd_analyze: str) -> None:
    # The threshold counts in tenths: 15 is an exposure of 1.5, which systemd calls "OK".
    security = [systemd_analyze, "security", "--offline=true", "--threshold=15", "--no-pager"]

    done = subprocess.run([*security, str(UNIT)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
def test_service_is_understood_by_systemd(systemd_analyze: str, tmp_path: Path) -> None:
    unit = UNIT.read_text(encoding="utf-8")
    copy = tmp_path / UNIT.name
    # systemd also looks whether the program is there.
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit))

    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_service_takes_nothing_from_the_command_line_but_its_settings() -> None:
    unit = UNIT.read_text(encoding="utf-8")

    assert "\nExecStart=/usr/bin/till-agent run --config /etc/till-agent/agent.toml\n" in unit
    assert "\nType=notify\n" in unit
    assert "\nRestart=always\n" in unit
    assert "\nStartLimitIntervalSec=0\n" in unit
