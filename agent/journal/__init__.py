"""What we have promised: the only folder with SQL."""
