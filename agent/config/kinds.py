"""The kinds of values a setting may have: how each is called, limited and read from TOML."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agent.secrets import Credential, SecretSource

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


def kind_of(raw: object) -> str:
    """Give what a value of TOML is, in words."""
    names = {bool: "true or false", str: "a text", int: "a whole number", float: "a fraction"}
    names |= {list: "a list", dict: "a table"}
    return names.get(type(raw), "a date or time")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise Wrong(f"This must be a text, not {kind_of(raw)}.", "Put it in quotes.")
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
                did_you_mean(text, self.choices) or "Write one of these.",
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
            return f"above {plain(self.above)}, at most {plain(self.at_most)}"
        return f"from {plain(self.at_least)} to {plain(self.at_most)}"

    def read(self, raw: object, folder: Path) -> int | float:
        """Give the number; whole numbers are taken where fractions are allowed."""
        # bool is an int in Python, but `port = true` is a mistake.
        if type(raw) is not int and (self.whole or type(raw) is not float):
            remedy = "Write it without quotes." if isinstance(raw, str) else "Write digits alone."
            raise Wrong(f"This must be a {self.name}, not {kind_of(raw)}.", remedy)
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
            raise Wrong(f"This must be a list, not {kind_of(raw)}.", "Put it in [square brackets].")
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
            raise Wrong(f"This must be a table, not {kind_of(raw)}.", "Write it as a table.")
        named = ((f", {shown(key)}", item) for key, item in raw.items())
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


def shown(key: str) -> str:
    """Give a key as it may stand in a report: no control characters, not endless."""
    return key if re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", key) else json.dumps(key[:60])


def plain(value: float) -> str:
    """Give a number without an exponent or needless digits."""
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Give the word that was probably meant, if there is one."""
    by_letters = {letters_of(known): known for known in words}
    near = difflib.get_close_matches(letters_of(word), by_letters, n=1, cutoff=0.6)
    return by_letters[near[0]] if near else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Give a suggestion for a misspelt word; empty if nothing comes near."""
    near = nearest(word, words)
    return f'Did you mean "{near}"?' if near else ""


def letters_of(word: str) -> str:
    """Give what two spellings of a word have in common: its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", word.lower())
