"""Published models: their names, shapes, files and downloads, and loading them into fair-esm's classes.

Knows checkpoint files, and nothing of packs.
May import: errors, outputs, sequences, system, torch.
"""
