"""The way to Engage: name, connection, TLS, API key, clock and rate."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from agent.clock import Clock, to_text
from agent.config import Config
from agent.delivery.engage import answers, tls
from agent.delivery.engage.client import EngageClient
from agent.doctor.rows import Row, failed, not_examined, ok, warning
from agent.errors import NotAuthorised, RouteError, Throttled, Unreachable

DNS, TCP, TLS, KEY, CLOCK, RATE = "dns", "tcp", "tls", "api key", "clock", "rate"
NAMES = (DNS, TCP, TLS, KEY, CLOCK, RATE)

# Below the first nobody notices; from the second on certificates and dates are misjudged.
_CLOCK_OFF_S, _CLOCK_WRONG_S = 60, 300
# For a whole chain, which shares one key (Engage's docs, "API rate limit").
_RECOMMENDED_PER_S = 50
_GOOD_BYE_S = 0.5


@dataclass(frozen=True)
class Place:
    """Where the first connection goes: Engage itself, or the proxy on the way."""

    host: str
    port: int
    is_proxy: bool


class EngageCheck:
    """Looks at the way to Engage step by step; a step that fails says so, the next ones too."""

    def __init__(self, config: Config, client: EngageClient, clock: Clock, step_s: float) -> None:
        self._settings = config.engage
        self._client = client
        self._clock = clock
        self._step_s = step_s
        engage = urlsplit(config.engage.base_url)
        self._is_secure = engage.scheme == "https"
        self._host = engage.hostname or ""
        self._port = engage.port or (443 if self._is_secure else 80)
        proxy = urlsplit(config.engage.proxy) if config.engage.proxy else None
        self._place = (
            Place(proxy.hostname or "", proxy.port or 80, True)
            if proxy
            else Place(self._host, self._port, False)
        )

    async def look(self) -> Sequence[Row]:
        """Give the rows of NAMES."""
        rows = [await self._dns()]
        rows.append(await self._tcp() if rows[-1].result == "ok" else _after(TCP, "the name"))
        rows.append(await self._tls() if rows[-1].result == "ok" else _after(TLS, "the connection"))
        answered = await self._ask()
        return [*rows, answered, self._clock_row(), self._rate(answered)]

    async def _dns(self) -> Row:
        whose = "The proxy's" if self._place.is_proxy else "Engage's"
        host = self._place.host
        try:
            async with asyncio.timeout(self._step_s):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, self._place.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            return failed(
                DNS,
                f"{whose} name {host} was not resolved within {self._step_s:g} seconds.",
                "Look at the till's name servers (resolvectl status) and the line.",
            )
        except (OSError, UnicodeError) as error:
            return failed(
                DNS,
                f"{whose} name {host} cannot be resolved ({_os_words(error)}).",
                "Look at the till's line and name servers, and at engage.base_url.",
            )
        addresses = sorted({str(each[4][0]) for each in found})
        return ok(DNS, f"{whose} name {host} leads to {', '.join(addresses[:4])}.")

    async def _tcp(self) -> Row:
        began = time.monotonic()
        where = f"{self._place.host}:{self._place.port}"
        try:
            async with asyncio.timeout(self._step_s):
                _, writer = await asyncio.open_connection(self._place.host, self._place.port)
        except TimeoutError:
            return failed(
                TCP,
                f"{where} did not answer within {self._step_s:g} seconds.",
                "Look at the till's line and at the firewall: this address must be reachable.",
            )
        except OSError as error:
            return failed(
                TCP,
                f"No connection to {where} ({_os_words(error)}).",
                "Look at the firewall, and at engage.base_url and engage.proxy.",
            )
        await _hang_up(writer)
        return ok(TCP, f"{where} answers after {_ms(began)} ms.")

    # --- TLS --------------------------------------------------------------------------------------

    async def _tls(self) -> Row:
        if not self._is_secure:
            return ok(TLS, "Not used: engage.base_url leads to this machine, without TLS.")
        try:
            async with asyncio.timeout(self._step_s):
                certificate, version = await self._certificate()
        except TimeoutError:
            return failed(
                TLS,
                f"Engage's side did not agree on TLS within {self._step_s:g} seconds.",
                "A firewall or proxy may hold the connection; ask who runs the network.",
            )
        except RouteError as error:
            return failed(TLS, error.message, "Ask who runs the proxy.")
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            what, _, remedy = (tls.why(error) or _cut(error)).partition(". ")
            return failed(TLS, f"{what.rstrip('.')}.", remedy)
        return self._judged(certificate, version)

    async def _certificate(self) -> tuple[dict[str, object], str]:
        """Shake hands and give the certificate; nothing else is sent."""
        reader, writer = await asyncio.open_connection(self._place.host, self._place.port)
        try:
            if self._place.is_proxy:
                await self._through_proxy(reader, writer)
            await writer.start_tls(tls.trusting(self._settings.ca_file), server_hostname=self._host)
            connection = writer.get_extra_info("ssl_object")
            return dict(connection.getpeercert() or {}), str(connection.version())
        finally:
            await _hang_up(writer)

    async def _through_proxy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = f"{self._host}:{self._port}"
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("idna"))
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split(None, 2)[1:2]
        if status != [b"200"]:
            said = status[0].decode("ascii", "replace") if status else "nothing"
            raise Unreachable(
                f"The proxy does not let the till through to Engage (it says {said})."
            )

    def _judged(self, certificate: dict[str, object], version: str) -> Row:
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        days = math.floor((ends - self._now()).total_seconds() / 86400)
        words = f"{version}; Engage's certificate holds for {days} days, until {ends:%Y-%m-%d}."
        if days < tls.ENDS_SOON.days:
            return warning(
                TLS,
                words,
                "After that nothing is sent any more. Tell Voyado, or who runs the proxy.",
            )
        return ok(TLS, words)

    def _now(self) -> datetime:
        ahead_s = self._client.server_clock_offset_s or 0.0
        return datetime.fromtimestamp(self._clock.now().timestamp() + ahead_s, UTC)

    # --- a call -----------------------------------------------------------------------------------

    async def _ask(self) -> Row:
        """Ask for the number of contacts, which changes nothing.

        Engage's docs, "API authentication", name it for trying a key.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._step_s):
                await self._client.call(
                    "GET", "/api/v2/contacts/count", answers.read_any, person=True
                )
        except TimeoutError:
            return failed(
                KEY,
                f"Engage did not answer a harmless call within {self._step_s:g} seconds.",
                "If it goes on, ask Voyado. What waits is kept.",
            )
        except NotAuthorised as error:
            what, _, remedy = error.message.partition(" Nothing is lost: everything waits.")
            return failed(KEY, what, remedy.strip() or "Correct engage.api_key_file or its file.")
        except Throttled:
            return warning(
                KEY,
                "Engage took too many calls lately to answer this one (429).",
                "Look again in a minute.",
            )
        except Unreachable as error:
            return not_examined(KEY, error.message)
        except RouteError as error:
            return failed(
                KEY,
                f"A harmless call was not answered as Engage does: {error.message}",
                "Look at engage.base_url and at what stands in between; else ask Voyado.",
            )
        return ok(KEY, f"Engage takes it; a harmless call took {_ms(began)} ms.")

    def _clock_row(self) -> Row:
        ahead_s = self._client.server_clock_offset_s
        if ahead_s is None:
            return not_examined(CLOCK, "Engage has not said what time it is.")
        now = to_text(self._clock.now())
        off = f"{abs(ahead_s):.0f} seconds {'behind' if ahead_s > 0 else 'ahead of'} Engage's"
        remedy = "Let it be set from the network: timedatectl set-ntp true"
        if abs(ahead_s) >= _CLOCK_WRONG_S:
            return failed(CLOCK, f"The till's clock ({now}) is {off}.", remedy)
        if abs(ahead_s) >= _CLOCK_OFF_S:
            return warning(CLOCK, f"The till's clock ({now}) is {off}.", remedy)
        return ok(CLOCK, f"The till's clock ({now}) agrees with Engage's.")

    def _rate(self, answered: Row) -> Row:
        settings, pace = self._settings, self._client.pace
        most, backlog = settings.max_requests_per_s, settings.backlog_requests_per_s
        words = (
            f"At most {most:g} calls a second by this till, {backlog:g} for what waits from an "
            "outage."
        )
        if pace.share < 1.0 or "429" in answered.meaning:
            return warning(
                RATE,
                f"{words} Engage said that there are too many; it goes at {pace.per_s:.3g} now.",
                "It gets quicker by itself. If this lasts, lower engage.max_requests_per_s on the "
                "chain's tills: they share one limit.",
            )
        if most >= _RECOMMENDED_PER_S:
            return warning(
                RATE,
                words,
                f"Engage recommends fewer than {_RECOMMENDED_PER_S} for the whole chain. Lower "
                "engage.max_requests_per_s.",
            )
        return ok(RATE, words)


def _cut(error: BaseException) -> str:
    return (
        f"The connection was cut while TLS was agreed on ({_os_words(error)}). A firewall or proxy "
        "may do that, or a server that speaks only versions that are no longer safe."
    )


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # Whoever does not say good-bye is left all the same.
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_GOOD_BYE_S):
            await writer.wait_closed()


def _after(check: str, what: str) -> Row:
    return not_examined(check, f"It needs {what}, and that failed.")


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _os_words(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    number = getattr(error, "errno", None)  # asyncio's own words repeat the address
    return os.strerror(number) if number else type(error).__name__
