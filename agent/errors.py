"""The exception tree: what can go wrong, told by whose fault it is and whether time cures it.

AgentError
├── ConfigError              the settings are wrong: all problems together, exit code 2
├── IntakeError              the request is wrong or cannot be taken: answered as problem+json
│   ├── MalformedRequest, NoData, Unauthorized, ForbiddenOrigin, TooLarge, HeadTooLarge, TooSlow,
│   │   WrongHost, UnsupportedMedia, NotFound, MethodNotAllowed, Conflict, NotWithdrawn,
│   │   PreconditionFailed
│   ├── InvalidChange        fields, codes and reasons; never the values
│   ├── IdempotencyKeyReused
│   ├── TooManyWrongTokens   somebody guesses; Retry-After
│   ├── Overloaded           the waiting room is full; Retry-After
│   └── JournalFull          too little disk left to promise anything
├── ReadError                a question to Engage that cannot be answered
│   ├── EngageUnreachable    never turned into "not found"
│   └── MultipleMatches
├── JournalError             what we have promised cannot be read or written
│   ├── JournalUnavailable   locked, I/O error, corrupt, gone
│   ├── JournalInUse         another agent holds it: refuse to start
│   ├── SchemaTooNew         written by a newer program: refuse to start
│   └── ForbiddenMove        a bug: loud, the change is left alone
└── RouteError               born and caught inside delivery, becomes an Outcome
    ├── Unreachable          → deferred   nothing was sent; counts against the link
    ├── NotEngage            → deferred   a portal or proxy answered; counts against the link
    ├── AnswerLost           → unknown    sent, no readable answer
    │   └── LineLost         → unknown    the same, and the line's fault
    ├── RolledBack           → deferred   Engage says that nothing happened
    ├── EngageFailed         → deferred   Engage could not, and a repeat is harmless
    ├── Throttled            → deferred   too many requests
    ├── KeyBusy              → deferred   the same contact is being created right now
    ├── KeyTaken, ContactGone, SeveralMatch          the next step decides
    ├── Refused              → rejected   Engage's own words
    ├── NotAuthorised        → halted     key or login
    └── HostKeyChanged       → halted     never accepted by itself

No message of these classes carries personal data: they reach logs, the page and events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AgentError(Exception):
    """Something the agent knows about went wrong."""

    code = "AgentError"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)


# --- settings ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in the settings."""

    place: str  # "[engage] base_url", or the file's name
    what: str  # a sentence: what is wrong
    suggestion: str = ""  # what to write instead

    def __str__(self) -> str:
        """Give one line for a person."""
        return f"{self.place}: {self.what}" + (f" {self.suggestion}" if self.suggestion else "")


class ConfigError(AgentError):
    """The settings cannot be used."""

    code = "ConfigError"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


# --- what the POS hears -----------------------------------------------------------------------


class IntakeError(AgentError):
    """The request cannot be taken."""

    code = "IntakeError"
    retry_after_s: int | None = None


class MalformedRequest(IntakeError):
    """The request cannot be read. Nothing was stored; correct the request and send it again."""

    code = "MalformedRequest"


class NoData(IntakeError):
    """The request has no body. Nothing was stored; send the contact's attributes as JSON."""

    code = "NoData"


class Unauthorized(IntakeError):
    """The token is missing or not known here. Nothing was stored; send a token made with
    `till-agent token new` as `apikey` or `Authorization: Bearer`."""

    code = "Unauthorized"


class TooManyWrongTokens(IntakeError):
    """Too many wrong tokens came in a short time; right ones are taken all the same. Nothing was
    stored; send a token made with `till-agent token new`."""

    code = "TooManyWrongTokens"
    retry_after_s = 1


class ForbiddenOrigin(IntakeError):
    """A web page from elsewhere may not use this service."""

    code = "ForbiddenOrigin"


class NotFound(IntakeError):
    """There is nothing at this address."""

    code = "NotFound"


class MethodNotAllowed(IntakeError):
    """This address does not take that method."""

    code = "MethodNotAllowed"


class Conflict(IntakeError):
    """What was asked does not fit the state in which the change is now."""

    code = "Conflict"


class OpenChanges(Conflict):
    """Changes of this customer are still open, so nothing was erased."""

    code = "OpenChanges"


class NotWithdrawn(IntakeError):
    """The file could not be taken back from the SFTP server. The file and its changes stay as they
    are; try again later."""

    code = "NotWithdrawn"
    retry_after_s = 60


class PreconditionFailed(IntakeError):
    """The ETag in If-Match is not one that this agent served. Nothing was stored; read the contact
    again."""

    code = "PreconditionFailed"


class TooLarge(IntakeError):
    """The body is larger than 64 KiB. Nothing was stored."""

    code = "TooLarge"


class HeadTooLarge(IntakeError):
    """The request's first line and headers are too large. Nothing was stored."""

    code = "HeadTooLarge"


class TooSlow(IntakeError):
    """The request did not arrive whole in time. Nothing was stored; send it again."""

    code = "TooSlow"


