"""The operations of `triton_ops` for Hopper GPUs, where two products do the operation that follows them."""

import torch
from torch import nn

from . import triton_ops
from .gluon_product import product
from .triton_ops import add_norm, normed_qkv_product, pool

__all__ = ["NAME", "add_norm", "gelu_product", "normed_qkv_product", "pool", "qkv_product", "swiglu_product"]

NAME = "gluon"  # of these operations in the settings, together with the version of Triton


def qkv_product(
    x: torch.Tensor, linear: nn.Linear, heads: int, rotation: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """See `torch_ops.qkv_product`."""
    if rotation is None:
        return triton_ops.qkv_product(x, linear, heads, rotation)
    return product(x, linear.weight, linear.bias, "rotate", rotation).view(len(x), 3, heads, -1).unbind(1)


def gelu_product(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """See `torch_ops.gelu_product`."""
    return product(x, linear.weight, linear.bias, "gelu")


def swiglu_product(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """See `torch_ops.swiglu_product`."""
    return product(x, linear.weight, None, "swiglu")
