-- Files that a person took back, files that Engage's import skipped whole, and what became of each
-- of a batch's bulk calls.

ALTER TABLE batches ADD COLUMN withdrawn_at TEXT;
ALTER TABLE batches ADD COLUMN skipped_at TEXT;               -- nothing of the file reached Engage
ALTER TABLE batches ADD COLUMN to_verify INTEGER NOT NULL DEFAULT 0; -- contacts to be looked up
ALTER TABLE batches ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;  -- found just as they were sent
ALTER TABLE batches ADD COLUMN leftover INTEGER NOT NULL DEFAULT 0;  -- to be removed from the server
ALTER TABLE batches ADD COLUMN calls TEXT;                    -- of bulk: JSON, see delivery/batch/bulk.py

CREATE INDEX batches_leftover ON batches (number) WHERE leftover = 1;
CREATE INDEX batches_skipped ON batches (number) WHERE skipped_at IS NOT NULL;

-- Until then (on the clock that does not jump) a change that was taken back is not sealed again.
ALTER TABLE changes ADD COLUMN rests_until REAL NOT NULL DEFAULT 0;
CREATE INDEX changes_resting ON changes (seq) WHERE rests_until > 0;

-- The file in which it was skipped; it is sent again by itself once.
ALTER TABLE changes ADD COLUMN skipped_in INTEGER REFERENCES batches (number);

CREATE INDEX changes_skipped ON changes (skipped_in, state) WHERE skipped_in IS NOT NULL;
