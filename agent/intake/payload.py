"""A request's JSON becomes a checked, normalised Payload, or the list of all that is wrong.

Pure: no I/O, no clock. Knows what a POS may ask for; not who asks, how it is stored or sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from agent.change import Payload
from agent.contact import NO_ATTRIBUTES, NO_CONTACT_TYPES, NO_PREFERENCES
from agent.errors import FieldProblem, InvalidChange, MalformedRequest, NoData
from agent.intake import checks
from agent.intake.checks import Wrong
from agent.intake.words import sentence

_MAX_DEPTH = 8  # consents need three; what is deeper is an accident or an attack

# Names of Engage's answer, of its import file and of the address, in lower case; as attributes
# Engage would drop them silently, and a file could not hold them.
_NOT_ATTRIBUTES = NO_ATTRIBUTES | {"id", "attributes", "meta"}
_TELL_THE_AGE = ("birthDay", "socialSecurityNumber")
_QUERY_PARAMETERS = frozenset({"storeExternalId", "createAsUnapproved"})
_COMPOUND = ("preferences", "consents")

# Looking for the nearest name costs about a millisecond; thousands of names would stop the till.
_MAX_SUGGESTIONS = 20


@dataclass(frozen=True)
class Rules:
    """What intake has to know from the settings."""

    contact_key: str = "email"  # engage.contact_key: a create must have it
    default_contact_type: str = "Member"
    attributes: tuple[str, ...] | None = None  # the tenant's own; None: not told, any name passes
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # per contact type
    minimum_age: Mapping[str, int] = field(default_factory=dict)  # years, per contact type
    phone_region: str | None = None  # ISO 3166, for numbers without a country code
    source: str | None = "POS"
    store_external_id: str | None = None
    country_code: str | None = None

    @cached_property
    def known_names(self) -> frozenset[str]:
        """Give the attributes that Engage is known to have."""
        return frozenset(checks.STANDARD_ATTRIBUTES) | frozenset(self.attributes or ())

    @cached_property
    def folded_names(self) -> Mapping[str, str]:
        """Give every known name by its lower-case form."""
        names = (*checks.STANDARD_ATTRIBUTES, *_COMPOUND, "contactType", *(self.attributes or ()))
        return {name.lower(): name for name in names}

    @cached_property
    def contact_types(self) -> Mapping[str, str]:
        """Give the contact types that the settings name, by their lower-case form."""
        names = ("Member", *self.required, *self.minimum_age, self.default_contact_type)
        return {name.lower(): name for name in names}

    @cached_property
    def required_of(self) -> Mapping[str, tuple[str, ...]]:
        """Give what each contact type needs, by the type's lower-case form."""
        return {name.lower(): tuple(names) for name, names in self.required.items()}

    @cached_property
    def minimum_age_of(self) -> Mapping[str, int]:
        """Give how old somebody must be, by the contact type's lower-case form."""
        return {name.lower(): years for name, years in self.minimum_age.items()}

    def needs_type(self, data: Mapping[str, Any]) -> bool:
        """Say whether an update can be checked better by who knows the contact's type."""
        return bool(self.minimum_age) and any(name in data for name in _TELL_THE_AGE)


