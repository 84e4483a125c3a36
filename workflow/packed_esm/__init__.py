"""Packed ESM-2 embeddings, equal to fair-esm.

    from packed_esm import Embedder, EmbedOptions

Importing this package loads no torch: a name of the API is imported from its module when it is first asked for.
"""

import importlib

__version__ = "0.3.0"

_API = {
    "ESM2WithFlashAttention": "model.esm2",
    "EmbedOptions": "embedding.embedder",
    "Embedder": "embedding.embedder",
    "FLASH_ATTN_AVAILABLE": "model.attention",
    "create_position_ids_packed": "model.attention",
    "flash_attn_varlen_wrapper": "model.attention",
    "load_esm2": "checkpoints.loading",
    "load_model": "checkpoints.loading",
}
__all__ = sorted(_API)


def __getattr__(name: str) -> object:
    if name in _API:
        return getattr(importlib.import_module(f".{_API[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
