"""Fresh, stale, too old, and what the headers say of it."""

from __future__ import annotations

import pytest

from agent.lookup.freshness import (
    Provenance,
    Source,
    is_fresh,
    kept_for_s,
    matches,
    named_etags,
)

ETAG = '"abc"'


def test_answer_is_fresh_until_its_time_is_over() -> None:
    assert is_fresh(59.9, 60)
    assert not is_fresh(60, 60)
    assert not is_fresh(0, 0)


def test_answer_is_kept_as_long_as_it_may_be_served_fresh_or_stale() -> None:
    assert kept_for_s(60, 600) == 600
    assert kept_for_s(600, 60) == 600


@pytest.mark.parametrize(
    ("provenance", "status"),
    [
        # Fresh: a ttl that is not negative.
        (Provenance(Source.CACHE, 12.7, 60), "till-agent; hit; ttl=47"),
        (Provenance(Source.CACHE, 59.99, 60), "till-agent; hit; ttl=0"),
        # Stale: how long since, and why it had to do.
        (
            Provenance(Source.CACHE, 472, 60, stale_because="offline"),
            "till-agent; hit; ttl=-412; detail=offline",
        ),
        # Made old before its time, by a change of this till.
        (
            Provenance(Source.CACHE, 1, 60, stale_because="offline"),
            "till-agent; hit; ttl=-1; detail=offline",
        ),
        (Provenance(Source.ENGAGE, ttl_s=60), "till-agent; fwd=uri-miss"),
        (
            Provenance(Source.ENGAGE, ttl_s=60, replaced=True, stored=True, collapsed=True),
            "till-agent; fwd=stale; stored; ttl=60; collapsed",
        ),
    ],
)
def test_cache_status_says_where_an_answer_comes_from(provenance: Provenance, status: str) -> None:
    assert provenance.headers()["Cache-Status"] == status


def test_age_is_told_in_whole_seconds() -> None:
    assert Provenance(Source.CACHE, 12.7, 60).headers()["Age"] == "12"
    assert Provenance(Source.ENGAGE).headers()["Age"] == "0"


def test_what_the_journal_alone_tells_has_no_age() -> None:
    assert Provenance(Source.JOURNAL).headers() == {"Agent-Source": "journal"}


@pytest.mark.parametrize("header", [ETAG, f'"x", {ETAG}', f"W/{ETAG}", "*"])
def test_if_none_match_names_the_etag(header: str) -> None:
    assert matches(header, ETAG)


@pytest.mark.parametrize("header", ["", '"x"', "abc"])
def test_if_none_match_names_another(header: str) -> None:
    assert not matches(header, ETAG)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (ETAG, (ETAG,)),
        ('"a",  "b"', ('"a"', '"b"')),
        ("abc", (ETAG,)),  # without its quotes, as simple clients send it
        (f"W/{ETAG}", ()),  # If-Match compares strongly
        ("", ()),
    ],
)
def test_if_match_names_etags(header: str, named: tuple[str, ...]) -> None:
    assert named_etags(header) == named
