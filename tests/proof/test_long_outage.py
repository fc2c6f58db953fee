"""Ninety days without a line, small: `make soak` plays it with 100,000 changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from long_outage import play_outage, show

CHANGES = 2000
MOST = 200


@pytest.mark.system  # ninety days of virtual time
def test_after_ninety_days_offline_everything_arrives_once_and_in_order(tmp_path: Path) -> None:
    figures = play_outage(tmp_path, CHANGES, days=90, max_contacts=MOST, processes=False)

    show(figures)
    assert figures.settled.keys() <= {"delivered", "confirmed"}
    assert max(figures.sizes) == MOST
    # Those sealed because of their age, and what was left when the line returned.
    assert len([size for size in figures.sizes if size < MOST]) <= 20
    assert figures.in_memory < CHANGES / 2
