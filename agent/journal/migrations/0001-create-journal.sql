-- The first journal: contacts with their keys, changes in lanes, every attempt, and batches.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per ref ever issued; holds no personal data and is never pruned.
CREATE TABLE contacts (
  lane         INTEGER PRIMARY KEY,
  ref          TEXT NOT NULL UNIQUE,
  contact_id   TEXT,                                 -- Engage's GUID in lower case
  contact_type TEXT,
  joined       INTEGER REFERENCES contacts (lane),   -- turned out to be that contact
  created_at   TEXT NOT NULL,
  CHECK (joined IS NULL OR contact_id IS NULL)
) STRICT;

CREATE UNIQUE INDEX contacts_by_contact_id ON contacts (contact_id) WHERE contact_id IS NOT NULL;
CREATE INDEX contacts_joined ON contacts (joined) WHERE joined IS NOT NULL;

-- By what a person is found. seq is the latest change that brought the value: once that one is
-- delivered, older values of the same name are the customer's past. since is the first one: once
-- that is delivered, Engage holds the value, however often it is brought again.
CREATE TABLE keys (
  name  TEXT NOT NULL,
  value TEXT NOT NULL,
  lane  INTEGER NOT NULL REFERENCES contacts (lane),
  seq   INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (name, value, lane)
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_lane ON keys (lane);

CREATE TABLE batches (
  number      INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  state       TEXT NOT NULL CHECK (state IN ('filling', 'sealed', 'written', 'uploaded', 'imported',
                'settled')),
  with_id     INTEGER NOT NULL CHECK (with_id IN (0, 1)),  -- its contacts carry Engage's GUID
  contacts    INTEGER NOT NULL,
  sha256      TEXT,
  bytes       INTEGER,
  attempts    INTEGER NOT NULL DEFAULT 0,
  full_size   INTEGER NOT NULL DEFAULT 0 CHECK (full_size IN (0, 1)),  -- complete on the server
  error       TEXT,
  receipt     TEXT,                            -- what Engage answered to a bulk call
  sealed_at   TEXT NOT NULL,
  uploaded_at TEXT,
  imported_at TEXT,
  settled_at  TEXT
) STRICT;

CREATE INDEX batches_open ON batches (number) WHERE state <> 'settled';

CREATE TABLE changes (
  seq             INTEGER PRIMARY KEY AUTOINCREMENT,
  id              TEXT NOT NULL UNIQUE,
  lane            INTEGER NOT NULL REFERENCES contacts (lane),
  kind            TEXT NOT NULL CHECK (kind IN ('create', 'update', 'upgrade')),
  state           TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'delivered', 'batched',
                    'uploaded', 'imported', 'confirmed', 'rejected', 'discarded')),
  holds           INTEGER NOT NULL DEFAULT 1 CHECK (holds IN (0, 1)),    -- keeps its lane waiting
  unknown         INTEGER NOT NULL DEFAULT 0 CHECK (unknown IN (0, 1)),  -- it may have happened
  route           TEXT NOT NULL DEFAULT 'api' CHECK (route IN ('api', 'file')),
  payload         TEXT NOT NULL,
  payload_sha256  TEXT NOT NULL,
  fingerprint     TEXT NOT NULL,
  token_name      TEXT NOT NULL,
  idempotency_key TEXT,
  repeated        INTEGER NOT NULL DEFAULT 0,
  attempts        INTEGER NOT NULL DEFAULT 0,
  api_attempts    INTEGER NOT NULL DEFAULT 0,
  step            INTEGER NOT NULL DEFAULT 0,   -- of an upgrade: 1 once its attributes are in Engage
  alone           INTEGER NOT NULL DEFAULT 0,   -- not to be folded with its neighbours in one call
  existed         INTEGER NOT NULL DEFAULT 0,   -- a create that found its contact in Engage
  leaps           INTEGER NOT NULL DEFAULT 0,   -- a sign-up that does not wait for a rejected one
  retried         INTEGER NOT NULL DEFAULT 0,   -- was rejected once and sent again by a person
  by_file         INTEGER NOT NULL DEFAULT 1 CHECK (by_file IN (0, 1)),  -- a file could say it
  behind          INTEGER NOT NULL DEFAULT 0 CHECK (behind IN (0, 1)),   -- surely not its lane's head
  lease           TEXT,
  due             REAL NOT NULL DEFAULT 0,      -- on the clock that does not jump
  due_at          TEXT,                         -- the same for people
  batch           INTEGER REFERENCES batches (number),
  error           TEXT,
  created_at      TEXT NOT NULL,
  settled_at      TEXT,
  CHECK ((state = 'sending') = (lease IS NOT NULL))
) STRICT;

