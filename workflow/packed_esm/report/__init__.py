"""The page of a run and its figures.

It knows the files of a run, and no model.
May import: errors, sequences, store, system.
"""
