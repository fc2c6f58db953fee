"""Whose certificate is accepted, and what the page says of one that is not."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from authority import Authority, blocking_tls_server
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from patience import eventually
from world import World, lay_till

from agent.delivery.engage.tls import PeerCertificate
from agent.sandbox import Sandbox

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

VERA = "vera@example.test"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with `ca.pem`, and `right.pem` and `wrong.pem` signed by it with their keys."""
    folder = tmp_path / "tls"
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        folder,
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"),
        *("-subj", "/CN=Test authority", "-addext", "keyUsage=critical,keyCertSign"),
    )
    for name, names in (("right", "IP:127.0.0.1"), ("wrong", "DNS:engage.example.test")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        openssl(
            folder,
            *("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={name}"),
        )
        openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    sign_expired(folder)
    return folder


def sign_expired(folder: Path) -> None:
    """Make `expired.pem` from `right.pem`: the same names, over since yesterday."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    right = x509.load_pem_x509_certificate((folder / "right.pem").read_bytes())
    now = datetime.now(UTC)
    names = right.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    expired = (
        x509.CertificateBuilder()
        .subject_name(right.subject)
        .issuer_name(authority.subject)
        .public_key(right.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(names.value, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "expired.pem").write_bytes(expired.public_bytes(serialization.Encoding.PEM))
    (folder / "expired.key").write_bytes((folder / "right.key").read_bytes())


@pytest.fixture
async def world(
    request: pytest.FixtureRequest,
    authority: Path,
    tmp_path: Path,
    session: aiohttp.ClientSession,
) -> AsyncIterator[World]:
    """An agent in front of an Engage that speaks https: `(certificate, engage settings)`."""
    certificate, trusts = request.param
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / f"{certificate}.pem", authority / f"{certificate}.key")
    engage: dict[str, Any] = {"ca_file": str(authority / "ca.pem")} if trusts else {}
    async with Sandbox(tmp_path / "sandbox", import_every_s=0, tls=context) as sandbox:
        till = lay_till(
            sandbox, tmp_path / "till", {"engage": engage, "fallback": {"seal_after_s": 3600}}
        )
        running = World(sandbox, till, session)
        await running.start()
        yield running
        await running.stop()


@pytest.mark.parametrize("world", [("right", True)], indirect=True)
async def test_certificate_of_an_authority_named_in_the_settings_is_accepted(world: World) -> None:
    await world.pos.until(await world.pos.create(), "delivered")

    world.sandbox.down()
    change_id = await world.pos.create("per@example.test")
    await world.pos.tried(change_id)
    world.sandbox.up()
    await world.pos.until(change_id, "delivered")


@pytest.mark.parametrize("world", [("right", True)], indirect=True)
async def test_certificate_that_ends_soon_is_said_on_the_page(world: World) -> None:
    await world.pos.until(await world.pos.create(), "delivered")

    async def told() -> list[dict[str, Any]]:
        return list((await world.pos.status())["needsPerson"])

    (need,) = await eventually(told, "something needs a person")
    assert need["what"].startswith("Engage's certificate ends on ")
    assert need["whatToDo"].endswith("Tell Voyado, or who runs the proxy.")


@pytest.mark.parametrize(("days", "is_said"), [(15, False), (13, True), (0, True)])
def test_end_of_a_certificate_is_said_two_weeks_before(days: int, is_said: bool) -> None:
    shown, now = PeerCertificate(), datetime(2026, 11, 22, 12, tzinfo=UTC)
    before = shown.ending(now)

    shown.note({"notAfter": f"{now + timedelta(days=days):%b %d %H:%M:%S %Y} GMT"})

    assert before is None
    assert (shown.ending(now) is not None) is is_said


@pytest.mark.parametrize(
    "world", [("right", False), ("wrong", True), ("expired", True)], indirect=True
)
async def test_certificate_that_is_not_accepted_sends_nothing_and_is_said_in_words(
    world: World,
) -> None:
    change_id = await world.pos.create()

    change = await world.pos.tried(change_id, 2)
    attempt = change["attempts"][0]
    assert (attempt["outcome"], attempt["code"]) == ("deferred", "Unreachable")
    assert change["unknown"] is False

    async def offline() -> str | None:
        link = (await world.pos.status())["link"]
        return str(link["reason"]) if link["state"] == "offline" else None

    assert "certificate" in await eventually(offline, "the link is offline")
    assert world.sandbox.requests == []


async def test_server_that_speaks_only_an_old_protocol_gets_nothing_and_is_named(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    authority = Authority(tmp_path / "old")
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with Sandbox(tmp_path / "sandbox", import_every_s=0) as sandbox:
        with blocking_tls_server(context) as port:
            till = lay_till(
                sandbox,
                tmp_path / "till",
                {"engage": {"ca_file": str(authority.ca_file)}, "fallback": {"seal_after_s": 3600}},
                engage_url=f"https://127.0.0.1:{port}",
            )
            world = await World(sandbox, till, session).start()
            change = await world.pos.tried(await world.pos.create())
            await world.stop()

    assert change["attempts"][0]["code"] == "Unreachable"
    assert "no longer safe" in change["attempts"][0]["message"]
    assert change["unknown"] is False
