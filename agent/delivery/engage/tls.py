"""TLS to Engage: whom the agent trusts, and why a certificate was not accepted, in words."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = (62, 63, 64)  # host, e-mail, address: X509_V_ERR_HOSTNAME_MISMATCH and its kin
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_OLD_PROTOCOL = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "NO_PROTOCOLS")


# So long before a certificate's end a person is told; time enough to have it renewed.
ENDS_SOON = timedelta(days=14)


class PeerCertificate:
    """The certificate that Engage's side showed last: until when it holds."""

    def __init__(self) -> None:
        self.ends_at: datetime | None = None  # None: none was shown yet

    def note(self, certificate: dict[str, Any] | None) -> None:
        """Take what ssl says of a certificate that was accepted."""
        if certificate and "notAfter" in certificate:
            seconds = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            self.ends_at = datetime.fromtimestamp(seconds, UTC)

    def ending(self, now: datetime) -> str | None:
        """Say for a person when it ends, if that is soon."""
        if self.ends_at is None or self.ends_at - now > ENDS_SOON:
            return None
        # No date of digits alone: on the page that would pass for a personal number.
        day = f"{self.ends_at.day} {self.ends_at:%B %Y}"
        return (
            f"Engage's certificate ends on {day}. After that nothing is sent any more; sign-ups "
            "are stored all the same. Tell Voyado, or who runs the proxy."
        )


def trusting(ca_file: Path | None, shown: PeerCertificate | None = None) -> ssl.SSLContext:
    """Give a context that trusts the system's authorities, or those in `engage.ca_file` alone.

    `shown` gets each certificate that is accepted. Raises OSError and ssl.SSLError for a file that
    cannot be used.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    # Engage refuses older ones (Engage's docs, "Security").
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if shown is not None:
        context.sslobject_class = _noting(shown)
    return context


def _noting(shown: PeerCertificate) -> type[ssl.SSLObject]:
    class Noting(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            shown.note(self.getpeercert())

    return Noting


def why(error: BaseException) -> str | None:
    """Say why there is no secure connection; None where the error says nothing of TLS.

    Understands ssl's errors, and those of libraries that carry one inside.
    """
    inner = _ssl_error(error)
    if inner is None:
        return None
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _why_not_accepted(inner)
    if any(word in (inner.reason or "").upper() for word in _OLD_PROTOCOL):
        return (
            "Engage's side offers only TLS versions that are no longer safe; 1.2 or newer is "
            "needed. A proxy may stand in between."
        )
    return "No secure connection (TLS) to Engage could be made."


def _ssl_error(error: BaseException) -> ssl.SSLError | None:
    link: BaseException | None = error
    while link is not None:
        # aiohttp's are ssl's too, but know nothing; the one that they carry knows why.
        for carried in ("certificate_error", "os_error"):
            if isinstance(found := getattr(link, carried, None), ssl.SSLError):
                return found
        if isinstance(link, ssl.SSLError):
            return link
        link = link.__cause__ or link.__context__
    return None


def _why_not_accepted(error: ssl.SSLCertVerificationError) -> str:
    code = getattr(error, "verify_code", 0)
    if code == _EXPIRED:
        return (
            "Engage's certificate is not accepted: it has expired. Check the till's clock; if that "
            "is right, tell Voyado."
        )
    if code == _NOT_YET_VALID:
        return (
            "Engage's certificate is not accepted: it is not valid yet. The till's clock is "
            "probably behind; set it."
        )
    if code in _OTHER_NAME:
        return (
            "Engage's certificate is not accepted: it is for another name. A portal or proxy "
            "answers in Engage's place, or engage.base_url is wrong."
        )
    if code in _UNKNOWN_AUTHORITY:
        return (
            "Engage's certificate is not accepted: its authority is not known here. If the network "
            "inspects TLS, name that authority's certificate in engage.ca_file."
        )
    return (
        "Engage's certificate is not accepted: check the till's clock, and engage.ca_file if "
        "the network inspects TLS."
    )
