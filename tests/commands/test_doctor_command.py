"""`till-agent doctor`: with an agent, without one, and without usable settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import till_agent
from world import World, lay_till

from agent.commands.doctor import lines
from agent.doctor.doctor import NAMES
from agent.doctor.rows import Daemons
from agent.sandbox import Sandbox

Asked = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


async def test_running_agent_is_asked(ask: Asked) -> None:
    _, said = await ask()

    examined = await said("doctor", "--json")

    found = {row["check"]: row for row in examined.json["rows"]}
    assert examined.code == 0
    assert list(found) == list(NAMES)
    assert found["agent"]["result"] == "ok"
    # The agent got its port from the kernel, and the file names it since.
    assert "was changed" in found["settings"]["meaning"]


async def test_without_an_agent_the_command_looks_itself(sandbox: Sandbox, tmp_path: Path) -> None:
    till = lay_till(sandbox, tmp_path / "till")

    examined = await till_agent("doctor", "--json", "--config", str(till.config_path))

    found = {row["check"]: row["result"] for row in examined.json["rows"]}
    assert examined.code == 0
    assert found["agent"] == "warning"
    assert found["api key"] == found["sftp folder"] == found["journal"] == "ok"


async def test_row_that_failed_ends_it_with_1_and_warnings_do_not(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    till = lay_till(sandbox, tmp_path / "till")
    sandbox.set_fault("unauthorised")

    examined = await till_agent("doctor", "--config", str(till.config_path))

    assert examined.code == 1
    assert "failed   api key" in examined.out


async def test_settings_that_cannot_be_read_are_a_row_and_no_other_is_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[store]\nid = 42\n")

    examined = await till_agent("doctor", "--json", "--config", str(path))

    rows = examined.json["rows"]
    assert examined.code == 1
    assert [row["check"] for row in rows] == list(NAMES)
    assert rows[0]["result"] == "failed"
    assert "[engage] base_url: This is missing." in rows[0]["meaning"]


async def test_agent_that_holds_the_journal_and_does_not_answer_is_found(
    start: Callable[..., Awaitable[World]],
) -> None:
    world = await start()

    # The settings name port 0, so the command finds nobody there.
    examined = await till_agent("doctor", "--json", "--config", str(world.till.config_path))

    found = {row["check"]: row for row in examined.json["rows"]}
    assert examined.code == 1
    assert found["agent"]["result"] == "failed"
    assert found["journal"]["result"] == "warning"


# --- how it looks -------------------------------------------------------------------------------

ROWS = [
    {"check": "disk space", "result": "ok", "meaning": "10 MiB are free.", "whatToDo": ""},
    {
        "check": "sftp host key",
        "result": "failed",
        "meaning": "It shows another host key " + "x" * 100 + " and more words behind it.",
        "whatToDo": "Ask Voyado.",
    },
]


def test_table_fits_into_80_columns_and_says_what_to_do() -> None:
    printed = lines(ROWS, 80)

    assert max(map(len, printed)) <= 80
    assert printed[1] == "ok       disk space     10 MiB are free."
    assert any(line.strip() == "→ Ask Voyado." for line in printed)
    assert printed[-1] == "1 ok, 0 warning, 1 failed"


async def test_colours_are_for_terminals_only_and_never_the_only_sign(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = lay_till(sandbox, tmp_path / "till")
    arguments = ("doctor", "--config", str(till.config_path))

    piped = await till_agent(*arguments)
    shown = await till_agent(*arguments, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = await till_agent(*arguments, terminal=True)

    assert "\033" not in piped.out + plain.out
    assert "\033[32mok     \033[0m" in shown.out


def test_process_does_not_wait_for_a_resolver_that_hangs() -> None:
    async def hang() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Daemons())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await loop.run_in_executor(None, time.sleep, 600)

    asyncio.run(hang())  # waits for its executor at the end
