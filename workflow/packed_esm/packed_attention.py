"""The name under which other code imports the attention of packed sequences; it stands in `model.attention`."""

from .model import attention
from .model.attention import create_position_ids_packed, flash_attn_varlen_wrapper

__all__ = ["create_position_ids_packed", "flash_attn_varlen_wrapper"]  # and FLASH_ATTN_AVAILABLE


def __getattr__(name: str) -> bool:
    if name == "FLASH_ATTN_AVAILABLE":  # importing flash-attn takes seconds, so only when asked for
        return attention.FLASH_ATTN_AVAILABLE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
