"""From tokens to embeddings: packing, the embedder, long proteins, reuse, and one embed job.

It knows the model and the files of results.
May import: checkpoints, errors, families, kernels, model, options, outputs, sequences, store, system, torch.
"""
