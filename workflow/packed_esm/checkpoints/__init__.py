"""Published models (names, shapes, files, downloads), and loading checkpoints into the classes of fair-esm.

It knows checkpoint files, but no packs.
May import: errors, outputs, sequences, system, torch.
"""
