"""The name under which other code imports `ESM2WithFlashAttention`; it stands in `model.esm2`."""

from .model.esm2 import ESM2WithFlashAttention

__all__ = ["ESM2WithFlashAttention"]
