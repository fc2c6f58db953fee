"""What can happen in a history: steps with a few values each, as data.

The same table feeds hypothesis (which shrinks) and the numbered histories (which are quick to
repeat): a number gives a setup and steps, always the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Step:
    """One thing that happens."""

    name: str
    given: Mapping[str, Any]

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"step({self.name!r}, {given})" if given else f"step({self.name!r})"


def step(name: str, **given: Any) -> Step:
    """Make a step by hand; what is not given takes the first value of the table."""
    first = {each: values[0] for each, values in STEPS[name][1].items()}
    return Step(name, {**first, **given})


PEOPLE = 4
_PERSON = tuple(range(PEOPLE))
_NAMES = (("city",), ("street",), ("firstName",), ("city", "street"))
_KEYED = (True, False)
_WAIT = ("0", "0.1", "3", "9")
# Whether the next step happens only after the answer.
_PATIENT = (True, False)

# Kind and parameters. What Engage would do late to an update is left out: nobody can order that.
FAULTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("lose_answer", {"share": 0.5}),
    ("lose_answer", {"method": "POST", "times": 1}),
    ("lose_answer", {"method": "PATCH", "times": 2}),
    ("late_commit", {"delay_s": 5.0, "method": "POST", "path": "/contacts$", "share": 0.5}),
    ("late_commit", {"delay_s": 9.0, "method": "POST", "path": "/contacts$"}),
    ("accepted", {"delay_s": 3.0, "method": "POST", "path": "/contacts$", "times": 1}),
    ("hang", {"share": 0.3}),
    ("hang", {"method": "GET", "times": 1}),
    ("slow", {"delay_s": 4.0, "method": "GET"}),
    ("slow", {"delay_s": 8.0, "method": "POST", "path": "/contacts$", "share": 0.5}),
    ("slow", {"delay_s": 30.0, "method": "POST", "path": "/contacts$", "times": 2}),
    ("reset", {"share": 0.4}),
    ("reset", {"when": "before", "share": 0.4}),
    ("status", {"status": 500, "commit": True, "share": 0.5}),
    ("status", {"status": 502, "commit": True}),
    ("status", {"status": 502, "commit": True, "method": "POST", "times": 5}),
    ("status", {"status": 503}),
    ("status", {"status": 504, "share": 0.5}),
    ("rollback_504", {"method": "POST", "delay_s": 9.5}),
    ("504_committed", {"method": "POST", "share": 0.5}),
    ("throttle", {"share": 0.3}),
    ("throttle", {"retry_after": "seconds", "delay_s": 20.0, "times": 2}),
    ("busy", {"method": "POST", "share": 0.5}),
    ("unauthorised", {"share": 0.5}),
    ("unauthorised", {}),
    ("forbidden", {"times": 1}),
    ("portal", {}),
    ("portal", {"method": "GET", "share": 0.5}),
    ("portal_511", {"times": 3}),
    ("proxy_407", {"share": 0.5}),
    ("redirect", {"share": 0.5}),
    ("html_404", {"share": 0.5}),
    ("drip", {"every_s": 1.0, "times": 1}),
    ("endless", {"commit": True, "times": 1}),
    ("empty_201", {"method": "POST", "path": "/contacts$"}),
    ("wrong_shape", {"commit": True, "times": 2}),
    ("not_json", {"commit": True, "share": 0.5}),
    ("clock_skew", {"skew_s": -86400.0}),
    ("refuse", {"target": "engage"}),
    ("refuse", {"target": "engage"}),
    ("refuse", {"target": "sftp"}),
    ("hang_kex", {"times": 1}),
    ("refuse_login", {"times": 2}),
    ("host_key_changed", {"times": 1}),
    ("hang_open", {"times": 1}),
    ("hang_write", {"after_bytes": 200, "times": 1}),
    ("cut", {"after_bytes": 300, "times": 2}),
    ("disk_full", {"after_bytes": 100}),
    ("rename_denied", {}),
    ("lose_rename_answer", {}),
    ("no_posix_rename", {}),
    ("folder_missing", {}),
    ("read_only", {}),
    ("sits", {}),
    ("takes_at_once", {}),
    ("skips", {"every": 2}),
    ("skips_file", {"times": 1}),
    ("skips_file", {"times": 3}),
)

# Weight and the values of each parameter.
STEPS: Mapping[str, tuple[int, Values]] = {
    "sign_up": (
        7,
        {
            "person": _PERSON,
            "names": _NAMES,
            "keyed": _KEYED,
            "wait": _WAIT,
            "patient": _PATIENT,
            "loud": (False, False, True),  # the address in capitals
            "unapproved": (False, False, False, False, True),
        },
    ),
    "update": (
        12,
        {
            "person": _PERSON,
            "names": _NAMES,
            "keyed": _KEYED,
            "wait": _WAIT,
            "patient": _PATIENT,
            "by": (0, 1),  # which of the ids that the POS was given
        },
    ),
    "clear": (1, {"person": _PERSON, "names": _NAMES, "by": (0, 1)}),
    "rename": (2, {"person": _PERSON, "patient": _PATIENT, "by": (0, 1)}),
    "upgrade": (2, {"person": _PERSON, "names": ((), *_NAMES), "patient": _PATIENT, "by": (0, 1)}),
    "look_up": (2, {"person": _PERSON}),
    "repeat": (3, {"person": _PERSON}),
    "elapse": (9, {"seconds": (0.01, 0.3, 2.0, 7.0, 15.0, 40.0, 120.0)}),
    "fault": (8, {"which": tuple(range(len(FAULTS)))}),
    "heal": (3, {}),
    "line": (4, {"up": (False, True)}),
    "kill": (
        5,
        {
            "after_s": (0.0, 0.0005, 0.005, 0.05, 0.5, 5.0),
            "power": (False, True),
            "down_s": (0.0, 3.0, 60.0),
        },
    ),
    "stop": (1, {"down_s": (0.0, 30.0)}),
    "leap": (1, {"seconds": (-3.2e8, -3600.0, 3600.0, 3.2e8)}),
    "pause": (1, {"route": ("api", "file")}),
    "resume": (2, {"route": ("api", "file")}),
    "seal": (3, {}),
    "import_now": (2, {}),
    "withdraw": (3, {"which": (0, 1, 2)}),  # of the files that are not settled, newest first
    "retry_file": (1, {"which": (0, 1, 2)}),
}

SETUP: Values = {
    "transport": ("sftp", "sftp", "sftp", "bulk"),
    "not_unique": (True, True, False),
    "max_contacts": (5000, 1, 2),
    "api_drain_max": (100, 1),
    "api_attempts": (4, 1, 2),
    "seal_after_s": (15, 60),
    "known": (0, 1),  # how many of the people Engage knows already
    "import_every_s": (5.0, 40.0, 3600.0),  # the last one comes long after the line is back
    "import_grace_s": (400, 120),
    "bulk_delay_s": (2.0, 8.0, 50.0),
}

_LENGTHS = (8, 20, 35, 60)


def numbered(number: int) -> tuple[dict[str, Any], list[Step]]:
    """Give the setup and the steps of a history by its number."""
    chance = random.Random(f"history {number}")
    setup = {name: chance.choice(values) for name, values in SETUP.items()}
    names = list(STEPS)
    weights = [weight for weight, _ in STEPS.values()]
    # Each history favours some kinds of steps, so that not all of them are the same mixture.
    weights = [weight * chance.choice((0, 1, 1, 3)) for weight in weights]
    weights[names.index("sign_up")] += 4
    steps = []
    for name in chance.choices(names, weights, k=chance.choice(_LENGTHS)):
        given = {each: chance.choice(values) for each, values in STEPS[name][1].items()}
        steps.append(Step(name, given))
    return setup, steps
