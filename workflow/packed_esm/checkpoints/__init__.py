"""Checkpoints: where they are, their files, downloads, and the readers of their tensors.

It knows checkpoint files, but no packs.
May import: errors, families, outputs, sequences, system, torch.
"""
