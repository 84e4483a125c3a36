"""From FASTA to chunks: records, ids, translation, windows, tokens and the manifest.

Works on letters and records; independent of models.
May import: errors, options, system.
"""
