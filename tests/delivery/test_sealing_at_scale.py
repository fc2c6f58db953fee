"""Twenty thousand contacts in one go: memory as for a small batch, and the file as it should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sealing import SealingTill

ROOT = Path(__file__).parents[2]
FEW, MANY = 200, 20_000
# What the process has at most while it seals and writes; nothing of a large batch may stay.
RATIO = 1.2

FILL = """
import asyncio, sys
from functools import partial
from pathlib import Path
from sealing import SealingTill
from agent.change import Kind
from agent.journal import changes

async def main(folder, count):
    async with SealingTill(Path(folder), {"max_contacts": 20_000}) as till:
        def record(db, numbers):
            for number in numbers:
                attributes = {"email": f"person{number}@example.test", "city": "Lund"}
                changes.record(
                    db, till.book.request(Kind.CREATE, attributes, contact_type="Member")
                )
        for start in range(0, count, 1000):
            await till.book.journal.write(
                partial(record, numbers=range(start, min(start + 1000, count)))
            )

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
SEAL = """
import asyncio, json, resource, sys
from pathlib import Path
from sealing import SealingTill

async def main(folder):
    async with SealingTill(Path(folder)) as till:
        await till.sealer.seal_now()
        (batch,) = await till.batches()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([batch.contacts, batch.state, peak_kib]))

asyncio.run(main(sys.argv[1]))
"""


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1] if done.stdout else ""


@pytest.mark.system  # twenty thousand of them take a while
def test_twenty_thousand_contacts_need_the_memory_of_a_small_batch(tmp_path: Path) -> None:
    peaks = {}
    for count in (FEW, MANY):
        folder = tmp_path / f"till{count}"
        run(FILL, folder, count)

        contacts, state, peaks[count] = json.loads(run(SEAL, folder))

        assert (contacts, state) == (count, "written")
        (path,) = SealingTill(folder).spool.directory.iterdir()
        assert path.read_bytes().count(b"<email>") == count
    assert peaks[MANY] <= peaks[FEW] * RATIO
