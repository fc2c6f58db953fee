"""The API route: Engage's HTTP interface, version 3."""
