"""What can be computed of a protein: one table, and how far each output may be from fair-esm's.

Knows names, arrays and formulas, and no model and no file. Formulas for tensors use methods of the tensor alone.
May import: errors.
"""
