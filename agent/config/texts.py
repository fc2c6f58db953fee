"""Checks of single texts: addresses, names, hosts, the pattern of a file name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit, urlunsplit

from agent.config.kinds import Wrong
from agent.contact import NO_ATTRIBUTES, NO_CONTACT_TYPES, NO_PREFERENCES

# --- checks of single texts -------------------------------------------------------------------


def file_part(text: str) -> str:
    """Check what becomes part of a file name. Raises Wrong."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", text):
        cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:40]
        raise Wrong(
            "This becomes part of a file's name and does not fit there.",
            "Use up to 40 of the letters A to Z, digits, dots, dashes and underscores"
            + (f', for example "{cleaned}".' if cleaned else "."),
        )
    return text


def country(text: str) -> str:
    """Check an ISO country code. Raises Wrong."""
    if text.upper() == "UK":
        raise Wrong("This is not the country's ISO code.", 'Write "GB".')
    if not re.fullmatch(r"[A-Z]{2}", text):
        is_code = re.fullmatch(r"[A-Za-z]{2}", text)
        raise Wrong(
            "This must be a country's ISO code: two upper-case letters.",
            f'Write "{text.upper()}".' if is_code else 'Write for example "SE".',
        )
    return text


def name(text: str) -> str:
    """Check the name of an attribute or contact type. Raises Wrong."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", text):
        raise Wrong(
            "This is not a name as Engage has them: letters, digits, underscores, dots.",
            "Write it as it stands in Engage.",
        )
    return text


def attribute(text: str) -> str:
    """Check the name of a tenant's attribute: a file must be able to hold it. Raises Wrong."""
    outer, dot, inner = name(text).partition(".")
    is_preference = dot and outer == "preferences"
    if text.lower() in NO_ATTRIBUTES or (is_preference and inner.lower() in NO_PREFERENCES):
        raise Wrong(
            "This is a name that Engage's import file has for something else, so no file could"
            " hold it.",
            "Leave it out: it is not an attribute of a contact.",
        )
    return text


def contact_type(text: str) -> str:
    """Check a contact type: a file must be able to name its contacts so. Raises Wrong."""
    if name(text).lower() in NO_CONTACT_TYPES:
        raise Wrong(
            "This is a name that Engage's import file has for something else, so no file could"
            " hold a contact of this type.",
            'Write the type\'s handle as it stands in Engage, for example "Member".',
        )
    return text


def product(text: str) -> str:
    """Check a User-Agent: product/version. Raises Wrong."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+( [\x20-\x7e]+)?", text):
        raise Wrong(
            "This must be a product and its version; Engage refuses calls without them.",
            'Write for example "AcmePOS/1.5".',
        )
    return text


def is_loopback(host: str) -> bool:
    """Say whether a name or address leads nowhere but to this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen_host(text: str) -> str:
    """Check the address to listen on: an address, for a name may lead elsewhere. Raises Wrong."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text.strip("[]")))
    except ValueError:
        raise Wrong(
            "This must be an IP address of this machine: what a name means may change.",
            'Write "127.0.0.1", which also serves whoever calls localhost.',
        ) from None


def file_mode(text: str) -> str:
    """Check the mode of a socket: readable and writable at least for its owner. Raises Wrong."""
    if not re.fullmatch(r"0?[0-7]{3}", text) or int(text, 8) & 0o600 != 0o600:
        raise Wrong(
            "This is not a mode with which a socket can be used.",
            'Write for example "0660": its owner and its group may connect.',
        )
    return text


_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    return True


def host_name(text: str) -> str:
    """Check the name or address of a host. Raises Wrong."""
    if not _is_host(text):
        raise Wrong(
            "This must be the name of a machine alone: no scheme, port, path or wildcard.",
            'Write for example "till-12.shop.example".',
        )
    return text


def _split(text: str, example: str) -> SplitResult:
    """Take a URL apart; what does not depend on its use is checked here."""
    url = _parsed_url(text)
    if url is None or " " in text:
        raise Wrong("This is not a URL.", f'Write for example "{example}".')
    if "@" in text:
        # An "@" behind the first slash may be the end of a password that has a slash in it.
        bare = example if url.username is None or "@" in url.path else _without_login(url)
        raise Wrong(
            "This URL carries a login, and secrets may not stand in this file.",
            f'Write for example "{bare}".',
        )
    return url


def _parsed_url(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  it is read for the ValueError of a port that is no number
    except ValueError:
        return None
    return url if url.scheme and url.hostname and _is_host(url.hostname) else None


def _without_login(url: SplitResult) -> str:
    place = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, place, url.path, "", ""))


def base_url(text: str) -> str:
    """Check the tenant's address; gives it without /api/v3. Raises Wrong."""
    url = _split(text, "https://acme.voyado.com")
    prefix: str = re.split("(?i)/api(?:/|$)", url.path)[0].rstrip("/")
    plain = urlunsplit(("https", url.netloc, prefix, "", ""))
    if url.scheme not in ("https", "http") or (
        url.scheme == "http" and not is_loopback(url.hostname or "")
    ):
        raise Wrong(
            "This must be https: the key and personal data would go in the clear.",
            f'Write "{plain}".',
        )
    bare = url.scheme + plain.removeprefix("https")
    if "?" in text or "#" in text:
        raise Wrong("This carries a query or a fragment.", f'Write "{bare}".')
    if re.search("(?i)/api(/|$)", url.path):
        raise Wrong("The agent adds /api/v3 by itself.", f'Write "{bare}".')
    return bare


