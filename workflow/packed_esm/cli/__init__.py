"""The command `packed-esm`: it calls Snakemake with the workflow, and says what is here.

May import: checkpoints, embedding, errors, families, model, planning, system.
"""
