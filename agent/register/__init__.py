"""Engage's member export, read from its SFTP server so that a till knows members without a line."""
