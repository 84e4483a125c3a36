"""What the rules ask before anything runs: configuration, inputs, files of results, stages, memory and time.

Reads no FASTA, and of a checkpoint no more than names. Knows nothing of Snakemake.
May import: checkpoints, embedding, errors, options, outputs, report, sequences, store, system, validation.
"""
