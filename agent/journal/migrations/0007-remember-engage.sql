-- For which Engage a change was taken: settings that name another one must not redirect it unasked.

CREATE TABLE engages (
  number   INTEGER PRIMARY KEY,
  base_url TEXT NOT NULL UNIQUE
) STRICT;

-- NULL: taken by an older version, for the Engage that the settings named at the upgrade, number 1.
ALTER TABLE changes ADD COLUMN engage INTEGER REFERENCES engages (number);
