-- Where a batch's file was put: login, server and folder as one text, as delivery/batch/sftp.py makes
-- it. A file that is missing from another place was not imported.

ALTER TABLE batches ADD COLUMN place TEXT;
