"""Compare what is stored with fair-esm, one unpadded sequence at a time.

Its reference imports nothing of `model` and `kernels`.
Imports: torch, checkpoints, embedding, sequences, store, system.
"""
