"""The operations of a block in torch; `triton_ops` and `gluon_ops` have the same operations with GPU kernels."""

import torch
import torch.nn.functional as F
from torch import nn

NAME = "torch"  # of these operations in the settings
UNCUT_NUMBERS = 2**14  # half of ATen's GRAIN_SIZE: up to this size torch uses one thread


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x + delta, its layer norm in `dtype`); x: fp32 [rows, E]; delta: [rows, E], or None for zero."""
    if delta is not None:
        x = x + delta
    return x, norm(x).to(dtype)


def qkv_product(
    x: torch.Tensor, linear: nn.Linear, heads: int, rotation: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """Return q, k, v, [rows, H, D] each, of normed rows [rows, E]; q and k rotated, unless `rotation` is None."""
    qkv = linear(x).view(len(x), 3, heads, -1)
    return qkv.unbind(1) if rotation is None else rotate(qkv, rotation)


def normed_qkv_product(
    x: torch.Tensor, linear: nn.Linear, heads: int, rotation: torch.Tensor, gains: torch.Tensor, eps: float
) -> tuple[torch.Tensor, ...]:
    """Return q, k, v as `qkv_product` does, but q and k have a layer norm over all heads before they are rotated.

    Args:
        gains: fp32 [2, H D], the weights of the norms of q and of k, which have no bias.
        eps: of both norms.
    """
    qkv = linear(x).view(len(x), 3, -1)
    normed = F.layer_norm(qkv[:, :2].float(), gains.shape[1:], eps=eps) * gains
    return rotate(torch.cat((normed.to(qkv.dtype), qkv[:, 2:]), 1).unflatten(-1, (heads, -1)), rotation)


def swiglu_product(x: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """Return SiLU(g) u, [rows, out / 2]; g and u are the first and second half of x W^T (SwiGLU, Shazeer 2020)."""
    both = linear(x)
    rows = _rows_at_once(both, both.shape[-1] // 2)
    return torch.cat([F.silu(gate) * up for gate, up in (part.chunk(2, -1) for part in both.split(rows))])


def gelu_product(x: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """Return GELU(x W^T + b), exact as in esm/modules.py; x: [rows, in]."""
    return F.gelu(linear(x))


def rotate(qkv: torch.Tensor, rotation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return q, k, v, [rows, H, D] each, with q and k rotated by their angles (esm/rotary_embedding.py).

    Args:
        qkv: [rows, 3, H, D]; may be overwritten. The two values that rotate together are neighbours and form one
            complex number: `model.parts.pairs_together` puts the rows of the weights in this order.
        rotation: complex64 [rows, D / 2], exp(i angle). The products are fp32, whatever the dtype of qkv.
    """
    q, k, v = qkv.unbind(1)
    pairs = qkv[:, :2].float().unflatten(-1, (-1, 2))
    complex_pairs = torch.view_as_complex(pairs)
    rows = _rows_at_once(qkv, complex_pairs[0].numel())
    for part, angles in zip(complex_pairs.split(rows), rotation.split(rows), strict=True):
        part.mul_(angles[:, None, None])
    if qkv.dtype != torch.float32:
        q, k = torch.view_as_real(complex_pairs).flatten(-2).to(qkv.dtype).unbind(1)
    return q, k, v


def _rows_at_once(x: torch.Tensor, width: int) -> int:
    """Return how many rows of `width` numbers are computed together.

    On a CPU torch splits larger operations among threads at any place, and rounds differently next to such a place.
    """
    return len(x) if x.is_cuda else max(1, UNCUT_NUMBERS // width)
