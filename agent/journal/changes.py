"""Changes in the journal: record, claim, settle, retry, discard, count and prune.

Plain functions that run as units of work in the writer's (or reader's) thread. Every move is a
compare-and-set, in the same transaction as the attempt that caused it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.change import Change, Fault, Kind, Payload, Route, State, foldable
from agent.contact import Contact, Key, keys_of, new_id
from agent.errors import Conflict, ForbiddenMove, IdempotencyKeyReused, NotFound
from agent.journal import contacts, meta, states
from agent.journal.driver import Connection

_COLUMNS = """ch.seq, ch.id, ch.kind, ch.state, ch.unknown, ch.route, ch.payload, ch.payload_sha256,
  ch.created_at, ch.due_at, ch.settled_at, ch.attempts, ch.api_attempts, ch.step, ch.existed,
  ch.error, ch.repeated, ch.alone, ch.retried, ch.lane, ch.request_id,
  co.ref, co.contact_id, co.contact_type, b.name AS batch"""
_FROM = """FROM changes ch JOIN contacts co ON co.lane = ch.lane
  LEFT JOIN batches b ON b.number = ch.batch"""
_SELECT = f"SELECT {_COLUMNS} {_FROM}"


# --- recording ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What intake asks the journal to promise."""

    kind: Kind
    payload: Payload
    target: str | None  # of an update and upgrade: the GUID or ref that the POS gave
    contact_key: str  # the attribute that makes two sign-ups one person
    fingerprint: str  # of method, path, query and body
    token_name: str
    idempotency_key: str | None
    dedupe_window_s: float
    now: datetime
    now_text: str
    request_id: str | None = None  # for the log


@dataclass(frozen=True)
class Recorded:
    """What the journal holds now for a request."""

    change: Change
    replayed: bool = False  # the same Idempotency-Key was used for the same request before
    repeated: bool = False  # an identical request came before, without a key

    @property
    def is_new(self) -> bool:
        """Say whether this request made the change."""
        return not (self.replayed or self.repeated)


_BY_IDEMPOTENCY_KEY = """
SELECT id, fingerprint FROM changes WHERE token_name = ? AND idempotency_key IN (?, ?)"""
_NEWEST_OF_LANE = """
SELECT seq, id, state, fingerprint, created_at FROM changes
 WHERE lane = ? ORDER BY seq DESC LIMIT 1"""
_COUNT_REPEAT = "UPDATE changes SET repeated = repeated + 1 WHERE seq = ?"
_INSERT = """
INSERT INTO changes (id, lane, kind, state, payload, payload_sha256, fingerprint, token_name,
  idempotency_key, created_at, leaps, by_file, request_id, engage, behind)
VALUES (:id, :lane, :kind, 'waiting', :payload, :payload_sha256, :fingerprint, :token_name,
  :idempotency_key, :created_at, :leaps, :by_file, :request_id,
  (SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'engage'),
  NOT :leaps AND EXISTS (SELECT 1 FROM changes e WHERE e.lane = :lane AND e.holds = 1))
RETURNING seq"""
_HELD_BY_REJECTED_CREATE = """
SELECT state = 'rejected' AS rejected FROM changes
 WHERE lane = ? AND holds = 1 AND kind = 'create' ORDER BY seq DESC LIMIT 1"""


def record(db: Connection, request: Request) -> Recorded:
    """Store a change, or find the one that this request already made.

    Raises IdempotencyKeyReused, NotFound (an update of a contact that cannot exist).
    """
    if request.idempotency_key is not None and (replay := _replay(db, request)):
        return Recorded(replay, replayed=True)
    keys = keys_of(request.payload.attributes)
    contact = _known_contact(db, request, keys)
    if contact is None:
        contact = contacts.add(
            db, contact_id=None, contact_type=request.payload.contact_type, now=request.now_text
        )
        return Recorded(_insert(db, request, contact, keys, leaps=False))
    if request.idempotency_key is None and (repeat := _repeat(db, request, contact.lane)):
        return Recorded(repeat, repeated=True)
    leaps = request.kind is Kind.CREATE and _is_held_by_rejected_create(db, contact.lane)
    return Recorded(_insert(db, request, contact, keys, leaps=leaps))


