"""Named events and the lines they become; the only place that formats a log line.

An event carries ids, codes, counts and times. Whatever else is handed in under a name that may hold
personal data is masked here, so that a slip elsewhere does not reach the log.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

# Fields that an event may have. Anything else is a slip and is masked, not printed.
_FIELD_NAMES = """
attempt attempts batch bytes cause change changes code config contacts count counts due_s error
event exception file halt host kind level link name number open outcome path place port reason
request_id route seconds signal since state status step store target till timestamp token_name
unknown until version version_sqlite wait_s where
"""
FIELDS = frozenset(_FIELD_NAMES.split())
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")
_LONG_NUMBER = re.compile(r"(?<![0-9A-Za-z-])\+?\d[\d -]{6,}\d(?![0-9A-Za-z-])")


def mask(text: str) -> str:
    """Remove what looks like an e-mail address, a phone or a personal number from a text."""
    return _LONG_NUMBER.sub("[number]", _EMAIL.sub("[e-mail]", text))


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in tuple(event.items()):
        if name == "exception" and isinstance(value, BaseException):
            event[name] = mask("".join(traceback.format_exception(value)))
        elif value is None:
            del event[name]
        elif name not in FIELDS:
            event[name] = "[masked]"
        elif name in ("error", "cause", "reason", "exception") and isinstance(value, str):
            event[name] = mask(value)
    return event


def set_up(level: str = "info", form: str = "json") -> None:
    """Send events of at least `level` to stdout, as JSON lines or as text for a terminal."""
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _mask_event,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )


def log() -> Any:
    """Give the logger: `log().info("change_settled", change=…, state=…)`."""
    return structlog.get_logger()
