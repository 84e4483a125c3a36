"""From tokens to embeddings: packing, the embedder, long proteins, reuse, and the work of one embed job.

Knows the model and the files that it fills.
May import: checkpoints, errors, kernels, model, outputs, sequences, store, system, torch.
"""
