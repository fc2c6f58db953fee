"""Owns the settings: what may stand in agent.toml, what it means, and what is wrong with it.

Each field of the classes below carries its unit, default, range and one sentence; the example file
and the reference are generated from them (`python -m agent.config example|reference`). What a
setting does is known elsewhere.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import ipaddress
import json
import os
import re
import ssl
import stat
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from agent import __version__
from agent.errors import ConfigError, Problem
from agent.secrets import Credential, SecretProblem, SecretSource, read_secret
from agent.tokens import Tokens

T = TypeVar("T")

# --- what one value may be --------------------------------------------------------------------


class Wrong(Exception):
    """A value cannot be used. Its text never repeats the value: it may be a secret gone astray."""

    def __init__(self, what: str, suggestion: str = "") -> None:
        super().__init__(what)
        self.found: list[tuple[str, str, str]] = [("", what, suggestion)]  # where in it, …

    @classmethod
    def several(cls, found: Sequence[tuple[str, str, str]]) -> Wrong:
        """Join what is wrong with the parts of a list or table."""
        wrong = cls("")
        wrong.found = list(found)
        return wrong


class Kind(Protocol):
    """A kind of value: how it is called, what it is limited to, how it is read from TOML."""

    @property
    def name(self) -> str:
        """Give the name for the reference: "whole number"."""

    @property
    def limits(self) -> str:
        """Give the range or choices for the reference; may be empty."""

    def read(self, raw: object, folder: Path) -> Any:
        """Give the value for the program, or raise Wrong. `folder` is where agent.toml lies."""


def _kind_of(raw: object) -> str:
    names = {bool: "true or false", str: "a text", int: "a whole number", float: "a fraction"}
    names |= {list: "a list", dict: "a table"}
    return names.get(type(raw), "a date or time")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise Wrong(f"This must be a text, not {_kind_of(raw)}.", "Put it in quotes.")
    if not raw.strip():
        raise Wrong("This is empty.", "Write a value, or delete the line.")
    if raw != raw.strip() or any(ord(sign) < 32 or ord(sign) == 127 for sign in raw):
        raise Wrong(
            "This has a control character in it, or a blank at its beginning or end.",
            "Write it again by hand.",
        )
    return raw


@dataclass(frozen=True)
class Text:
    """A text, checked and perhaps tidied by `check`."""

    limits: str = ""
    check: Callable[[str], str] = str
    name: str = "text"

    def read(self, raw: object, folder: Path) -> str:
        """Give the tidied text."""
        return self.check(_text(raw))


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    choices: tuple[str, ...]
    name: str = "text"

    @property
    def limits(self) -> str:
        """List the choices."""
        quoted = [f'"{choice}"' for choice in self.choices]
        return " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))

    def read(self, raw: object, folder: Path) -> str:
        """Give the word."""
        text = _text(raw)
        if text not in self.choices:
            raise Wrong(
                f"This must be {self.limits}.",
                _did_you_mean(text, self.choices) or "Write one of these.",
            )
        return text


@dataclass(frozen=True)
class Number:
    """A number in a range; `above` leaves its bound out, so that waits may be small fractions."""

    at_most: float
    at_least: float | None = None
    above: float = 0
    whole: bool = False

    @property
    def name(self) -> str:
        """Say whether fractions are allowed."""
        return "whole number" if self.whole else "number"

    @property
    def limits(self) -> str:
        """Give the range in words."""
        if self.at_least is None:
            return f"above {_plain(self.above)}, at most {_plain(self.at_most)}"
        return f"from {_plain(self.at_least)} to {_plain(self.at_most)}"

    def read(self, raw: object, folder: Path) -> int | float:
        """Give the number; whole numbers are taken where fractions are allowed."""
        # bool is an int in Python, but `port = true` is a mistake.
        if type(raw) is not int and (self.whole or type(raw) is not float):
            remedy = "Write it without quotes." if isinstance(raw, str) else "Write digits alone."
            raise Wrong(f"This must be a {self.name}, not {_kind_of(raw)}.", remedy)
        low_enough = raw <= self.at_most  # false for nan too
        if not (low_enough and self._high_enough(raw)):
            raise Wrong(f"This must be {self.limits}.", "Write a number in that range.")
        return raw if self.whole else float(raw)

    def _high_enough(self, value: float) -> bool:
        return value > self.above if self.at_least is None else value >= self.at_least


@dataclass(frozen=True)
class File:
    """A path; a relative one begins where agent.toml lies."""

    limits: str = ""
    name: str = "path"

    def read(self, raw: object, folder: Path) -> Path:
        """Give the absolute path."""
        return _absolute(_text(raw), folder)


@dataclass(frozen=True)
class Secret:
    """The name of a file or systemd credential that holds a secret, never the secret itself."""

    limits: str = "a bare name is a systemd credential, or else a file beside agent.toml"
    name: str = "secret file"

    def read(self, raw: object, folder: Path) -> SecretSource:
        """Give a Credential for a bare name, or else an absolute path."""
        if isinstance(raw, str) and _looks_like_secret(raw):
            raise Wrong(
                "This looks like the secret itself.",
                "Put the secret in a file and write the file's path here.",
            )
        text = _text(raw)
        # A path keeps its slash, "./engage_api_key" too: only a bare name asks for a credential.
        return _absolute(text, folder) if "/" in text else Credential(text, folder)


@dataclass(frozen=True)
class ListOf:
    """A list, each item of one kind; becomes a tuple."""

    item: Kind
    may_be_empty: bool = True

    @property
    def name(self) -> str:
        """Name the items too."""
        return f"list of {self.item.name}s"

    @property
    def limits(self) -> str:
        """Give the limits of an item."""
        each = f"each {self.item.limits}" if self.item.limits else ""
        return each if self.may_be_empty else ", ".join(filter(None, ("not empty", each)))

    def read(self, raw: object, folder: Path) -> tuple[Any, ...]:
        """Give the items; what is wrong is told item by item."""
        if not isinstance(raw, list):
            raise Wrong(
                f"This must be a list, not {_kind_of(raw)}.", "Put it in [square brackets]."
            )
        if not raw and not self.may_be_empty:
            raise Wrong("This list is empty.", "Write at least one item, or delete the line.")
        named = ((f", item {number}", item) for number, item in enumerate(raw, 1))
        return tuple(_each(named, lambda item: self.item.read(item, folder)))


@dataclass(frozen=True)
class TableOf:
    """A table whose keys are free; each value is of one kind."""

    item: Kind
    limits: str = ""

    @property
    def name(self) -> str:
        """Name the values too."""
        return f"table, each a {self.item.name}"

    def read(self, raw: object, folder: Path) -> dict[str, Any]:
        """Give the values by their keys."""
        if not isinstance(raw, dict):
            raise Wrong(f"This must be a table, not {_kind_of(raw)}.", "Write it as a table.")
        named = ((f", {_shown(key)}", item) for key, item in raw.items())
        return dict(zip(raw, _each(named, lambda item: self.item.read(item, folder)), strict=True))


def _each(named: Iterable[tuple[str, object]], read: Callable[[object], T]) -> list[T]:
    values: list[T] = []
    found: list[tuple[str, str, str]] = []
    for where, raw in named:
        try:
            values.append(read(raw))
        except Wrong as wrong:
            found += [(where + inner, what, remedy) for inner, what, remedy in wrong.found]
    if found:
        raise Wrong.several(found)
    return values


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / text))


_GUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.I)


def _looks_like_secret(text: str) -> bool:
    """Tell a pasted key from a file's name, which has separators and reads like words."""
    has_digit = any(sign.isdigit() for sign in text)
    has_both_cases = text != text.lower() and text != text.upper()
    return (
        "-----BEGIN" in text
        or "\n" in text
        or text.endswith("=")
        or _GUID.fullmatch(text.strip()) is not None
        or (len(text) >= 20 and has_digit and not set(text) & set("/._-"))
        or (len(text) >= 32 and has_digit and has_both_cases and not set(text) & set("/."))
    )


