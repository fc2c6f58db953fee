"""Fresh, stale or too old, and how that is said: Age, Cache-Status, Agent-Source. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Who says it."""

    ENGAGE = "engage"  # asked just now
    CACHE = "cache"  # what Engage said a while ago
    JOURNAL = "journal"  # this till alone: Engage does not know it yet, or cannot be asked
    REGISTER = "register"  # Engage's member export, while Engage itself cannot be asked


def is_fresh(age_s: float, ttl_s: float) -> bool:
    """Say whether an answer counts as new; with a time of 0 none does."""
    return age_s < ttl_s


def kept_for_s(ttl_s: float, max_stale_s: float) -> float:
    """Give the age beyond which an answer is of no use, not even while Engage is silent."""
    return max(ttl_s, max_stale_s)


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from and how old it is."""

    source: Source
    age_s: float = 0.0
    ttl_s: float = 0.0  # how long such an answer counts as fresh
    stale_because: str | None = None  # offline or engage-failed: why an old answer had to do
    replaced: bool = False  # Engage was asked, because what was kept had become old
    stored: bool = False
    collapsed: bool = False  # somebody else had asked the same already

    def headers(self) -> dict[str, str]:
        """Give the headers that tell it."""
        headers = {"Agent-Source": str(self.source)}
        # What only this till knows has no age: it is so now.
        if self.source is not Source.JOURNAL or self.stale_because:
            headers["Age"] = str(max(0, math.floor(self.age_s)))
            headers["Cache-Status"] = self.cache_status()
        return headers

    def cache_status(self) -> str:
        """Give Cache-Status (RFC 9211); a negative ttl says how long the answer has been stale."""
        left_s = math.floor(self.ttl_s - self.age_s)
        if self.source is Source.ENGAGE:
            parts = [f"fwd={'stale' if self.replaced else 'uri-miss'}"]
            parts += ["stored", f"ttl={max(0, left_s)}"] if self.stored else []
            parts += ["collapsed"] if self.collapsed else []
        elif self.stale_because:
            # It may be stale before its time: this till has changed the contact since.
            parts = ["hit", f"ttl={min(-1, left_s)}", f"detail={self.stale_because}"]
        else:
            parts = ["hit", f"ttl={left_s}"]
        return "; ".join(("till-agent", *parts))


def matches(if_none_match: str, etag: str) -> bool:
    """Say whether If-None-Match names this ETag (RFC 9110: weakly compared), or anything."""
    named = {text.strip().removeprefix("W/") for text in if_none_match.split(",")}
    return etag in named or "*" in named


def named_etags(if_match: str) -> tuple[str, ...]:
    """Give the strong ETags of an If-Match header; quotes may be missing. A weak one never fits."""
    texts = (text.strip() for text in if_match.split(","))
    return tuple(f'"{text.strip(chr(34))}"' for text in texts if text and text[:2] != "W/")