def _replay(db: Connection, request: Request) -> Change | None:
    key = request.idempotency_key
    assert key is not None  # noqa: S101 - record() looks first
    # Once the customer was erased, only its hash is there: a POS may make keys of addresses.
    row = db.execute(
        _BY_IDEMPOTENCY_KEY, (request.token_name, key, hidden_idempotency_key(key))
    ).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise IdempotencyKeyReused
    return find(db, row["id"])


def _repeat(db: Connection, request: Request, lane: int) -> Change | None:
    """Find an identical request just before; only the newest counts, so A, B, A ends at A."""
    row = db.execute(_NEWEST_OF_LANE, (lane,)).fetchone()
    if row is None or row["fingerprint"] != request.fingerprint:
        return None
    if row["state"] in (State.REJECTED, State.DISCARDED):
        return None
    age_s = abs((request.now - datetime.fromisoformat(row["created_at"])).total_seconds())
    if age_s > request.dedupe_window_s:
        return None
    db.execute(_COUNT_REPEAT, (row["seq"],))
    return find(db, row["id"])


def _known_contact(db: Connection, request: Request, keys: Sequence[Key]) -> Contact | None:
    if request.target is not None:
        return contacts.for_target(db, request.target, request.now_text)
    for key in keys:
        if key.name == request.contact_key and (known := contacts.find_by_key(db, key)):
            return known
    return None


def _insert(
    db: Connection, request: Request, contact: Contact, keys: Sequence[Key], *, leaps: bool
) -> Change:
    payload = request.payload.to_json()
    change_id = new_id()
    seq = db.execute(
        _INSERT,
        {
            "id": change_id,
            "lane": contact.lane,
            "kind": request.kind,
            "payload": payload,
            "payload_sha256": digest(payload),
            "fingerprint": request.fingerprint,
            "token_name": request.token_name,
            "idempotency_key": request.idempotency_key,
            "created_at": request.now_text,
            "leaps": leaps,
            "by_file": foldable(request.kind, request.payload),
            "request_id": request.request_id,
        },
    ).fetchone()["seq"]
    contacts.put_keys(db, contact.lane, keys, seq, request.now_text)
    return Change(
        seq=seq,
        id=change_id,
        kind=request.kind,
        state=State.WAITING,
        unknown=False,
        route=Route.API,
        contact=contact,
        payload=request.payload,
        created_at=request.now_text,
        due_at=None,
        settled_at=None,
        attempts=0,
        api_attempts=0,
        step=0,
        existed=False,
        batch=None,
        error=None,
        repeated=0,
        request_id=request.request_id,
    )


def _is_held_by_rejected_create(db: Connection, lane: int) -> bool:
    """A corrected sign-up has all that it needs; it must not wait for the one it corrects."""
    row = db.execute(_HELD_BY_REJECTED_CREATE, (lane,)).fetchone()
    return row is not None and bool(row["rejected"])


def hidden_idempotency_key(key: str) -> str:
    """Give an Idempotency-Key as it stays when the customer was erased."""
    return f"sha256:{digest(key)}"


def digest(payload: str) -> str:
    """Give the checksum that stands beside a payload."""
    return hashlib.sha256(payload.encode()).hexdigest()


# --- looking ------------------------------------------------------------------------------------


def find(db: Connection, change_id: str) -> Change:
    """Give a change by its id. Raises NotFound."""
    row = db.execute(f"{_SELECT} WHERE ch.id = ?", (change_id.lower(),)).fetchone()
    if row is None:
        raise NotFound("There is no change with that id; it may have been delivered and pruned.")
    return _change(row)