CREATE INDEX changes_by_lane ON changes (lane, seq);
CREATE INDEX changes_by_state ON changes (state, seq);
CREATE INDEX changes_holding ON changes (lane, seq) WHERE holds = 1;
CREATE INDEX changes_due ON changes (due, seq) WHERE state = 'waiting' AND behind = 0;
CREATE INDEX changes_free ON changes (seq) WHERE state = 'waiting' AND behind = 0;
CREATE INDEX changes_tried ON changes (seq)
  WHERE state = 'waiting' AND behind = 0 AND api_attempts > 0;
CREATE INDEX changes_by_batch ON changes (batch, lane, seq) WHERE batch IS NOT NULL;
CREATE UNIQUE INDEX changes_by_idempotency_key ON changes (token_name, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

CREATE TABLE attempts (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again, even after pruning
  change     INTEGER NOT NULL REFERENCES changes (seq) ON DELETE CASCADE,
  route      TEXT NOT NULL CHECK (route IN ('api', 'file')),
  outcome    TEXT NOT NULL CHECK (outcome IN
               ('delivered', 'deferred', 'unknown', 'rejected', 'halted')),
  code       TEXT,
  status     INTEGER,
  message    TEXT,
  request_id TEXT,
  steps      TEXT NOT NULL DEFAULT '[]',
  started_at TEXT NOT NULL,
  ended_at   TEXT NOT NULL
) STRICT;

CREATE INDEX attempts_by_change ON attempts (change);

-- The contacts of a batch in the order of its file: what makes the file reproducible.
CREATE TABLE batch_contacts (
  batch        INTEGER NOT NULL REFERENCES batches (number) ON DELETE CASCADE,
  position     INTEGER NOT NULL,
  lane         INTEGER NOT NULL REFERENCES contacts (lane),
  contact_id   TEXT,
  contact_type TEXT NOT NULL,
  key_value    TEXT,                         -- of an update without contactId: by what it is found
  settled      INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
  misses       INTEGER NOT NULL DEFAULT 0,   -- look-ups that did not find it
  patched      INTEGER NOT NULL DEFAULT 0,   -- its difference was sent once by the API
  due          REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (batch, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX batch_contacts_by_lane ON batch_contacts (lane);
CREATE INDEX batch_contacts_open ON batch_contacts (batch, due) WHERE settled = 0;

-- Engage's answers to reads, and what a POS was shown of them. Personal data; bounded in number and
-- age. `fetched` is on the clock that does not jump, of the start of the machine that `boot` names.
CREATE TABLE served (
  shelf      TEXT NOT NULL CHECK (shelf IN ('contact', 'purchases', 'promotions', 'shown')),
  name       TEXT NOT NULL,               -- contactId, query or ETag
  contact    TEXT NOT NULL,               -- whose: GUID or ref
  body       TEXT NOT NULL,               -- JSON
  told       INTEGER NOT NULL,            -- the last attempt before it was asked for
  fetched    REAL NOT NULL,
  fetched_at TEXT NOT NULL,
  boot       TEXT NOT NULL,
  used       INTEGER NOT NULL,            -- order of use; the least used go first
  PRIMARY KEY (shelf, name)
) STRICT;

CREATE INDEX served_by_contact ON served (contact);
CREATE INDEX served_by_use ON served (shelf = 'shown', used);

-- Kept, not counted: a million open changes must not slow a status page down.
CREATE TABLE counts (
  state TEXT PRIMARY KEY,
  n     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counts (state, n) VALUES ('waiting', 0), ('sending', 0), ('delivered', 0),
  ('batched', 0), ('uploaded', 0), ('imported', 0), ('confirmed', 0), ('rejected', 0),
  ('discarded', 0);

CREATE TRIGGER count_new_change AFTER INSERT ON changes BEGIN
  UPDATE counts SET n = n + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER count_moved_change AFTER UPDATE OF state ON changes WHEN OLD.state <> NEW.state BEGIN
  UPDATE counts SET n = n - 1 WHERE state = OLD.state;
  UPDATE counts SET n = n + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER count_pruned_change AFTER DELETE ON changes BEGIN
  UPDATE counts SET n = n - 1 WHERE state = OLD.state;
END;

-- Tens of thousands of changes may wait behind others; whoever looks for work must not look at them.
-- Whatever lets a change begin or cease to hold its lane, the head is never marked.
CREATE TRIGGER head_after_hold AFTER UPDATE OF holds, lane ON changes
WHEN NEW.holds <> OLD.holds OR NEW.lane <> OLD.lane BEGIN
  UPDATE changes SET behind = 0
   WHERE seq = (SELECT min(seq) FROM changes WHERE lane = NEW.lane AND holds = 1) AND behind = 1;
END;

CREATE TRIGGER head_after_delete AFTER DELETE ON changes WHEN OLD.holds = 1 BEGIN
  UPDATE changes SET behind = 0
   WHERE seq = (SELECT min(seq) FROM changes WHERE lane = OLD.lane AND holds = 1) AND behind = 1;
END;
