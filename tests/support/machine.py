"""A Debian 12 that boots: made by debootstrap once, laid under each till, run by systemd-nspawn.

Its network is one of its own with nothing but loopback in it, where the sandbox listens too. A test
needs root for that. Everything is ended by its process id.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
IMAGE = PROJECT / ".cache" / "machine" / "debian-12"
PATIENCE_S = 60.0

# What a till's Debian has anyway; the package brings the rest.
_PACKAGES = "systemd,systemd-sysv,dbus,python3,init-system-helpers,ca-certificates,tzdata"
# Of no use to a test.
_BALLAST = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def until(holds: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Wait until a condition holds and give its value; fails after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        if value := holds():
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let no other worker do the same meanwhile: folders of the project are used for it."""
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    with (IMAGE.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def debian() -> Path:
    """Give the folder of a bare Debian 12, installed at the first call on this machine."""
    with alone():
        return _installed()


def _installed() -> Path:
    if not IMAGE.exists():
        # Over a slow line this takes minutes, and is no test that hangs.
        faulthandler.cancel_dump_traceback_later()
        making = IMAGE.with_name(f"debian-12.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        options = ["--variant=minbase", f"--include={_PACKAGES}"]
        subprocess.run(
            ["debootstrap", *options, "bookworm", str(making), *_mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for folder in _BALLAST:
            shutil.rmtree(making / folder, ignore_errors=True)
        making.rename(IMAGE)
    return IMAGE


def _mirror() -> list[str]:
    """Give the mirror that this machine itself uses, if it says so."""
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources")]
    for place in places:
        if place.exists() and (found := re.search(r"\S+://\S+/debian/?(?=\s)", place.read_text())):
            return [found[0]]
    return []


class Lab:
    """An Engage and an SFTP server on the loopback of a network of their own."""

    def __init__(self, folder: Path) -> None:
        state = folder / "sandbox.json"
        command = [
            *("sandbox", "run", "--engage-port=0", "--sftp-port=0", "--control-port=0"),
            *("--import-every-s=1", f"--directory={folder}", f"--write-state={state}"),
        ]
        ready = 'ip link set lo up && exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", ready, sys.executable, "-m", "agent", *command],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
        )
        self.network = f"/proc/{self._process.pid}/ns/net"
        until(state.exists, "a sandbox that runs")
        self.addresses: dict[str, Any] = json.loads(state.read_text())

    def run(self, script: str, *arguments: str) -> str:
        """Run a Python script of the project's own environment in this network."""
        done = subprocess.run(
            ["nsenter", f"--net={self.network}", sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            cwd=PROJECT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def control(self, method: str, path: str) -> Any:
        """Ask or tell the sandbox something."""
        return json.loads(self.run(_CALL, method, self.addresses["controlUrl"] + path, "", ""))

    def contacts(self) -> int:
        """Give how many contacts Engage holds."""
        return len(self.control("GET", "/contacts"))

    def close(self) -> None:
        """End the sandbox, and with it the network."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)


_CALL = """
import sys, urllib.request, urllib.error
method, url, token, body = sys.argv[1:]
call = urllib.request.Request(url, method=method, data=body.encode() or None)
call.add_header("apikey", token)
call.add_header("Content-Type", "application/json")
try:
    print(urllib.request.urlopen(call, timeout=20).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


class Machine:
    """One till: booted from a disk laid over others, and cut off again.

    `disks`: folders that stay as they are, the uppermost first; what it writes is in `disk`.
    """

    def __init__(self, disks: Sequence[Path], folder: Path, lab: Lab) -> None:
        self.folder = folder / "root"
        self.disk = folder / "disk"
        for made in (self.folder, self.disk, folder / "work"):
            made.mkdir(parents=True)
        lower = ":".join(str(disk) for disk in disks)
        options = f"lowerdir={lower},upperdir={self.disk},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "till", "-o", options, self.folder], check=True)
        self._lab = lab
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started what it starts."""
        self._process = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
                *("--console=pipe", f"--network-namespace-path={self._lab.network}"),
                *("-D", str(self.folder)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._leader = until(self._find_leader, "a machine that boots")
        until(self._is_up, "a machine that has booted")

    def _find_leader(self) -> int | None:
        assert self._process is not None
        assert self._process.poll() is None, "systemd-nspawn gave up"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for child in children.split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return None

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
            "running",
            "degraded",
        )

    def run(self, *command: str, check: bool = True, **environment: str) -> Any:
        """Run a command in it, as root."""
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--all", "--", *command],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment},
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def property(self, name: str) -> str:
        """Give what systemd knows of the agent's unit."""
        return (
            str(self.run("systemctl", "show", "till-agent", f"--property={name}").stdout)
            .strip()
            .partition("=")[2]
        )

    def power_cut(self) -> None:
        """Cut it off, without a word to what runs in it."""
        if self._process is not None:
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
            else:
                self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None
            self._leader = 0

    def take_down(self) -> None:
        """Cut it off and take its disks apart; what it wrote stays in `disk`."""
        self.power_cut()
        subprocess.run(["umount", self.folder], check=True)


class Till(Machine):
    """A machine with a till-agent on it, and the POS beside it."""

    def install(self, package: Path, **environment: str) -> Any:
        """Install a package as a store would: from a file, with dpkg, without a network."""
        shutil.copy(package, self.folder / "srv" / package.name)
        return self.run("dpkg", "-i", f"/srv/{package.name}", check=False, **environment)

    def set_up(self, *more: str) -> Any:
        """Set it up towards the sandbox, as a roll-out does."""
        known = self._lab.addresses
        (self.folder / "srv" / "key").write_text(known["apiKey"])
        (self.folder / "srv" / "password").write_text(known["sftpPassword"])
        return self.run(
            *("till-agent", "setup", "--no-questions", "--store=0042", "--till=1"),
            *(f"--engage-url={known['engageUrl']}", "--api-key-file=/srv/key"),
            *(f"--sftp-host={known['sftpHost']}", f"--sftp-port={known['sftpPort']}"),
            *(f"--sftp-user={known['sftpUsername']}", "--sftp-password-file=/srv/password"),
            *(f"--sftp-directory={known['importDirectory']}", "--token-file=/srv/token"),
            *(f"--sftp-fingerprint={known['hostKeyFingerprint']}", *more),
        )

    @property
    def token(self) -> str:
        """Give the POS's token."""
        return (self.folder / "srv" / "token").read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the agent as the POS does; gives the JSON."""
        text = json.dumps(body) if body is not None else ""
        return json.loads(
            self._lab.run(_CALL, method, f"http://127.0.0.1:8717{path}", self.token, text)
        )

    def sign_up(self, email: str) -> str:
        """Sign a customer up; gives the ref or GUID."""
        answer = self.call("POST", "/api/v3/contacts", {"email": email})
        assert "id" in answer, answer
        return str(answer["id"])

    def sign_up_many(self, count: int, prefix: str = "many") -> None:
        """Sign so many customers up, 64 at a time; every one is acknowledged."""
        done = self._lab.run(_MANY, self.token, str(count), prefix)
        assert int(done) == count, done

    def counts(self) -> dict[str, int]:
        """Give how many changes are in each state."""
        return dict(self.call("GET", "/agent/v1/status")["counts"])

    def answers(self) -> bool:
        """Say whether the agent takes sign-ups."""
        done = self.run("till-agent", "status", check=False)
        return bool(done.returncode == 0)


_MANY = """
import asyncio, sys
import aiohttp
token, count, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
async def main():
    taken = 0
    numbers = iter(range(count))
    headers = {"apikey": token, "Prefer": "respond-async"}
    async def pos(session):
        nonlocal taken
        for number in numbers:
            body = {"email": f"{prefix}{number}@example.test"}
            url = "http://127.0.0.1:8717/api/v3/contacts"
            async with session.post(url, json=body, headers=headers) as answer:
                taken += answer.status in (200, 201, 202)
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(pos(session) for _ in range(64)))
    print(taken)
asyncio.run(main())
"""


def repacked(package: Path, folder: Path, version: str, migration: str | None = None) -> Path:
    """Give the same package as another version, with one more migration where a text is given."""
    root = folder / f"repacked-{version}"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True)
    (root / "DEBIAN" / "md5sums").unlink()
    control, preinst = root / "DEBIAN" / "control", root / "DEBIAN" / "preinst"
    agent = next(root.glob("usr/lib/till-agent/lib/python3*/site-packages/agent"))
    found = re.search(r"^Version: (\S+)", control.read_text(), re.MULTILINE)
    assert found is not None
    for path, line in (
        (control, "Version: {}"),
        (preinst, "new='{}'"),
        (agent / "__init__.py", '__version__ = "{}"'),
    ):
        old = path.read_text()
        assert line.format(found[1]) in old
        path.write_text(old.replace(line.format(found[1]), line.format(version)))
    if migration is not None:
        (agent / "journal" / "migrations" / "9999-of-a-later-version.sql").write_text(migration)
    made = folder / f"till-agent_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, made],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(root)
    return made
