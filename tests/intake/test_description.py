"""The description (openapi.yaml) says what the agent does, all of it and nothing else."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from description import described
from running_agent import Shop, open_shop

import agent
from agent import config
from agent.assembly import Agent
from agent.intake import guard, server

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "schemathesis.toml"
FILE = ROOT / "agent" / "intake" / "openapi.yaml"


def document() -> dict[str, Any]:
    return dict(described().document)


# --- the file -------------------------------------------------------------------------------------


def schema_of(given: Mapping[str, Any]) -> Any:
    """Give schemathesis' view of a description, with this project's settings."""
    import schemathesis  # not above: it takes a second, and most tests do without
    from schemathesis.config import SchemathesisConfig

    return schemathesis.openapi.from_dict(
        dict(given), config=SchemathesisConfig.from_path(SETTINGS)
    )


def test_file_is_valid_openapi() -> None:
    schema_of(document()).validate()


@pytest.mark.system
def test_file_that_is_no_openapi_is_noticed() -> None:
    wrong = {**document(), "paths": {"/healthz": {"get": {"responses": "none"}}}}

    with pytest.raises(Exception, match="not of type"):
        schema_of(wrong).validate()


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    used = {text.removeprefix("#/components/") for text in references(document())}
    there = {f"{kind}/{name}" for kind, parts in document()["components"].items() for name in parts}

    assert used - there == set()
    # What any address may answer stands at none of them.
    assert there - used - {"securitySchemes/apikey", "securitySchemes/bearer"} == {
        "responses/MethodNotAllowed",
        "responses/HeadTooLarge",
    }


def references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_version_is_the_agents() -> None:
    assert document()["info"]["version"] == agent.__version__


# --- the calls ------------------------------------------------------------------------------------


def test_every_call_is_described_and_no_other_is() -> None:
    application = Agent(config.load(ROOT / "tests/bad_configs/00-valid.toml")).server.app
    served = {
        (route.method, route.resource.canonical)
        for route in application.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    described_calls = {(each.method, each.path) for each in described().operations}
    assert served - described_calls == set(), "These are not in openapi.yaml."
    assert described_calls - served == set(), "These are served nowhere."


def test_every_call_has_examples() -> None:
    without = [
        f"{each.method} {each.path}: {what}"
        for each in described().operations
        for what, content in contents(each.spec)
        for kind, media in content.items()
        if kind.endswith("json") and not media.get("examples")
    ]

    assert without == []


def contents(operation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the content of a call's request and of each of its answers."""
    yield "request", operation.get("requestBody", {}).get("content", {})
    for status, answer in operation["responses"].items():
        yield status, described().resolved(answer).get("content", {})


def test_every_example_fits_its_schema() -> None:
    wrong = [
        f"{each.method} {each.path} {what} {name}: {error.message}"
        for each in described().operations
        for what, content in contents(each.spec)
        for media in content.values()
        for name, example in media.get("examples", {}).items()
        for error in described()
        .validator(media["schema"])
        .iter_errors(described().resolved(example)["value"])
    ]

    assert wrong == []


def test_example_that_does_not_fit_is_noticed() -> None:
    errors = (
        described().validator({"$ref": "#/components/schemas/Contact"}).iter_errors({"id": "7"})
    )

    assert [error.message for error in errors] == ['"7" is not a "uuid"']


def test_every_code_of_the_agent_has_an_example_with_its_status() -> None:
    shown = {
        example["value"]["errorCode"]: example["value"]["status"]
        for example in document()["components"]["examples"].values()
        if "errorCode" in example["value"]
    }

    assert {code: shown.get(code) for code in server.STATUS_OF} == server.STATUS_OF


def test_every_example_of_an_error_stands_at_an_answer_of_its_status() -> None:
    wrong = [
        f"{status} {name}"
        for each in described().operations
        for status, content in contents(each.spec)
        for media in content.values()
        for name, example in media.get("examples", {}).items()
        if (told := status_told_by(described().resolved(example)["value"]))
        if status not in (str(told), f"{told // 100}XX")
    ]

    assert wrong == []


def status_told_by(example: Any) -> int | None:
    """Give the status that the example of an error names."""
    is_problem = isinstance(example, Mapping) and "errorCode" in example
    return int(example["status"]) if is_problem else None


# --- who holds answers against it -----------------------------------------------------------------