def _shown(key: str) -> str:
    """Give a key as it may stand in a report: no control characters, not endless."""
    return key if re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", key) else json.dumps(key[:60])


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _nearest(word: str, words: Iterable[str]) -> str | None:
    simple = {_simple(known): known for known in words}
    near = difflib.get_close_matches(_simple(word), simple, n=1, cutoff=0.6)
    return simple[near[0]] if near else None


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    near = _nearest(word, words)
    return f'Did you mean "{near}"?' if near else ""


def _simple(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


# --- checks of single texts -------------------------------------------------------------------


def _file_part(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", text):
        cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:40]
        raise Wrong(
            "This becomes part of a file's name and does not fit there.",
            "Use up to 40 of the letters A to Z, digits, dots, dashes and underscores"
            + (f', for example "{cleaned}".' if cleaned else "."),
        )
    return text


def _country(text: str) -> str:
    if text.upper() == "UK":
        raise Wrong("This is not the country's ISO code.", 'Write "GB".')
    if not re.fullmatch(r"[A-Z]{2}", text):
        is_code = re.fullmatch(r"[A-Za-z]{2}", text)
        raise Wrong(
            "This must be a country's ISO code: two upper-case letters.",
            f'Write "{text.upper()}".' if is_code else 'Write for example "SE".',
        )
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", text):
        raise Wrong(
            "This is not a name as Engage has them: letters, digits, underscores, dots.",
            "Write it as it stands in Engage.",
        )
    return text


def _product(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+( [\x20-\x7e]+)?", text):
        raise Wrong(
            "This must be a product and its version; Engage refuses calls without them.",
            'Write for example "AcmePOS/1.5".',
        )
    return text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listen_host(text: str) -> str:
    if not _is_loopback(text):
        raise Wrong(
            "Only this machine may be listened on: tokens and personal data would cross the"
            " network without TLS.",
            'Write "127.0.0.1"; put a proxy with TLS in front if others must reach it.',
        )
    return text


_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True


def _host_name(text: str) -> str:
    if not _is_host(text):
        raise Wrong(
            "This must be the name of a machine alone: no scheme, port, path or wildcard.",
            'Write for example "till-12.shop.example".',
        )
    return text


def _split(text: str, example: str) -> SplitResult:
    """Take a URL apart; what does not depend on its use is checked here."""
    url = _parsed_url(text)
    if url is None or " " in text:
        raise Wrong("This is not a URL.", f'Write for example "{example}".')
    if "@" in text:
        # An "@" behind the first slash may be the end of a password that has a slash in it.
        bare = example if url.username is None or "@" in url.path else _without_login(url)
        raise Wrong(
            "This URL carries a login, and secrets may not stand in this file.",
            f'Write for example "{bare}".',
        )
    return url


def _parsed_url(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  it is read for the ValueError of a port that is no number
    except ValueError:
        return None
    return url if url.scheme and url.hostname and _is_host(url.hostname) else None


def _without_login(url: SplitResult) -> str:
    place = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, place, url.path, "", ""))


def _base_url(text: str) -> str:
    url = _split(text, "https://acme.voyado.com")
    prefix: str = re.split("(?i)/api(?:/|$)", url.path)[0].rstrip("/")
    plain = urlunsplit(("https", url.netloc, prefix, "", ""))
    if url.scheme not in ("https", "http") or (
        url.scheme == "http" and not _is_loopback(url.hostname or "")
    ):
        raise Wrong(
            "This must be https: the key and personal data would go in the clear.",
            f'Write "{plain}".',
        )
    bare = url.scheme + plain.removeprefix("https")
    if "?" in text or "#" in text:
        raise Wrong("This carries a query or a fragment.", f'Write "{bare}".')
    if re.search("(?i)/api(/|$)", url.path):
        raise Wrong("The agent adds /api/v3 by itself.", f'Write "{bare}".')
    return bare


def _proxy(text: str) -> str:
    url = _split(text, "http://proxy.shop.example:3128")
    if url.scheme not in ("http", "https") or url.path.strip("/") or url.query or url.fragment:
        raise Wrong(
            "This must be the address of an HTTP proxy alone.",
            'Write for example "http://proxy.shop.example:3128".',
        )
    return text.rstrip("/")


def _origin(text: str) -> str:
    url = _split(text, "https://pos.shop.example")
    bare = f"{url.scheme}://{url.netloc}".lower()
    if url.scheme not in ("http", "https"):
        raise Wrong("This is not a web page's origin.", 'Write "https://…" or "http://…".')
    if text.lower() != bare:
        raise Wrong("An origin has no path, query or slash at its end.", f'Write "{bare}".')
    return bare


_PLACEHOLDERS = ("timestamp", "store", "till", "sequence")
_FILE_NAME = "{timestamp}_{store}-{till}-{sequence}_contacts.xml"
_FILE_NAME_RULES: tuple[tuple[Callable[[str], object], str, str], ...] = (
    (
        lambda text: text.endswith("_contacts.xml"),
        "This must end with _contacts.xml, or Engage does not import the file.",
        f'Write for example "{_FILE_NAME}".',
    ),
    (
        lambda text: "{timestamp}" in text and "{sequence}" in text,
        "This must contain {timestamp} and {sequence}, or a file could overwrite another.",
        f'Write for example "{_FILE_NAME}".',
    ),
    (
        lambda text: "{store}" in text or "{till}" in text,
        "This must contain {store} or {till}, or two tills could overwrite each other's files.",
        f'Write for example "{_FILE_NAME}".',
    ),
    (
        lambda text: set(re.findall(r"\{(.*?)\}", text)) <= set(_PLACEHOLDERS),
        "This contains a placeholder that does not exist.",
        "There are {timestamp}, {store}, {till} and {sequence}.",
    ),
    (
        lambda text: (
            re.fullmatch(r"[A-Za-z0-9{][A-Za-z0-9{}._-]*", text)
            and re.fullmatch(r"[^{}]*(\{[a-z]+\}[^{}]*)*", text)
        ),
        "This has signs that do not fit a file's name.",
        "Use letters, digits, dots, dashes, underscores and placeholders.",
    ),
)


def _file_name(text: str) -> str:
    for fits, what, suggestion in _FILE_NAME_RULES:
        if not fits(text):
            raise Wrong(what, suggestion)
    return text


# --- how a setting is described ---------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What people are told about one setting; stands in the field's metadata as "setting"."""

    kind: Kind
    meaning: str  # one sentence or two
    unit: str = ""
    example: Any = None  # as in TOML; what the example file shows where no default can be shown
    default_text: str = ""  # where the default's own value says too little
    needed_for_sftp: bool = False
    in_example: bool = False  # the example file sets it, though it has a default


def about(kind: Kind, meaning: str, **more: Any) -> dict[str, Setting]:
    """Describe a field of a table in its metadata; a field without a default is required."""
    return {"setting": Setting(kind, meaning, **more)}


@dataclass(frozen=True)
class Described:
    """A setting with its default."""

    setting: Setting
    default: Any  # dataclasses.MISSING where it is required

    @property
    def required(self) -> bool:
        """Say whether agent.toml must have it."""
        return self.default is dataclasses.MISSING


def settings_of(table: type[Any]) -> dict[str, Described]:
    """Give the settings of a table's class by name, in order."""
    return {
        each.name: Described(
            each.metadata["setting"],
            each.default if each.default_factory is dataclasses.MISSING else each.default_factory(),
        )
        for each in dataclasses.fields(table)
    }


def _seconds(at_most: float) -> Number:
    return Number(at_most)


def _age(at_most: float) -> Number:
    return Number(at_most, at_least=0)


def _count(at_least: int, at_most: int) -> Number:
    return Number(at_most, at_least=at_least, whole=True)


_COUNTRY = Text("two upper-case letters, ISO 3166", _country)
_FILE_PART = Text("up to 40 letters, digits, dots, dashes, underscores", _file_part)
_NAME = Text("letters, digits, underscores, dots", _name)
_HOST = Text("a machine's name or address", _host_name)
_DAY = 86_400
_BULK_MAX = 4000  # Engage's limit for one bulk call

# --- the tables -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Store:
    """Which store and till this is."""

    id: str = field(
        metadata=about(
            _FILE_PART,
            "The store's id in Engage; sent as storeExternalId with new contacts and part of the"
            " names of batch files.",
            example="0042",
        )
    )
    till: str = field(
        metadata=about(
            _FILE_PART,
            "Which till in the store this is; no two tills of a store may share it.",
            example="1",
        )
    )
    source: str = field(
        default="POS",
        metadata=about(Text(), "Where new contacts come from, unless the POS says otherwise."),
    )
    country_code: str | None = field(
        default=None,
        metadata=about(
            _COUNTRY,
            "The country of new contacts where the POS gives none.",
            example="SE",
            default_text="none is added",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the POS finds the agent."""

    host: str = field(
        default="127.0.0.1",
        metadata=about(
            Text("a loopback address", _listen_host),
            "The address to listen on; in this version only this machine's own.",
        ),
    )
    port: int = field(
        default=8717,
        metadata=about(_count(0, 65535), "The port to listen on; 0 takes any free one."),
    )
    tokens_file: Path = field(
        default=Path("/etc/till-agent/tokens"),
        metadata=about(
            File(), "The hashes of the tokens, a line per POS; written by till-agent token new."
        ),
    )
    wait_s: float = field(
        default=3.0,
        metadata=about(
            _age(9),
            "How long an answer waits for Engage if the POS does not say; after that it is 202.",
            unit="seconds",
        ),
    )
    dedupe_window_s: float = field(
        default=600.0,
        metadata=about(
            _age(7 * _DAY),
            "Within this time an identical request for the same contact is the same change; 0"
            " turns that off.",
            unit="seconds",
        ),
    )
    allowed_hosts: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(_HOST),
            "More names that a request's Host header may carry; localhost and the loopback"
            " addresses always may.",
            example=["till-12.shop.example"],
            default_text="none more",
        ),
    )
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(Text("scheme://host or scheme://host:port", _origin)),
            "Web pages from elsewhere that may call the agent, for a POS that runs in a browser.",
            example=["https://pos.shop.example"],
            default_text="none",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Where changes are kept until they are settled, and some time after."""

    path: Path = field(
        default=Path("/var/lib/till-agent/journal.db"),
        metadata=about(
            File("on a local disk"),
            "The journal's file; what it promises survives a power cut only on a real disk.",
        ),
    )
    retain_days: int = field(
        default=30,
        metadata=about(
            _count(1, 3650),
            "How long settled changes stay visible before they are erased; open ones never are.",
            unit="days",
        ),
    )
    min_free_mb: int = field(
        default=64,
        metadata=about(
            _count(1, 1_000_000),
            "With less free disk space than this nothing more is taken (507), so that what was"
            " taken can be finished.",
            unit="MiB",
        ),
    )
    key_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The key that encrypts the journal on disk.",
            example="journal_key",
            default_text="not encrypted",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Engage:
    """How Engage is reached and what the tenant expects."""

    base_url: str = field(
        metadata=about(
            Text("https, or http to this machine", _base_url),
            "The tenant's address, without /api/v3.",
            example="https://acme.voyado.com",
        )
    )
    api_key_file: SecretSource = field(
        default=Credential("engage_api_key", Path("/etc/till-agent")),
        metadata=about(Secret(), "The key to Engage's API."),
    )
    user_agent: str = field(
        default=f"till-agent/{__version__}",
        metadata=about(
            Text("product/version", _product),
            "How the agent calls itself towards Engage.",
            example="AcmePOS/1.5",
            default_text="till-agent/ and its version",
        ),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=about(
            File("PEM"),
            "Certificates to trust instead of the system's, for a network that inspects TLS.",
            example="/etc/till-agent/ca.pem",
            default_text="the system's",
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=about(
            Text("http://host:port, without a login", _proxy),
            "The HTTP proxy on the way to Engage.",
            example="http://proxy.shop.example:3128",
            default_text="none",
        ),
    )
    create_timeout_s: float = field(
        default=11.0,
        metadata=about(
            _seconds(120),
            "How long a create may take; Engage itself gives up in under 10 seconds and rolls"
            " back, so waiting a little longer gives a clear answer.",
            unit="seconds",
        ),
    )
    timeout_s: float = field(
        default=20.0,
        metadata=about(_seconds(300), "How long any other call may take.", unit="seconds"),
    )
    contact_key: str = field(
        default="email",
        metadata=about(
            Choice(("email", "mobilePhone", "socialSecurityNumber", "externalId", "memberNumber")),
            "The attribute by which the tenant tells contacts apart.",
        ),
    )
    custom_key: str = field(
        default="memberNumber",
        metadata=about(
            Choice(("memberNumber", "externalId")),
            "The attribute that customKey means in this tenant; Voyado sets it.",
        ),
    )
    default_contact_type: str = field(
        default="Member",
        metadata=about(_NAME, "The type of new contacts where the POS gives none."),
    )
    on_existing: str = field(
        default="update",
        metadata=about(
            Choice(("update", "conflict")),
            "What a create does when the contact exists: update it, or answer 409 as Engage does.",
        ),
    )
    max_requests_per_s: float = field(
        default=5.0,
        metadata=about(
            _seconds(200),
            "The most calls a second this till makes; the whole chain shares Engage's limit.",
            unit="calls per second",
        ),
    )
    backlog_requests_per_s: float = field(
        default=1.0,
        metadata=about(
            _seconds(200),
            "The most calls a second for what waits from an outage, when all tills come back at"
            " once.",
            unit="calls per second",
        ),
    )
    phone_region: str | None = field(
        default=None,
        metadata=about(
            _COUNTRY,
            "The country whose numbers need no + and country code.",
            example="SE",
            default_text="all numbers need +",
        ),
    )
    attributes: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ListOf(_NAME),
            "The tenant's custom attributes; if given, others are refused with a suggestion,"
            " because Engage drops them silently.",
            example=["favouriteBrand", "shoeSize"],
            default_text="any are let through",
        ),
    )
    required: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=about(
            TableOf(ListOf(_NAME, may_be_empty=False), "keys are contact types"),
            "The attributes a new contact must have, by contact type; the contact key is always"
            " one.",
            example={"Member": ["firstName", "lastName"], "Contact": ["email"]},
            default_text="none more",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When a change that could not be delivered is tried again."""

    waits_s: tuple[float, ...] = field(
        default=(10.0, 30.0, 60.0, 300.0),
        metadata=about(
            ListOf(_seconds(_DAY), may_be_empty=False),
            "The waits after the first, second, … try; the last one repeats, and some jitter is"
            " added.",
            unit="seconds",
        ),
    )
    api_attempts: int = field(
        default=4,
        metadata=about(
            _count(1, 1000),
            "After so many failed tries by the API a change takes the file route; throttling and"
            " an offline line do not count.",
            unit="tries",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Link:
    """When the line to Engage counts as down."""

    offline_after: int = field(
        default=3,
        metadata=about(
            _count(1, 1000),
            "After so many failures of the line in a row it counts as offline.",
            unit="failures",
        ),
    )
    probe_s: float = field(
        default=15.0,
        metadata=about(
            _seconds(3600), "How often an offline line is tried, with jitter.", unit="seconds"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """The file route: what is done when the API cannot be used."""

    transport: str = field(
        default="sftp",
        metadata=about(
            Choice(("sftp", "bulk")),
            "How batches reach Engage: as files by SFTP, or through its bulk calls.",
        ),
    )
    spool: Path = field(
        default=Path("/var/lib/till-agent/spool"),
        metadata=about(File(), "The folder for batch files that have not been uploaded yet."),
    )
    seal_after_s: float = field(
        default=300.0,
        metadata=about(
            _age(_DAY),
            "A batch is closed when its oldest change has waited so long.",
            unit="seconds",
        ),
    )
    max_contacts: int = field(
        default=5000,
        metadata=about(
            _count(1, 20_000),
            "The most contacts in one batch; with bulk at most 4000, which then is the default.",
            unit="contacts",
        ),
    )
    api_drain_max: int = field(
        default=100,
        metadata=about(
            _count(0, 100_000),
            "When the line is back, up to so many waiting changes go by the API; more go in"
            " batches.",
            unit="changes",
        ),
    )
    verify: str = field(
        default="all",
        metadata=about(
            Choice(("all", "creates", "none")),
            "Which imported changes are looked up in Engage afterwards; the import itself reports"
            " nothing.",
        ),
    )
    import_grace_s: float = field(
        default=7200.0,
        metadata=about(
            _seconds(30 * _DAY),
            "A file that Engage has not taken after this time raises an alarm.",
            unit="seconds",
        ),
    )
    xslt: Path | None = field(
        default=None,
        metadata=about(
            File("XSLT 1.0"),
            "A stylesheet that turns the standard document into what the tenant's import wants.",
            example="/etc/till-agent/import.xslt",
            default_text="none",
        ),
    )
    file_name: str = field(
        default=_FILE_NAME,
        metadata=about(
            Text("{timestamp}, {sequence}, {store} or {till}; ends with _contacts.xml", _file_name),
            "The name of a batch file.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Sftp:
    """Engage's SFTP server; needed while fallback.transport is "sftp"."""

    host: str = field(
        default="",
        metadata=about(_HOST, "The server's name.", example="ftp.voyado.com", needed_for_sftp=True),
    )
    port: int = field(default=22, metadata=about(_count(1, 65535), "The server's port."))
    username: str = field(
        default="",
        metadata=about(
            Text(),
            "The login; it decides whether staging or production is reached.",
            example="acme",
            needed_for_sftp=True,
        ),
    )
    password_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The login's password; give this or private_key_file.",
            example="sftp_password",
            in_example=True,
            default_text="none",
        ),
    )
    private_key_file: SecretSource | None = field(
        default=None,
        metadata=about(
            Secret(),
            "The login's private key; give this or password_file.",
            example="sftp_private_key",
            default_text="none",
        ),
    )
    known_hosts_file: Path | None = field(
        default=None,
        metadata=about(
            File(),
            "The server's pinned host key; written by till-agent host-key trust, never by itself.",
            example="/etc/till-agent/known_hosts",
            needed_for_sftp=True,
        ),
    )
    directory: str = field(
        default="",
        metadata=about(
            Text(),
            "The server's folder from which Engage imports.",
            example="/import",
            needed_for_sftp=True,
        ),
    )
    timeout_s: float = field(
        default=60.0,
        metadata=about(
            _seconds(3600),
            "How long connecting, and any silence after it, may take.",
            unit="seconds",
        ),
    )
    poll_s: float = field(
        default=300.0,
        metadata=about(
            _seconds(_DAY),
            "How often the server is asked whether Engage has taken a file.",
            unit="seconds",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Cache:
    """How long answers from Engage may be used again."""

    contact_ttl_s: float = field(
        default=60.0,
        metadata=about(_age(_DAY), "How long a contact counts as fresh.", unit="seconds"),
    )
    purchases_ttl_s: float = field(
        default=300.0,
        metadata=about(_age(_DAY), "How long a list of purchases counts as fresh.", unit="seconds"),
    )
    promotions_ttl_s: float = field(
        default=60.0,
        metadata=about(
            _age(_DAY), "How long a list of promotions counts as fresh.", unit="seconds"
        ),
    )
    not_found_ttl_s: float = field(
        default=10.0,
        metadata=about(
            _age(3600),
            "How long Engage's word that a contact does not exist is passed on without asking"
            " again.",
            unit="seconds",
        ),
    )
    max_stale_s: float = field(
        default=259_200.0,
        metadata=about(
            _age(30 * _DAY),
            "While Engage cannot be reached, answers up to this old are served, marked as stale.",
            unit="seconds",
        ),
    )
    max_entries: int = field(
        default=2000,
        metadata=about(
            _count(0, 1_000_000),
            "The most answers kept; the least used go first, and 0 keeps none.",
            unit="answers",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is logged, to standard error; never personal data."""

    level: str = field(
        default="info",
        metadata=about(Choice(("debug", "info", "warning", "error")), "The least that is logged."),
    )
    format: str = field(
        default="text",
        metadata=about(
            Choice(("text", "json")), "Lines for people, or a JSON object per line for programs."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, a field per table of agent.toml."""

    store: Store
    server: Server = Server()
    journal: Journal = Journal()
    engage: Engage
    retry: Retry = Retry()
    link: Link = Link()
    fallback: Fallback = Fallback()
    sftp: Sftp = Sftp()
    cache: Cache = Cache()
    log: Log = Log()


TABLES: dict[str, type[Any]] = {
    "store": Store,
    "server": Server,
    "journal": Journal,
    "engage": Engage,
    "retry": Retry,
    "link": Link,
    "fallback": Fallback,
    "sftp": Sftp,
    "cache": Cache,
    "log": Log,
}

# --- loading ----------------------------------------------------------------------------------


def load(path: Path) -> Config:
    """Read agent.toml; relative paths in it begin where it lies. Nothing else is opened.

    Raises ConfigError with all problems at once.
    """
    path = Path(path)
    data = _parsed_toml(path.name, _content(path))
    reading = _Reading(path.absolute().parent)
    config = _with_bulk_default(reading.config(data), data)
    problems = [*reading.problems, *_clashes(config, reading.bad)]
    if problems:
        raise ConfigError(problems)
    return config


def _content(path: Path) -> str:
    try:
        # Editors on Windows begin a file with a byte order mark.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        what, remedy = "This file does not exist.", "Begin with a copy of agent.toml.example."
    except PermissionError:
        what, remedy = "This file cannot be read by this user.", f"Run: chmod a+r {path}"
    except OSError as error:
        what, remedy = f"This file cannot be read: {error.strerror}.", ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what, remedy = f"Line {line} is not UTF-8 text.", "Save the file as UTF-8."
    raise ConfigError([Problem(str(path), what, remedy)])


def _parsed_toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        # Only the place is passed on: the parser's words may quote what stands there.
        found = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        place = found[1] if found else "some line"
        twice = re.search(r"overwrite|twice|already|mutate", str(error))
    except RecursionError:
        place, twice = "some line", None
    what = "A key or table stands here twice" if twice else "This is not valid TOML"
    remedy = (
        "Keep one of them."
        if twice
        else "Texts need quotes, lists brackets, and each key a line of its own."
    )
    raise ConfigError([Problem(name, f"{what}: {place}.", remedy)])


def _with_bulk_default(config: Config, data: dict[str, Any]) -> Config:
    fallback = data.get("fallback")
    if config.fallback.transport != "bulk" or "max_contacts" in (fallback or {}):
        return config
    smaller = dataclasses.replace(config.fallback, max_contacts=_BULK_MAX)
    return dataclasses.replace(config, fallback=smaller)


class _Reading:
    """Reads all tables, gathers all problems, and puts something usable where one is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[Problem] = []
        self.bad: set[str] = set()  # "table.key" with a problem of its own

    def config(self, data: dict[str, Any]) -> Config:
        for name in sorted(data.keys() - TABLES.keys()):
            self._unknown_table(name, data[name])
        tables_given = {name: raw for name, raw in data.items() if isinstance(raw, dict)}
        meant = data | _as_meant(tables_given, TABLES)
        tables = {name: self._table(name, meant.get(name, {})) for name in TABLES}
        self.problems.sort(key=_order)
        return Config(**tables)

    def _unknown_table(self, name: str, raw: object) -> None:
        near = _did_you_mean(name, TABLES) or f"There are {', '.join(TABLES)}."
        if isinstance(raw, dict):
            self._add(f"[{_shown(name)}]", "There is no such table.", near)
        elif home := _secret_home("", name):
            self.problems.append(_inline_secret(_shown(name), home))
        elif homes := _homes(name):
            self._add(name, "This key stands outside of any table.", f"Move it below {homes}.")
        else:
            self._add(_shown(name), "There is no such key.", near)

    def _table(self, name: str, raw: object) -> Any:
        if not isinstance(raw, dict):
            self._add(
                f"[{name}]",
                f"This must be a table, not {_kind_of(raw)}.",
                f"Write [{name}] on a line of its own, and its keys below it.",
            )
            self.bad |= {f"{name}.{key}" for key in settings_of(TABLES[name])}
            raw = None
        settings = settings_of(TABLES[name])
        for key in sorted((raw or {}).keys() - settings.keys()):
            self._unknown_key(name, key)
        meant = None if raw is None else _as_meant(raw, settings)
        return TABLES[name](
            **{key: self._value(name, key, described, meant) for key, described in settings.items()}
        )

    def _unknown_key(self, table: str, key: str) -> None:
        place = f"[{table}] {_shown(key)}"
        if home := _secret_home(table, key):
            self.problems.append(_inline_secret(place, home))
            self.bad.add(home.lstrip("[").replace("] ", "."))  # not told again as missing
            return
        if homes := _homes(key):
            remedy = f"It belongs below {homes}."
        else:
            known = settings_of(TABLES[table])
            remedy = _did_you_mean(key, known) or f"There are {', '.join(known)}."
        self._add(place, "There is no such key.", remedy)

    def _value(self, table: str, key: str, described: Described, raw: dict[str, Any] | None) -> Any:
        if raw is None or key not in raw:
            if described.required and raw is not None:
                self.bad.add(f"{table}.{key}")
                self.problems.append(_missing(table, key, described.setting))
            return self._default(described)
        try:
            return described.setting.kind.read(raw[key], self._folder)
        except Wrong as wrong:
            self.bad.add(f"{table}.{key}")
            for where, what, remedy in wrong.found:
                self._add(_place(table, key, described.setting, where), what, remedy)
            return self._default(described)

    def _default(self, described: Described) -> Any:
        if described.required:  # only reached beside a problem, so it is never used
            return described.setting.kind.read(described.setting.example, self._folder)
        if isinstance(described.default, Credential):
            return Credential(described.default.name, self._folder)
        return described.default

    def _add(self, place: str, what: str, suggestion: str) -> None:
        self.problems.append(Problem(place, what, suggestion))


def _as_meant(raw: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Read misspelt names as what was probably meant, so that one slip is not told twice."""
    slips = [name for name in raw if name not in known and not _secret_home("", name)]
    meant = {_nearest(name, known): name for name in slips}
    return raw | {near: raw[name] for near, name in meant.items() if near and near not in raw}


def _place(table: str, key: str, setting: Setting, where: str) -> str:
    if isinstance(setting.kind, TableOf) and where:
        return f"[{table}.{key}] {where.removeprefix(', ')}"
    return f"[{table}] {key}{where}"


def _order(problem: Problem) -> int:
    """Keep the report in the order of the tables, unknown ones first."""
    table = re.split(r"[].]", problem.place)[0].lstrip("[")
    return list(TABLES).index(table) if table in TABLES else -1


def _homes(key: str) -> str:
    homes = [f"[{table}]" for table, cls in TABLES.items() if key in settings_of(cls)]
    return " or ".join(homes)


def _missing(table: str, key: str, setting: Setting) -> Problem:
    return Problem(
        f"[{table}] {key}",
        "This is missing.",
        f"Write for example {key} = {_toml(setting.example)}.",
    )


_SECRET_HOMES = {  # what people call a secret: where the file that holds it is named
    "apikey": "[engage] api_key_file",
    "key": "[engage] api_key_file",
    "privatekey": "[sftp] private_key_file",
    "passphrase": "[sftp] private_key_file",
    "password": "[sftp] password_file",
    "passwd": "[sftp] password_file",
    "secret": "[engage] api_key_file",
    "token": "[server] tokens_file",
}
_SECRET_HOMES_BY_TABLE = {
    ("journal", "key"): "[journal] key_file",
    ("journal", "password"): "[journal] key_file",
    ("journal", "passphrase"): "[journal] key_file",
    ("engage", "token"): "[engage] api_key_file",
    ("sftp", "key"): "[sftp] private_key_file",
    ("sftp", "secret"): "[sftp] password_file",
}


def _secret_home(table: str, key: str) -> str:
    simple = _simple(key)
    if simple.endswith("file"):  # password_fil is a slip, password_file in [engage] a wrong place
        return ""
    word = next((word for word in _SECRET_HOMES if simple in (word, word + "s")), "") or next(
        (word for word in _SECRET_HOMES if word != "key" and word in simple), ""
    )
    return _SECRET_HOMES_BY_TABLE.get((table, word)) or _SECRET_HOMES.get(word, "")


def _inline_secret(place: str, home: str) -> Problem:
    remedy = f"Put it in a file that only the service can read and name that file in {home}."
    if home.endswith("tokens_file"):
        remedy = "Make a token with: till-agent token new <name>"
    return Problem(place, "Secrets may not stand in this file.", remedy)


# --- what does not fit together ---------------------------------------------------------------

Clash = Callable[[Config], Iterator[Problem]]


def _clashes(config: Config, bad: set[str]) -> Iterator[Problem]:
    """Give the clashes between values that are each in order, so that nothing is told twice."""
    for depends_on, clash in _CLASHES:
        if not bad.intersection(depends_on):
            yield from clash(config)


def _needed(key: str, config: Config) -> Iterator[Problem]:
    if config.fallback.transport == "sftp" and not getattr(config.sftp, key):
        yield _missing("sftp", key, settings_of(Sftp)[key].setting)


def _one_sftp_login(config: Config) -> Iterator[Problem]:
    given = [config.sftp.password_file, config.sftp.private_key_file]
    if all(given):
        yield Problem(
            "[sftp] password_file",
            "private_key_file is given too, and only one of them can be used.",
            "Delete one of them.",
        )
    if not any(given) and config.fallback.transport == "sftp":
        yield Problem(
            "[sftp] password_file",
            "This or private_key_file is missing.",
            'Write for example password_file = "sftp_password".',
        )


def _bulk_limit(config: Config) -> Iterator[Problem]:
    if config.fallback.transport == "bulk" and config.fallback.max_contacts > _BULK_MAX:
        yield Problem(
            "[fallback] max_contacts",
            f'With transport = "bulk" this must be at most {_BULK_MAX}; Engage takes no more.',
            f"Write {_BULK_MAX} or less, or delete the line.",
        )


def _backlog_rate(config: Config) -> Iterator[Problem]:
    if config.engage.backlog_requests_per_s > config.engage.max_requests_per_s:
        yield Problem(
            "[engage] backlog_requests_per_s",
            "This is more than max_requests_per_s, which holds for all calls.",
            f"Write at most {_plain(config.engage.max_requests_per_s)}.",
        )


def _custom_key(config: Config) -> Iterator[Problem]:
    key = config.engage.contact_key
    if key in ("memberNumber", "externalId") and key != config.engage.custom_key:
        yield Problem(
            "[engage] custom_key",
            f"Contacts cannot be looked up: contact_key is {key}, which Engage finds only as its"
            " customKey.",
            f'Write custom_key = "{key}", or choose another contact_key.',
        )


_CLASHES: list[tuple[tuple[str, ...], Clash]] = [
    (("engage.contact_key", "engage.custom_key"), _custom_key),
    (("engage.max_requests_per_s", "engage.backlog_requests_per_s"), _backlog_rate),
    (("fallback.transport", "fallback.max_contacts"), _bulk_limit),
    *(
        (("fallback.transport", f"sftp.{key}"), functools.partial(_needed, key))
        for key, described in settings_of(Sftp).items()
        if described.setting.needed_for_sftp
    ),
    (
        ("fallback.transport", "sftp.password_file", "sftp.private_key_file"),
        _one_sftp_login,
    ),
]

# --- what is allowed but unwise ---------------------------------------------------------------

_UNWISE: tuple[tuple[Callable[[Config], bool], str, str, str], ...] = (
    (
        lambda config: config.engage.create_timeout_s < 10,
        "[engage] create_timeout_s",
        "Engage gives up on a create in under 10 seconds and then says that nothing happened;"
        " ending earlier turns that clear answer into an unknown one, which must be looked up.",
        "Write 11.",
    ),
    (
        lambda config: config.engage.max_requests_per_s >= 50,
        "[engage] max_requests_per_s",
        "Engage recommends fewer than 50 calls a second for the whole chain, and this is one till.",
        "Write 5.",
    ),
    (
        lambda config: config.fallback.verify == "none",
        "[fallback] verify",
        "Imports report nothing back, so a contact that Engage skips stays unseen.",
        'Write "all" or "creates".',
    ),
    (
        lambda config: config.fallback.import_grace_s < 2 * config.sftp.poll_s,
        "[fallback] import_grace_s",
        "The alarm comes before the server was asked twice, so it will often be false.",
        "Write at least twice sftp.poll_s.",
    ),
)


def warnings(config: Config) -> tuple[Problem, ...]:
    """Give what is allowed but probably not meant."""
    return tuple(
        Problem(place, what, remedy) for unwise, place, what, remedy in _UNWISE if unwise(config)
    )


# --- what is wrong around the settings --------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    point: Path
    kind: str  # as the kernel calls it: "ext4", "tmpfs", "fuse.sshfs"


# SQLite's locks and syncs cannot be relied on over a network; memory forgets at a power cut.
_UNFIT_KINDS = {
    "memory": {"tmpfs", "ramfs", "hugetlbfs", "devtmpfs"},
    "the network": {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre"),
        *("glusterfs", "gfs2", "ocfs2", "9p", "davfs", "vboxsf", "fuse.sshfs", "fuse.glusterfs"),
        *("fuse.davfs", "fuse.davfs2", "fuse.s3fs", "fuse.rclone", "fuse.smbnetfs"),
        *("fuse.curlftpfs", "fuse.vmhgfs-fuse", "fuse.gvfsd-fuse", "fuse.ceph"),
    },
}


def mounts_now(table: Path = Path("/proc/self/mountinfo")) -> tuple[Mount, ...]:
    """Give the machine's mounts in the order they were made; none if the kernel does not say."""
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ()
    return tuple(mount for line in lines if (mount := _mount(line)))


def _mount(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    fields, kinds = before.split(" "), after.split(" ")
    if len(fields) < 5 or not kinds[0]:
        return None
    # The kernel writes blanks and the like as \\040.
    point = re.sub(r"\\([0-7]{3})", lambda sign: chr(int(sign[1], 8)), fields[4])
    return Mount(Path(point), kinds[0])


def _mount_of(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    real = Path(os.path.realpath(path))
    over = [mount for mount in mounts if real.is_relative_to(mount.point)]
    # Of two mounts on the same point the later one is seen: max() would take the first.
    return max(reversed(over), key=lambda mount: len(mount.point.parts), default=None)


def check_files(config: Config, mounts: Sequence[Mount] | None = None) -> tuple[Problem, ...]:
    """Give what is wrong with the files and folders that the settings name; changes nothing.

    Each of these problems keeps the agent from working. `mounts` replaces the machine's own table.
    """
    return tuple(
        [
            *_secret_problems(config),
            *_readable("[engage] ca_file", config.engage.ca_file),
            *_certificates(config.engage.ca_file),
            *_readable("[fallback] xslt", config.fallback.xslt),
            *_tokens_problems(config),
            *_journal_problems(config, mounts_now() if mounts is None else mounts),
            *_folder_problems("[fallback] spool", config.fallback.spool),
        ]
    )


def file_hints(config: Config) -> tuple[Problem, ...]:
    """Give what a person still has to do: pin the host key, make tokens. The agent starts anyway.

    Without a pinned key the file route halts; without tokens no POS gets in.
    """
    return tuple([*_known_hosts_hints(config), *_tokens_hints(config)])


def _secret_problems(config: Config) -> Iterator[Problem]:
    uses_sftp = config.fallback.transport == "sftp"
    named = {
        "[journal] key_file": config.journal.key_file,
        "[engage] api_key_file": config.engage.api_key_file,
        "[sftp] password_file": config.sftp.password_file if uses_sftp else None,
        "[sftp] private_key_file": config.sftp.private_key_file if uses_sftp else None,
    }
    for place, source in named.items():
        if source is None:
            continue
        try:
            read_secret(source)
        except SecretProblem as problem:
            yield Problem(place, problem.what, problem.suggestion)


def _readable(place: str, path: Path | None) -> Iterator[Problem]:
    if path is None:
        return
    if not os.path.isfile(path):
        yield Problem(place, f"The file {path} does not exist.", "Correct the path.")
    elif not os.access(path, os.R_OK):
        yield Problem(
            place, f"The file {path} cannot be read by this user.", f"Run: chmod a+r {path}"
        )


def _certificates(path: Path | None) -> Iterator[Problem]:
    if path is None or not os.access(path, os.R_OK):
        return
    try:
        ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, OSError):
        yield Problem(
            "[engage] ca_file",
            f"The file {path} holds no certificates that can be used.",
            "Store them in PEM form: they begin with -----BEGIN CERTIFICATE-----",
        )


def _tokens_problems(config: Config) -> Iterator[Problem]:
    path = config.server.tokens_file
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Problem(
            "[server] tokens_file",
            f"Other users may write to {path} and so let themselves in.",
            f"Run: chmod go-w {path}",
        )


def _tokens_hints(config: Config) -> Iterator[Problem]:
    tokens = Tokens(config.server.tokens_file)
    yield from tokens.problems
    if not tokens.names and not tokens.problems:
        yield Problem(
            "[server] tokens_file",
            f"There are no tokens in {config.server.tokens_file}, so no POS gets in.",
            "Make one with: till-agent token new <name>",
        )


def _known_hosts_hints(config: Config) -> Iterator[Problem]:
    path = config.sftp.known_hosts_file
    if config.fallback.transport != "sftp" or path is None:
        return
    place = "[sftp] known_hosts_file"
    remedy = "Compare the fingerprint with Voyado's, then: till-agent host-key trust"
    try:
        content = path.read_text(errors="replace")
    except FileNotFoundError:
        yield Problem(place, f"{path} does not exist, so no file is sent.", remedy)
    except OSError as error:
        yield Problem(
            place,
            f"{path} cannot be read ({error.strerror}), so no file is sent.",
            f"Run: chmod a+r {path}",
        )
    else:
        if all(not line.strip() or line.startswith("#") for line in content.splitlines()):
            yield Problem(place, f"{path} holds no host key, so no file is sent.", remedy)


def _journal_problems(config: Config, mounts: Sequence[Mount]) -> Iterator[Problem]:
    place, path = "[journal] path", config.journal.path
    if os.path.isdir(path):
        yield Problem(place, f"{path} is a folder.", f'Write for example "{path}/journal.db".')
        return
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        yield _not_writable(place, path)
    yield from _folder_problems(place, path.parent)
    mount = _mount_of(path, mounts)
    for what, kinds in _UNFIT_KINDS.items():
        if mount is not None and mount.kind in kinds:
            yield Problem(
                place,
                f"{path} lies on {mount.point}, which is {mount.kind}: {what} cannot promise that"
                " what was taken survives.",
                'Choose a folder on a local disk, for example "/var/lib/till-agent/journal.db".',
            )


def _folder_problems(place: str, folder: Path) -> Iterator[Problem]:
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        yield Problem(place, f"{existing} is not a folder.", "Choose another path.")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield _not_writable(place, existing)


def _not_writable(place: str, path: Path) -> Problem:
    return Problem(
        place,
        f"This user may not write to {path}.",
        "Give it to the user of the service, or choose another path.",
    )


# --- showing ----------------------------------------------------------------------------------


def describe(config: Config) -> dict[str, dict[str, Any]]:
    """Give the effective settings as JSON types, by table; secrets are only named by their file."""
    return {
        table: {key: _json(getattr(getattr(config, table), key)) for key in settings_of(cls)}
        for table, cls in TABLES.items()
    }


def config_hash(config: Config) -> str:
    """Give 12 hex digits that differ when the settings do; what secret files hold has no part."""
    text = json.dumps(describe(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _json(value: Any) -> Any:
    if isinstance(value, Path | Credential):
        return str(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    return value


def _toml(value: Any) -> str:
    """Give a value as it is written in TOML."""
    if isinstance(value, Path | Credential):
        value = str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings are written alike
    return _plain(value)


_EXAMPLE_HEAD = """\
# Settings of till-agent. Generated: python -m agent.config example > agent.toml.example
#
# A line that begins with "#key =" shows the default, or an example where there is none: take the #
# away to change it. Relative paths begin where this file lies. Secrets never stand here: they are
# in files that only the service can read (chmod 600), or in systemd credentials, which are named
# without a slash. Check your changes with: till-agent check
"""


def example() -> str:
    """Give the text of agent.toml.example."""
    return "\n".join([_EXAMPLE_HEAD, *(_example_table(name) for name in TABLES)])


def _example_table(name: str) -> str:
    settings = settings_of(TABLES[name])
    plain = [key for key in settings if not isinstance(settings[key].setting.kind, TableOf)]
    nested = [key for key in settings if key not in plain]
    return "\n".join(
        [
            f"# {_doc(TABLES[name])}\n[{name}]\n",
            *(_comment(settings[key].setting) + _example_line(key, settings[key]) for key in plain),
            *(
                _comment(settings[key].setting) + _example_nested(name, key, settings[key].setting)
                for key in nested
            ),
        ]
    )


def _doc(table: type[Any]) -> str:
    return (table.__doc__ or "").strip()


_MEASURES = ("seconds", "days", "MiB", "calls per second")  # what is counted, the sentence says


def _comment(setting: Setting) -> str:
    facts = (
        f"in {setting.unit}" if setting.unit in _MEASURES else "",
        setting.kind.limits,
        f"default: {setting.default_text}" if setting.default_text else "",
    )
    known = "; ".join(filter(None, facts))
    text = setting.meaning + (f" ({known})" if known else "")
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 96, break_on_hyphens=False))


def _example_line(key: str, described: Described) -> str:
    setting = described.setting
    value = described.default if setting.example is None else setting.example
    is_set = described.required or setting.needed_for_sftp or setting.in_example
    return f"{'' if is_set else '#'}{key} = {_toml(value)}\n"


def _example_nested(table: str, key: str, setting: Setting) -> str:
    lines = [f"#{item} = {_toml(value)}\n" for item, value in setting.example.items()]
    return f"#[{table}.{key}]\n" + "".join(lines)


_REFERENCE_HEAD = """\
# Settings

<!-- Generated: python -m agent.config reference > docs/config.md -->

The agent reads one file, `agent.toml`, when it starts; `till-agent check` tells everything that is
wrong in it at once and changes nothing. Unknown keys are errors, so a slip of the pen cannot pass
for a default. `agent.toml.example` is a file to begin with.

**Paths.** A relative path begins in the folder where `agent.toml` lies.

**Secrets** never stand in `agent.toml`. A *secret file* is one of these:

- a bare name without a slash (`"engage_api_key"`): the systemd credential of that name
  (`LoadCredential=`) if the service was given one, or else the file of that name beside
  `agent.toml`;
- a path with a slash (`"/etc/till-agent/engage_api_key"`, `"./engage_api_key"`): that file.

The file holds nothing but the secret; one line break at its end is ignored. Files that group or
others may read are refused (`chmod 600`); systemd protects its credentials by itself. Secrets are
read again whenever they are needed, so a new key takes effect without a restart when it replaces
the file. A credential is a copy that systemd makes at the start of the service: restart it then.
"""


def reference() -> str:
    """Give the text of docs/config.md."""
    return "\n".join([_REFERENCE_HEAD, *(_reference_table(name) for name in TABLES)])


def _reference_table(name: str) -> str:
    head = (
        "| key | type | unit | default | meaning | range |\n| --- | --- | --- | --- | --- | --- |"
    )
    rows = [_reference_row(key, each) for key, each in settings_of(TABLES[name]).items()]
    return "\n".join([f"## [{name}]\n", f"{_doc(TABLES[name])}\n", head, *rows, ""])


def _reference_row(key: str, described: Described) -> str:
    setting = described.setting
    cells = (
        f"`{key}`",
        setting.kind.name,
        setting.unit,
        _reference_default(described),
        setting.meaning,
        setting.kind.limits,
    )
    return "| " + " | ".join(cells) + " |"


def _reference_default(described: Described) -> str:
    if described.required:
        return "**required**"
    if described.setting.needed_for_sftp:
        return '**required** with transport = "sftp"'
    return described.setting.default_text or f"`{_toml(described.default)}`"


def main(arguments: Sequence[str]) -> int:
    """Print the example or the reference."""
    texts = {"example": example, "reference": reference}
    if len(arguments) != 1 or arguments[0] not in texts:
        print("usage: python -m agent.config example|reference", file=sys.stderr)
        return 2
    sys.stdout.write(texts[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
