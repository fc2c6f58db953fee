"""The batches of a rescued journal: no file is made of a part, and nothing waits for one in vain.

A file that may be at Engage's stays under way until it is imported, and is verified. One that was
not uploaded, and of which something is missing, is given up: its changes are looked up instead.
"""

from __future__ import annotations

from agent.journal.driver import Connection
from agent.journal.rescue.salvage import Salvage

_OPEN_IN_FILE = "state IN ('batched', 'uploaded', 'imported') AND holds = 1"
_NUMBERS = f"""
SELECT number FROM batches WHERE state <> 'settled'
UNION SELECT batch FROM changes WHERE batch IS NOT NULL AND {_OPEN_IN_FILE} ORDER BY 1"""
_ADD_BATCH = """
INSERT INTO batches (number, name, state, with_id, contacts, sealed_at, uploaded_at, imported_at)
VALUES (:number, :name, :state,
  NOT EXISTS (SELECT 1 FROM batch_contacts WHERE batch = :number AND contact_id IS NULL),
  0, :now, :now, iif(:state = 'imported', :now, NULL))"""
_MOVE_BATCH = """
UPDATE batches SET state = :state, uploaded_at = coalesce(uploaded_at, :now),
  imported_at = iif(:state = 'imported', coalesce(imported_at, :now), imported_at)
 WHERE number = :number"""
_MOVE_CHANGES = f"UPDATE changes SET state = ? WHERE batch = ? AND {_OPEN_IN_FILE}"
# What belongs to no file any more goes by the API; whether it is there already, a look-up tells.
_TAKE_BACK = f"""
UPDATE changes SET state = 'waiting', route = 'api', unknown = 1, batch = NULL, api_attempts = 0,
  due = 0, due_at = NULL, rests_until = 0, settled_at = NULL WHERE {_OPEN_IN_FILE}"""
_DISSOLVE = """
UPDATE batches SET state = 'settled', settled_at = :now, withdrawn_at = :now, leftover = 1,
  error = NULL WHERE number = :number"""
_FORGET_LOST = """
UPDATE changes SET batch = NULL WHERE batch NOT IN (SELECT number FROM batches)"""
_FORGET_SKIPPED = """
UPDATE changes SET skipped_in = NULL WHERE skipped_in NOT IN (SELECT number FROM batches)"""
_RANKS = {"batched": 0, "uploaded": 1, "imported": 2}
_BATCH_RANKS = {"filling": 0, "sealed": 0, "written": 0, "uploaded": 1, "imported": 2}


def mend(db: Connection, found: Salvage, now: str, *, is_whole: bool) -> tuple[str, ...]:
    """Let each open change of a file be in one that comes, or wait for a look-up.

    `is_whole`: nothing at all is missing in the journal. Gives the files that were given up.
    """
    given_up = []
    for row in db.execute(_NUMBERS).fetchall():
        number = row["number"]
        batch = db.execute("SELECT name, state FROM batches WHERE number = ?", (number,)).fetchone()
        query = f"SELECT DISTINCT state FROM changes WHERE batch = ? AND {_OPEN_IN_FILE}"
        ranks = [_RANKS[change["state"]] for change in db.execute(query, (number,))]
        if batch is None:
            name = found.batch_names.get(number)
            if name is None or max(ranks) == 0:
                _give_up(db, number, now)
                given_up.append(name or f"the one with number {number}, whose name is lost")
                continue
            state = "uploaded" if 1 in ranks else "imported"
            db.execute(_ADD_BATCH, {"number": number, "name": name, "state": state, "now": now})
            rank = _BATCH_RANKS[state]
        elif batch["state"] == "settled":
            _give_up(db, number, now)
            continue
        else:
            # Whichever of both is further knows more: the other's page is older.
            rank = max(_BATCH_RANKS[batch["state"]], *ranks, 0)
        if rank == 0:
            if not is_whole and not _is_complete(db, found, number):
                _give_up(db, number, now)
                given_up.append(batch["name"])
            continue
        state = "uploaded" if rank == 1 else "imported"
        db.execute(_MOVE_BATCH, {"state": state, "number": number, "now": now})
        db.execute(_MOVE_CHANGES, (state, number))
        _mend_members_of(db, number)
    db.execute(f"{_TAKE_BACK} AND (batch IS NULL OR batch NOT IN (SELECT number FROM batches))")
    db.execute(_FORGET_LOST)
    db.execute(_FORGET_SKIPPED)
    return tuple(given_up)


def _give_up(db: Connection, number: int, now: str) -> None:
    db.execute(f"{_TAKE_BACK} AND batch = ?", (number,))
    settled = "SELECT 1 FROM batches WHERE number = ? AND state = 'settled'"
    if db.execute(settled, (number,)).fetchone() is None:
        db.execute("DELETE FROM batch_contacts WHERE batch = ?", (number,))
        db.execute(_DISSOLVE, {"number": number, "now": now})


_EMPTY_MEMBER = f"""
SELECT 1 FROM batch_contacts bc WHERE bc.batch = ? AND bc.settled = 0
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.batch = bc.batch AND ch.lane = bc.lane
         AND ch.{_OPEN_IN_FILE})"""
_WITHOUT_MEMBER = f"""
SELECT DISTINCT lane FROM changes ch WHERE ch.batch = ? AND ch.{_OPEN_IN_FILE}
   AND NOT EXISTS (SELECT 1 FROM batch_contacts bc
         WHERE bc.batch = ch.batch AND bc.lane = ch.lane AND bc.settled = 0)"""
_ADD_MEMBER = """
INSERT INTO batch_contacts (batch, position, lane, contact_id, contact_type)
SELECT :batch, (SELECT coalesce(max(position), -1) + 1 FROM batch_contacts WHERE batch = :batch),
  lane, contact_id, coalesce(contact_type, '') FROM contacts WHERE lane = :lane"""
_DROP_MEMBERS = f"""
DELETE FROM batch_contacts WHERE batch = ? AND settled = 0
   AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.batch = batch_contacts.batch
         AND ch.lane = batch_contacts.lane AND ch.{_OPEN_IN_FILE})"""
_COUNT_MEMBERS = """
UPDATE batches SET contacts = max(contacts, (SELECT count(*) FROM batch_contacts
                                              WHERE batch = :number)),
  to_verify = iif(state = 'imported', max(to_verify,
    (SELECT count(*) FROM batch_contacts WHERE batch = :number AND settled = 0)), to_verify)
 WHERE number = :number"""


def _is_complete(db: Connection, found: Salvage, number: int) -> bool:
    """Say whether a file can be made of this batch that is the same to the byte."""
    if found.lost or found.gaps or found.lost_frames:
        return False
    row = db.execute(
        """SELECT b.contacts = (SELECT count(*) FROM batch_contacts WHERE batch = b.number) AS all_
             FROM batches b WHERE b.number = ?""",
        (number,),
    ).fetchone()
    return (
        bool(row["all_"])
        and db.execute(_EMPTY_MEMBER, (number,)).fetchone() is None
        and db.execute(_WITHOUT_MEMBER, (number,)).fetchone() is None
    )


def _mend_members_of(db: Connection, number: int) -> None:
    """Each lane of a file under way is looked up once; one of which nothing is left is not."""
    for row in db.execute(_WITHOUT_MEMBER, (number,)).fetchall():
        db.execute(_ADD_MEMBER, {"batch": number, "lane": row["lane"]})
    db.execute(_DROP_MEMBERS, (number,))
    db.execute(_COUNT_MEMBERS, {"number": number})
