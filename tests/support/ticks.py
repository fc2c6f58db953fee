"""How often the loops of an agent look around: as on a till, or quickly while somebody waits."""

from __future__ import annotations

import pytest

from agent.delivery import dispatcher
from agent.delivery.batch import bulk, sealer, uploader, verify
from agent.status import snapshot

_QUICK = (
    *((loop, "_TICK_S", 0.05) for loop in (dispatcher, sealer, uploader, bulk, verify)),
    (verify, "_AFTER_PATCH_S", 0.1),
    (snapshot, "_FRESH_S", 0.02),
)
_USUAL = tuple((module, name, getattr(module, name)) for module, name, _ in _QUICK)


def be_quick(patch: pytest.MonkeyPatch) -> None:
    """Let the loops of an agent in this process look around more often than a till needs."""
    for module, name, seconds in _QUICK:
        patch.setattr(module, name, seconds)


def be_usual(patch: pytest.MonkeyPatch) -> None:
    """Let them look around as on a till: in virtual time each look costs, and waiting does not."""
    for module, name, seconds in _USUAL:
        patch.setattr(module, name, seconds)
