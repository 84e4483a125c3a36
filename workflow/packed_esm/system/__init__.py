"""Files, sheets, progress, GPU leases and versions.

Works with the operating system; independent of proteins and models.
May import: errors.
"""
