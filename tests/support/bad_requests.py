"""Requests that no sound client sends: by hand for what is known to break servers, and at random.

Each of them has to be refused; none may be such that a lenient reader would be right to take it.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

GUID = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
VERA = b'{"email": "vera@example.test"}'
CONTACTS = "/api/v3/contacts"

# Calls whose body is a contact's attributes, and one whose body is something else.
TAKE_ATTRIBUTES = (
    ("POST", CONTACTS),
    ("PATCH", f"{CONTACTS}/{GUID}"),
    ("POST", f"{CONTACTS}/{GUID}/updateContactType?contactTypeId=Member"),
)
TAKE_A_BODY = (
    *TAKE_ATTRIBUTES,
    ("PUT", f"/agent/v1/changes/{GUID}/payload"),
    ("POST", f"/agent/v1/changes/{GUID}/discard"),
)


@dataclass(frozen=True)
class Bad:
    """One request as it goes over the wire."""

    what: str
    sent: bytes
    half_close: bool = False  # nothing more comes, and the server is told


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Writes requests for one agent, and sends them as they are."""

    def __init__(self, netloc: str, token: str) -> None:
        self.netloc = netloc
        self.token = token

    def head(self, method: str, target: str, *lines: bytes, host: str | None = None) -> bytes:
        given = [
            f"{method} {target} HTTP/1.1".encode(),
            f"Host: {self.netloc if host is None else host}".encode(),
            f"apikey: {self.token}".encode(),
            *lines,
        ]
        return b"\r\n".join(given) + b"\r\n\r\n"

    def call(
        self, method: str, target: str, body: bytes, *lines: bytes, media: str = "application/json"
    ) -> bytes:
        kept = [f"Content-Type: {media}".encode(), b"Content-Length: %d" % len(body), *lines]
        return self.head(method, target, *kept) + body

    def sign_up(self, *lines: bytes, body: bytes = VERA) -> bytes:
        """Write a sound sign-up, but for these header lines; its length is among them."""
        return self.head("POST", CONTACTS, b"Content-Type: application/json", *lines) + body

    def send(self, bad: Bad) -> Answer | None:
        """Send it; gives the answer, None where the connection was closed without one.

        Raises TimeoutError after eight seconds of silence: sooner than any deadline of the agent's.
        """
        name, _, port = self.netloc.rpartition(":")
        with socket.create_connection((name, int(port)), timeout=8) as wire:
            try:
                wire.sendall(bad.sent)
                if bad.half_close:
                    wire.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # refused already: the answer may be there all the same
            return _answer(wire)


def _answer(wire: socket.socket) -> Answer | None:
    received = b""
    while (found := _parsed(received)) is None:
        try:
            more = wire.recv(65536)
        except ConnectionError:
            return None
        if not more:
            return None
        received += more
    return found


def _parsed(received: bytes) -> Answer | None:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)
    }
    if len(body) < int(headers.get("content-length", 0)):
        return None
    return Answer(int(line.split(" ")[1]), headers, body)


# --- known to break servers -----------------------------------------------------------------------


def by_hand(wire: Wire) -> Iterator[Bad]:
    """Give what is known to break servers."""
    yield from _no_http(wire)
    yield from _two_lengths(wire)
    yield from _broken_headers(wire)
    yield from _broken_chunks(wire)
    yield from _addresses(wire)
    yield from _bodies_by_hand(wire)
    yield from _cut_off(wire)


