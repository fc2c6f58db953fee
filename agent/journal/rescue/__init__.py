"""Saves what can be read of a damaged journal into a new one (docs/decisions/0024)."""
