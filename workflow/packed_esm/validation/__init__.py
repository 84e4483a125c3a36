"""Compare what is stored with fair-esm, one unpadded sequence at a time.

Its reference imports nothing of `model` and `kernels`.
May import: checkpoints, embedding, errors, sequences, store, system, torch.
"""
