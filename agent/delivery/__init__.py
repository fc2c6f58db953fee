"""How a promise is kept: what was journaled reaches Engage, by the API or as a file."""