def find_by_seq(db: Connection, seq: int) -> Change:
    """Give a change by its place in the order of capture. Raises NotFound."""
    row = db.execute(f"{_SELECT} WHERE ch.seq = ?", (seq,)).fetchone()
    if row is None:
        raise NotFound("There is no such change any more.")
    return _change(row)


@dataclass(frozen=True)
class Page:
    """Some changes, the newest first, and where to go on."""

    items: tuple[Change, ...]
    next: str | None  # the `after` of the following page


def listing(db: Connection, state: State | None, limit: int, after: str | None) -> Page:
    """Give changes, the newest first. Raises NotFound for an `after` that is no change."""
    before = find(db, after).seq if after else 2**62
    condition = "ch.state = :state AND" if state else ""
    rows = db.execute(
        f"{_SELECT} WHERE {condition} ch.seq < :before ORDER BY ch.seq DESC LIMIT :limit",
        {"state": state, "before": before, "limit": limit + 1},
    ).fetchall()
    items = tuple(_change(row) for row in rows[:limit])
    return Page(items, items[-1].id if len(rows) > limit else None)


# What is not in Engage, for all that is known, and not given up; each part from its own index.
NOT_THERE = tuple(State(state) for state in (*states.OPEN, State.REJECTED))
_PART = """
SELECT seq FROM (SELECT seq FROM changes
  WHERE state = '{state}' AND (state <> 'imported' OR holds = 1) AND seq > :after AND seq <= :upto
  ORDER BY seq LIMIT :limit)"""
_UNSETTLED = f"""{_SELECT}
 WHERE ch.seq IN ({" UNION ALL ".join(_PART.format(state=state) for state in NOT_THERE)})
 ORDER BY ch.seq LIMIT :limit"""


def unsettled(db: Connection, *, after: int, upto: int, limit: int) -> tuple[Change, ...]:
    """Give changes that are not in Engage yet and not given up, in capture order: a page of them.

    `after` and `upto` are sequence numbers.
    """
    rows = db.execute(_UNSETTLED, {"after": after, "upto": upto, "limit": limit})
    return tuple(_change(row) for row in rows.fetchall())


def last_seq(db: Connection) -> int:
    """Give the sequence number of the newest change."""
    return int(db.execute("SELECT coalesce(max(seq), 0) AS seq FROM changes").fetchone()["seq"])


@dataclass(frozen=True)
class Attempt:
    """One try on a route, as it is kept."""

    route: Route
    outcome: str  # delivered, deferred, unknown, rejected, halted
    started_at: str
    ended_at: str
    code: str | None = None
    status: int | None = None  # HTTP
    message: str | None = None
    request_id: str | None = None
    steps: tuple[Mapping[str, Any], ...] = ()  # [{step, status, code, ms}]


def attempts(db: Connection, seq: int) -> tuple[Attempt, ...]:
    """Give every attempt of a change, the first one first."""
    rows = db.execute(
        """SELECT route, outcome, started_at, ended_at, code, status, message, request_id, steps
             FROM attempts WHERE change = ? ORDER BY number""",
        (seq,),
    )
    return tuple(
        Attempt(**{**dict(row), "route": Route(row["route"]), "steps": json.loads(row["steps"])})
        for row in rows
    )


def open_of_lane(db: Connection, lane: int) -> tuple[Change, ...]:
    """Give the changes of a contact that are not settled yet, in capture order."""
    rows = db.execute(f"{_SELECT} WHERE ch.lane = ? AND ch.holds = 1 ORDER BY ch.seq", (lane,))
    return tuple(_change(row) for row in rows)


def of_lane_exist(db: Connection, lane: int) -> bool:
    """Say whether there is any change of a contact, settled or not."""
    return (
        db.execute("SELECT 1 FROM changes WHERE lane = ? LIMIT 1", (lane,)).fetchone() is not None
    )


