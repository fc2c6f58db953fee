"""The switches: which faults there are, how each can be limited, and which one hits now.

Says nothing about how a fault is carried out; that is for the part it hits.
"""

from __future__ import annotations

import difflib
import itertools
import random
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

TARGETS = ("engage", "sftp", "importer", "exporter")

_VERSION = re.compile(r"/api/v\d+(?=/)")


class FaultError(ValueError):
    """A fault that does not exist or is described wrongly; the text says what is allowed."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    target: str
    name: str
    about: str
    # Name of each parameter and its default; the default's type is the parameter's.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    # Which limits make sense: a port that is closed cannot count who knocks.
    limits: tuple[str, ...] = ("times", "share", "for_s")


@dataclass
class Fault:
    """A fault that is switched on."""

    id: int
    kind: Kind
    parameters: dict[str, Any]
    times: int | None = None  # how often it still hits
    share: float | None = None  # probability of a hit, 0 to 1
    method: str | None = None
    path: str | None = None  # prefix, with or without /api/vN; ending in $: the whole path
    ends_at: float | None = None  # on the monotonic clock
    hits: int = 0

    @property
    def name(self) -> str:
        """The kind's name."""
        return self.kind.name

    def number(self, name: str) -> float:
        """Return a parameter that is a number."""
        return float(self.parameters[name])

    def text(self, name: str) -> str:
        """Return a parameter as text."""
        return str(self.parameters[name])

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false, False where the kind has none so named."""
        return bool(self.parameters.get(name, False))

    def described(self) -> dict[str, Any]:
        """Return the fault as JSON values, as `POST /faults` takes it, plus `id` and `hits`."""
        limits = {
            "times": self.times,
            "share": self.share,
            "method": self.method,
            "path": self.path,
        }
        return {
            "id": self.id,
            "target": self.kind.target,
            "kind": self.kind.name,
            "hits": self.hits,
            **self.parameters,
            **{name: value for name, value in limits.items() if value is not None},
        }

    def fits(self, method: str | None, path: str | None) -> bool:
        """Return whether method and path are the ones it is limited to."""
        if self.method is not None and method != self.method:
            return False
        if self.path is None:
            return True
        return path is not None and (
            _is_under(self.path, path) or _is_under(self.path, _VERSION.sub("", path, count=1))
        )


def _is_under(prefix: str, path: str) -> bool:
    return path == prefix[:-1] if prefix.endswith("$") else path.startswith(prefix)


_ANY_REQUEST = ("times", "share", "for_s", "method", "path")
_ONLY_WHILE = ("for_s",)

_ENGAGE = (
    Kind("engage", "refuse", "the port refuses connections, and stays ours", {}, _ONLY_WHILE),
    Kind("engage", "hang", "takes the request and never answers", {}, _ANY_REQUEST),
    Kind("engage", "slow", "answers after delay_s", {"delay_s": 2.0}, _ANY_REQUEST),
    Kind(
        "engage",
        "reset",
        "resets the connection; when=before or after the request was read; commits nothing",
        {"when": "after"},
        _ANY_REQUEST,
    ),
    Kind("engage", "lose_answer", "commits, then drops the connection", {}, _ANY_REQUEST),
    Kind(
        "engage",
        "late_commit",
        "drops the connection and commits delay_s later",
        {"delay_s": 1.0},
        _ANY_REQUEST,
    ),
    Kind(
        "engage",
        "status",
        "answers with a server error; commit=true does the work first",
        {"status": 503, "commit": False},
        _ANY_REQUEST,
    ),
    Kind(
        "engage",
        "rollback_504",
        "504 RequestTimeOut after delay_s, nothing done",
        {"delay_s": 0.0},
        _ANY_REQUEST,
    ),
    Kind(
        "engage",
        "504_committed",
        "504 RequestTimeOut after delay_s, yet the work is done",
        {"delay_s": 0.0},
        _ANY_REQUEST,
    ),
    Kind(
        "engage",
        "throttle",
        "429; retry_after: none, seconds, date (both delay_s ahead), absurd, or any literal text",
        {"retry_after": "none", "delay_s": 2.0},
        _ANY_REQUEST,
    ),
    Kind("engage", "unauthorised", "401", {}, _ANY_REQUEST),
    Kind("engage", "forbidden", "403", {}, _ANY_REQUEST),
    Kind("engage", "portal", "200 with the HTML of a captive portal", {}, _ANY_REQUEST),
    Kind("engage", "portal_511", "511 with the HTML of a captive portal", {}, _ANY_REQUEST),
    Kind("engage", "proxy_407", "407 from a proxy, HTML", {}, _ANY_REQUEST),
    Kind(
        "engage",
        "redirect",
        "302 to location",
        {"location": "http://portal.example.test/login"},
        _ANY_REQUEST,
    ),
    Kind("engage", "html_404", "404 in HTML, as from a proxy or a wrong path", {}, _ANY_REQUEST),
    Kind(
        "engage",
        "drip",
        "headers at once, then one byte each every_s",
        {"every_s": 1.0, "commit": True},
        _ANY_REQUEST,
    ),
    Kind("engage", "endless", "a body that does not end", {"commit": False}, _ANY_REQUEST),
    Kind(
        "engage",
        "gzip_bomb",
        "a small body that unpacks to 1 GiB",
        {"commit": False},
        _ANY_REQUEST,
    ),
    Kind("engage", "empty_201", "201 without a body", {"commit": True}, _ANY_REQUEST),
    Kind("engage", "wrong_shape", "JSON of another shape", {"commit": False}, _ANY_REQUEST),
    Kind("engage", "not_json", "JSON cut off in the middle", {"commit": False}, _ANY_REQUEST),
    Kind(
        "engage",
        "accepted",
        "202 without a body; the work is done delay_s later",
        {"delay_s": 0.5},
        _ANY_REQUEST,
    ),
    Kind("engage", "busy", "409 ContactWithKeyIsBeingCreated", {}, _ANY_REQUEST),
    Kind(
        "engage",
        "not_unique",
        "creates are not checked for an existing key, so that blind repeats show as duplicates",
        {},
        _ANY_REQUEST,
    ),
    Kind(
        "engage",
        "clock_skew",
        "the Date header is off by skew_s",
        {"skew_s": 3600.0},
        _ANY_REQUEST,
    ),
)

_SFTP = (
    Kind("sftp", "refuse", "the port refuses connections, and stays ours", {}, _ONLY_WHILE),
    Kind("sftp", "hang_kex", "says its version, then nothing more"),
    Kind("sftp", "refuse_login", "refuses every password and key"),
    Kind("sftp", "hang_open", "never answers the opening of a file"),
    Kind("sftp", "hang_write", "stops answering after after_bytes of a file", {"after_bytes": 0}),
    Kind("sftp", "cut", "cuts the connection after after_bytes of a file", {"after_bytes": 0}),
    Kind("sftp", "disk_full", "no space after after_bytes of a file", {"after_bytes": 0}),
    Kind("sftp", "rename_denied", "renaming is not permitted"),
    Kind("sftp", "lose_rename_answer", "renames, then cuts the connection"),
    Kind("sftp", "no_posix_rename", "does not know posix-rename"),
    Kind("sftp", "host_key_changed", "shows another host key"),
    Kind("sftp", "folder_missing", "the import folder is not there"),
    Kind("sftp", "export_missing", "the folder of the member export is not there"),
    Kind("sftp", "hang_read", "stops answering after after_bytes of a file", {"after_bytes": 0}),
    Kind("sftp", "cut_read", "cuts the line after after_bytes of a file", {"after_bytes": 0}),
    Kind("sftp", "read_only", "nothing can be written, renamed or removed"),
)

_IMPORTER = (
    Kind("importer", "sits", "leaves the files where they are"),
    Kind("importer", "skips_file", "deletes the whole file unread"),
    Kind(
        "importer",
        "skips",
        "skips contacts whose key is in keys, or every n-th",
        {"keys": [], "every": 0},
    ),
    Kind("importer", "takes_at_once", "takes a file before the rename is answered"),
)

_EXPORTER = (
    Kind("exporter", "cut_off", "the next file ends in the middle"),
    Kind("exporter", "not_xml", "the next file holds no XML"),
    Kind("exporter", "bomb", "the next file has entities that would unpack to gigabytes"),
)

KINDS: dict[str, dict[str, Kind]] = {
    "engage": {kind.name: kind for kind in _ENGAGE},
    "sftp": {kind.name: kind for kind in _SFTP},
    "importer": {kind.name: kind for kind in _IMPORTER},
    "exporter": {kind.name: kind for kind in _EXPORTER},
}

# These change how a request is worked on and can be joined with any other fault.
_MODIFIERS = {"not_unique", "clock_skew"}
ENGAGE_ANSWERS = frozenset(KINDS["engage"]) - _MODIFIERS - {"refuse"}

_LIMITS: dict[str, type] = {
    "times": int,
    "share": float,
    "for_s": float,
    "method": str,
    "path": str,
}
_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "when": ("before", "after"),
    "status": (500, 502, 503, 504),
}


class Faults:
    """The faults that are on, in the order in which they were set; the first that fits hits."""

    def __init__(
        self,
        *,
        seed: int | None = None,
        on_change: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._faults: list[Fault] = []
        # Chance for tests, not for secrets; seeded so that a run can be repeated.
        self._random = random.Random(seed)  # noqa: S311
        self._on_change = on_change
        self._monotonic = monotonic
        self._ids = itertools.count(1)

    def add(self, kind: str, *, target: str | None = None, **given: Any) -> Fault:
        """Switch a fault on and return it; its `hits` go on counting.

        Args:
            kind: One of `KINDS[target]`.
            target: One of `TARGETS`; without it, the first that has such a kind.
            given: The kind's parameters and its limits: `times`, `share`, `for_s`, `method`,
                `path`.

        Raises:
            FaultError: Kind, parameter or value do not exist; names what is allowed.
        """
        found = _kind(kind, target)
        given = {name: value for name, value in given.items() if value is not None}
        _refuse_unknown(found, given)
        limits = {name: _limit(name, given[name]) for name in found.limits if name in given}
        parameters = {
            name: _parameter(name, given.get(name, default), default)
            for name, default in found.parameters.items()
        }
        _refuse_blind_reset(parameters, limits)
        for_s = limits.pop("for_s", None)
        fault = Fault(
            id=next(self._ids),
            kind=found,
            parameters=parameters,
            ends_at=None if for_s is None else self._monotonic() + for_s,
            **limits,
        )
        self._faults.append(fault)
        self._on_change()
        return fault

    def remove(
        self, *, fault_id: int | None = None, kind: str | None = None, target: str | None = None
    ) -> int:
        """Switch off the faults that fit all that is given; returns how many there were."""
        gone = [
            each
            for each in self._faults
            if fault_id in (None, each.id)
            and kind in (None, each.name)
            and target in (None, each.kind.target)
        ]
        for each in gone:
            self._faults.remove(each)
        self._on_change()
        return len(gone)

    def standing(self, target: str, kind: str) -> Fault | None:
        """Return the fault if it is on, without counting a hit."""
        self._drop_ended()
        for each in self._faults:
            if (each.kind.target, each.name) == (target, kind):
                return each
        return None

    def take(
        self,
        target: str,
        kinds: Collection[str],
        method: str | None = None,
        path: str | None = None,
        where: Callable[[Fault], bool] = lambda fault: True,
    ) -> Fault | None:
        """Return the first fault of these kinds that hits now, and count the hit."""
        self._drop_ended()
        for each in self._faults:
            if each.kind.target != target or each.name not in kinds:
                continue
            if not each.fits(method, path) or not where(each):
                continue
            if each.share is not None and self._random.random() >= each.share:
                continue
            return self._count(each)
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return what is on, as JSON values."""
        self._drop_ended()
        return [each.described() for each in self._faults]

    def next_end_s(self) -> float | None:
        """Return the seconds until the next fault ends by itself, or None."""
        ends = [each.ends_at for each in self._faults if each.ends_at is not None]
        return max(0.0, min(ends) - self._monotonic()) if ends else None

    def _count(self, fault: Fault) -> Fault:
        fault.hits += 1
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
        return fault

    def _drop_ended(self) -> None:
        now = self._monotonic()
        self._faults = [each for each in self._faults if each.ends_at is None or each.ends_at > now]


