-- Who is found without a line: when each key was last told, and the members of Engage's export.

ALTER TABLE keys ADD COLUMN told_at TEXT NOT NULL DEFAULT '';  -- when the till last heard of it

UPDATE keys SET told_at = coalesce(
  (SELECT created_at FROM changes WHERE changes.seq = keys.seq),
  strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));

CREATE INDEX changes_by_end ON changes (settled_at) WHERE settled_at IS NOT NULL;

-- One row per member of the export. `gone`: the export has deleted it, or a person has erased it
-- here; such a row has no keys, and an older file does not bring them back.
CREATE TABLE members (
  member       INTEGER PRIMARY KEY,
  contact_id   TEXT UNIQUE,                       -- Engage's GUID in lower case, if exported
  contact_type TEXT,
  lane         INTEGER REFERENCES contacts (lane),  -- its ref, where Engage's GUID is not known
  told_at      TEXT NOT NULL,                     -- the moment of the newest file that names it
  gone         TEXT CHECK (gone IN ('deleted', 'erased'))
) STRICT;

CREATE INDEX members_by_lane ON members (lane) WHERE lane IS NOT NULL;
CREATE INDEX members_without_id ON members (member) WHERE contact_id IS NULL;
CREATE INDEX members_gone ON members (told_at) WHERE gone = 'deleted';

-- By what a member is found. A digest is a keyed hash: nobody can read from it what was hashed, and
-- without the key, which is not in this file, nobody can try values either.
CREATE TABLE member_keys (
  digest INTEGER NOT NULL,
  member INTEGER NOT NULL REFERENCES members (member) ON DELETE CASCADE,
  name   INTEGER NOT NULL,                        -- its place in contact.KEY_ATTRIBUTES
  PRIMARY KEY (digest, member)
) STRICT, WITHOUT ROWID;

CREATE INDEX member_keys_by_member ON member_keys (member, name);

-- The export's files that were read, so that none is read twice. `doubted`: it could not be read,
-- and may be on its way still; unchanged the next time, it is broken.
CREATE TABLE exports (
  name     TEXT PRIMARY KEY,
  bytes    INTEGER NOT NULL,
  modified INTEGER NOT NULL,                      -- by the server's clock, seconds since 1970
  state    TEXT NOT NULL CHECK (state IN ('taken', 'doubted', 'broken')),
  reason   TEXT,
  read_at  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
