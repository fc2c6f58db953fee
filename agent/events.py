"""Named events and the lines they become; the only place that formats a log line.

An event carries ids, codes, counts and times. Whatever else is handed in under a name that may hold
personal data is masked here, so that a slip elsewhere does not reach the log. What the libraries
log comes through here too. The latest lines are kept in memory for the support bundle.

One id follows a change from the POS's request to the file's name: `request`. While a request is
answered, every line carries its id; delivery adds the id of the request that made a change.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars

from agent.masking import is_plain
from agent.masking import mask as mask

# Fields that an event may have. Anything else is a slip and is masked, not printed.
_FIELD_NAMES = """
attempt attempts batch bytes call cause change changes code config contacts count counts due_s
engage_request error event exception file halt host kind level limit_s link logger method ms name
number open outcome path phase place port reason request route seconds share signal since state
status step store target till timestamp token_name unknown until version version_sqlite wait_s where
"""
FIELDS = frozenset(_FIELD_NAMES.split())

# A POS's own id is taken if it is one: short, and nothing that could be read as a person's.
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")

_LINES_KEPT = 500
_NOTABLE_KEPT = 100
_PACKAGE = Path(__file__).parent


# --- the id of a request --------------------------------------------------------------------------


def is_sane_id(text: str) -> bool:
    """Say whether a request id from outside can stand in log lines."""
    return _SANE_ID.fullmatch(text) is not None and is_plain(text)


@contextlib.contextmanager
def following(request_id: str) -> Iterator[None]:
    """Let every line that is logged in this context carry the request's id."""
    with bound_contextvars(request=request_id):
        yield


def request_id() -> str | None:
    """Give the id of the request that is being answered in this context; None outside of one."""
    return get_contextvars().get("request")


# --- what is kept ---------------------------------------------------------------------------------


class Recent:
    """The latest lines, bounded in number; what was wrong is kept longer than what went well."""

    def __init__(self) -> None:
        self._lines: deque[dict[str, Any]] = deque(maxlen=_LINES_KEPT)
        self._notable: deque[dict[str, Any]] = deque(maxlen=_NOTABLE_KEPT)

    def keep(self, event: MutableMapping[str, Any]) -> None:
        """Keep an event that is masked already."""
        kept = dict(event)
        self._lines.append(kept)
        if kept.get("level") in ("warning", "error", "critical"):
            self._notable.append(kept)

    def lines(self) -> list[str]:
        """Give the latest events, the oldest first, as JSON lines."""
        return [_json_line(event) for event in self._lines]

    def notable(self) -> list[str]:
        """Give the latest warnings and errors, the oldest first, as JSON lines."""
        return [_json_line(event) for event in self._notable]

    def clear(self) -> None:
        """Forget everything."""
        self._lines.clear()
        self._notable.clear()


recent = Recent()


def _json_line(event: MutableMapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, default=str)


# --- formatting -----------------------------------------------------------------------------------


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in tuple(event.items()):
        if name == "exception" and isinstance(value, BaseException):
            event[name] = trace(value)
        elif value is None:
            del event[name]
        elif name not in FIELDS:
            event[name] = "[masked]"
        elif name in ("error", "cause", "reason", "exception") and isinstance(value, str):
            event[name] = mask(value)
    return event


def trace(error: BaseException) -> str:
    """Say where an exception comes from: its kinds and places, never its words.

    The words of an exception may quote what it stumbled over, and that may be a customer's name.
    """
    parts = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        parts.append(f"{type(link).__name__} at {_places(link)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "; from ".join(parts)


def _places(error: BaseException) -> str:
    places = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        path = Path(code.co_filename)
        inside = path.relative_to(_PACKAGE.parent) if path.is_relative_to(_PACKAGE) else path.name
        places.append(f"{inside}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    return " > ".join(places) or "no place"


def _keep(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    recent.keep(event)
    return event


class _Libraries(logging.Handler):
    """What the libraries log: who, where and which kind of error; their words may quote data."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log().log(
            record.levelno,
            "library_event",
            logger=record.name,
            place=f"{record.module}:{record.lineno}",
            exception=error,
        )


def set_up(level: str = "info", form: str = "json", stream: TextIO | None = None) -> None:
    """Send events of at least `level` to a stream, stdout by default, as JSON lines or as text for
    a terminal."""
    stream = stream or sys.stdout
    _configure(level, form, structlog.WriteLoggerFactory(stream), colours=stream.isatty())
    recent.clear()


def _configure(level: str, form: str, factory: Any, *, colours: bool) -> None:
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=colours)
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            _mask_event,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


def hear_libraries() -> None:
    """Let what the libraries log become events, instead of lines of their own on stderr."""
    logging.getLogger().addHandler(_Libraries(logging.WARNING))
    logging.captureWarnings(True)


def log() -> Any:
    """Give the logger: `log().info("change_settled", change=…, state=…)`."""
    if not structlog.is_configured():
        # Used as a library: masked all the same, and printed to whatever stdout is then.
        _configure("info", "text", structlog.PrintLoggerFactory(), colours=False)
    return structlog.get_logger()
