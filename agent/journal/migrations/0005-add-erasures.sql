-- Customers who are erased on request.

-- Of a change whose customer was erased it stays only what it was and what became of it.
ALTER TABLE changes ADD COLUMN erased INTEGER NOT NULL DEFAULT 0 CHECK (erased IN (0, 1));

-- The note that stays of it; no personal data.
CREATE TABLE erasures (
  number     INTEGER PRIMARY KEY,
  ref        TEXT,
  contact_id TEXT,
  erased_at  TEXT NOT NULL,
  token_name TEXT NOT NULL,                       -- who asked for it
  changes    INTEGER NOT NULL,                    -- whose data is gone
  discarded  INTEGER NOT NULL,                    -- of these, given up though they were open
  in_engage  TEXT NOT NULL CHECK (in_engage IN ('yes', 'maybe', 'no'))
) STRICT;

CREATE INDEX erasures_by_time ON erasures (erased_at);
