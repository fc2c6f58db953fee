"""What came of one try on a route: a value, not a boolean. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.change import Fault


class Result(StrEnum):
    """The five ways in which a try can end."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"  # time cures it
    UNKNOWN = "unknown"  # it may have happened
    REJECTED = "rejected"  # this change is wrong
    HALTED = "halted"  # the route is wrong


@dataclass(frozen=True)
class Outcome:
    """One try's end, with what was learnt on the way."""

    result: Result
    code: str | None = None
    message: str | None = None  # without personal data
    status: int | None = None  # HTTP
    request_id: str | None = None
    fault: Fault | None = None  # for a person; may hold Engage's own words
    counts: bool = False  # uses up one of the attempts before the file route
    retry_after_s: float | None = None  # Engage's wish
    sent: bool = False  # a create went out and may still be carried out
    soon: bool = False  # a short wait is enough: the cause passes by itself
    split: bool = False  # several changes went in one call; try each by itself
    contact_id: str | None = None
    contact_type: str | None = None
    contact_gone: bool = False  # the stored GUID leads nowhere any more
    existed: bool = False  # a create that found its contact
    step: int | None = None
    body: Any = None  # the contact as Engage answered it
    steps: tuple[Mapping[str, Any], ...] = field(default=())  # [{step, status, code, ms}]