def proxy(text: str) -> str:
    """Check the address of an HTTP proxy. Raises Wrong."""
    url = _split(text, "http://proxy.shop.example:3128")
    if url.scheme not in ("http", "https") or url.path.strip("/") or url.query or url.fragment:
        raise Wrong(
            "This must be the address of an HTTP proxy alone.",
            'Write for example "http://proxy.shop.example:3128".',
        )
    return text.rstrip("/")


def origin(text: str) -> str:
    """Check a web page's origin. Raises Wrong."""
    url = _split(text, "https://pos.shop.example")
    bare = f"{url.scheme}://{url.netloc}".lower()
    if url.scheme not in ("http", "https"):
        raise Wrong("This is not a web page's origin.", 'Write "https://…" or "http://…".')
    if text.lower() != bare:
        raise Wrong("An origin has no path, query or slash at its end.", f'Write "{bare}".')
    return bare


_PLACEHOLDERS = ("timestamp", "store", "till", "sequence")
FILE_NAME = "{timestamp}_{store}-{till}-{sequence}_contacts.xml"
_FILE_NAME_RULES: tuple[tuple[Callable[[str], object], str, str], ...] = (
    (
        lambda text: text.endswith("_contacts.xml"),
        "This must end with _contacts.xml, or Engage does not import the file.",
        f'Write for example "{FILE_NAME}".',
    ),
    (
        lambda text: "{timestamp}" in text and "{sequence}" in text,
        "This must contain {timestamp} and {sequence}, or a file could overwrite another.",
        f'Write for example "{FILE_NAME}".',
    ),
    (
        lambda text: "{store}" in text or "{till}" in text,
        "This must contain {store} or {till}, or two tills could overwrite each other's files.",
        f'Write for example "{FILE_NAME}".',
    ),
    (
        lambda text: set(re.findall(r"\{(.*?)\}", text)) <= set(_PLACEHOLDERS),
        "This contains a placeholder that does not exist.",
        "There are {timestamp}, {store}, {till} and {sequence}.",
    ),
    (
        lambda text: (
            re.fullmatch(r"[A-Za-z0-9{][A-Za-z0-9{}._-]*", text)
            and re.fullmatch(r"[^{}]*(\{[a-z]+\}[^{}]*)*", text)
        ),
        "This has signs that do not fit a file's name.",
        "Use letters, digits, dots, dashes, underscores and placeholders.",
    ),
)


def file_name(text: str) -> str:
    """Check the pattern of a batch file's name. Raises Wrong."""
    for fits, what, suggestion in _FILE_NAME_RULES:
        if not fits(text):
            raise Wrong(what, suggestion)
    return text
