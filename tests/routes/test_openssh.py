"""The file route against OpenSSH's own server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_line import faulty_line
from openssh import KINDS, PASSWORD, PATIENCE_S, OpenSsh, find_nss_wrapper, find_sshd

from agent.delivery.batch.sftp import ForeignFile, ServerRefused, SftpServer, Upload, shown_keys
from agent.errors import AnswerLost, HostKeyChanged, NotAuthorised, RouteError, Unreachable

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_sshd() is None, reason="OpenSSH's sshd is not installed"),
]

needs_accounts = pytest.mark.skipif(
    find_nss_wrapper() is None, reason="libnss-wrapper is not installed"
)
NAME = "20261121101500_7-1-1_contacts.xml"
OTHER = "20261121101501_7-1-2_contacts.xml"
CONTENT = bytes(range(256)) * 40_000  # 10 MB: about 20,000 contacts

Start = Callable[..., OpenSsh]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[OpenSsh] = []

    def started(**options: Any) -> OpenSsh:
        server = OpenSsh(tmp_path / f"server{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    place = tmp_path / NAME
    place.write_bytes(CONTENT)
    return Upload(place, NAME, len(CONTENT), digest(CONTENT))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def nothing(_name: str) -> None:
    return


async def ship(agent: SftpServer, upload: Upload) -> dict[str, RouteError]:
    return await agent.ship([upload], nothing, nothing)


def files(server: OpenSsh) -> dict[str, bytes]:
    return {place.name: place.read_bytes() for place in server.folder.iterdir()}


async def reached(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


async def test_a_large_file_stands_on_the_server_under_its_name_alone(
    start: Start, upload: Upload
) -> None:
    server = start()

    await ship(server.client(), upload)

    assert files(server) == {NAME: CONTENT}


async def test_every_step_of_the_check_passes(start: Start) -> None:
    server = start()

    findings = await server.client().check()

    assert [row.good for row in findings] == [True] * 5
    assert files(server) == {}


async def test_a_file_that_is_taken_back_is_gone_for_good(start: Start, upload: Upload) -> None:
    server = start()
    agent = server.client()
    await ship(agent, upload)

    before = await agent.look([NAME])
    taken_back = await agent.take_back(upload), await agent.take_back(upload)
    await agent.clean([NAME])

    assert before == {NAME: len(CONTENT)}
    assert taken_back == (True, True)
    assert files(server) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_of_several_host_keys_the_pinned_kind_is_compared(start: Start, kind: str) -> None:
    server = start()

    assert await server.client(pinned=kind).look([NAME]) == {NAME: None}


async def test_the_host_key_shown_is_the_one_that_ssh_keygen_prints(start: Start) -> None:
    server = start(host_key_kinds=["rsa"])

    [shown] = await shown_keys("127.0.0.1", server.port, PATIENCE_S)

    printed = subprocess.run(
        ["ssh-keygen", "-lf", server.home / "host_rsa.pub"], check=True, capture_output=True
    )
    assert shown.fingerprint in printed.stdout.decode()


async def test_another_server_at_the_same_place_gets_no_file(start: Start, upload: Upload) -> None:
    first, second = start(), start()
    agent = first.client(port=second.port)  # the first one's key is pinned for that address

    with pytest.raises(HostKeyChanged) as caught:
        await ship(agent, upload)

    assert first.host_key("ed25519").fingerprint in str(caught.value)
    assert second.host_key("ed25519").fingerprint in str(caught.value)
    assert files(second) == {}


async def test_a_key_that_is_not_authorised_is_refused(start: Start) -> None:
    server = start()

    with pytest.raises(NotAuthorised, match="refused the login"):
        await server.client(private_key=server.home / "host_rsa").look([])


async def test_a_server_with_old_algorithms_only_is_told_clearly(start: Start) -> None:
    server = start(host_key_kinds=["rsa"], extra="HostKeyAlgorithms ssh-rsa")

    with pytest.raises(NotAuthorised, match="no longer safe"):
        await server.client(pinned="rsa").look([])


async def test_a_login_for_reading_only_is_told_in_the_servers_words(
    start: Start, upload: Upload
) -> None:
    server = start(sftp_options="-R")

    kept_back = await ship(server.client(), upload)

    assert "Permission denied" in kept_back[NAME].message


async def test_a_login_without_sftp_is_told(start: Start) -> None:
    server = start(extra="ForceCommand false")

    with pytest.raises(NotAuthorised, match="ended its session at once"):
        await server.client().look([])


async def test_without_posix_rename_a_file_gets_its_name(start: Start, upload: Upload) -> None:
    server = start(sftp_options="-P posix-rename")

    await ship(server.client(), upload)

    assert files(server) == {NAME: CONTENT}


async def test_a_missing_folder_is_told(start: Start, upload: Upload) -> None:
    server = start()
    server.folder.rmdir()

    with pytest.raises(ServerRefused, match=r"sftp\.directory"):
        await ship(server.client(), upload)


async def test_a_foreign_file_is_never_overwritten(start: Start, upload: Upload) -> None:
    server = start()
    (server.folder / NAME).write_bytes(b"somebody else's")

    kept_back = await ship(server.client(), upload)

    assert [type(error) for error in kept_back.values()] == [ForeignFile]
    assert files(server) == {NAME: b"somebody else's"}


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[tuple[Upload, threading.Event]]:
    """A file of which the second half can be read only after the event."""
    place, go_on = tmp_path / "halfway", threading.Event()
    os.mkfifo(place)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), place.open("wb") as pipe:
            pipe.write(CONTENT[: len(CONTENT) // 2])
            pipe.flush()
            go_on.wait(PATIENCE_S)
            pipe.write(CONTENT[len(CONTENT) // 2 :])

    writer = threading.Thread(target=write)
    writer.start()
    yield Upload(place, NAME, len(CONTENT), digest(CONTENT)), go_on
    go_on.set()
    writer.join()


async def test_an_upload_that_a_crash_of_the_server_cut_succeeds_later(
    start: Start, upload: Upload, halfway: tuple[Upload, threading.Event]
) -> None:
    server = start()
    agent = server.client()
    first, go_on = halfway
    part = server.folder / f".{NAME}.part"
    shipping = asyncio.create_task(ship(agent, first))
    await reached(lambda: part.exists() and part.stat().st_size, "the first block")
    server.end_sessions()
    go_on.set()
    with pytest.raises(Unreachable):
        await shipping
    assert NAME not in files(server)

    await ship(agent, upload)

    assert files(server) == {NAME: CONTENT}


async def test_a_server_that_freezes_in_mid_transfer_is_left(
    start: Start, halfway: tuple[Upload, threading.Event]
) -> None:
    server = start()
    upload, go_on = halfway
    part = server.folder / f".{NAME}.part"
    shipping = asyncio.create_task(ship(server.client(timeout_s=1.0), upload))
    await reached(lambda: part.exists() and part.stat().st_size, "the first block")

    server.freeze_sessions()
    go_on.set()

    with pytest.raises(Unreachable, match="did not answer within 1 s"):
        await shipping


# --- passwords ------------------------------------------------------------------------------------


@needs_accounts
async def test_a_password_logs_in(start: Start, upload: Upload) -> None:
    server = start(by_password=True)

    await ship(server.client(password=PASSWORD), upload)

    assert files(server) == {NAME: CONTENT}


@needs_accounts
async def test_a_wrong_password_is_refused_and_not_repeated_in_words(start: Start) -> None:
    server = start(by_password=True)

    with pytest.raises(NotAuthorised, match=r"refused the login.*password") as caught:
        await server.client(password="hunter2").look([])

    assert "hunter2" not in str(caught.value)


async def test_what_lies_in_the_way_of_one_file_holds_up_no_other(
    start: Start, upload: Upload, tmp_path: Path
) -> None:
    server = start()
    (server.folder / f".{NAME}.part").mkdir()
    (tmp_path / OTHER).write_bytes(b"small")
    small = Upload(tmp_path / OTHER, OTHER, 5, digest(b"small"))

    kept_back = await server.client().ship([upload, small], nothing, nothing)

    assert list(kept_back) == [NAME]
    assert (server.folder / OTHER).read_bytes() == b"small"


@needs_accounts
async def test_an_expired_password_is_told(start: Start) -> None:
    server = start(by_password=True)
    server.let_password_expire()

    with pytest.raises(NotAuthorised, match="password may have expired"):
        await server.client(password=PASSWORD).look([])


# --- the server's disk ----------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_what_still_fits_goes_up(
    start: Start, upload: Upload, tmp_path: Path
) -> None:
    server = start(largest_file=1_000_000)
    (tmp_path / OTHER).write_bytes(b"small")

    small = Upload(tmp_path / OTHER, OTHER, 5, digest(b"small"))

    kept_back = await server.client().ship([upload, small], nothing, nothing)

    assert list(kept_back) == [NAME]
    assert "disk may be full" in kept_back[NAME].message
    assert files(server) == {OTHER: b"small"}


async def test_several_files_go_oldest_first_over_one_connection(
    start: Start, tmp_path: Path
) -> None:
    server, heard = start(), []
    names = [f"2026112110150{number}_7-1-{number}_contacts.xml" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"content")

    async def uploaded(name: str) -> None:
        heard.append(name)

    uploads = [Upload(tmp_path / name, name, 7, digest(b"content")) for name in names]
    await server.client().ship(uploads, uploaded, nothing)

    assert heard == names
    assert server.log.count("Accepted publickey") == 1


# --- a line that breaks ---------------------------------------------------------------------------

SMALL = bytes(range(256)) * 400  # a few blocks
CUTS = 14  # in each direction; the rename and its answer are among the last bytes


class Shipping:
    """One upload over and over, knowing what the journal would know."""

    def __init__(self, server: OpenSsh, tmp_path: Path, name: str) -> None:
        self.server = server
        self.upload = Upload(tmp_path / name, name, len(SMALL), digest(SMALL))
        self.upload.path.write_bytes(SMALL)

    async def over(self, port: int, timeout_s: float = PATIENCE_S) -> RouteError | None:
        """Try once; gives why it did not work out."""

        async def complete(_name: str) -> None:
            self.upload = replace(self.upload, rename_tried=True)

        agent = self.server.client(port=port, timeout_s=timeout_s)
        try:
            await agent.ship([self.upload], nothing, complete)
        except RouteError as error:
            return error
        return None

    @property
    def seen(self) -> bytes | None:
        """Give what an importer would take."""
        place = self.server.folder / self.upload.name
        return place.read_bytes() if place.exists() else None


async def bytes_of_an_upload(server: OpenSsh, tmp_path: Path) -> dict[str, int]:
    async with faulty_line(server.port) as line:
        assert await Shipping(server, tmp_path, "first_contacts.xml").over(line.port) is None
    return line.passed


def threads_and_sockets() -> tuple[int, int]:
    ours = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
    links = (os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return len(ours), sum(link.startswith("socket:") for link in _existing(links))


def _existing(links: Iterator[str]) -> Iterator[str]:
    while True:
        try:
            yield next(links)
        except FileNotFoundError:  # closed meanwhile
            continue
        except StopIteration:
            return


@pytest.mark.parametrize("side", ["up", "down"])
async def test_a_line_that_is_cut_at_any_byte_leaves_nothing_half_and_the_next_try_succeeds(
    start: Start, tmp_path: Path, side: str
) -> None:
    server = start()
    total = (await bytes_of_an_upload(server, tmp_path))[side]
    spread = [total * cut // CUTS for cut in range(CUTS)]
    late = [total - left for left in (600, 300, 150, 60, 1)]

    async def one(after: int) -> None:
        shipping = Shipping(server, tmp_path, f"{side}-{after}_contacts.xml")
        async with faulty_line(server.port, **{side: after}) as line:
            error = await shipping.over(line.port)
            assert error is None or isinstance(error, Unreachable | AnswerLost), error
            assert shipping.seen in (None, SMALL)
            assert (error is None) <= (shipping.seen == SMALL)

            again = await shipping.over(line.port)

        assert again is None
        assert shipping.seen == SMALL

    points = iter([*spread, *late])

    async def some() -> None:
        for after in points:
            await one(after)

    await asyncio.gather(*(some() for _ in range(4)))


async def test_a_line_that_falls_silent_at_any_moment_is_left_with_its_threads_and_sockets(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    total = await bytes_of_an_upload(server, tmp_path)
    before = threads_and_sockets()
    moments = [
        *({"down": after} for after in (0, 10, 800)),  # key exchange
        *({"down": total["down"] * part // 8} for part in range(3, 8)),  # login to writing
        *({"up": total["up"] * part // 4} for part in range(1, 4)),  # writing
        *({"down": total["down"] - left} for left in (900, 500, 250, 100, 1)),  # close, rename
    ]

    async def one(number: int, moment: dict[str, int]) -> None:
        shipping = Shipping(server, tmp_path, f"{number}_contacts.xml")
        async with faulty_line(server.port, falls_silent=True, **moment) as line:
            error = await shipping.over(line.port, timeout_s=2.0)
        assert error is None or "did not answer within 2 s" in str(error), (moment, error)
        assert shipping.seen in (None, SMALL)

    await asyncio.gather(*(one(number, each) for number, each in enumerate(moments)))

    await reached(lambda: threads_and_sockets() == before, "nothing is left behind")
