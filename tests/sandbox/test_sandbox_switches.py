"""How faults are named, limited and refused; no sockets needed."""

from __future__ import annotations

from typing import Any

import pytest

from agent.sandbox.faults import ENGAGE_ANSWERS, KINDS, FaultError, Faults
from agent.sandbox.mishaps import MISHAPS


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("hagn", {}, r"'hagn' is not known\. Did you mean 'hang'\? Allowed: refuse, hang"),
        ("hang", {"target": "engaeg"}, r"Did you mean 'engage'\? Allowed: engage, sftp"),
        ("sits", {"target": "sftp"}, r"Fault for sftp 'sits' is not known"),
        ("slow", {"delay": 1}, r"'delay' is not known\. Did you mean 'delay_s'\?"),
        ("refuse", {"times": 1}, r"Parameter of engage refuse 'times' is not known"),
        ("slow", {"delay_s": "long"}, r"delay_s must be a number, not 'long'"),
        ("slow", {"delay_s": -1}, r"delay_s must not be negative"),
        ("hang", {"times": 0}, r"times must be 1 or more"),
        ("hang", {"times": 1.5}, r"times must be a whole number, not 1\.5"),
        ("hang", {"times": True}, r"times must be a whole number, not True"),
        ("hang", {"share": 2}, r"share must lie between 0 and 1, not 2"),
        ("hang", {"method": "PSOT"}, r"Method 'PSOT' is not known\. Did you mean 'POST'\?"),
        ("status", {"status": 418}, r"Allowed: 500, 502, 503, 504"),
        ("status", {"commit": "yes"}, r"commit must be true or false"),
        ("reset", {"when": "sometimes"}, r"Allowed: before, after"),
        ("reset", {"when": "before", "path": "/contacts"}, r"cannot know its method or path"),
        ("skips", {"keys": "vera@example.test"}, r"keys must be a list"),
    ],
)
def test_wrong_fault_is_refused_with_what_is_allowed(
    kind: str, given: dict[str, Any], sentence: str
) -> None:
    faults = Faults()

    with pytest.raises(FaultError, match=sentence):
        faults.add(kind, **given)

    assert faults.listed() == []


def test_every_fault_of_engage_has_somebody_who_carries_it_out() -> None:
    assert set(MISHAPS) == ENGAGE_ANSWERS


def test_every_kind_says_what_it_does() -> None:
    assert all(kind.about for of_target in KINDS.values() for kind in of_target.values())


def test_target_may_be_left_out() -> None:
    faults = Faults()

    assert faults.add("sits").kind.target == "importer"
    assert faults.add("refuse").kind.target == "engage"


def test_fault_describes_itself_with_its_limits() -> None:
    faults = Faults()

    fault = faults.add("slow", times=3, method="post", path="/contacts")

    assert fault.described() == {
        "id": 1,
        "target": "engage",
        "kind": "slow",
        "hits": 0,
        "delay_s": 2.0,
        "times": 3,
        "method": "POST",
        "path": "/contacts",
    }


def test_faults_are_removed_by_id_kind_or_target() -> None:
    faults = Faults()
    first = faults.add("hang")
    faults.add("slow")
    faults.add("cut")
    faults.add("sits")

    assert faults.remove(fault_id=first.id) == 1
    assert faults.remove(kind="slow") == 1
    assert faults.remove(target="sftp") == 1
    assert [each["kind"] for each in faults.listed()] == ["sits"]
    assert faults.remove() == 1


def test_fault_ends_on_the_monotonic_clock() -> None:
    now = 100.0
    faults = Faults(monotonic=lambda: now)
    faults.add("hang", for_s=5)

    assert faults.next_end_s() == 5.0
    now = 106.0

    assert faults.take("engage", {"hang"}) is None
    assert faults.next_end_s() is None
