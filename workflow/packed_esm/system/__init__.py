"""Files, sheets, progress, GPU leases and versions: what any program of this kind needs.

Knows the operating system, and nothing of proteins or models.
May import: errors.
"""
