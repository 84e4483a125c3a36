"""Models over packed sequences: attention, layers, contacts, the padded fallback, and a folder for each family.

What is outside `families` knows the tensors of a pack and the parts of a model, but no family and no file.
May import: checkpoints, errors, families, kernels, outputs, sequences, system, torch.
"""
