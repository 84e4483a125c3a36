"""Packed ESM-2 embeddings, equal to fair-esm. Importing this package loads no torch."""

__version__ = "0.3.0"
