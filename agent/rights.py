"""Why this process may not use a file: who it is, whose the file is, and what stands in the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # pragma: no cover - Windows has neither
    pwd = grp = None  # type: ignore[assignment]

READ, WRITE, WRITE_IN = os.R_OK, os.W_OK, os.W_OK | os.X_OK


def user_name(uid: int | None = None) -> str:
    """Give a user's name, this process's own by default; the number where it has none."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, AttributeError):
        return f"uid {uid}"


def why_denied(path: Path, wanted: int) -> str:
    """Say who may not do that and what is missing: the end of a sentence, without its full stop.

    `wanted` is READ, WRITE or WRITE_IN (of a folder).
    """
    who = f"it is {user_name()}"
    try:
        facts = path.stat()
    except OSError:
        # The file cannot even be looked at: a folder on the way to it is closed.
        closed = next((each for each in path.parents if not os.access(each, os.X_OK)), path.parent)
        return f"{who}, who may not look into {closed}"
    if wanted & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{who}, and the disk is mounted read-only"
    owner = f"it belongs to {user_name(facts.st_uid)}:{_group_name(facts.st_gid)}"
    mode = f"{owner} with mode {stat.S_IMODE(facts.st_mode):o}"
    if _mode_allows(facts, wanted):
        return f"{who}; {mode} would allow it, so SELinux or AppArmor forbids it"
    return f"{who}, and {mode}"


def _mode_allows(facts: os.stat_result, wanted: int) -> bool:
    if facts.st_uid == os.geteuid():
        bits = facts.st_mode >> 6
    elif facts.st_gid in (os.getegid(), *os.getgroups()):
        bits = facts.st_mode >> 3
    else:
        bits = facts.st_mode
    return bits & wanted == wanted


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, AttributeError):
        return str(gid)