class UnsupportedMedia(IntakeError):
    """The body must be JSON. Nothing was stored; send `Content-Type: application/json`."""

    code = "UnsupportedMediaType"


class WrongHost(IntakeError):
    """The Host header names another machine. Call 127.0.0.1 or localhost, or add the name to
    server.allowed_hosts."""

    code = "WrongHost"


@dataclass(frozen=True)
class FieldProblem:
    """One field of a request that is wrong. Never carries the value."""

    field: str  # the attribute's name as the POS wrote it: "preferences.acceptsEmail"
    code: str  # stable: "EmptyValue"
    message: str  # a sentence that a cashier can act on


class InvalidChange(IntakeError):
    """The contact's data is not right. Nothing was stored; correct the fields and send again."""

    code = "ValidationError"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(" ".join(problem.message for problem in self.problems))


class IdempotencyKeyReused(IntakeError):
    """This Idempotency-Key was used for another request. Nothing was stored; use a new key for a
    new request."""

    code = "IdempotencyKeyReused"


class Overloaded(IntakeError):
    """More requests wait than the till can store at once. Nothing was stored; send it again."""

    code = "Overloaded"
    retry_after_s = 1


class JournalFull(IntakeError):
    """The till's disk is almost full, so nothing more can be stored safely. The POS must keep the
    change; free some disk space."""

    code = "JournalFull"
    retry_after_s = 60


# --- reading ----------------------------------------------------------------------------------


class ReadError(AgentError):
    """The question cannot be answered now."""

    code = "ReadError"
    retry_after_s: int | None = None


class EngageUnreachable(ReadError):
    """Engage cannot be asked right now, so nobody knows whether this customer exists. Ask again
    later, or register the customer: a double is looked for before anything is sent."""

    code = "EngageUnreachable"
    retry_after_s = 15


class MultipleMatches(ReadError):
    """More than one contact in Engage matches."""

    code = "MultipleMatches"

    def __init__(self, contact_ids: Sequence[str] = ()) -> None:
        self.contact_ids = tuple(contact_ids)
        super().__init__()


# --- the journal ------------------------------------------------------------------------------


class JournalError(AgentError):
    """The journal cannot do what was asked."""

    code = "JournalError"


class JournalUnavailable(JournalError):
    """The journal cannot be read or written right now. Nothing was stored; send it again."""

    code = "JournalUnavailable"
    retry_after_s = 5


class JournalInUse(JournalError):
    """Another till-agent uses this journal. Stop it first; the data is untouched."""

    code = "JournalInUse"


class SchemaTooNew(JournalError):
    """A newer till-agent wrote this journal. Install that version again; the data is untouched."""

    code = "SchemaTooNew"


class ForbiddenMove(JournalError):
    """A change was moved in a way that its state does not allow."""

    code = "ForbiddenMove"


# --- the routes -------------------------------------------------------------------------------


class RouteError(AgentError):
    """A try on a route did not deliver."""

    code = "RouteError"
    against_link = False  # the line's fault: moves the link towards offline
    counts = False  # uses up one of the attempts after which a change goes by file

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status  # HTTP status of the answer, where there was one
        self.request_id = request_id  # Engage's, for its support


class Unreachable(RouteError):
    """The line is down: nothing was sent."""

    code = "Unreachable"
    against_link = True


class NotEngage(RouteError):
    """Something else than Engage answered: a portal, a proxy or a redirect."""

    code = "NotEngage"
    against_link = True


class AnswerLost(RouteError):
    """It was sent, but no readable answer came back: it may have happened."""

    code = "AnswerLost"
    counts = True


class LineLost(AnswerLost):
    """The line broke, or nothing came back in time, after it was sent: it may have happened."""

    code = "LineLost"
    against_link = True


class RolledBack(RouteError):
    """Engage took too long and undid it."""

    code = "RequestTimeOut"
    counts = True


class EngageFailed(RouteError):
    """Engage could not do it just now; doing it again is harmless."""

    code = "EngageFailed"
    counts = True


class Throttled(RouteError):
    """Engage gets too many requests just now."""

    code = "Throttled"
    retry_after_s: float | None = None


class KeyBusy(RouteError):
    """Engage is creating a contact with the same key right now."""

    code = "ContactWithKeyIsBeingCreated"


class KeyTaken(RouteError):
    """Engage has an approved contact with this key already."""

    code = "ApprovedContactWithKeyExists"


class ContactGone(RouteError):
    """Engage does not know this contact."""

    code = "ContactNotFound"


class SeveralMatch(RouteError):
    """More than one contact in Engage matches."""

    code = "MultipleMatches"
    contact_ids: tuple[str, ...] = ()


class Refused(RouteError):
    """Engage does not accept this change."""

    code = "Refused"
    words: str = ""  # Engage's own; may hold personal data, so they never leave the change itself
    fields: tuple[dict[str, str], ...] = ()  # [{field, code, message}]


class NotAuthorised(RouteError):
    """The login was refused."""

    code = "NotAuthorised"


class HostKeyChanged(RouteError):
    """The SFTP server shows another host key than the pinned one."""

    code = "HostKeyChanged"
