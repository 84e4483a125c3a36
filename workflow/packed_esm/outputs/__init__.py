"""The outputs for a protein: one table, and the tolerance of each output for differences from fair-esm.

It knows names, arrays and formulas, but no model and no file. Formulas for tensors use only methods of the tensor.
May import: errors, families.
"""
