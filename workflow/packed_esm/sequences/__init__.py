"""From FASTA to chunks: records, ids, translation, windows, tokens and the manifest.

Knows letters and records, and no model.
May import: errors, options, system.
"""
