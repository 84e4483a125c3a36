"""Scores of variants: read a table of mutations, find their proteins, and score them.

It knows tables, sequences and the embedder, and no tensor.
May import: embedding, errors, options, outputs, sequences, system.
"""