PROBLEM: dict[str, Any] = {
    "type": "urn:till-agent:error:NoData",
    "title": "Bad request",
    "status": 400,
    "detail": "d",
    "instance": "/api/v3/contacts",
    "errorCode": "NoData",
    "message": "d",
    "requestId": "01a2007c-1cf5-7747-89ea-9478725cbbb6",
}
HEADERS = {
    "Content-Type": "application/problem+json; charset=utf-8",
    "Request-Id": PROBLEM["requestId"],
}


@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (400, HEADERS, PROBLEM, ""),
        (402, HEADERS, PROBLEM, "does not know this status"),
        (400, HEADERS, {**PROBLEM, "errorCode": 7}, "7 is not of type"),
        (400, HEADERS, {**PROBLEM, "instance": "a b"}, "uri-reference"),
        (400, HEADERS, None, "null is not of type"),
        (400, {**HEADERS, "Content-Type": "text/plain"}, "x", "content type is 'text/plain'"),
        (400, {"Content-Type": HEADERS["Content-Type"]}, PROBLEM, "Request-Id is missing"),
        (400, {**HEADERS, "Request-Id": "a b"}, PROBLEM, "Request-Id is 'a b'"),
    ],
)
def test_answer_that_is_not_allowed_is_noticed(
    status: int, headers: dict[str, str], body: Any, why: str
) -> None:
    found = described().why_not("POST", "/api/v3/contacts?source=x", status, headers, body)

    assert why in found if why else found == ""


def test_fixed_address_goes_before_one_with_a_parameter() -> None:
    found = described().operation("GET", "/api/v3/contacts/id")

    assert found is not None
    assert found.path == "/api/v3/contacts/id"


# --- served ---------------------------------------------------------------------------------------


async def test_description_is_served_to_anybody(shop: Shop) -> None:
    async with shop.pos.session.get(f"{shop.agent.url}/openapi.yaml") as answer:
        body = await answer.read()

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/yaml")
    assert body == FILE.read_bytes()


async def test_description_that_has_not_changed_is_304(shop: Shop) -> None:
    address = f"{shop.agent.url}/openapi.yaml"
    async with shop.pos.session.get(address) as answer:
        etag = answer.headers["ETag"]

    async with shop.pos.session.get(address, headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


# --- schemathesis ---------------------------------------------------------------------------------


def schemathesis_run(shop: Shop, *options: str) -> subprocess.CompletedProcess[str]:
    """Let the program itself have a go, all phases, all checks."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS)),
            *("run", f"{shop.agent.url}/openapi.yaml", "--header", f"apikey: {shop.till.token}"),
            *("--no-color", "--generation-deterministic", *options),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=shop.till.folder,
    )


@pytest.fixture
def many_wrong_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let wrong tokens be answered with 401, however many come."""
    monkeypatch.setattr(guard.WrongTokens, "BURST", 1_000_000)


@pytest.mark.system
@pytest.mark.usefixtures("many_wrong_tokens")
async def test_schemathesis_finds_nothing_with_the_line_up(shop: Shop) -> None:
    done = await asyncio.to_thread(schemathesis_run, shop, "--max-examples", "15")

    assert done.returncode == 0, done.stdout
    assert re.search(r"\d{4} generated, \d{4} passed", done.stdout), done.stdout


@pytest.mark.system
@pytest.mark.usefixtures("many_wrong_tokens")
async def test_schemathesis_finds_nothing_with_the_line_down(shop: Shop) -> None:
    await shop.go_offline()

    # 503 is the right answer to a question that only Engage could answer.
    done = await asyncio.to_thread(
        schemathesis_run,
        shop,
        *("--max-examples", "10", "--phases", "examples,fuzzing", "--include-tag", "contacts"),
        *("--exclude-checks", "not_a_server_error"),
    )

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.system
@pytest.mark.usefixtures("many_wrong_tokens")
async def test_schemathesis_finds_nothing_where_nothing_can_be_stored(tmp_path: Path) -> None:
    async with open_shop(tmp_path, {"journal": {"min_free_mb": 100_000_000}}) as shop:
        done = await asyncio.to_thread(
            schemathesis_run,
            shop,
            *("--max-examples", "5", "--phases", "examples,fuzzing"),
            *("--exclude-checks", "not_a_server_error"),
        )

    assert done.returncode == 0, done.stdout
