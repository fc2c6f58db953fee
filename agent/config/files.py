"""What is wrong around the settings: secrets, folders, disks. Creates nothing."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config.tables import Config
from agent.config.texts import is_loopback
from agent.errors import Problem
from agent.rights import READ, WRITE, WRITE_IN, why_denied
from agent.secrets import SecretProblem, read_secret
from agent.tls import TlsProblem, certificate_of
from agent.tokens import Tokens

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


# What the kernel's address of a Unix socket holds, with some room for the name while it is made.
_LONGEST_SOCKET = 100


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


def mount_of(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    """Give the file system on which a path lies; None if the kernel did not say."""
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
            *_tls_problems(config),
            *_tokens_problems(config),
            *_socket_problems(config),
            *_journal_problems(config, mounts_now() if mounts is None else mounts),
            *_folder_problems("[fallback] spool", config.fallback.spool),
        ]
    )


def file_hints(config: Config) -> tuple[Problem, ...]:
    """Give what a person still has to do: pin the host key, make tokens. The agent starts anyway.

    Without a pinned key the file route halts; without tokens no POS gets in; a certificate that
    ends soon has to be replaced.
    """
    return tuple(
        [
            *_known_hosts_hints(config),
            *_tokens_hints(config),
            *_tls_hints(config),
            *_host_hints(config),
        ]
    )


def _secret_problems(config: Config) -> Iterator[Problem]:
    uses_sftp = config.uses_sftp
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
            place,
            f"The file {path} cannot be read by this user: {why_denied(path, READ)}.",
            f"Run: chmod a+r {path}",
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
    with contextlib.suppress(OSError):
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Problem(
                "[server] tokens_file",
                f"Other users may write to {path} and so let themselves in.",
                f"Run: chmod go-w {path}",
            )
    if not is_loopback(config.server.host) and not Tokens(path).names:
        yield Problem(
            "[server] tokens_file",
            f"There are no tokens in {path}, and others on the network could reach the agent.",
            "Make one with: till-agent token new <name>",
        )


def _tls_problems(config: Config) -> Iterator[Problem]:
    server = config.server
    certificate = certificate_of(server.tls_certificate_file, server.tls_key_file)
    if certificate is None:
        return
    try:
        certificate.context()
    except TlsProblem as problem:
        yield Problem(f"[server] {problem.key}", problem.what, problem.suggestion)


def _tls_hints(config: Config) -> Iterator[Problem]:
    server = config.server
    certificate = certificate_of(server.tls_certificate_file, server.tls_key_file)
    if certificate is None:
        return
    with contextlib.suppress(TlsProblem):
        certificate.context()
    if problem := certificate.problem:
        yield Problem("[server] tls_certificate_file", problem)


def _host_hints(config: Config) -> Iterator[Problem]:
    server = config.server
    if ipaddress.ip_address(server.host).is_unspecified and not server.allowed_hosts:
        yield Problem(
            "[server] allowed_hosts",
            "The agent listens on every address, and answers only those who call it localhost.",
            "Write the names by which the POS calls this machine.",
        )


def _socket_problems(config: Config) -> Iterator[Problem]:
    path, group = config.server.socket, config.server.socket_group
    if path is None:
        return
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        yield Problem(
            "[server] socket",
            f"{path} exists and is no socket; it would be replaced.",
            'Write for example "/run/till-agent/agent.sock".',
        )
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        yield Problem(
            "[server] socket",
            f"The kernel takes no path of more than {_LONGEST_SOCKET} bytes for a socket.",
            'Write for example "/run/till-agent/agent.sock".',
        )
    yield from _folder_problems("[server] socket", path.parent)
    if group is not None and group not in _own_groups():
        yield Problem(
            "[server] socket_group",
            f"There is no group {group}, or the agent's user does not belong to it.",
            f"Run: usermod --append --groups {group} till-agent",
        )


def _own_groups() -> set[str]:
    """Give the names of the groups that a file of this user may be given to."""
    if os.geteuid() == 0:
        return {each.gr_name for each in grp.getgrall()}
    names = set()
    for gid in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):  # a number without a name
            names.add(grp.getgrgid(gid).gr_name)
    return names


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
    if not config.uses_sftp or path is None:
        return
    place = "[sftp] known_hosts_file"
    remedy = "Compare the fingerprint with Voyado's, then: till-agent host-key trust"
    try:
        content = path.read_text(errors="replace")
    except FileNotFoundError:
        yield Problem(place, f"{path} does not exist, so no file is sent or read.", remedy)
    except OSError as error:
        yield Problem(
            place,
            f"{path} cannot be read ({error.strerror}), so no file is sent or read.",
            f"Run: chmod a+r {path}",
        )
    else:
        if all(not line.strip() or line.startswith("#") for line in content.splitlines()):
            yield Problem(place, f"{path} holds no host key, so no file is sent or read.", remedy)


def _journal_problems(config: Config, mounts: Sequence[Mount]) -> Iterator[Problem]:
    place, path = "[journal] path", config.journal.path
    if os.path.isdir(path):
        yield Problem(place, f"{path} is a folder.", f'Write for example "{path}/journal.db".')
        return
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        yield _not_writable(place, path, WRITE)
    yield from _folder_problems(place, path.parent)
    mount = mount_of(path, mounts)
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
    elif not os.access(existing, WRITE_IN):
        yield _not_writable(place, existing, WRITE_IN)


def _not_writable(place: str, path: Path, wanted: int) -> Problem:
    return Problem(
        place,
        f"This user may not write to {path}: {why_denied(path, wanted)}.",
        "Give it to the user of the service, or choose another path.",
    )
