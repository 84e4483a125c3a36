"""Files, sheets, progress, GPU leases and versions.

It knows the operating system, but no proteins and no models.
May import: errors.
"""
