"""The file route: folding, XML, spool, SFTP."""
