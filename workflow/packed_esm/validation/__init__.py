"""Compare what is stored with fair-esm, one unpadded sequence at a time.

Its reference imports nothing of `checkpoints`, `model`, `kernels`, `embedding` and `sequences`.
May import: embedding, errors, outputs, sequences, store, system, torch.
"""
