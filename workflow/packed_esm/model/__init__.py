"""ESM-2 over packed sequences: attention backends, blocks, contacts, and the padded fallback.

Knows tensors of a pack and fair-esm's modules, and no file.
May import: checkpoints, errors, kernels, outputs, torch.
"""