def blocker(db: Connection, change: Change) -> Change | None:
    """Give the change that this one waits for: the head of its lane, if it is not the head."""
    head = db.execute(
        f"""{_SELECT} WHERE ch.lane = :lane AND ch.holds = 1 AND ch.seq < :seq
              AND NOT EXISTS (SELECT 1 FROM changes me WHERE me.seq = :seq AND me.leaps = 1)
            ORDER BY ch.seq LIMIT 1""",
        {"lane": change.contact.lane, "seq": change.seq},
    ).fetchone()
    return _change(head) if head and change.state is State.WAITING else None


def _change(row: Any) -> Change:
    payload, error = payload_of(row), _fault(row["error"])
    if payload is None:
        # Every other lane goes on; a person sees this one change.
        error = DAMAGED
    return Change(
        seq=row["seq"],
        id=row["id"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        unknown=bool(row["unknown"]),
        route=Route(row["route"]),
        contact=Contact(row["lane"], row["ref"], row["contact_id"], row["contact_type"]),
        payload=payload or Payload({}),
        created_at=row["created_at"],
        due_at=row["due_at"],
        settled_at=row["settled_at"],
        attempts=row["attempts"],
        api_attempts=row["api_attempts"],
        step=row["step"],
        existed=bool(row["existed"]),
        batch=row["batch"],
        error=error,
        repeated=row["repeated"],
        retried=bool(row["retried"]),
        damaged=payload is None,
        request_id=row["request_id"],
    )


def payload_of(row: Any) -> Payload | None:
    """Give what a row asks for; None where the disk has damaged it."""
    text = row["payload"]
    return Payload.from_json(text) if digest(text) == row["payload_sha256"] else None


DAMAGED = Fault(
    "PayloadDamaged",
    "The stored data of this change was damaged on the till's disk, so it was not sent. "
    "Discard it and register the customer again.",
)


def _fault(text: str | None) -> Fault | None:
    if text is None:
        return None
    data = json.loads(text)
    return Fault(**{**data, "fields": tuple(data.get("fields", ()))})


def fault_text(fault: Fault | None) -> str | None:
    """Give a fault as the journal keeps it."""
    if fault is None:
        return None
    return json.dumps(
        {
            "code": fault.code,
            "message": fault.message,
            "status": fault.status,
            "fields": list(fault.fields),
            "request_id": fault.request_id,
        },
        ensure_ascii=False,
    )


# --- claiming -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """Changes of one lane that are sent together: one, or neighbouring updates in one call."""

    changes: tuple[Change, ...]
    keys: tuple[Key, ...]  # by what Engage can find the contact
    lease: str
    # Attributes that a later change of the contact has set since: an update that was rejected and
    # is retried by a person, or that waited for a corrected sign-up, must not undo them.
    superseded: frozenset[str] = frozenset()

    @property
    def head(self) -> Change:
        """Give the oldest of the changes."""
        return self.changes[0]


# A lane gives out its head, if it is due and nothing of the lane is under way on any route.
_FREE = """
  ch.state = 'waiting'
  AND NOT EXISTS (SELECT 1 FROM changes e WHERE e.lane = ch.lane AND e.holds = 1
        AND ((e.seq < ch.seq AND NOT ch.leaps)
             OR e.state IN ('sending', 'batched', 'uploaded', 'imported')))"""
_HEAD = f"{_FREE} AND ch.due <= :now"
# What surely is no head is in none of the indexes by which heads are looked for.
_MAYBE_HEAD = "ch.behind = 0"
_LANE_HEAD = f"{_SELECT} WHERE ch.lane = :lane AND {_HEAD} ORDER BY ch.leaps DESC, ch.seq LIMIT 1"
# What was tried and put off comes before what was never tried: it is little, each waits in between,
# and among it is who stood at the till a moment ago. Both come from the index on (due, seq).
_PUT_OFF_LANES = f"""SELECT ch.lane FROM changes ch INDEXED BY changes_due
 WHERE {_MAYBE_HEAD} AND {_HEAD} AND ch.due > 0 ORDER BY ch.due, ch.seq LIMIT :limit"""
_UNTRIED_LANES = f"""SELECT ch.lane FROM changes ch INDEXED BY changes_due
 WHERE {_MAYBE_HEAD} AND {_HEAD} AND ch.due = 0 ORDER BY ch.seq LIMIT :limit"""
_FOLLOWERS = f"""{_SELECT} WHERE ch.lane = ? AND ch.holds = 1 AND ch.seq > ?
 ORDER BY ch.seq LIMIT 50"""
_TAKE = """
UPDATE changes SET state = 'sending', lease = ?, route = 'api', due_at = NULL
 WHERE seq = ? AND state = 'waiting'"""
_LATER_SET = """
SELECT payload, payload_sha256 FROM changes WHERE lane = ? AND seq > ?
   AND state IN ('delivered', 'confirmed', 'imported')"""


def due_lanes(db: Connection, now: float, limit: int) -> tuple[int, ...]:
    """Give lanes whose head is due: first what was put off, then the rest, oldest first.

    `now` is monotonic.
    """
    found: list[int] = []
    for query in (_PUT_OFF_LANES, _UNTRIED_LANES):
        rows = db.execute(query, {"now": now, "limit": limit - len(found)})
        found += [row["lane"] for row in rows]
    return tuple(found)


_OLDEST_FREE = f"""
SELECT ch.seq FROM changes ch INDEXED BY changes_free WHERE {_MAYBE_HEAD} AND {_FREE}
 ORDER BY ch.seq LIMIT 1"""
_OLDEST_SENT = "SELECT seq FROM changes WHERE state = 'sending' ORDER BY seq LIMIT 1"


def oldest_free(db: Connection) -> tuple[Change, Attempt | None] | None:
    """Give the oldest change that only waits to be sent or is being sent, with its last attempt.

    What waits behind another change of its lane is not free: it has its reason to wait.
    """
    # What is being sent counts: with an Engage that hangs, that is where it is most of the time.
    rows = [db.execute(query).fetchone() for query in (_OLDEST_FREE, _OLDEST_SENT)]
    seq = min((row["seq"] for row in rows if row), default=None)
    if seq is None:
        return None
    tried = attempts(db, seq)
    return find_by_seq(db, seq), tried[-1] if tried else None


def claim(db: Connection, lane: int, now: float, lease: str) -> Claim | None:
    """Take a lane's head, and the updates right behind it if it is an update.

    None if it is not due, or the route is paused: whoever asks may have begun before the pause.
    """
    if meta.is_paused(db, Route.API):
        return None
    row = db.execute(_LANE_HEAD, {"lane": lane, "now": now}).fetchone()
    if row is None:
        return None
    head = _change(row)
    superseded = _superseded(db, head)
    taken = [head]
    # What was superseded is left out of this change only, not out of what was asked since.
    if _folds(row) and not superseded:
        for follower in db.execute(_FOLLOWERS, (lane, head.seq)):
            if not _folds(follower):
                break
            taken.append(_change(follower))
    for change in taken:
        check_moved(db.execute(_TAKE, (lease, change.seq)).rowcount, change, states.CLAIM)
    return Claim(
        changes=tuple(replace(change, state=State.SENDING) for change in taken),
        keys=contacts.keys(db, lane, open_from=head.seq),
        lease=lease,
        superseded=superseded,
    )


def _folds(row: Any) -> bool:
    return (
        row["kind"] == Kind.UPDATE
        and row["state"] == State.WAITING
        and not (row["alone"] or row["unknown"] or row["retried"])
        and (payload := payload_of(row)) is not None
        and not payload.clear
    )


def _superseded(db: Connection, change: Change) -> frozenset[str]:
    names: set[str] = set()
    for row in db.execute(_LATER_SET, (change.contact.lane, change.seq)):
        if (payload := payload_of(row)) is not None:
            names |= payload.names()
    return frozenset(names)


def check_moved(rowcount: int, change: Change, move: states.Move) -> None:
    """Raise ForbiddenMove unless exactly one row was changed: somebody else moved it."""
    if rowcount != 1:
        raise ForbiddenMove(f"change {change.id} was not in a state for '{move.name}'")


# --- settling -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settlement:
    """How a claimed change leaves `sending`."""

    move: states.Move  # DELIVER, DEFER, LOSE or REJECT
    attempt: Attempt
    unknown: bool = False
    counts: bool = False  # towards the file route
    due: float = 0.0  # monotonic
    due_at: str | None = None
    fault: Fault | None = None
    contact_id: str | None = None  # Engage's GUID, if it was learnt
    contact_type: str | None = None
    contact_gone: bool = False  # Engage does not know the stored GUID any more
    keys: tuple[
        Key, ...
    ] = ()  # those of the contact that Engage's answer tells beside what was sent
    step: int | None = None
    alone: bool = False
    existed: bool = False


_SETTLE = """
UPDATE changes SET state = :state, holds = :holds, unknown = :unknown, lease = NULL,
  attempts = attempts + 1, api_attempts = api_attempts + :counts, due = :due, due_at = :due_at,
  error = :error, step = coalesce(:step, step), alone = max(alone, :alone),
  existed = max(existed, :existed), settled_at = :settled_at
 WHERE seq = :seq AND state = 'sending' AND lease = :lease"""
_ADD_ATTEMPT = """
INSERT INTO attempts (change, route, outcome, code, status, message, request_id, steps,
  started_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def settle(
    db: Connection, claim: Claim, settlement: Settlement, *, verifies: bool
) -> tuple[Change, ...]:
    """Store the outcome of an attempt and move its changes. Gives them as they stand now.

    Raises ForbiddenMove when somebody else moved one: then nothing is stored.
    """
    lane = claim.head.contact.lane
    if settlement.contact_gone:
        contacts.forget_contact_id(db, lane)
    if settlement.contact_id:
        lane = contacts.learn(db, lane, settlement.contact_id, settlement.contact_type)
    target = settlement.move.target
    has_contact = contacts.get(db, lane).contact_id is not None
    for change in claim.changes:
        done = db.execute(
            _SETTLE,
            {
                "state": target,
                "holds": states.holds_lane(
                    change.kind, target, verifies=verifies, has_contact=has_contact
                ),
                "unknown": settlement.unknown,
                "counts": settlement.counts,
                "due": settlement.due,
                "due_at": settlement.due_at,
                "error": fault_text(settlement.fault),
                "step": settlement.step,
                "alone": settlement.alone,
                "existed": settlement.existed,
                "settled_at": settlement.attempt.ended_at if target is not State.WAITING else None,
                "seq": change.seq,
                "lease": claim.lease,
            },
        )
        check_moved(done.rowcount, change, settlement.move)
        add_attempt(db, change.seq, settlement.attempt)
        if target is State.DELIVERED:
            held, cleared = keys_of(change.payload.attributes), change.payload.clear
            contacts.settle_keys(db, lane, held, cleared, change.seq, settlement.attempt.ended_at)
        elif target is State.REJECTED and change.kind is not Kind.CREATE:
            # They are somebody else's, or nobody's, until it is sent again.
            contacts.drop_keys_of_change(db, lane, change.seq)
    contacts.hear_keys(db, lane, settlement.keys, settlement.attempt.ended_at)
    return tuple(find(db, change.id) for change in claim.changes)


def note_step(db: Connection, claim: Claim, step: int) -> None:
    """Store that a part of a claimed change is done, so that it is not done twice."""
    for change in claim.changes:
        db.execute(
            "UPDATE changes SET step = ? WHERE seq = ? AND lease = ?",
            (step, change.seq, claim.lease),
        )


def add_attempt(db: Connection, seq: int, attempt: Attempt) -> None:
    """Store one attempt of a change."""
    db.execute(
        _ADD_ATTEMPT,
        (
            seq,
            attempt.route,
            attempt.outcome,
            attempt.code,
            attempt.status,
            attempt.message,
            attempt.request_id,
            json.dumps(list(attempt.steps)),
            attempt.started_at,
            attempt.ended_at,
        ),
    )


_OLD_LEASES = "SELECT seq FROM changes WHERE state = 'sending'"
_TAKE_OVER = """
UPDATE changes SET state = 'waiting', unknown = 1, lease = NULL, due = 0, due_at = NULL
 WHERE state = 'sending'"""


def take_over(db: Connection, now_text: str) -> int:
    """At start: what an older run was sending may have happened. Gives how many there were."""
    attempt = Attempt(
        route=Route.API,
        outcome="unknown",
        started_at=now_text,
        ended_at=now_text,
        code="Interrupted",
        message="The agent stopped while this was being sent. It is looked up before a repeat.",
    )
    seqs = [row["seq"] for row in db.execute(_OLD_LEASES)]
    for seq in seqs:
        add_attempt(db, seq, attempt)
    db.execute(_TAKE_OVER)
    return len(seqs)


def forget_waits(db: Connection) -> None:
    """After the machine was started anew its monotonic clock means something else: all is due."""
    db.execute("UPDATE changes SET due = 0, due_at = NULL WHERE state = 'waiting' AND due > 0")
    db.execute("UPDATE changes SET rests_until = 0 WHERE rests_until > 0")


# --- what a person does -------------------------------------------------------------------------

_RETRY = """
UPDATE changes SET state = 'waiting', holds = 1, due = 0, due_at = NULL, settled_at = NULL,
  retried = 1, alone = 1, api_attempts = 0, batch = NULL, route = 'api'
 WHERE seq = ? AND state = 'rejected'"""
_PUT_PAYLOAD = "UPDATE changes SET payload = ?, payload_sha256 = ?, error = NULL WHERE seq = ?"
_RETRY_NOW = "UPDATE changes SET due = 0, due_at = NULL WHERE seq = ? AND state = 'waiting'"


def retry(db: Connection, change_id: str) -> Change:
    """Send a rejected change again, or a waiting one without its wait.

    Raises NotFound, and Conflict for a change in any other state.
    """
    change = find(db, change_id)
    if change.error == DAMAGED:
        raise Conflict("Its stored data is damaged, so it cannot be sent. Discard it.")
    if change.state is State.REJECTED:
        check_moved(db.execute(_RETRY, (change.seq,)).rowcount, change, states.RETRY)
        keys = keys_of(change.payload.attributes)
        contacts.put_keys(db, change.contact.lane, keys, change.seq, change.created_at)
    elif change.state is State.WAITING:
        db.execute(_RETRY_NOW, (change.seq,))
    else:
        raise Conflict(
            f"Only a rejected or waiting change can be retried; this one is {change.state}."
        )
    return find(db, change_id)


def mend(db: Connection, change_id: str, corrected: Callable[[Change], Payload]) -> Change:
    """Put corrected data into a rejected change and send it again.

    `corrected` gets the change as it is and gives what it is to ask for; it may raise
    InvalidChange, and nothing is changed then. Raises NotFound, and Conflict in any other state.
    """
    change = find(db, change_id)
    if change.state is not State.REJECTED:
        raise Conflict(f"Only a rejected change can be mended; this one is {change.state}.")
    payload = corrected(change)
    text = payload.to_json()
    db.execute(_PUT_PAYLOAD, (text, digest(text), change.seq))
    contacts.drop_keys_of_change(db, change.contact.lane, change.seq)
    return retry(db, change_id)


_DISCARD = """
UPDATE changes SET state = 'discarded', holds = 0, settled_at = ?, error = coalesce(?, error)
 WHERE seq = ? AND state = 'rejected'"""
_ORPHAN = """
UPDATE changes SET state = 'rejected', holds = 0, settled_at = ?, error = ?
 WHERE lane = ? AND seq > ? AND state = 'waiting'"""
_SENDABLE_CREATE = """
SELECT 1 FROM changes WHERE lane = ? AND seq > ? AND kind = 'create' AND holds = 1"""


def discard(db: Connection, change_id: str, reason: str, now_text: str) -> Change:
    """Give up a rejected change for good. Raises NotFound, and Conflict in any other state.

    What waited for a create that is given up has no contact to go to: it is rejected too, with the
    cause named, unless another sign-up of the same person waits in the lane.
    """
    change = find(db, change_id)
    if change.state is not State.REJECTED:
        raise Conflict(f"Only a rejected change can be discarded; this one is {change.state}.")
    lane = change.contact.lane
    check_moved(db.execute(_DISCARD, (now_text, None, change.seq)).rowcount, change, states.DISCARD)
    add_attempt(
        db,
        change.seq,
        Attempt(
            change.route,
            "rejected",
            now_text,
            now_text,
            code="Discarded",
            message=reason or None,
        ),
    )
    contacts.drop_keys_of_change(db, lane, change.seq)
    orphaned = (
        change.kind is Kind.CREATE
        and change.contact.contact_id is None
        and db.execute(_SENDABLE_CREATE, (lane, change.seq)).fetchone() is None
    )
    if orphaned:
        fault = Fault(
            "CreateDiscarded",
            "The sign-up that this change belongs to was discarded, so there is no contact to "
            "change. Register the customer again.",
        )
        db.execute(_ORPHAN, (now_text, fault_text(fault), lane, change.seq))
    return find(db, change_id)


# --- counting and pruning -----------------------------------------------------------------------


@dataclass(frozen=True)
class Totals:
    """How much is where."""

    counts: Mapping[State, int]
    oldest_open_at: str | None  # when the oldest change that is not settled was taken

    @property
    def open(self) -> int:
        """Give how many changes are not in Engage yet and not set aside."""
        return sum(self.counts[state] for state in states.OPEN)


def totals(db: Connection, *, verifies: bool) -> Totals:
    """Give the kept counts; the cost does not grow with the journal."""
    counts = {State(row["state"]): row["n"] for row in db.execute("SELECT state, n FROM counts")}
    oldest = None
    for state in states.OPEN:
        if counts[state] and not states.is_final(state, verifies=verifies):
            row = db.execute(
                "SELECT created_at FROM changes WHERE state = ? ORDER BY seq LIMIT 1", (state,)
            ).fetchone()
            if row and (oldest is None or row["created_at"] < oldest):
                oldest = row["created_at"]
    return Totals(counts, oldest)


_PRUNABLE = """
SELECT seq FROM changes ch
 WHERE ch.state IN ({states}) AND ch.holds = 0 AND ch.settled_at < ?
   AND NOT EXISTS (SELECT 1 FROM changes e WHERE e.lane = ch.lane AND e.state = 'rejected'
                     AND e.seq < ch.seq)
 ORDER BY ch.seq LIMIT ?"""


def prune(db: Connection, before: str, limit: int) -> int:
    """Remove changes that were settled before a moment; gives how many, at most `limit`.

    Only final ones go. What came after a rejected change of the same contact stays, because it says
    which attributes a retry must leave alone.
    """
    # `imported` without a hold: nobody will look it up any more, whatever fallback.verify says.
    final = [state for state in State if states.is_final(state, verifies=False)]
    query = _PRUNABLE.format(states=", ".join("?" * len(final)))
    seqs = [row["seq"] for row in db.execute(query, (*final, before, limit))]
    delete(db, seqs)
    return len(seqs)


_REDATE = "UPDATE changes SET settled_at = ? WHERE settled_at > ?"


def redate(db: Connection, after: str, now: str) -> int:
    """Count the age of what bears a date that has not come yet from now; gives how many.

    The till's clock was wrong when they were settled; they would stay until that date.
    """
    return db.execute(_REDATE, (now, after)).rowcount


def delete(db: Connection, seqs: Iterable[int]) -> None:
    """Remove changes with their attempts."""
    db.executemany("DELETE FROM changes WHERE seq = ?", [(seq,) for seq in seqs])
