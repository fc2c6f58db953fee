"""Till-agent: takes customer changes at a shop till and delivers them to Voyado Engage."""

__version__ = "0.1.0"