def _no_http(wire: Wire) -> Iterator[Bad]:
    host = f"Host: {wire.netloc}\r\n".encode()
    yield Bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
    yield Bad("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Bad("words", b"hello world\r\n\r\n")
    yield Bad("NULs", bytes(64) + b"\r\n\r\n")
    yield Bad("no version", b"GET /healthz\r\n" + host + b"\r\n")
    yield Bad("a version of the future", b"GET /healthz HTTP/9.9\r\n" + host + b"\r\n")
    yield Bad("a method in lower case", b"get /healthz HTTP/1.1\r\n" + host + b"\r\n")
    yield Bad("line feeds alone", b"GET /healthz HTTP/1.1\n" + host.replace(b"\r", b"") + b"\n")
    yield Bad("no host", b"GET /healthz HTTP/1.1\r\n\r\n")
    yield Bad("two hosts", b"GET /healthz HTTP/1.1\r\n" + host + host + b"\r\n")
    yield Bad("an empty host", b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n")
    yield Bad("a foreign host", wire.head("GET", "/healthz", host="evil.example.test"))
    yield Bad("a host with a path", wire.head("GET", "/healthz", host=f"{wire.netloc}/x"))
    for method in ("TRACE", "CONNECT", "OPTIONS", "PUT", "DELETE", "PROPFIND", "BREW"):
        yield Bad(f"the method {method}", wire.head(method, CONTACTS))


def _two_lengths(wire: Wire) -> Iterator[Bad]:
    length, other = b"Content-Length: %d" % len(VERA), b"Content-Length: 3"
    chunked = b"Transfer-Encoding: chunked"
    yield Bad("the length twice", wire.sign_up(length, length))
    yield Bad("two lengths", wire.sign_up(length, other))
    yield Bad("two lengths in one line", wire.sign_up(b"Content-Length: 30, 30"))
    yield Bad("length and chunks", wire.sign_up(length, chunked, body=b"0\r\n\r\n"))
    yield Bad("chunks and length", wire.sign_up(chunked, length, body=b"0\r\n\r\n"))
    yield Bad("chunked twice", wire.sign_up(chunked, chunked, body=b"0\r\n\r\n"))
    yield Bad("chunked, then packed", wire.sign_up(chunked + b", gzip", body=b"0\r\n\r\n"))
    for value in (b"-1", b"+30", b"0x1e", b"30 30", b"3O", b"", b"9" * 30, b"30;x", "٣٠".encode()):
        yield Bad(f"the length {value!r}", wire.sign_up(b"Content-Length: " + value))
    for value in (b"banana", b"identity, chunked, x", b"\x0bchunked", b"chunked;q=1"):
        yield Bad(f"the coding {value!r}", wire.sign_up(b"Transfer-Encoding: " + value))


def _broken_headers(wire: Wire) -> Iterator[Bad]:
    length = b"Content-Length: %d" % len(VERA)
    for line in (
        b"no colon",
        b": no name",
        b"Content-Length : 30",
        b"X Y: blank in the name",
        b"X-\xff: byte in the name",
        b"X\x00: NUL in the name",
        b"X: NUL\x00 in the value",
        b"X: return\r in the value",
        b"X: folded\r\n over lines",
        b"X: folded\r\n\tover lines",
        b"X: " + b"x" * 9000,
        b"X" * 9000 + b": x",
        b"\r\n".join(b"X-%d: x" % number for number in range(300)),
        b"Idempotency-Key:",
        b"Idempotency-Key: " + b"k" * 256,
        b"Idempotency-Key: a\tb",
        b"Idempotency-Key: \xff\xfe",
        b"Idempotency-Key: a\r\nIdempotency-Key: b",
        b"Content-Type: text/plain",
        b"Content-Encoding: banana",
        b"Content-Encoding: br",
        b"Content-Encoding: gzip",
        b"Origin: https://evil.example.test",
        b"Origin: null",
        b"Sec-Fetch-Site: cross-site",
    ):
        yield Bad(f"the header {line[:40]!r}", wire.sign_up(length, line))
    bomb = gzip.compress(b'{"email": "v@example.test", "x": "' + b"y" * 5_000_000 + b'"}')
    yield Bad("a bomb", wire.call("POST", CONTACTS, bomb, b"Content-Encoding: gzip"))
    for media in (
        "text/plain",
        "application/xml",
        "application/jsonp",
        "",
        ";;;",
        "multipart/form-data",
    ):
        yield Bad(f"the media type {media!r}", wire.call("POST", CONTACTS, VERA, media=media))
    for charset in ("iso-8859-1", "utf-16", "utf-7", "banana"):
        media = f"application/json; charset={charset}"
        yield Bad(f"the charset {charset}", wire.call("POST", CONTACTS, VERA, media=media))


def _broken_chunks(wire: Wire) -> Iterator[Bad]:
    for chunks in (
        b"ZZZ\r\n{}\r\n0\r\n\r\n",
        b"-1\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"2\r\n{}0\r\n\r\n",
        b"1\r\n{}\r\n0\r\n\r\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
        b"2 \x00\r\n{}\r\n0\r\n\r\n",
        b"\r\n\r\n0\r\n\r\n",
        b"0\r\nX Y: z\r\n\r\n",
    ):
        yield Bad(
            f"the chunks {chunks[:20]!r}",
            wire.sign_up(b"Transfer-Encoding: chunked", body=chunks),
            half_close=True,
        )


def _addresses(wire: Wire) -> Iterator[Bad]:
    for target in (
        f"{CONTACTS}/%00",
        f"{CONTACTS}/%ff%fe",
        f"{CONTACTS}/%zz",
        f"{CONTACTS}/%",
        f"{CONTACTS}/%2e%2e/%2e%2e/etc/passwd",
        f"{CONTACTS}/..%2f..%2fetc%2fpasswd",
        f"{CONTACTS}/{GUID}%00",
        f"{CONTACTS}/" + "x" * 9000,
        "/assets/%2e%2e/page.py",
        "/assets/..%5cpage.py",
        "/assets/../../../etc/passwd",
        "//healthz",
        "/healthz/",
        "/HEALTHZ",
        "/api/v2/contacts",
        f"{CONTACTS}/id?email=%00",
        f"{CONTACTS}/id?email=%ed%a0%80",
        f"{CONTACTS}/id?email=a%0d%0aX:1",
        f"{CONTACTS}/id?email=a@example.test&email=b@example.test",
        f"{CONTACTS}/id",
        f"{CONTACTS}/id?email=",
        f"{CONTACTS}/id?externalId=7",
        f"{CONTACTS}/transactions",
        f"{CONTACTS}/transactions?contactId={GUID}&count=1&count=2",
        "/api/v3/promotion-assignments?contactId=",
        f"/api/v3/promotion-assignments?contactId={GUID}&redeemed=maybe",
        "/agent/v1/changes?limit=0",
        "/agent/v1/changes?limit=-1",
        "/agent/v1/changes?limit=1e2",
        "/agent/v1/changes?limit=" + "9" * 400,
        "/agent/v1/changes?limit=%D9%A3",
        "/agent/v1/changes?state=lost",
        "/agent/v1/changes?after=%27%20OR%201=1",
        "http://evil.example.test/healthz",
        f"http://{wire.netloc}@evil.example.test/healthz",
        f"https://evil.example.test:1/{CONTACTS}/id?email=a@example.test",
        "evil.example.test:80",
        "*",
        "/a b",
        "/\xe5",
    ):
        yield Bad(f"the address {target[:60]}", wire.head("GET", target))
    for target in (
        f"{CONTACTS}?source=a&source=b",
        f"{CONTACTS}?source=%ff",
        f"{CONTACTS}?createAsUnapproved=maybe",
        f"{CONTACTS}?source=%EF%BF%BF",
    ):
        yield Bad(f"the address {target}", wire.call("POST", target, VERA))


def _bodies_by_hand(wire: Wire) -> Iterator[Bad]:
    for body in (
        b"",
        b" \r\n",
        b"\xef\xbb\xbf",
        b"{",
        b"{}{}",
        b'{"email": "v@example.test"} x',
        b"{'email': 'v@example.test'}",
        b'{"email": "v@example.test",}',
        b'{"email": "v@example.test" /* */}',
        b'{email: "v@example.test"}',
        b'{"email": "v@example.test\n"}',
        b'{"email": "v@example.test", "email": "w@example.test"}',
        b'{"email": "v@example.test", "x": {"a": 1, "a": 1}}',
        b'{"email": "v@example.test", "x": NaN}',
        b'{"email": "v@example.test", "x": -Infinity}',
        b'{"email": "v@example.test", "x": 1e400}',
        b'{"email": "v@example.test", "x": ' + b"9" * 5000 + b"}",
        b'{"email": "v@example.test", "x": 9223372036854775808}',
        b'{"email": "v@example.test", "x": 01}',
        b'{"email": "v@example.test", "firstName": "\\ud800"}',
        b'{"email": "v@example.test", "\\udfff": 1}',
        b'{"email": "v@example.test", "firstName": "\\u0000"}',
        b'{"email": "v@example.test", "firstName": "\\uffff"}',
        b'{"email": "v@example.test", "__proto__": {}}',
        b'{"a":' * 30000 + b"1" + b"}" * 30000,
        b"[" * 60000,
        VERA.decode().encode("utf-16"),
        VERA.decode().encode("utf-32-be"),
        '{"email": "v@example.test", "firstName": "Åsa"}'.encode("latin-1"),
        b'{"email": "v@example.test", "firstName": "\xc0\xaf"}',
        b'{"email": "v@example.test", "x": "' + b"y" * 70_000 + b'"}',
    ):
        yield Bad(f"the body {body[:50]!r}", wire.call("POST", CONTACTS, body))


def _cut_off(wire: Wire) -> Iterator[Bad]:
    chunked = b"Transfer-Encoding: chunked"
    yield Bad("half a body", wire.sign_up(b"Content-Length: 100"), half_close=True)
    yield Bad("no body", wire.sign_up(b"Content-Length: 100", body=b""), half_close=True)
    yield Bad("half a chunk", wire.sign_up(chunked, body=b"1e\r\n{"), half_close=True)
    whole = b"%x\r\n%b\r\n" % (len(VERA), VERA)
    yield Bad("no last chunk", wire.sign_up(chunked, body=whole), half_close=True)


# --- at random ------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["email", "firstName", "mobilePhone", "shoeSize", "preferences"])
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
_PLAIN = st.none() | st.booleans() | st.integers(-999, 999) | _TEXTS
_VALUES = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3)
)
_OBJECTS = st.dictionaries(_TEXTS, _VALUES, max_size=5).map(
    lambda some: {"email": "v@example.test", **some}
)
_NOT_UTF_8 = st.sampled_from(
    [b"\xff", b"\xc3", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xfe\xff"]
)
_NO_NUMBERS = st.one_of(
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1e999", "1_0"]
    ),
    st.integers(2**63, 10**40).map(str),
    st.integers(-(10**40), -(2**63) - 1).map(str),
    st.integers(400, 9999).map(lambda power: f"-1e{power}"),
)


