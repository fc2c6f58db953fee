"""Power cuts that drop what was not synced, at the system calls of a real process (simulated).

Each story is recorded once and cut at many moments; `make soak ARGS="--cuts 10000"` plays more.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from power_cuts import Lost, Recording, cut_everywhere, judge_of, recorded
from system_calls import Synced, need_tracing

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def tracing() -> None:
    need_tracing()


async def judged(recording: Recording, about: int) -> None:
    """Cut about so often, at moments and in ways that chance picks; raises Lost."""
    cuts = await cut_everywhere(recording, judge_of(recording), seed=1, about=about)

    print(f"{recording.name}: {cuts} simulated power cuts")
    assert cuts > about / 3


async def test_what_was_answered_survives_a_cut_at_any_system_call(tmp_path: Path) -> None:
    recording = recorded("shop", tmp_path / "till", seed=1)

    await judged(recording, about=800)


async def test_agent_goes_on_after_a_cut_and_each_customer_is_in_engage_once(
    tmp_path: Path,
) -> None:
    recording = recorded("agent", tmp_path / "till", seed=1)

    await judged(recording, about=25)


async def test_what_was_answered_survives_in_an_encrypted_journal(tmp_path: Path) -> None:
    if importlib.util.find_spec("sqlcipher3") is None:
        pytest.skip("sqlcipher3 is not installed")
    recording = recorded("encrypted", tmp_path / "till", seed=2)

    await judged(recording, about=200)


async def test_what_was_answered_survives_a_cut_after_syncs_that_failed(tmp_path: Path) -> None:
    recording = recorded("failing", tmp_path / "till", seed=1)

    assert any(isinstance(each, Synced) and not each.is_good for each in recording.events)
    await judged(recording, about=450)


async def test_batch_files_are_whole_or_made_again_after_a_cut_at_any_system_call(
    tmp_path: Path,
) -> None:
    recording = recorded("files", tmp_path / "till", seed=1)

    assert len(recording.batches()) == 3
    await judged(recording, about=350)


async def test_upgrade_is_begun_anew_and_its_copy_whole_after_a_cut_at_any_system_call(
    tmp_path: Path,
) -> None:
    recording = recorded("upgrade", tmp_path / "till", seed=4)

    await judged(recording, about=150)


async def test_journal_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    recording = recorded("careless", tmp_path / "till", seed=1)

    with pytest.raises(Lost):
        await judged(recording, about=800)
