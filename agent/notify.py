"""Tells systemd how it goes: ready, status text, watchdog, stopping. Elsewhere it does nothing."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """A datagram per message to the socket that $NOTIFY_SOCKET names (systemd, sd_notify(3))."""

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET") if address is None else address
        # A name that begins with @ lives in the abstract namespace.
        self._address = "\0" + address[1:] if address and address[0] == "@" else address

    def ready(self, status: str) -> None:
        """The journal is open and checked, and the port is bound."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def starting(self, text: str, more_s: float | None) -> None:
        """Say how far the start is; `more_s`: it is making progress and needs so long at least."""
        more = "" if more_s is None else f"\nEXTEND_TIMEOUT_USEC={more_s * 1_000_000:.0f}"
        self._send(f"STATUS={_line(text)}{more}")

    def alive(self) -> None:
        """Feed the watchdog; only to be called when real progress was seen."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The agent is on its way out."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # systemd may be gone or busy: that must never hold the agent up.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto(message.encode(), self._address)


def watchdog_s() -> float | None:
    """Give how often systemd wants to hear of us, half of its limit; None if it does not ask."""
    try:
        limit_us = int(os.environ["WATCHDOG_USEC"])
        meant_for = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return limit_us / 2_000_000 if limit_us > 0 and meant_for == os.getpid() else None


def _line(text: str) -> str:
    return " ".join(text.split())