def _within(text: bytes) -> bytes:
    return b'{"email": "v@example.test", "firstName": ' + text + b"}"


@st.composite
def _cut(draw: st.DrawFn) -> bytes:
    whole = json.dumps(draw(_OBJECTS)).encode()
    return whole[: draw(st.integers(1, len(whole) - 1))]


@st.composite
def _nested(draw: st.DrawFn) -> bytes:
    depth = draw(st.integers(9, 3000))
    opened, closed = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
    return _within(opened * depth + b"1" + closed * depth)


@st.composite
def _twice(draw: st.DrawFn) -> bytes:
    name = json.dumps(draw(_TEXTS)).encode()
    one, other = (json.dumps(draw(_PLAIN)).encode() for _ in "ab")
    pair = name + b": " + one + b", " + name + b": " + other
    return draw(st.sampled_from([b"{%b}" % pair, _within(b"{%b}" % pair)]))


def _is_no_object(body: bytes) -> bool:
    try:
        return not isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return True


# What is no JSON object, whoever reads it.
NO_OBJECTS: st.SearchStrategy[bytes] = st.one_of(
    _cut(),
    _nested(),
    _twice(),
    (_PLAIN | st.lists(_VALUES, max_size=3)).map(lambda value: json.dumps(value).encode()),
    st.binary(min_size=1, max_size=200)
    .filter(_is_no_object)
    .filter(lambda body: body.strip() != b""),
    _NOT_UTF_8.map(lambda wrong: _within(b'"' + wrong + b'"')),
    _NO_NUMBERS.map(lambda number: _within(number.encode())),
    st.integers(0, 31).map(lambda sign: _within(b'"%c"' % sign)),
    st.tuples(_OBJECTS, st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-32-be"])).map(
        lambda both: json.dumps(both[0]).encode(both[1])
    ),
    st.tuples(_OBJECTS, st.sampled_from([b"x", b"{}", b",", b"\x00", b"]", b"//"])).map(
        lambda both: json.dumps(both[0]).encode() + both[1]
    ),
)

