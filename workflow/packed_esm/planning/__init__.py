"""What the rules ask before anything runs: configuration, sample sheet, number of chunks, memory and time.

Reads no FASTA and no checkpoint.
May import: checkpoints, embedding, errors, options, sequences, system, validation.
"""
