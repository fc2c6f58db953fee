"""The certificate by which the agent proves to callers who it is, where [server] names one.

Modern TLS alone: 1.3, or 1.2 with forward secrecy and authenticated encryption. Replaced files
count from the next connection on; while they cannot be used, the ones before go on.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent import events
from agent.errors import AgentError
from agent.secrets import SecretProblem, SecretSource, path_of, read_secret

# So long before its end a person is told; time enough to order a new one.
_WARN_BEFORE = timedelta(days=14)
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all of this kind
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class TlsProblem(AgentError):
    """Certificate and key cannot be used."""

    code = "TlsProblem"

    def __init__(self, key: str, what: str, suggestion: str) -> None:
        self.key = key  # the setting below [server] that is to blame
        self.what = what
        self.suggestion = suggestion
        super().__init__(f"{what} {suggestion}")


class Certificate:
    """Certificate and key as they lie on disk now."""

    def __init__(self, certificate_file: Path, key_file: SecretSource) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._context: ssl.SSLContext | None = None
        self._ends_at: datetime | None = None
        self._trouble: str | None = None
        self._seen: object = None

    def context(self) -> ssl.SSLContext:
        """Give what new connections are made with.

        Raises TlsProblem as long as the files could never be used.
        """
        seen = self._signature()
        if self._context is None or seen != self._seen:
            self._seen = seen
            self._renew()
        assert self._context is not None  # noqa: S101 - _renew() gives one or raises
        return self._context

    @property
    def problem(self) -> str | None:
        """Say what a person should do about it: it ends soon, or its successor is unusable."""
        return self._trouble or self.ending(datetime.now(UTC))

    def ending(self, now: datetime) -> str | None:
        """Say when it ends, if that is soon or past."""
        if self._ends_at is None or self._ends_at - now > _WARN_BEFORE:
            return None
        verb = "ended" if self._ends_at <= now else "ends"
        # No date of digits alone: on the page that would pass for a personal number.
        day = f"{self._ends_at.day} {self._ends_at:%B %Y}"
        return (
            f"The agent's own certificate {verb} on {day}. POS software that checks it does not "
            f"talk to the agent after that. Put a new one in place of {self._certificate_file} "
            "and of its key; no restart is needed."
        )

    def _renew(self) -> None:
        try:
            context, ends_at = _load(self._certificate_file, self._key_file)
        except TlsProblem as problem:
            if self._context is None:
                raise
            events.log().warning("certificate_unusable", reason=problem.what)
            self._trouble = (
                "The agent's own certificate was replaced, and the new one cannot be used; the one "
                f"before goes on until the next restart. {problem.message}"
            )
            return
        if self._context is not None:
            events.log().info("certificate_replaced", until=ends_at.date().isoformat())
        self._context, self._ends_at, self._trouble = context, ends_at, None

    def _signature(self) -> object:
        try:
            paths = self._certificate_file, path_of(self._key_file)
            facts = [os.stat(path) for path in paths]
        except (OSError, SecretProblem) as error:
            return str(error)
        return [(fact.st_mtime_ns, fact.st_size, fact.st_ino) for fact in facts]


def certificate_of(
    certificate_file: Path | None, key_file: SecretSource | None
) -> Certificate | None:
    """Give the certificate that the settings name, None where they name none."""
    if certificate_file is None or key_file is None:
        return None
    return Certificate(certificate_file, key_file)


def leaf_of(certificate_file: Path) -> bytes:
    """Give the agent's own certificate, the first in its file, in DER.

    Raises TlsProblem.
    """
    text = _text_of(certificate_file)
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise _no_certificate(certificate_file)
    try:
        return ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)])
    except ValueError:
        raise _no_certificate(certificate_file) from None


def _load(certificate_file: Path, key_file: SecretSource) -> tuple[ssl.SSLContext, datetime]:
    leaf = leaf_of(certificate_file)
    key_path = _key_path(key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate_file, key_path)
    except (ssl.SSLError, OSError) as error:
        raise _unfit(certificate_file, key_path, error) from None
    return context, _end_of(leaf)


def _key_path(key_file: SecretSource) -> Path:
    try:
        text = read_secret(key_file)
        path = path_of(key_file)
    except SecretProblem as problem:
        raise TlsProblem("tls_key_file", problem.what, problem.suggestion) from None
    if "ENCRYPTED" in text:  # OpenSSL would ask for the passphrase on the terminal
        raise TlsProblem(
            "tls_key_file",
            f"The key in {path} is locked with a passphrase, and nobody is there to type it.",
            f"Unlock it: openssl pkey -in {path} -out {path}.new, then chmod 600 and replace it.",
        )
    if "PRIVATE KEY-----" not in text:
        raise TlsProblem(
            "tls_key_file",
            f"The file {path} holds no private key.",
            "Store it in PEM form: it begins with -----BEGIN PRIVATE KEY-----",
        )
    return path


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii", errors="replace")
    except OSError as error:
        raise TlsProblem(
            "tls_certificate_file",
            f"The file {path} cannot be read: {error.strerror}.",
            f"Correct the path, or run: chmod a+r {path}",
        ) from None


def _no_certificate(path: Path) -> TlsProblem:
    return TlsProblem(
        "tls_certificate_file",
        f"The file {path} holds no certificate that can be used.",
        f"Store it in PEM form: it begins with {_BEGIN}",
    )


def _unfit(certificate_file: Path, key_path: Path, error: Exception) -> TlsProblem:
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return TlsProblem(
            "tls_key_file",
            f"The key in {key_path} does not belong to the certificate in {certificate_file}.",
            "Name the key that the certificate was made for; the agent's own certificate stands"
            " first in its file, the issuer's behind it.",
        )
    if reason.endswith("_TOO_SMALL") or reason.endswith("_TOO_WEAK"):
        return TlsProblem(
            "tls_certificate_file",
            f"The certificate in {certificate_file} is too weak for modern TLS.",
            "Get one with a key of 2048 bits RSA or 256 bits EC at least, signed with SHA-256.",
        )
    return TlsProblem(
        "tls_certificate_file",
        f"Certificate {certificate_file} and key {key_path} cannot be used"
        f" ({reason or 'they are damaged'}).",
        "Store both in PEM form.",
    )


def _end_of(leaf: bytes) -> datetime:
    # Here, not above: an agent without TLS keeps the memory.
    from cryptography import x509

    return x509.load_der_x509_certificate(leaf).not_valid_after_utc
