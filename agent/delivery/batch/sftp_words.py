"""What a failure at Engage's SFTP server means: whose fault it is, in words for a person.

The libraries' exceptions are known by their names, so that nothing of them is imported here.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import NotAuthorised, RouteError, Unreachable


class ServerRefused(RouteError):
    """The SFTP server does not take the file; it stays in the spool and is tried again slowly."""

    code = "ServerRefused"


@dataclass(frozen=True)
class Meaning:
    """What a person is told for one kind of failure, and as which RouteError it counts."""

    error: type[RouteError]
    words: str  # {server}, {doing}, {said}, {setting}, {kind}


# What the libraries raise, by the name of the class or of its nearest listed base (by name, so that
# reading this table does not import paramiko).
MEANINGS: Final[Mapping[str, Meaning]] = {
    # The line.
    "gaierror": Meaning(
        Unreachable, "The name of {server} cannot be resolved. Check the line and sftp.host."
    ),
    "ConnectionRefusedError": Meaning(
        Unreachable, "{server} refuses connections. Check sftp.host and sftp.port."
    ),
    "TimeoutError": Meaning(Unreachable, "{server} did not answer in time while {doing}."),
    "EOFError": Meaning(Unreachable, "{server} closed the connection while {doing}."),
    "OSError": Meaning(Unreachable, "The line to {server} broke while {doing}: {said}."),
    "SSHException": Meaning(
        Unreachable, "The connection to {server} failed while {doing}: {said}."
    ),
    # The login, and what no amount of waiting cures.
    "AuthenticationException": Meaning(
        NotAuthorised,
        "{server} refused the login: {said}. Check sftp.username and the password or key file; "
        "the account may also be locked.",
    ),
    "BadAuthenticationType": Meaning(
        NotAuthorised,
        "{server} does not allow this way to log in: {said}. Use a password file or a private key, "
        "as the server wants it.",
    ),
    "IncompatiblePeer": Meaning(
        NotAuthorised,
        "{server} speaks only algorithms that are no longer safe ({said}). "
        "Its operator must update it.",
    ),
    # The server's own answers to a request.
    "FileNotFoundError": Meaning(
        ServerRefused, "{server} says while {doing}: {said}. Check that {setting} exists."
    ),
    "PermissionError": Meaning(
        ServerRefused, "{server} says while {doing}: {said}. The login needs the right to do so."
    ),
    "status": Meaning(
        ServerRefused,
        "{server} says while {doing}: {said}. Its disk may be full or the folder read-only.",
    ),
    "ChannelException": Meaning(
        ServerRefused, "{server} opens no SFTP session: {said}. The login needs the right to it."
    ),
    "UnicodeDecodeError": Meaning(
        ServerRefused,
        "{server} gives a text that is not UTF-8 while {doing}: {said}. Let its operator look.",
    ),
    # What cannot be understood: the line is up, and only a person can tell why.
    "SFTPError": Meaning(
        ServerRefused,
        "{server} talks something else than SFTP while {doing}: {said}. A login script there may "
        "print text, or another service may listen. Let its operator look.",
    ),
    "library": Meaning(
        ServerRefused,
        "{server} gives an answer that cannot be understood while {doing} ({kind}: {said}). "
        "Let its operator look.",
    ),
}


def in_words(
    error: Exception, *, server: str, doing: str, setting: str, is_lost: bool
) -> RouteError | None:
    """Give the RouteError for what a library raised; None for a bug of ours.

    `setting` names the folder's setting for a person. `is_lost`: the connection has ended.
    """
    meaning = _meaning(error, is_lost)
    if meaning is None:
        return None
    words = meaning.words.format(
        server=server,
        doing=doing,
        said=said(error),
        setting=setting,
        kind=type(error).__name__,
    )
    return meaning.error(words)


def _meaning(error: Exception, is_lost: bool) -> Meaning | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    if type(error) is OSError and error.errno is None:
        names = ["status"]  # paramiko has no other sign for the server's other refusals
    name = next((name for name in names if name in MEANINGS), None)
    if is_lost and name in ("AuthenticationException", "status"):
        name = "EOFError"  # for a line that broke, paramiko raises these two as well
    if name is None and _comes_from_paramiko(error):
        name = "library"
    return MEANINGS[name] if name else None


def _comes_from_paramiko(error: Exception) -> bool:
    """Say whether paramiko or what it called raised it, and not our own work.

    A packet that is not as expected ends in whatever its parts raise: struct.error, ValueError, …
    """
    return any(
        frame.f_globals.get("__name__", "").partition(".")[0] == "paramiko"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def said(error: Exception) -> str:
    """Give a library's or server's words as one short printable line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, UnicodeDecodeError):
        text = error.object.decode("latin-1")  # what was to be read tells more than where it failed
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:200].rstrip(".") or type(error).__name__
