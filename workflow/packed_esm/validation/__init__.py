"""Compare stored embeddings with fair-esm, one unpadded sequence at a time.

The reference imports nothing from `checkpoints`, `model`, `kernels`, `embedding` or `sequences`.
May import: checkpoints, embedding, errors, families, options, outputs, sequences, store, system, torch.
"""