def nearest(word: str, allowed: Collection[str]) -> str:
    """Return ` Did you mean …?` for a word that is close to an allowed one, else nothing."""
    close = difflib.get_close_matches(word, [str(each) for each in allowed], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _not_allowed(what: str, word: str, allowed: Collection[str]) -> FaultError:
    listed = ", ".join(str(each) for each in allowed) or "nothing"
    return FaultError(f"{what} {word!r} is not known.{nearest(word, allowed)} Allowed: {listed}.")


def _kind(name: str, target: str | None) -> Kind:
    if target is not None and target not in KINDS:
        raise _not_allowed("Target", target, TARGETS)
    targets = (target,) if target else TARGETS
    for each in targets:
        if name in KINDS[each]:
            return KINDS[each][name]
    allowed = [kind for each in targets for kind in KINDS[each]]
    raise _not_allowed(f"Fault for {target}" if target else "Fault", name, dict.fromkeys(allowed))


def _refuse_unknown(kind: Kind, given: Mapping[str, Any]) -> None:
    allowed = [*kind.parameters, *kind.limits]
    for name in given:
        if name not in allowed:
            raise _not_allowed(f"Parameter of {kind.target} {kind.name}", name, allowed)


def _refuse_blind_reset(parameters: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    if parameters.get("when") == "before" and {"method", "path"} & limits.keys():
        raise FaultError("A reset before the request is read cannot know its method or path.")


def _parameter(name: str, value: Any, default: Any) -> Any:
    value = _typed(name, value, type(default))
    if name in _CHOICES and value not in _CHOICES[name]:
        raise _not_allowed(f"Value of {name}", str(value), [str(c) for c in _CHOICES[name]])
    return value


def _limit(name: str, value: Any) -> Any:
    value = _typed(name, value, _LIMITS[name])
    if name == "method":
        value = value.upper()
        if value not in _METHODS:
            raise _not_allowed("Method", value, _METHODS)
    if name == "share" and not 0 <= value <= 1:
        raise FaultError(f"share must lie between 0 and 1, not {value:g}.")
    if name == "times" and value < 1:
        raise FaultError("times must be 1 or more.")
    return value


def _typed(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # retry_after=5
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        raise FaultError(f"{name} must be {_TYPE_NAMES[wanted]}, not {value!r}.")
    if isinstance(value, int | float) and value < 0 and name != "skew_s":
        raise FaultError(f"{name} must not be negative.")
    return value


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
}
