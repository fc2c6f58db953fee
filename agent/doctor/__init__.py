"""Examines a till: settings, disk, journal, line, Engage, SFTP server and service, a row each.

Works with a running agent and without one. Changes nothing but small temporary files, which it
removes; never opens the journal for writing.
"""
