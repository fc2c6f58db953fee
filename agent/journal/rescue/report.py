"""What a rescue saved and what is lost, for a person: ids, numbers and states, nobody's data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.journal.rescue.rebuilding import Rebuilt
from agent.journal.rescue.salvage import Lost, Salvage

_LISTED = 1000  # changes, before it is only said how many more there are


@dataclass(frozen=True)
class Losses:
    """What a person has to know of."""

    open: tuple[Lost, ...]  # changes that were not in Engage for certain
    settled: tuple[Lost, ...]  # changes that were; only the record of them is gone
    gaps: tuple[tuple[int, int], ...]  # numbers of which nobody can tell
    lost_frames: int
    tables: tuple[tuple[str, int | None], ...]  # with missing rows; None: nobody can tell how many

    @property
    def are_none(self) -> bool:
        """Say whether everything was saved."""
        return not (self.open or self.settled or self.gaps or self.lost_frames or self.tables)


def losses(found: Salvage, rebuilt: Rebuilt) -> Losses:
    """Say what is missing in the new journal."""
    lost = sorted((*found.lost, *rebuilt.refused), key=lambda each: each.seq)
    # These are made anew from the indexes on them.
    made_anew = {name for name in ("contacts", "engages") if found.tables[name].missing is not None}
    # What changes are lost is said one by one, and numbers are carried over in any case.
    told = {"changes", "sqlite_sequence", *made_anew}
    tables = [
        (name, table.missing)
        for name, table in found.tables.items()
        if table.missing != 0 and name not in told
    ]
    return Losses(
        open=tuple(each for each in lost if not each.is_settled),
        settled=tuple(each for each in lost if each.is_settled),
        gaps=tuple(found.gaps),
        lost_frames=found.lost_frames,
        tables=tuple(tables),
    )


def report(found: Salvage, rebuilt: Rebuilt, aside: str, at: str) -> str:
    """Give the whole report, a line each."""
    lines = [
        f"The journal was damaged and was rescued at {at}.",
        f"The damaged file is kept as {aside}. It holds customers' data: destroy it, and this",
        "report, once what is listed here is settled.",
        "",
        *_saved(rebuilt),
        "",
        *_lost(losses(found, rebuilt), found),
    ]
    return "\n".join(lines) + "\n"


def _saved(rebuilt: Rebuilt) -> Iterator[str]:
    yield "Saved:"
    for table, count in rebuilt.rows.items():
        yield f"  {table:<16} {count:>10,}"
    damaged = rebuilt.rows["changes"] - rebuilt.sound
    if damaged:
        yield f"{damaged:,} of these changes have damaged data; they will be set aside, each alone"
        yield "(PayloadDamaged)."
    yield "Whatever waits is looked up in Engage before anything is sent."
    if rebuilt.given_up:
        yield "Files that are given up, because a part of them is missing; what is left goes by the"
        yield "API. If one lies on the server all the same, remove it there:"
        yield from (f"  {name}" for name in rebuilt.given_up)


def _lost(lost: Losses, found: Salvage) -> Iterator[str]:
    if lost.are_none:
        yield "Nothing is lost."
        return
    if lost.open:
        yield f"Lost, and perhaps not in Engage: {len(lost.open):,} changes. The POS was told the"
        yield "id of each (Agent-Change); a contact is a ref or Engage's GUID. Ask those customers"
        yield "again, or look them up in Engage."
        yield from _listed(lost.open, found)
    if lost.settled:
        yield f"Lost, but settled before: {len(lost.settled):,} changes. Nothing to do."
        yield from _listed(lost.settled, found)
    if lost.gaps:
        yield "Perhaps lost, perhaps erased by age long ago; no index can tell:"
        yield from (f"  changes {first} to {last}" for first, last in lost.gaps)
    if lost.lost_frames:
        yield f"{lost.lost_frames:,} frames of the -wal stand behind a damaged one and cannot be"
        yield f"used. Changes after number {found.last_change} may be lost with them."
    if lost.tables:
        yield "Rows that are missing elsewhere:"
        for name, missing in lost.tables:
            many = "nobody can tell how many" if missing is None else f"{missing:,}"
            yield f"  {name:<16} {many}{_MEANING.get(name, '')}"


_MEANING = {
    "meta": "; whether a person had paused a route is not known: none is paused now",
    "engages": "; where that is not known, the page asks before anything is sent",
    "served": "; kept answers, which are fetched again",
    "members": "; ask Voyado for a full export of members",
    "member_keys": "; ask Voyado for a full export of members",
}


def _listed(lost: tuple[Lost, ...], found: Salvage) -> Iterator[str]:
    for each in lost[:_LISTED]:
        contact = found.contact_ids.get(each.lane or 0) or found.refs.get(each.lane or 0)
        yield (
            f"  change {each.seq}: id {each.id or 'unknown'}, state {each.state or 'unknown'}, "
            f"contact {contact or 'unknown'}"
        )
    if len(lost) > _LISTED:
        yield f"  and {len(lost) - _LISTED:,} more"
