"""The words of the page in one language, and how numbers and times read in it.

All words stand in `languages/`, a file per language. What other parts of the agent say is English
in the code, because logs, programs and commands read it too; a language's file says the same
sentences in its own way.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "sv")  # the first one where nothing is asked for that is known
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@cache
def words_of(language: str) -> Words:
    """Give the words of one of LANGUAGES."""
    text = (files("agent.status") / "languages" / f"{language}.toml").read_text("utf-8")
    return Words(language, tomllib.loads(text))


def preferred(accept_language: str) -> str:
    """Give the language that an Accept-Language header (RFC 9110) likes best, of those we have."""
    best, liking = LANGUAGES[0], 0.0
    for part in accept_language.split(","):
        tag, _, parameter = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        quality = _quality(parameter)
        if language in LANGUAGES and quality > liking:
            best, liking = language, quality
    return best


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    return float(value) if re.fullmatch(r"[01](\.\d{0,3})?", value.strip()) else 0.0


class Words:
    """One language."""

    def __init__(self, language: str, table: Mapping[str, Any]) -> None:
        self.language = language
        self.name: str = table["name"]  # what it calls itself
        self._table = table
        self.texts: dict[str, str] = {
            key: text
            for part, entries in table.items()
            if isinstance(entries, dict) and part != "sayings"
            for key, text in _flat(part, entries)
        }

    def __call__(self, key: str, **values: object) -> str:
        """Give the text of this name, filled in. KeyError for one that does not exist."""
        text = self.texts[key]
        return text.format(**values) if values else text

    def has(self, key: str) -> bool:
        """Say whether there is a text of this name."""
        return key in self.texts

    # --- numbers and times --------------------------------------------------------------------

    def number(self, count: int) -> str:
        """Give a whole number: `1,204`."""
        return f"{count:,}".replace(",", self._table["thousands"])

    def counted(self, key: str, count: int, **values: object) -> str:
        """Give the text that goes with a number: `1 file`, `1,204 files`."""
        form = "one" if count == 1 else "many"
        return self(f"{key}.{form}", n=self.number(count), **values)

    def span(self, seconds: float) -> str:
        """Give a length of time in its one fitting unit, rounded down: `26 minutes`."""
        if seconds < _MINUTE:
            return self("span.short")
        if seconds < 2 * _HOUR:
            return self.counted("span.minutes", int(seconds // _MINUTE))
        if seconds < 2 * _DAY:
            return self.counted("span.hours", int(seconds // _HOUR))
        return self.counted("span.days", int(seconds // _DAY))

    def limit(self, seconds: float) -> str:
        """Give a length of time that was exceeded, exactly where it is short: `20 seconds`."""
        if seconds >= _MINUTE:
            return self.span(seconds)
        form = "one" if seconds == 1 else "many"
        return self(f"span.seconds.{form}", n=f"{seconds:g}".replace(".", self._table["decimal"]))

    def brief(self, seconds: float) -> str:
        """Give a length of time where there is little room: `26 min`."""
        if seconds < _MINUTE:
            return self("brief.short")
        if seconds < 2 * _HOUR:
            return self("brief.minutes", n=self.number(int(seconds // _MINUTE)))
        if seconds < 2 * _DAY:
            return self("brief.hours", n=self.number(int(seconds // _HOUR)))
        return self.counted("brief.days", int(seconds // _DAY))

    def moment(self, when: datetime, now: datetime) -> str:
        """Give a moment on the till's own clock: `14:02`, with the day if it is not today's."""
        local, today = when.astimezone(), now.astimezone().date()
        time = f"{local:%H:%M}"
        if local.date() == today:
            return time
        key = "moment.day" if local.year == today.year else "moment.day_and_year"
        # Not strftime's names: those follow the machine's locale.
        month = self._table["moment"]["months"][local.month - 1]
        return self(key, day=local.day, month=month, year=local.year, time=time)

    def size(self, count: int) -> str:
        """Give bytes in the unit that a person would use: `640 MB`, `79.8 GB`."""
        if count < 1024**3:
            return f"{self.number(count // 1024**2)} MB"
        tenths = round(count / 1024**3 * 10)
        return f"{self.number(tenths // 10)}{self._table['decimal']}{tenths % 10} GB"

    # --- what other parts say -----------------------------------------------------------------

    def said(self, text: str) -> str:
        """Give what another part of the agent said, sentence by sentence, in this language.

        A sentence that is not known here stays as it is.
        """
        if "sayings" not in self._table:
            return text
        sentences = re.split(r"(?<=[.!?]) ", text)
        return " ".join(self._said_in_turn(sentences))

    def knows(self, sentence: str) -> bool:
        """Say whether a sentence of another part can be said in this language."""
        return "sayings" not in self._table or self._whole(sentence) is not None

    def _said_in_turn(self, sentences: list[str]) -> Iterator[str]:
        begin = 0
        while begin < len(sentences):
            # What was filled in may hold a full stop, so several parts may be one sentence.
            for end in range(begin + 1, len(sentences) + 1):
                text = " ".join(sentences[begin:end])
                if (found := self._whole(text)) is not None:
                    yield found
                    break
            else:
                end = begin + 1
                yield sentences[begin]
            begin = end

    def _whole(self, text: str) -> str | None:
        if (fixed := self._fixed_sayings.get(text)) is not None:
            return fixed
        for pattern, answer in self._open_sayings:
            if match := pattern.fullmatch(text):
                return answer.format(
                    **{name: self._part(value) for name, value in match.groupdict().items()}
                )
        return None

    def _part(self, value: str) -> str:
        """Say what was filled into a sentence, which may be a sentence in small letters."""
        found = self._whole(value)
        if found is None and value[:1].islower():
            capital = self._whole(value[0].upper() + value[1:])
            found = capital and capital[0].lower() + capital[1:]
        return found or value

    @cached_property
    def _fixed_sayings(self) -> dict[str, str]:
        return {said: answer for said, answer in self._table["sayings"].items() if "{" not in said}

    @cached_property
    def _open_sayings(self) -> list[tuple[re.Pattern[str], str]]:
        """Give a pattern for each saying that is filled in, the most exact one first."""
        filled = [said for said in self._table["sayings"] if "{" in said]
        filled.sort(key=lambda said: len(re.sub(r"\{\w+\}", "", said)), reverse=True)
        return [(_pattern(said), self._table["sayings"][said]) for said in filled]


def _pattern(said: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", said)
    seen: set[str] = set()
    text = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        text += f"(?P={name})" if name in seen else f"(?P<{name}>.+?)"
        text += re.escape(literal)
        seen.add(name)
    return re.compile(text, re.DOTALL)


def _flat(prefix: str, entries: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, entry in entries.items():
        if isinstance(entry, dict):
            yield from _flat(f"{prefix}.{name}", entry)
        elif isinstance(entry, str):
            yield f"{prefix}.{name}", entry


def first_sentence(text: str) -> tuple[str, str]:
    """Split what went wrong from what follows it; the latter may be empty."""
    head, stop, rest = text.strip().partition(". ")
    return (f"{head}." if stop else head), rest.strip()
