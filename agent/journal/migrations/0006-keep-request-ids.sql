-- The id of the request that made a change: one id to look for, from the POS to the file's name.

ALTER TABLE changes ADD COLUMN request_id TEXT;