def read_json(body: bytes) -> dict[str, Any]:
    """Read a request's body, strictly.

    NoData if it is empty. MalformedRequest, without any data in its message, for what is not UTF-8
    or JSON, NaN and infinite numbers, whole numbers beyond 64 bits, a name that stands twice in an
    object, nesting deeper than 8 and a top level that is not an object. A byte-order mark is
    skipped. A lone surrogate passes here: the payload functions name the field it stands in.
    """
    try:
        written = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _malformed("is not UTF-8") from None
    if not written.strip():
        raise NoData
    try:
        data = _DECODER.decode(written)
    except json.JSONDecodeError as error:
        raise _malformed(
            f"is not JSON; reading stopped in line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _malformed("is nested too deeply") from None
    if not isinstance(data, dict):
        raise _malformed("must be a JSON object")
    if _is_deeper(data, _MAX_DEPTH):
        raise _malformed("is nested too deeply")
    return data


def create_payload(
    data: Mapping[str, Any],
    query: Mapping[str, str],
    rules: Rules,
    today: date,
    *,
    language: str = "en",
) -> Payload:
    """Check a create: its body, and `source`, `storeExternalId`, `createAsUnapproved` of its query.

    Empty values are left out. What the POS leaves out is filled in from the rules; the country
    code goes to `defaults`, so that it never overwrites one of a contact that exists already.
    InvalidChange with everything that is wrong.
    """
    form = _Form(rules, today, language)
    contact_type = form.contact_type(data.get("contactType"), "contactType")
    attributes = form.attributes({k: v for k, v in data.items() if k != "contactType"})
    contact_type = contact_type or rules.default_contact_type
    defaults: dict[str, Any] = {}
    if rules.country_code and checks.is_empty(data.get("countryCode")):
        defaults["countryCode"] = rules.country_code
    form.need(data, defaults, contact_type)
    form.old_enough(attributes, contact_type)
    payload = Payload(
        attributes=attributes,
        defaults=defaults,
        contact_type=contact_type,
        source=form.parameter(query, "source") or rules.source,
        store_external_id=form.parameter(query, "storeExternalId") or rules.store_external_id,
        as_unapproved=form.flag(query, "createAsUnapproved"),
    )
    form.finish()
    return payload


def update_payload(
    data: Mapping[str, Any],
    clear: Sequence[str],
    rules: Rules,
    today: date,
    *,
    contact_type: str | None = None,
    language: str = "en",
) -> Payload:
    """Check an update: only what is given is changed, only what is in `clear` is emptied.

    `clear` holds the values of `?clear=`, names parted by commas; `contact_type` is the contact's,
    where it is known. Empty values are refused, for Engage would erase what it has. NoData if
    nothing is asked for; InvalidChange with everything that is wrong.
    """
    form = _Form(rules, today, language)
    names = form.cleared(data, clear)
    if "contactType" in data:
        form.wrong("contactType", "ContactTypeNotUpdatable")
    rest = {k: v for k, v in data.items() if k != "contactType" and k not in names}
    attributes = form.attributes(rest, keep_empty=True)
    form.old_enough(attributes, contact_type)
    form.finish()
    if not attributes and not names:
        raise NoData("There is nothing to change: send at least one attribute, or ?clear=.")
    return Payload(attributes=attributes, clear=names)


def upgrade_payload(
    data: Mapping[str, Any] | None,
    contact_type: str,
    rules: Rules,
    today: date,
    *,
    language: str = "en",
) -> Payload:
    """Check an upgrade to `contact_type`, with the attributes that enrich the contact before it.

    `contactType` or `type` in the body is dropped if it says the same (public clients send
    `{"type": …}`). Empty values are refused as in an update. InvalidChange with everything that is
    wrong.
    """
    form = _Form(rules, today, language)
    target = form.contact_type(contact_type, "contactTypeId")
    if checks.is_empty(contact_type):
        form.wrong("contactTypeId", "Required")
    rest = dict(data or {})
    if "contactType" in rest and not _says(rest.pop("contactType"), target):
        form.wrong("contactType", "ContactTypeDiffers")
    if "type" not in rules.known_names and _says(rest.get("type"), target):
        del rest["type"]
    attributes = form.attributes(rest, keep_empty=True, clearable=False)
    form.old_enough(attributes, target)
    form.finish()
    return Payload(attributes=attributes, contact_type=target)


# Made once: json.dumps would make a new encoder for each request.
_canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def request_fingerprint(method: str, path: str, query: Iterable[tuple[str, str]], body: Any) -> str:
    """Return the SHA-256, in hex, of what makes two requests the same request.

    Method, path, the query in any order, and the body as JSON in any order of its names.
    """
    said = _canonical([method.upper(), path, sorted(query), body])
    return hashlib.sha256(said.encode()).hexdigest()


class _Form:
    """One request under the checks: collects what is wrong, so that all is told at once."""

    def __init__(self, rules: Rules, today: date, language: str) -> None:
        self.rules = rules
        self.today = today
        self.language = language
        self.problems: list[FieldProblem] = []
        self.suggested = 0

    def wrong(
        self,
        name: str,
        code: str,
        suggestion: str = "",
        clearable: bool = True,
        **details: object,
    ) -> None:
        message = sentence(
            code, name, self.language, suggestion=suggestion, clearable=clearable, **details
        )
        self.problems.append(FieldProblem(name, code, message))

    def finish(self) -> None:
        if self.problems:
            raise InvalidChange(self.problems)

    def attributes(
        self, data: Mapping[str, Any], keep_empty: bool = False, clearable: bool = True
    ) -> dict[str, Any]:
        """Return the attributes that are right. `keep_empty`: an empty one is a problem."""
        found: dict[str, Any] = {}
        for position, (name, value) in enumerate(data.items()):
            if name == "preferences":
                self._preferences(value, found, keep_empty)
            elif name == "consents":
                self._consents(value, found, keep_empty)
            elif self._is_usable(name, position):
                if checks.is_empty(value):
                    if keep_empty:
                        self.wrong(name, "EmptyValue", clearable=clearable)
                    continue
                checked = self._value(name, value)
                if isinstance(checked, Wrong):
                    self.wrong(name, checked.code)
                else:
                    found[name] = checked
        self._same_names(data)
        return found

    def contact_type(self, value: Any, name: str) -> str | None:
        """Return a contact type as the settings spell it; None if it is empty or wrong."""
        if checks.is_empty(value):
            return None
        if not isinstance(value, str):
            self.wrong(name, "WrongType")
            return None
        handle = checks.trimmed(value)
        if not checks.is_name(handle) or handle.lower() in NO_CONTACT_TYPES:
            self.wrong(name, "BadContactType")
            return None
        return self.rules.contact_types.get(handle.lower(), handle)

    def need(self, data: Mapping[str, Any], defaults: Mapping[str, Any], contact_type: str) -> None:
        """Note which attributes a contact of this type lacks; a wrong one is not missing."""
        key = self.rules.contact_key
        if _is_missing(data, key):
            self.wrong(key, "KeyMissing")
        for name in self.rules.required_of.get(contact_type.lower(), ()):
            if name != key and name not in defaults and _is_missing(data, name):
                self.wrong(name, "Required")

    def old_enough(self, attributes: Mapping[str, Any], contact_type: str | None) -> None:
        """Note what says that somebody is too young for a contact of this type.

        An import leaves such a contact out without a word (Engage's docs, "Contact XML import").
        """
        years = self.rules.minimum_age_of.get((contact_type or "").lower(), 0)
        for name in _TELL_THE_AGE:
            if years and name in attributes:
                born = checks.born_by(name, attributes[name])
                if checks.age_of(born, self.today) < years:
                    self.wrong(name, "TooYoung", age=years, contact_type=contact_type)

    def parameter(self, query: Mapping[str, str], name: str) -> str | None:
        """Return a parameter of the query; None if it is empty or wrong."""
        value = checks.trimmed(query.get(name, ""))
        if checks.has_forbidden(value):
            self.wrong(name, "ControlCharacter")
            return None
        return value or None

    def flag(self, query: Mapping[str, str], name: str) -> bool:
        """Return a parameter that is true or false, and false where it is not given."""
        value = checks.trimmed(query.get(name, "")).lower()
        if value not in {"", "true", "false"}:
            self.wrong(name, "NotBoolean")
        return value == "true"

    def cleared(self, data: Mapping[str, Any], clear: Sequence[str]) -> tuple[str, ...]:
        """Return the names in `?clear=`, each once."""
        names = dict.fromkeys(
            name for part in clear for name in map(checks.trimmed, part.split(",")) if name
        )
        for name in names:
            if not checks.is_name(name):
                self.wrong("clear", "BadName")
            elif name == "contactType":
                if name not in data:
                    self.wrong(name, "ContactTypeNotUpdatable")
            elif name == self.rules.contact_key:
                self.wrong(name, "KeyNotClearable")
            elif name.partition(".")[0] in _COMPOUND:
                self.wrong(name, "NotClearable")
            elif self._is_usable(name) and not checks.is_empty(data.get(name)):
                self.wrong(name, "ClearedAndGiven")
        return tuple(names)

    def _is_usable(self, name: str, position: int = 0) -> bool:
        """Say whether an attribute of this name can be sent, and note why not."""
        rules = self.rules
        if name in rules.known_names:
            return True
        if not checks.is_name(name):
            self.wrong(f"#{position + 1}", "BadName")  # the name itself may be personal data
        elif name.lower() in _NOT_ATTRIBUTES:
            self.wrong(name, "NotAnAttribute")
        elif name in _QUERY_PARAMETERS:
            self.wrong(name, "QueryParameter")
        elif name.partition(".")[0] in _COMPOUND:
            self.wrong(name, "UnknownAttribute", name.partition(".")[0])
        elif (flag := _PREFERENCES_AS_READ.get(name.lower().rstrip("s"))) is not None:
            self.wrong(name, "UnknownAttribute", f"preferences.{flag}")
        elif name.lower() in rules.folded_names:
            self.wrong(name, "UnknownAttribute", rules.folded_names[name.lower()])
        elif rules.attributes is None:
            return True
        elif name in checks.READ_ONLY or name.startswith(checks.READ_ONLY_PREFIXES):
            self.wrong(name, "ReadOnly")
        else:
            self.wrong(name, "UnknownAttribute", self._nearest(name))
        return False

    def _nearest(self, name: str) -> str:
        self.suggested += 1
        if self.suggested > _MAX_SUGGESTIONS:
            return ""
        near = get_close_matches(name.lower(), self.rules.folded_names, n=1)
        return self.rules.folded_names[near[0]] if near else ""

    def _value(self, name: str, value: Any) -> Any:
        if name not in _STANDARD:
            return checks.custom(value)
        written = checks.text(value)
        check = _CHECKS.get(name)
        if check is None or isinstance(written, Wrong):
            return written
        return check(written, self.rules, self.today)

    def _preferences(self, value: Any, found: dict[str, Any], keep_empty: bool) -> None:
        if not isinstance(value, Mapping):
            if not checks.is_empty(value):
                self.wrong("preferences", "NotAnObject")
            elif keep_empty:
                self.wrong("preferences", "EmptyValue", clearable=False)
            return
        chosen: dict[str, bool] = {}
        for position, (name, choice) in enumerate(value.items()):
            place = f"preferences.{name}"
            if name not in checks.PREFERENCES and not self._is_preference(name, position):
                continue
            if checks.is_empty(choice):
                if keep_empty:
                    self.wrong(place, "EmptyValue", clearable=False)
                continue
            checked = checks.preference(choice)
            if isinstance(checked, Wrong):
                self.wrong(place, checked.code)
            else:
                chosen[name] = checked
        if chosen:
            found["preferences"] = chosen
        elif keep_empty and not value:
            self.wrong("preferences", "EmptyValue", clearable=False)
        self._same_names(value, "preferences.")

    def _is_preference(self, name: str, position: int) -> bool:
        place = f"preferences.{name}"
        if not checks.is_name(name):
            self.wrong(f"preferences.#{position + 1}", "BadName")
        elif name.lower() in NO_PREFERENCES:
            self.wrong(place, "NotAPreference")
        elif self.rules.attributes is not None and place in self.rules.attributes:
            return True
        elif (meant := _PREFERENCES_AS_READ.get(name.lower().rstrip("s"))) is not None:
            self.wrong(place, "UnknownAttribute", meant)
        elif self.rules.attributes is None:
            return True
        else:
            self.wrong(place, "UnknownAttribute")
        return False

    def _consents(self, value: Any, found: dict[str, Any], keep_empty: bool) -> None:
        if checks.is_empty(value) or value == []:
            if keep_empty:
                self.wrong("consents", "EmptyValue", clearable=False)
            return
        given, wrongs = checks.consents(value)
        for wrong in wrongs:
            self.wrong(f"consents{wrong.at}", wrong.code, wrong.suggestion)
        if not wrongs:
            found["consents"] = given

    def _same_names(self, data: Mapping[str, Any], prefix: str = "") -> None:
        """Note names that differ only in case; one that is wrong by itself is noted already."""
        if len({name.lower() for name in data}) == len(data):
            return
        noted = {problem.field for problem in self.problems}
        first: set[str] = set()
        for name in data:
            if name.lower() not in first:
                first.add(name.lower())
            elif checks.is_name(name) and prefix + name not in noted:
                self.wrong(prefix + name, "DuplicateName")


_STANDARD = frozenset(checks.STANDARD_ATTRIBUTES)

# What is more than a text.
_CHECKS: Mapping[str, Callable[[str, Rules, date], str | Wrong]] = {
    "email": lambda value, rules, today: checks.email(value),
    "mobilePhone": lambda value, rules, today: checks.mobile_phone(value, rules.phone_region),
    "socialSecurityNumber": lambda value, rules, today: checks.personal_number(value, today),
    "birthDay": lambda value, rules, today: checks.birth_day(value, today),
    "countryCode": lambda value, rules, today: checks.country_code(value),
    "gender": lambda value, rules, today: checks.gender(value),
}

# Engage's answers spell them with an s and a capital; written so, it would drop them.
_PREFERENCES_AS_READ = {name.lower(): name for name in checks.PREFERENCES}
_PREFERENCES_AS_READ["acceptssm"] = "acceptsSms"


def _is_missing(data: Mapping[str, Any], name: str) -> bool:
    outer, dot, inner = name.partition(".")
    value = data.get(outer)
    if dot and outer == "preferences":
        return not isinstance(value, Mapping) or checks.is_empty(value.get(inner))
    return checks.is_empty(data.get(name)) or data.get(name) in ([], {})


def _says(value: Any, contact_type: str | None) -> bool:
    return (
        isinstance(value, str)
        and contact_type is not None
        and checks.trimmed(value).lower() == contact_type.lower()
    )


def _malformed(what: str) -> MalformedRequest:
    return MalformedRequest(f"The body {what}. Nothing was stored.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next((n for n in checks.STANDARD_ATTRIBUTES if names.count(n) > 1), "the same name")
        raise _malformed(f"has {twice} twice in one object")
    return made


def _whole(digits: str) -> int:
    if len(digits) > 20 or not checks.number(value := int(digits)):
        raise _malformed("holds a number that is too large")
    return value


def _decimal(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _malformed("holds a number that is too large")
    return value


def _constant(name: str) -> Any:
    raise _malformed("holds NaN or Infinity, which JSON does not know")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_decimal, parse_constant=_constant
)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_is_deeper(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_is_deeper(item, levels - 1) for item in value)
    return False
