"""`till-agent support`: a bundle of a till, whatever state it is in."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import till_agent
from world import World, lay_till

from agent.sandbox import Sandbox

Asked = Callable[..., Awaitable[Any]]

WHOLE = {
    *("README.txt", "versions.json", "settings.json", "doctor.json", "status.json"),
    *("changes.json", "batches.json", "metrics.txt", "events.jsonl", "log.jsonl"),
}


def read(content: bytes | Path) -> dict[str, str]:
    """Give the texts of a bundle by their names."""
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


async def test_bundle_of_a_running_agent_is_whole_and_private(ask: Asked, tmp_path: Path) -> None:
    world, said = await ask()
    change_id = await world.pos.create()
    await world.pos.until(change_id, "delivered")
    path = tmp_path / "bundle.zip"

    made = await said("support", str(path))

    bundle = read(path)
    assert made.code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(bundle) == WHOLE
    assert json.loads(bundle["changes.json"])[0]["id"] == change_id
    assert json.loads(bundle["status.json"])["store"] == "0042"
    assert json.loads(bundle["doctor.json"])["rows"][0]["check"] == "settings"
    assert json.loads(bundle["settings.json"])["sftp"]["username"] == "[hidden]"
    assert "aiohttp" in json.loads(bundle["versions.json"])
    assert 'till_agent_changes_taken_total{kind="create"} 1.0' in bundle["metrics.txt"]
    assert all(name in bundle["README.txt"] for name in WHOLE - {"README.txt"})


@pytest.mark.parametrize("name", ["support", "support-bundle"])
async def test_bundle_is_served_under_both_names_and_needs_a_token(
    start: Callable[..., Awaitable[World]], name: str
) -> None:
    world = await start()
    url = f"{world.pos.url}/agent/v1/{name}"

    async with world.session.get(url) as refused:
        assert refused.status == 401
    async with world.session.get(url, headers={"apikey": world.till.token}) as answer:
        assert answer.content_type == "application/zip"
        assert 'filename="till-agent-support-0042-1-' in answer.headers["Content-Disposition"]
        assert set(read(await answer.read())) == WHOLE


async def test_bundle_without_an_agent_is_smaller_and_says_so(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = lay_till(sandbox, tmp_path / "till")
    monkeypatch.chdir(tmp_path)

    made = await till_agent("support", "--json", "--config", str(till.config_path))

    path = Path(made.json["file"])
    bundle = read(path)
    assert made.code == 0
    assert path.name.startswith("till-agent-support-0042-1-")
    assert set(bundle) == {"README.txt", "versions.json", "settings.json", "doctor.json"}
    assert "The agent did not run" in bundle["README.txt"]
    assert "no agent answers" in made.err


async def test_bundle_without_usable_settings_holds_their_problems_and_never_the_file(
    tmp_path: Path,
) -> None:
    settings, path = tmp_path / "agent.toml", tmp_path / "bundle.zip"
    settings.write_text('[sftp]\npassword = "correct-horse-battery"\n')

    made = await till_agent("support", str(path), "--config", str(settings))

    bundle = read(path)
    assert made.code == 0
    assert "[store] id" in bundle["settings.json"]
    assert "correct-horse" not in "".join(bundle.values())


async def test_place_that_cannot_be_written_is_an_error_in_words(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    till = lay_till(sandbox, tmp_path / "till")
    path = tmp_path / "nowhere" / "bundle.zip"

    made = await till_agent("support", str(path), "--config", str(till.config_path))

    assert made.code == 1
    assert f"{path} cannot be written" in made.err


async def test_bundle_is_made_while_the_journal_is_broken(
    start: Callable[..., Awaitable[World]],
) -> None:
    world = await start()
    assert world.agent is not None
    await world.agent.journal.database._disconnect()

    async with world.session.get(
        f"{world.pos.url}/agent/v1/support", headers={"apikey": world.till.token}
    ) as answer:
        bundle = read(await answer.read())

    assert set(bundle) == WHOLE
