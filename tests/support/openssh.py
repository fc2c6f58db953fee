"""OpenSSH's own server for tests: on a free loopback port, with keys made on the spot."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from getpass import getuser
from pathlib import Path

from patience import PATIENCE_S

from agent.delivery.batch.host_keys import HostKey, trust
from agent.delivery.batch.sftp import SftpServer

KINDS = ("ed25519", "ecdsa", "rsa")

_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 100
AuthorizedKeysFile {home}/authorized_keys
Subsystem sftp internal-sftp {sftp_options}
{host_keys}
"""


# A login by password, without touching the machine's own accounts: libnss-wrapper lets sshd read
# these files instead. The hash is that of the password, by `openssl passwd -6`.
LOGIN, PASSWORD = "till", "open sesame"
_HASH = (
    "$6$tillagentsalt$k9babE7uu1fMzs2MwRXNiZYByHzpuujgNCoTW1TJvjrRDkE/p4ub.zGK2UkuLqwWusEVaE"
    ".BibtqxlmmFw/Xt0"
)
_LONG_AGO, _LATELY = 10_000, 20_000  # days since 1970


def find_nss_wrapper() -> Path | None:
    """Give the library's path; None where it is not installed."""
    return next(Path("/usr/lib").glob("*/libnss_wrapper.so"), None)


def find_sshd() -> str | None:
    """Give sshd's path, which must be absolute for it to start; None where it is not installed."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")


class OpenSsh:
    """A real sshd and its import folder. Ended by its process id, with all of its children."""

    def __init__(
        self,
        home: Path,
        host_key_kinds: Sequence[str] = KINDS,
        sftp_options: str = "",
        extra: str = "",
        by_password: bool = False,
        largest_file: int | None = None,
    ) -> None:
        """`by_password`: LOGIN may log in with PASSWORD. `largest_file`: no file gets larger, as on
        a full disk."""
        self.home = home
        self.folder = home / "import"
        self.folder.mkdir(parents=True)
        self.user_key = self._make_key("user", "ed25519")
        shutil.copy(self.user_key.with_suffix(".pub"), home / "authorized_keys")
        self._host_keys = {kind: self._make_key(f"host_{kind}", kind) for kind in host_key_kinds}
        self._sftp_options = sftp_options
        self._extra = extra
        self._largest_file = largest_file
        self._environment = dict(os.environ)
        if by_password:
            self._extra += "\nPasswordAuthentication yes\nPermitRootLogin yes\n"
            self._lay_accounts()
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        config = self.home / "sshd_config"
        config.write_text(
            # The first of two values counts.
            self._extra
            + _CONFIG.format(
                port=self.port,
                home=self.home,
                sftp_options=self._sftp_options,
                host_keys="\n".join(f"HostKey {path}" for path in self._host_keys.values()),
            )
        )
        sshd = find_sshd()
        assert sshd
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        with (self.home / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", config],
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=self._limit_files,
            )
        until(self._answers, "sshd answers")

    def stop(self) -> None:
        """End it and its sessions."""
        if self._process is None:
            return
        self.end_sessions()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._process = None

    @property
    def log(self) -> str:
        """Give what it has logged."""
        return (self.home / "sshd.log").read_text("utf-8", "replace")

    def let_password_expire(self, expired: bool = True) -> None:
        """Let LOGIN's password run out, or renew it."""
        changed = _LONG_AGO if expired else _LATELY
        shadow = self.home / "shadow"
        shadow.write_text(f"{LOGIN}:{_HASH}:{changed}:0:{'30' if expired else '99999'}:7:::\n")
        shadow.chmod(0o600)

    def _lay_accounts(self) -> None:
        wrapper = find_nss_wrapper()
        assert wrapper
        me = f"{os.getuid()}:{os.getgid()}:"
        accounts = {
            "passwd": f"{LOGIN}:x:{me}:{self.home}:/bin/sh\n"
            f"sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin\n",
            "group": f"{LOGIN}:x:{os.getgid()}:\n",
        }
        for name, text in accounts.items():
            (self.home / name).write_text(text)
        self.let_password_expire(False)
        self._environment |= {
            "LD_PRELOAD": str(wrapper),
            "NSS_WRAPPER_PASSWD": str(self.home / "passwd"),
            "NSS_WRAPPER_GROUP": str(self.home / "group"),
            "NSS_WRAPPER_SHADOW": str(self.home / "shadow"),
        }

    def _limit_files(self) -> None:
        if self._largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._largest_file,) * 2)

    def end_sessions(self) -> None:
        """Cut every connection, as a crash of the server does."""
        for pid in self._sessions():
            _send(pid, signal.SIGKILL)

    def freeze_sessions(self) -> None:
        """Let every connection hang."""
        for pid in self._sessions():
            _send(pid, signal.SIGSTOP)

    def host_key(self, kind: str) -> HostKey:
        """Give a public host key."""
        algorithm, encoded = self._host_keys[kind].with_suffix(".pub").read_text().split()[:2]
        return HostKey(algorithm, encoded)

    def client(
        self,
        pinned: str = "ed25519",
        private_key: Path | None = None,
        timeout_s: float = PATIENCE_S,
        password: str | None = None,
        port: int | None = None,
    ) -> SftpServer:
        """Make the agent's side, with one host key pinned; `port`: that of a line in between."""
        known_hosts, port = self.home / "known_hosts", port or self.port
        trust(known_hosts, "127.0.0.1", port, self.host_key(pinned))
        return SftpServer(
            host="127.0.0.1",
            port=port,
            username=getuser() if password is None else LOGIN,
            directory=str(self.folder),
            timeout_s=timeout_s,
            password=None if password is None else lambda: password,
            private_key_file=(lambda: private_key or self.user_key) if password is None else None,
            known_hosts_file=known_hosts,
        )

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.home / "sshd.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _make_key(self, name: str, kind: str) -> Path:
        path = self.home / name
        if kind == "rsa":  # takes seconds to make, and one is as good as another
            private, public = _rsa_key()
            path.write_text(private)
            path.chmod(0o600)
            path.with_suffix(".pub").write_text(public)
        else:
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
        return path

    def _sessions(self) -> list[int]:
        assert self._process
        return _descendants(self._process.pid)


@cache
def _rsa_key() -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", path], check=True)
        return path.read_text(), path.with_suffix(".pub").read_text()


def _descendants(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    children = [int(child) for child in found.stdout.split()]
    return children + [each for child in children for each in _descendants(child)]


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
