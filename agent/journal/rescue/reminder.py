"""Reminds of what a rescue could not save, until a person has seen to it."""

from __future__ import annotations

import glob
from pathlib import Path

SAVED, LOST = ".saved.txt", ".lost.txt"  # how a report's name ends


def unsettled(journal: Path) -> str | None:
    """Say what a person has to see to after a rescue, as long as its report lies there."""
    names = sorted(
        path.name for path in journal.parent.glob(f"{glob.escape(journal.name)}.damaged-*{LOST}")
    )
    if not names:
        return None
    return (
        f"The journal was damaged, and changes were lost with it: {', '.join(names)} lists them. "
        "See that those customers are in Engage; then remove that file, and the damaged journal "
        "beside it."
    )
