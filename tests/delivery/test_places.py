"""Where a batch is, as people are told: it depends on the way that it went, not on the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sealing import SealingTill

from agent.delivery.batch.places import Places
from agent.journal import batches
from agent.journal.batches import Batch

NOW = "2026-11-21T11:00:00.000Z"


@pytest.fixture(params=["sftp", "bulk"])
async def till(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SealingTill]:
    settings = {"transport": request.param, "max_contacts": 4000}
    async with SealingTill(tmp_path / "till", settings) as opened:
        yield opened


async def sealed(till: SealingTill) -> Batch:
    await till.book.create()
    await till.seal_only()
    (batch,) = await till.batches()
    return batch


async def place(till: SealingTill) -> str:
    (batch,) = await till.batches()
    return Places(till.config, till.spool).place_of(batch)


async def test_what_has_no_file_yet_is_in_the_journal(till: SealingTill) -> None:
    await sealed(till)

    assert await place(till) == "journal"


async def test_a_path_is_named_only_where_a_file_stands(till: SealingTill) -> None:
    batch = await sealed(till)
    await till.sealer.write_file(batch)
    await till.book.journal.write(partial(batches.note_written, number=batch.number))
    path = till.spool.path(batch.name)

    with_file = await place(till)
    path.unlink()

    assert (with_file, await place(till)) == (str(path), "journal")


async def test_what_was_uploaded_lies_on_the_server_whatever_the_transport_is_now(
    till: SealingTill,
) -> None:
    batch = await sealed(till)
    await till.book.journal.write(partial(batches.note_written, number=batch.number))
    await till.upload()

    assert await place(till) == f"sftp://127.0.0.1:1/{batch.name}"


async def test_what_went_by_bulk_calls_is_in_engages_queue_whatever_the_transport_is_now(
    till: SealingTill,
) -> None:
    batch = await sealed(till)
    await till.book.journal.write(partial(batches.note_written, number=batch.number))
    await till.book.journal.write(partial(batches.note_calls, name=batch.name, calls="[]"))
    begun = await place(till)
    await till.book.journal.write(
        partial(batches.note_uploaded, name=batch.name, now=NOW, receipt="")
    )

    assert (begun, await place(till)) == ("journal and Engage's queue", "Engage's queue")
