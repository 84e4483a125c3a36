"""ESM C (EvolutionaryScale 2024): its checkpoints, its block over packed sequences, and its reference.

The architecture is that of transformers' `EsmcForMaskedLM`. Its residue tokens are those of ESM-2.
"""
