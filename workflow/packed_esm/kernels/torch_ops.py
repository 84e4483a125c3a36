"""Operations between the matrix products of a block, in torch; `triton_ops` has the same as GPU kernels."""

import torch
from torch import nn

NAME = "torch"  # what the settings call these operations
UNCUT_NUMBERS = 2**14  # half of ATen's GRAIN_SIZE; below that one thread does all


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x + delta, its layer norm in `dtype`); x: fp32 [rows, E]; delta: [rows, E], or None for zero."""
    if delta is not None:
        x = x + delta
    return x, norm(x).to(dtype)


def rotate(qkv: torch.Tensor, rotation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return q, k, v, [rows, H, D] each, with q and k rotated by their angles (esm/rotary_embedding.py).

    Args:
        qkv: [rows, 3, H, D]; may be overwritten. The two values that rotate together are neighbours and form one
            complex number: `model.block` puts the rows of the weights in this order.
        rotation: complex64 [rows, D / 2], exp(i angle). The products are fp32, whatever the dtype of qkv.
    """
    q, k, v = qkv.unbind(1)
    pairs = qkv[:, :2].float().unflatten(-1, (-1, 2))
    turned = torch.view_as_complex(pairs)
    # On a CPU torch divides larger products among threads at any place, and rounds differently beside such a place.
    rows = len(qkv) if qkv.is_cuda else max(1, UNCUT_NUMBERS // turned[0].numel())
    for part, angles in zip(turned.split(rows), rotation.split(rows), strict=True):
        part.mul_(angles[:, None, None])
    if qkv.dtype != torch.float32:
        q, k = torch.view_as_real(turned).flatten(-2).to(qkv.dtype).unbind(1)
    return q, k, v
