"""What a person decided and a restart must not forget."""

from __future__ import annotations

from agent.change import Route
from agent.journal.driver import Connection


def pause(db: Connection, route: Route) -> None:
    """Store that a person paused a route."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, 'yes')", (f"paused_{route}",))


def resume(db: Connection, route: Route) -> None:
    """Store that a person resumed it."""
    db.execute("DELETE FROM meta WHERE name = ?", (f"paused_{route}",))


def paused(db: Connection) -> tuple[Route, ...]:
    """Give the routes that a person paused."""
    names = {row["name"] for row in db.execute("SELECT name FROM meta")}
    return tuple(route for route in Route if f"paused_{route}" in names)


def is_paused(db: Connection, route: Route) -> bool:
    """Say whether a person paused this route."""
    found = db.execute("SELECT 1 FROM meta WHERE name = ?", (f"paused_{route}",)).fetchone()
    return found is not None


def note_traces(db: Connection) -> None:
    """Store that bytes of somebody who was erased may still stand in the file."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('traces', 'yes')")


def forget_traces(db: Connection) -> None:
    """Store that none are left."""
    db.execute("DELETE FROM meta WHERE name = 'traces'")


def has_traces(db: Connection) -> bool:
    """Say whether some may be left."""
    return db.execute("SELECT 1 FROM meta WHERE name = 'traces'").fetchone() is not None


def note_rescue(db: Connection, aside: str) -> None:
    """Store that the journal was rescued, and under which name the damaged one is kept."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('rescued', ?)", (aside,))


def take_rescue(db: Connection) -> str | None:
    """Give that name, once; None where nothing was rescued since it was asked for."""
    row = db.execute("DELETE FROM meta WHERE name = 'rescued' RETURNING value").fetchone()
    return None if row is None else str(row["value"])
