-- Kept, not counted, as `counts` is: what the page says of today and of the last 24 hours. One row
-- for a quarter of an hour, because in every time zone a day begins with one.
CREATE TABLE figures (
  quarter   TEXT PRIMARY KEY,             -- its beginning in UTC: 2026-11-21T10:15
  accepted  INTEGER NOT NULL DEFAULT 0,
  delivered INTEGER NOT NULL DEFAULT 0,   -- reached Engage, on either route
  by_file   INTEGER NOT NULL DEFAULT 0,   -- of these, by file
  rejected  INTEGER NOT NULL DEFAULT 0,
  net       INTEGER NOT NULL DEFAULT 0    -- by how much the changes that are not settled grew
) STRICT, WITHOUT ROWID;

-- Holds what rows that were dropped leave behind, so that net of all rows is what is open now.
INSERT INTO figures (quarter) VALUES ('');

INSERT INTO figures (quarter, accepted, net)
SELECT substr(created_at, 1, 14) || substr('00153045', 1 + substr(created_at, 15, 2) / 15 * 2, 2),
  count(*), count(*)
  FROM changes GROUP BY 1;

INSERT INTO figures (quarter, delivered, by_file, rejected, net)
SELECT substr(settled_at, 1, 14) || substr('00153045', 1 + substr(settled_at, 15, 2) / 15 * 2, 2),
  sum(state IN ('delivered', 'confirmed', 'imported')),
  sum(state IN ('delivered', 'confirmed', 'imported') AND route = 'file'),
  sum(state = 'rejected'), -count(*)
  FROM changes WHERE settled_at IS NOT NULL GROUP BY 1
ON CONFLICT (quarter) DO UPDATE SET
  delivered = delivered + excluded.delivered, by_file = by_file + excluded.by_file,
  rejected = rejected + excluded.rejected, net = net + excluded.net;

CREATE TRIGGER figure_of_new_change AFTER INSERT ON changes BEGIN
  INSERT INTO figures (quarter, accepted, net) VALUES
    (substr(NEW.created_at, 1, 14)
       || substr('00153045', 1 + substr(NEW.created_at, 15, 2) / 15 * 2, 2), 1, 1)
  ON CONFLICT (quarter) DO UPDATE SET accepted = accepted + 1, net = net + 1;
END;

CREATE TRIGGER figure_of_settled_change AFTER UPDATE OF settled_at ON changes
  WHEN OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL BEGIN
  INSERT INTO figures (quarter, delivered, by_file, rejected, net) VALUES
    (substr(NEW.settled_at, 1, 14)
       || substr('00153045', 1 + substr(NEW.settled_at, 15, 2) / 15 * 2, 2),
     NEW.state IN ('delivered', 'confirmed', 'imported'),
     NEW.state IN ('delivered', 'confirmed', 'imported') AND NEW.route = 'file',
     NEW.state = 'rejected', -1)
  ON CONFLICT (quarter) DO UPDATE SET
    delivered = delivered + excluded.delivered, by_file = by_file + excluded.by_file,
    rejected = rejected + excluded.rejected, net = net - 1;
END;

-- A person sends a rejected change again, or what is open is removed: nothing but now says when.
CREATE TRIGGER figure_of_reopened_change AFTER UPDATE OF settled_at ON changes
  WHEN OLD.settled_at IS NOT NULL AND NEW.settled_at IS NULL BEGIN
  INSERT INTO figures (quarter, net) VALUES
    (strftime('%Y-%m-%dT%H:', 'now')
       || substr('00153045', 1 + strftime('%M', 'now') / 15 * 2, 2), 1)
  ON CONFLICT (quarter) DO UPDATE SET net = net + 1;
END;

CREATE TRIGGER figure_of_removed_change AFTER DELETE ON changes
  WHEN OLD.settled_at IS NULL BEGIN
  INSERT INTO figures (quarter, net) VALUES
    (strftime('%Y-%m-%dT%H:', 'now')
       || substr('00153045', 1 + strftime('%M', 'now') / 15 * 2, 2), -1)
  ON CONFLICT (quarter) DO UPDATE SET net = net - 1;
END;

-- By number, not by age: a clock that jumps must not empty the table. More than a week of a till
-- that never rests.
CREATE TRIGGER drop_old_figures AFTER INSERT ON figures BEGIN
  DELETE FROM figures WHERE quarter <> '' AND quarter <=
    (SELECT quarter FROM figures ORDER BY quarter DESC LIMIT 1 OFFSET 800);
END;

CREATE TRIGGER keep_what_is_open AFTER DELETE ON figures BEGIN
  UPDATE figures SET net = net + OLD.net WHERE quarter = '';
END;

-- The last errors are found without reading the successes between them.
CREATE INDEX attempts_failed ON attempts (number) WHERE outcome <> 'delivered';
