"""Stub."""

TITLE = "safety"
ROWS = []
