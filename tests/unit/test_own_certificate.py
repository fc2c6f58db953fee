"""The agent's own certificate: what is accepted, what modern means, and how it is replaced."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import write_certificate

from agent.events import mask
from agent.tls import Certificate, TlsProblem, certificate_of, leaf_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """Connect two ends; gives the certificate that was shown. Raises ssl.SSLError, OSError."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(ours, server_side=True).close()
        except OSError:
            ours.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(theirs) as line:
            return line.getpeercert(binary_form=True) or b""
    finally:
        theirs.close()
        thread.join()


def client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def of_version_1_1(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def without_authenticated_encryption(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA")


def of_version_1_2(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def of_version_1_3(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("limited", [of_version_1_2, of_version_1_3])
def test_modern_callers_get_a_connection(
    files: tuple[Path, Path], limited: Callable[[ssl.SSLContext], None]
) -> None:
    caller = client()
    limited(caller)

    shown = shake_hands(Certificate(*files).context(), caller)

    assert shown == leaf_of(files[0])


@pytest.mark.parametrize("limited", [of_version_1_1, without_authenticated_encryption])
def test_callers_who_know_old_tls_only_get_none(
    files: tuple[Path, Path], limited: Callable[[ssl.SSLContext], None]
) -> None:
    caller = client()
    limited(caller)

    with pytest.raises(OSError):
        shake_hands(Certificate(*files).context(), caller)


def test_replaced_files_count_from_the_next_connection_on(files: tuple[Path, Path]) -> None:
    certificate = Certificate(*files)
    first = shake_hands(certificate.context(), client())

    write_certificate(files[0].parent)

    second = shake_hands(certificate.context(), client())
    assert first != second == leaf_of(files[0])
    assert certificate.problem is None


def test_half_replaced_files_change_nothing_until_they_fit(files: tuple[Path, Path]) -> None:
    certificate = Certificate(*files)
    before = certificate.context()
    new_certificate, new_key = write_certificate(files[0].parent / "new")

    new_certificate.replace(files[0])

    assert certificate.context() is before
    assert certificate.problem is not None
    assert "cannot be used; the one before goes on" in certificate.problem

    new_key.replace(files[1])

    assert certificate.context() is not before
    assert certificate.problem is None


def test_files_that_vanish_change_nothing(files: tuple[Path, Path]) -> None:
    certificate = Certificate(*files)
    before = certificate.context()

    files[1].unlink()

    assert certificate.context() is before
    assert "does not exist" in str(certificate.problem)


@pytest.mark.parametrize(
    ("days", "words"), [(13, "ends on"), (-1, "ended on"), (15, None), (365, None)]
)
def test_end_is_told_two_weeks_before(tmp_path: Path, days: int, words: str | None) -> None:
    certificate = Certificate(*write_certificate(tmp_path, days=days))

    certificate.context()

    assert (certificate.problem is None) if words is None else words in str(certificate.problem)
    assert certificate.problem is None or mask(certificate.problem) == certificate.problem


def test_end_comes_nearer_while_the_agent_runs(files: tuple[Path, Path]) -> None:
    certificate = Certificate(*files)
    certificate.context()

    assert certificate.ending(datetime.now(UTC)) is None
    assert "ends on" in str(certificate.ending(datetime.now(UTC) + timedelta(days=360)))


def broken(what: str) -> Callable[[Path, Path], None]:
    def spoil(certificate: Path, key: Path) -> None:
        match what:
            case "no certificate":
                certificate.write_text("nothing")
            case "damaged certificate":
                certificate.write_text(
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
                )
            case "certificate missing":
                certificate.unlink()
            case "key missing":
                key.unlink()
            case "key open to others":
                key.chmod(0o640)
            case "no key":
                key.write_text("nothing\n")
            case "key of another":
                other = write_certificate(key.parent / "other")[1]
                os.replace(other, key)
            case "locked key":
                write_certificate(key.parent, passphrase="hunter2")

    return spoil


@pytest.mark.parametrize(
    ("what", "key", "words"),
    [
        ("no certificate", "tls_certificate_file", "holds no certificate"),
        ("damaged certificate", "tls_certificate_file", "cannot be used"),
        ("certificate missing", "tls_certificate_file", "cannot be read"),
        ("key missing", "tls_key_file", "does not exist"),
        ("key open to others", "tls_key_file", "open to other users"),
        ("no key", "tls_key_file", "holds no private key"),
        ("key of another", "tls_key_file", "does not belong to the certificate"),
        ("locked key", "tls_key_file", "locked with a passphrase"),
    ],
)
def test_files_that_cannot_be_used_are_told_with_the_setting_to_blame(
    files: tuple[Path, Path], what: str, key: str, words: str
) -> None:
    broken(what)(*files)

    with pytest.raises(TlsProblem, match=words) as caught:
        Certificate(*files).context()

    assert caught.value.key == key
    assert caught.value.suggestion


def test_without_both_files_there_is_no_certificate(files: tuple[Path, Path]) -> None:
    assert certificate_of(None, None) is None
    assert certificate_of(files[0], None) is None
    assert certificate_of(*files) is not None