_UNPRINTABLE = st.one_of(
    st.integers(0xD800, 0xDFFF),
    st.sampled_from([*range(9), 0xB, 0xC, *range(0xE, 0x20), 0xFFFE, 0xFFFF]),
).map(lambda point: f"\\u{point:04x}".encode())


@st.composite
def _wrong_attribute(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from(["email", "mobilePhone", "birthDay", "countryCode", "gender"]))
    value = draw(st.lists(_PLAIN, min_size=1, max_size=2) | st.booleans() | st.just("@@"))
    return json.dumps({"email": "v@example.test", "firstName": "Vera", name: value}).encode()


# JSON objects that are no attributes of a contact.
NO_ATTRIBUTES: st.SearchStrategy[bytes] = st.one_of(
    _UNPRINTABLE.map(lambda escaped: _within(b'"a%bb"' % escaped)),
    _UNPRINTABLE.map(lambda escaped: _within(b'"x", "%b": 1' % escaped)),
    _wrong_attribute(),
    st.text(" !@/\\\"'<>=()åé", min_size=1, max_size=10).map(
        lambda name: json.dumps({"email": "v@example.test", name: 1}).encode()
    ),
)

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINES = (
    st.binary(min_size=1, max_size=60)
    .filter(lambda line: b"\r\n" not in line and b"\n" not in line)
    # A name that is none, or no colon behind it.
    .filter(lambda line: not _TOKEN.fullmatch(line.partition(b":")[0]) or b":" not in line)
)
_ESCAPES = st.sampled_from(
    ["%00", "%1f", "%7F", "%ff", "%c3", "%C0%AF", "%ed%a0%80", "%", "%2", "%g0"]
)
_READS = st.sampled_from(
    [
        f"{CONTACTS}/{{}}",
        f"{CONTACTS}/id?email={{}}",
        f"{CONTACTS}/id?any=a{{}}&contactType=Member",
        f"{CONTACTS}/transactions?contactId={GUID}&offset={{}}",
        f"/api/v3/promotion-assignments?contactId={GUID}&redemptionChannelType={{}}",
        "/agent/v1/changes?after={}",
        "/agent/v1/changes/{}",
        "/agent/v1/contacts/{}",
        "/agent/v1/batches/{}",
        "/assets/{}",
    ]
)


