"""agent/intake/openapi.yaml as tests use it: is this an answer that it allows?

Every answer that a test's POS gets is held against it, so the whole suite proves the description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import yaml

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# What any address may answer, whether or not it has that call.
_ANYWHERE = {
    "404": {"$ref": "#/components/responses/NotFound"},
    "405": {"$ref": "#/components/responses/MethodNotAllowed"},
}
_EARLY = (204, 400, 401, 403, 413, 415, 417, 421)


@dataclass(frozen=True)
class Operation:
    """One call of the description."""

    method: str  # in upper case
    path: str
    spec: Mapping[str, Any]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(self.path)) + r"\Z")


class Description:
    """The file, parsed."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.operations = [
            Operation(method.upper(), path, spec)
            for path, item in document["paths"].items()
            for method, spec in item.items()
            if method in METHODS
        ]
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def resolved(self, found: Any) -> Any:
        """Follow a reference, if it is one."""
        while isinstance(found, Mapping) and "$ref" in found:
            place = found["$ref"]
            found = self.document
            for step in place.removeprefix("#/").split("/"):
                found = found[step]
        return found

    def validator(self, schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
        """Give a validator of a schema of the file, formats included."""
        key = repr(schema)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[key]

    def operation(self, method: str, path: str) -> Operation | None:
        """Find the call of an address; fixed addresses come before those with parameters."""
        fitting = [
            each
            for each in self.operations
            if each.pattern.match(path) and each.method == {"HEAD": "GET"}.get(method, method)
        ]
        fitting.sort(key=lambda each: each.path.count("{"))
        return fitting[0] if fitting else None

    def why_not(
        self, method: str, target: str, status: int, headers: Mapping[str, str], body: Any
    ) -> str:
        """Say why an answer is not one that the description allows; nothing if it is.

        `body` is parsed JSON, None where there was none, and text of another kind.
        """
        operation = self.operation(method, urlsplit(target).path)
        allowed = {**_ANYWHERE, **(operation.spec["responses"] if operation else {})}
        told = allowed.get(str(status)) or allowed.get(f"{status // 100}XX")
        if operation is None and told is None:
            # Refused before it was looked at: by the guard, or as broken HTTP. 204: a preflight.
            return "" if status in _EARLY else "no such call is described"
        if told is None:
            return "the description does not know this status"
        answer = self.resolved(told)
        return self._wrong_headers(answer, headers) or self._wrong_content(
            answer, headers, body, is_head=method == "HEAD"
        )

    def _wrong_headers(self, answer: Mapping[str, Any], headers: Mapping[str, str]) -> str:
        given = {name.lower(): value for name, value in headers.items()}
        for name, reference in answer.get("headers", {}).items():
            header = self.resolved(reference)
            value = given.get(name.lower())
            if value is None:
                if header.get("required"):
                    return f"the header {name} is missing"
            elif not self._fits(header["schema"], value):
                return f"the header {name} is {value!r}"
        return ""

    def _fits(self, schema: Mapping[str, Any], value: str) -> bool:
        is_number = self.resolved(schema).get("type") == "integer"
        said: Any = int(value) if is_number and re.fullmatch(r"-?\d+", value) else value
        return bool(self.validator(schema).is_valid(said))

    def _wrong_content(
        self, answer: Mapping[str, Any], headers: Mapping[str, str], body: Any, *, is_head: bool
    ) -> str:
        kinds = answer.get("content", {})
        given = {name.lower(): value for name, value in headers.items()}
        kind = given.get("content-type", "").partition(";")[0]
        if not kinds:
            return "" if body is None else "a body where none belongs"
        if kind not in kinds:
            return f"the content type is {kind!r}"
        if is_head or not kind.endswith("json"):
            return ""
        errors = list(self.validator(kinds[kind]["schema"]).iter_errors(body))
        return f"{errors[0].message} at {errors[0].instance_path}" if errors else ""


@cache
def described() -> Description:
    """Give the description, read once."""
    content = (files("agent.intake") / "openapi.yaml").read_bytes()
    return Description(yaml.load(content, yaml.CSafeLoader))


def check(method: str, target: str, status: int, headers: Mapping[str, str], body: Any) -> None:
    """Fail if the description does not allow this answer."""
    why = described().why_not(method, target, status, headers, body)
    assert not why, f"{method} {urlsplit(target).path} {status}: {why}"
