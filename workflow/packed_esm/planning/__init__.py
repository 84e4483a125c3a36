"""Checks and estimates before a run: configuration, inputs, files of results, stages, memory and time.

Reads no sequences and no weights: of a checkpoint, only names. Independent of Snakemake.
May import: checkpoints, embedding, errors, families, options, outputs, report, sequences, store, system,
validation, variants.
"""