def at_random(wire: Wire) -> st.SearchStrategy[Bad]:
    """Give malformed requests: bodies, header lines, addresses, lengths, and cut off anywhere."""
    length = b"Content-Length: %d" % len(VERA)

    def with_body(both: tuple[Any, bytes]) -> Bad:
        (method, target), body = both
        return Bad(f"{method} {target} {body[:60]!r}", wire.call(method, target, body))

    def in_chunks(both: tuple[int, bytes]) -> Bad:
        size, body = both
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        sent = wire.sign_up(b"Transfer-Encoding: chunked", body=chunks)
        return Bad(f"in chunks {size} {body[:60]!r}", sent)

    def cut_off(cut: int) -> Bad:
        sent = wire.call("POST", CONTACTS, VERA)[:-cut]
        return Bad(f"without its last {cut} bytes", sent, half_close=True)

    return st.one_of(
        st.tuples(st.sampled_from(TAKE_A_BODY), NO_OBJECTS).map(with_body),
        st.tuples(st.sampled_from(TAKE_ATTRIBUTES), NO_ATTRIBUTES).map(with_body),
        st.tuples(st.just(0), NO_OBJECTS).map(in_chunks),
        _LINES.map(lambda line: Bad(f"the header {line!r}", wire.sign_up(length, line))),
        st.tuples(_READS, _ESCAPES).map(
            lambda both: Bad("an address", wire.head("GET", both[0].format(both[1])))
        ),
        st.integers(1, len(VERA)).map(cut_off),
    )
