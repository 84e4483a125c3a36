"""Stub."""

TITLE = "moments"
ROWS = []
