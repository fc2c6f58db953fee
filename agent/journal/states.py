"""The states of a change and the moves between them, as data.

Pure. Every move in the journal goes through this table; docs/states.md is checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.change import Kind, State


@dataclass(frozen=True)
class Move:
    """One allowed step of a change."""

    name: str
    sources: tuple[State, ...]  # empty: the change is new
    target: State
    mover: str  # which part of the agent makes it


def _move(name: str, sources: State | tuple[State, ...], target: State, mover: str) -> Move:
    return Move(name, sources if isinstance(sources, tuple) else (sources,), target, mover)


RECORD = Move("record", (), State.WAITING, "intake")
CLAIM = _move("claim", State.WAITING, State.SENDING, "dispatcher")
DELIVER = _move("deliver", State.SENDING, State.DELIVERED, "dispatcher")
DEFER = _move("defer", State.SENDING, State.WAITING, "dispatcher")
LOSE = _move("lose", State.SENDING, State.WAITING, "dispatcher, or the next start")
REJECT = _move("reject", State.SENDING, State.REJECTED, "dispatcher")
SEAL = _move("seal", State.WAITING, State.BATCHED, "sealer")
LEAVE_OUT = _move("leave out", State.WAITING, State.REJECTED, "sealer")
UPLOAD = _move("upload", State.BATCHED, State.UPLOADED, "uploader")
IMPORT = _move("import", State.UPLOADED, State.IMPORTED, "uploader")
WITHDRAW = _move("withdraw", (State.BATCHED, State.UPLOADED), State.WAITING, "a person")
CONFIRM = _move("confirm", State.IMPORTED, State.CONFIRMED, "verifier")
MISS = _move("miss", State.IMPORTED, State.REJECTED, "verifier")
RETURN = _move("return", State.IMPORTED, State.WAITING, "verifier")
RETRY = _move("retry", State.REJECTED, State.WAITING, "a person")
DISCARD = _move("discard", State.REJECTED, State.DISCARDED, "a person")
ERASE = _move("erase", (State.WAITING, State.REJECTED), State.DISCARDED, "erasing its customer")
ORPHAN = _move("orphan", State.WAITING, State.REJECTED, "discarding its create")

MOVES = (
    RECORD,
    CLAIM,
    DELIVER,
    DEFER,
    LOSE,
    REJECT,
    SEAL,
    LEAVE_OUT,
    UPLOAD,
    IMPORT,
    WITHDRAW,
    CONFIRM,
    MISS,
    RETURN,
    RETRY,
    DISCARD,
    ERASE,
    ORPHAN,
)

# Under way: while one change of a lane is in one of these, no other of that lane is started.
UNDER_WAY = (State.SENDING, State.BATCHED, State.UPLOADED, State.IMPORTED)
OPEN = (State.WAITING, *UNDER_WAY)


def is_final(state: State, *, verifies: bool) -> bool:
    """Say whether a change in this state has reached its end.

    `imported` is an end only where nobody verifies imports.
    """
    return state in (State.DELIVERED, State.CONFIRMED, State.DISCARDED) or (
        state is State.IMPORTED and not verifies
    )


def holds_lane(kind: Kind, state: State, *, verifies: bool, has_contact: bool = False) -> bool:
    """Say whether later changes of the same contact must wait for this one.

    A rejected create does, unless Engage has the contact all the same (`has_contact`): what follows
    it has no contact to go to. A rejected update does not.
    """
    if state is State.REJECTED:
        return kind is Kind.CREATE and not has_contact
    return not is_final(state, verifies=verifies)
