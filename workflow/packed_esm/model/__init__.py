"""ESM-2 over packed sequences: attention backends, blocks, contacts, and the padded fallback.

It knows the tensors of a pack and fair-esm's modules, but no file.
May import: checkpoints, errors, kernels, outputs, system, torch.
"""
