-- The attribute that key_value stands in: a file is made again as it was, whatever engage.contact_key
-- says by then. Of what was sealed before, the key itself tells; else the settings do (NULL).

ALTER TABLE batch_contacts ADD COLUMN key_name TEXT;

UPDATE batch_contacts SET key_name =
  (SELECT iif(count(*) = 1, min(name), NULL) FROM keys
    WHERE keys.lane = batch_contacts.lane AND keys.value = batch_contacts.key_value)
 WHERE key_value IS NOT NULL;
