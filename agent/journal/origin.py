"""Where a journal belongs: to the Engage that its changes were taken for, and to one machine.

Settings that name another tenant, and a disk that was copied to a second till, look like any other
start. Sending then would put customers into somebody else's Engage, or every change there twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from agent.journal import marker, states
from agent.journal.driver import Connection

_CARDS = Path("/sys/class/net")
_MACHINE_ID = Path("/etc/machine-id")
_FIXED = "0"  # addr_assign_type: the address that the card was made with

_NAMES = ", ".join(f"'{state}'" for state in states.OPEN)
_COUNT_OPEN = f"SELECT count(*) FROM changes WHERE holds = 1 AND state IN ({_NAMES})"
# Those of an older version were taken for the first Engage that this one was told of.
_OPEN_ELSEWHERE = f"""
SELECT base_url, count(*) AS n
  FROM changes JOIN engages ON number = coalesce(engage, 1)
 WHERE number <> ? AND holds = 1 AND state IN ({_NAMES})
 GROUP BY number ORDER BY number"""
_REDIRECT = f"""
UPDATE changes SET engage = :here
 WHERE coalesce(engage, 1) <> :here AND holds = 1 AND state IN ({_NAMES})"""


@dataclass(frozen=True)
class Machine:
    """What tells one machine from another, as digests."""

    cards: frozenset[str] = frozenset()  # of the addresses of its network cards
    id: str | None = None  # of /etc/machine-id, which a copied disk has too

    def is_other_than(self, known: Machine) -> bool:
        """Say whether this is surely another machine; one new card makes none of a till."""
        if self.cards and known.cards:
            return not self.cards & known.cards
        return None not in (self.id, known.id) and self.id != known.id


def machine_here(cards: Path = _CARDS, machine_id: Path = _MACHINE_ID) -> Machine:
    """Tell which machine this is. What cannot be read is left out."""
    found = set()
    for card in cards.iterdir() if cards.is_dir() else ():
        # What has no device is made by the system itself: loopback, bridges, tunnels.
        if (card / "device").exists() and _read(card / "addr_assign_type") == _FIXED:
            found.add(_read(card / "address"))
    return Machine(
        frozenset(_digest(address) for address in found if address),
        _digest(text) if (text := _read(machine_id)) else None,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def enter(db: Connection, base_url: str, machine: Machine) -> str | None:
    """Note for which Engage changes are taken from now on, and on which machine.

    Gives what a person must confirm() before anything is sent; None where all is as it was.
    """
    number = _number_of(db, base_url)
    _store(db, "engage", str(number))
    asked = [_elsewhere(db, number, base_url), _on_another_machine(db, machine)]
    return " ".join(filter(None, asked)) or None


def confirm(db: Connection, machine: Machine) -> int:
    """Store a person's word that what is open is to be sent from here, as the settings say.

    On another machine it is looked up first, because the other one may have sent it. Gives how many
    changes change their Engage.
    """
    if _is_another(db, machine):
        marker.doubt_everything(db)
    _store(db, "machine", _to_text(machine))
    redirected = db.execute(_REDIRECT, {"here": int(_value(db, "engage") or 0)})
    return int(redirected.rowcount)


# --- the Engage -----------------------------------------------------------------------------------


def _elsewhere(db: Connection, number: int, base_url: str) -> str | None:
    """Ask of changes that were taken for another Engage."""
    if db.execute("SELECT count(*) FROM engages").fetchone()[0] == 1:
        return None
    others = db.execute(_OPEN_ELSEWHERE, (number,)).fetchall()
    if not others:
        return None
    count = sum(row["n"] for row in others)
    old = ", ".join(row["base_url"] for row in others)
    return (
        f"The settings name {base_url}, but open changes ({count:,}) were taken for {old}. Nothing "
        "is sent meanwhile, and nothing is lost. If the settings are wrong, put engage.base_url "
        "right and restart the agent. If all of it is to go to the new address, confirm that with: "
        "till-agent routes resume api."
    )


def _number_of(db: Connection, base_url: str) -> int:
    db.execute("INSERT OR IGNORE INTO engages (base_url) VALUES (?)", (base_url,))
    row = db.execute("SELECT number FROM engages WHERE base_url = ?", (base_url,)).fetchone()
    return int(row["number"])


# --- the machine ----------------------------------------------------------------------------------


def _on_another_machine(db: Connection, machine: Machine) -> str | None:
    """Ask where a journal with open changes stands on another machine; else it belongs here now."""
    count = 0
    if _is_another(db, machine):
        count = db.execute(_COUNT_OPEN).fetchone()[0]
    if not count:
        _store(db, "machine", _to_text(machine))
        return None
    return (
        f"The journal with its open changes ({count:,}) was written on another machine. If its "
        "disk was copied, the other till sends the same changes. Nothing is sent from here "
        "meanwhile, and nothing is lost. If the other one is out of use for good, confirm that "
        "with: till-agent routes resume api."
    )


def _is_another(db: Connection, machine: Machine) -> bool:
    text = _value(db, "machine")
    return text is not None and machine.is_other_than(_from_text(text))


def _to_text(machine: Machine) -> str:
    return json.dumps({"cards": sorted(machine.cards), "id": machine.id})


def _from_text(text: str) -> Machine:
    data = json.loads(text)
    return Machine(frozenset(data["cards"]), data["id"])


def _value(db: Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["value"])


def _store(db: Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
