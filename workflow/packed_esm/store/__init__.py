"""Files of embeddings: of chunks and of samples, merged, checked and exported.

Knows arrays, digests and settings, and no tensor.
May import: errors, outputs, sequences, system.
"""
