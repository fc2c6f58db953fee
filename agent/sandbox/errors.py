"""What Engage says when it refuses."""

from __future__ import annotations

from typing import Any


class EngageError(Exception):
    """A refusal with Engage's own status and `errorCode`.

    Body: `{errorCode, message, messageDetails?, validationErrors?, requestId}`. `errorCode`,
    `message`, `messageDetails` and `requestId` are what public clients of Engage read;
    `validationErrors` holds `{field?, errorDescription}`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        problems: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.problems = problems
        self.headers = headers or {}

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body."""
        body: dict[str, Any] = {"errorCode": self.code, "message": self.message}
        if self.details is not None:
            body["messageDetails"] = self.details
        if self.problems is not None:
            body["validationErrors"] = self.problems
        body["requestId"] = request_id
        return body


def no_data() -> EngageError:
    """Return the refusal of an empty or unreadable body."""
    return EngageError(400, "NoData", "No readable data was sent.")


def contact_not_found() -> EngageError:
    """Return the only answer that means: there is no such contact."""
    return EngageError(404, "ContactNotFound", "No contact was found.")


def key_exists() -> EngageError:
    """Return the refusal of a key that an approved contact has; Engage does not say which."""
    return EngageError(
        409, "ApprovedContactWithKeyExists", "An approved contact with this key exists."
    )


def key_is_being_created() -> EngageError:
    """Return the refusal while another create with the same key is under way."""
    return EngageError(
        409, "ContactWithKeyIsBeingCreated", "A contact with this key is being created."
    )


def invalid(problems: list[dict[str, str]]) -> EngageError:
    """Return the refusal of attributes that break a rule."""
    return EngageError(422, "ValidationError", "The data is not valid.", problems=problems)


def request_time_out() -> EngageError:
    """Return the answer of a create that took too long; it says that all was rolled back."""
    return EngageError(504, "RequestTimeOut", "The request took too long and was rolled back.")


def unauthorized() -> EngageError:
    """Return the refusal of a missing or wrong API key; the docs leave its code open."""
    return EngageError(401, "Unauthorized", "The API key is missing or not valid.")


def too_many(retry_after: str | None = None) -> EngageError:
    """Return the refusal beyond the rate limit; Engage's docs name no Retry-After for it."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return EngageError(429, "TooManyRequests", "Too many requests.", headers=headers)
