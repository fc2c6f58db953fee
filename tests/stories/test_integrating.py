"""docs/integrating.md: its examples do what they say, as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from description import described
from running_agent import Shop, open_shop

from agent.commands import main

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "integrating.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GUID = "2e40b702-2767-4abe-ae99-aa510108e22b"
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Example:
    """A block of code, and what the document says that it prints."""

    language: str
    code: str
    prints: str

    def why_not(self, printed: str) -> str:
        """Say how what was printed differs; `…` stands for anything, a UUID for any UUID."""
        parts = re.split(_UUID, self.prints.strip())
        pattern = _UUID.join(re.escape(part).replace("…", ".*") for part in parts)
        fits = re.fullmatch(pattern, printed.strip().replace("\r\n", "\n"))
        return "" if fits else f"{self.code}\nprinted\n{printed}\nand not\n{self.prints}"


def examples(language: str) -> list[Example]:
    """Give the document's examples of a language, in order."""
    blocks = [*_BLOCK.findall(DOCUMENT), ("", "")]
    return [
        Example(kind, code, blocks[place + 1][1] if blocks[place + 1][0] == "text" else "")
        for place, (kind, code) in enumerate(blocks[:-1])
        if kind == language
    ]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path / "shop") as opened:
        yield opened


async def run(shop: Shop, folder: Path, *command: str, given: str = "") -> str:
    """Run a command with nothing but the document's variables; gives what it printed."""
    folder.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "AGENT": shop.agent.url,
            "TOKEN": shop.till.token,
            "SANDBOX": shop.sandbox.control_url,
        },
    )
    try:
        printed, complained = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed.decode() + complained.decode()
    return printed.decode()


async def test_python_example_does_what_it_says(shop: Shop, tmp_path: Path) -> None:
    (example,) = examples("python")

    printed = await run(shop, tmp_path / "work", sys.executable, "-", given=example.code)

    assert example.why_not(printed) == ""
    (contact,) = shop.sandbox.contacts()
    assert (contact["attributes"]["firstName"], contact["attributes"]["city"]) == ("Åsa", "Åhus")


async def test_python_example_goes_on_while_the_line_is_down(shop: Shop, tmp_path: Path) -> None:
    (example,) = examples("python")
    await shop.go_offline()

    printed = await run(shop, tmp_path / "work", sys.executable, "-", given=example.code)

    assert printed.splitlines() == ["signed up 202", "changed 202", "True"]


async def test_shell_examples_do_what_they_say_one_after_another(
    shop: Shop, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    mark = "--- next example ---"
    script = f"\necho '{mark}'\n".join(each.code for each in examples("sh"))

    printed = await run(shop, tmp_path / "work", "bash", "-euo", "pipefail", given=script)

    parts = printed.split(mark)
    assert len(parts) == len(examples("sh")) > 10
    wrong = [each.why_not(part) for each, part in zip(examples("sh"), parts, strict=True)]
    assert [text for text in wrong if text] == []
    assert len(shop.sandbox.contacts()) == 2


async def test_commands_of_the_checklist_are_understood(shop: Shop) -> None:
    commands = list(dict.fromkeys(re.findall(r"`till-agent (sandbox [^`]+)`", DOCUMENT)))
    control = ["--control", shop.sandbox.control_url]

    codes = [await asyncio.to_thread(main, [*each.split(), *control]) for each in commands]

    assert dict(zip(commands, codes, strict=True)) == dict.fromkeys(commands, 0)
    assert len(commands) > 8


@pytest.mark.parametrize("language", ["sh", "python", "csharp", "pascal"])
def test_addresses_in_the_examples_are_described(language: str) -> None:
    code = "".join(each.code for each in examples(language))
    named = re.findall(r"/api/v3/[\w/${}-]*[\w}]", code)

    paths = [re.sub(r"\$\w+|\{\w+\}", GUID, path) for path in named]

    assert paths
    assert [path for path in paths if not is_described(path)] == []


def is_described(path: str) -> bool:
    return any(each.pattern.match(path) for each in described().operations)
