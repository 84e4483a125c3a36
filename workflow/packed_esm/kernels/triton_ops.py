"""Triton kernels for the operations between matrix products: each reads and writes its rows once and computes in fp32.

The order of every sum depends only on the width of a row, or on the length of a sequence.
"""

import torch
import triton
import triton.language as tl
from torch import nn

from .device import on_device
from .torch_ops import gelu_product

__all__ = [
    "NAME",
    "POOLED",
    "add_norm",
    "gelu_product",
    "normed_qkv_product",
    "pool",
    "qkv_product",
    "quantise",
    "rotate",
    "swiglu_product",
]

NAME = "triton"  # of these operations in the settings, together with the version of Triton
POOLED = ("mean", "bos", "max", "eos", "std")  # the poolings that `pool` computes, in its order
ROTATE_BLOCK = 1024
SWIGLU_BLOCK = 1024
NORM_BLOCK = 4096
POOL_ROWS, POOL_COLUMNS = 64, 64


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `torch_ops.add_norm`."""
    rows, width = x.shape
    total = x if delta is None else torch.empty_like(x)
    normed = torch.empty_like(x, dtype=dtype)
    columns = triton.next_power_of_2(width)
    at_once = max(1, NORM_BLOCK // columns)
    _add_norm[(triton.cdiv(rows, at_once),)](
        x,
        x if delta is None else delta,
        norm.weight,
        norm.bias,
        total,
        normed,
        rows,
        norm.eps,
        width,
        columns,
        at_once,
        delta is not None,
        num_warps=4,
    )
    return total, normed


def qkv_product(
    x: torch.Tensor, linear: nn.Linear, heads: int, rotation: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """See `torch_ops.qkv_product`."""
    qkv = linear(x).view(len(x), 3, heads, -1)
    return qkv.unbind(1) if rotation is None else rotate(qkv, rotation)


def rotate(qkv: torch.Tensor, rotation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """See `torch_ops.rotate`; q and k are rotated in place."""
    rows, _, heads, head_dim = qkv.shape
    pairs = heads * head_dim  # in q and k together
    grid = (rows, triton.cdiv(pairs, ROTATE_BLOCK))
    _rotate[grid](qkv, torch.view_as_real(rotation), pairs, head_dim // 2, ROTATE_BLOCK, num_warps=4)
    return qkv.unbind(1)


def normed_qkv_product(
    x: torch.Tensor, linear: nn.Linear, heads: int, rotation: torch.Tensor, gains: torch.Tensor, eps: float
) -> tuple[torch.Tensor, ...]:
    """See `torch_ops.normed_qkv_product`."""
    return norm_and_rotate(linear(x).view(len(x), 3, heads, -1), rotation, gains, eps)


def norm_and_rotate(
    qkv: torch.Tensor, rotation: torch.Tensor, gains: torch.Tensor, eps: float
) -> tuple[torch.Tensor, ...]:
    """Return q, k, v, the first two with a layer norm and rotated, in place; see `torch_ops.normed_qkv_product`."""
    rows, _, heads, head_dim = qkv.shape
    width = heads * head_dim
    pairs = triton.next_power_of_2(width // 2)
    turns = torch.view_as_real(rotation)
    warps = 1 if pairs <= 1024 else 4  # one is 9 to 14 % faster on an H200 for widths of 960 and 1152
    _norm_and_rotate[(rows, 2)](qkv, turns, gains, eps, width, head_dim // 2, pairs, num_warps=warps)
    return qkv.unbind(1)


def swiglu_product(x: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """See `torch_ops.swiglu_product`."""
    return swiglu(linear(x))


def swiglu(gates_and_ups: torch.Tensor) -> torch.Tensor:
    """Return SiLU(g) u of rows (g, u); see `torch_ops.swiglu_product`."""
    rows, width = len(gates_and_ups), gates_and_ups.shape[1] // 2
    out = torch.empty(rows, width, device=gates_and_ups.device, dtype=gates_and_ups.dtype)
    _swiglu[(rows, triton.cdiv(width, SWIGLU_BLOCK))](gates_and_ups, out, width, SWIGLU_BLOCK, num_warps=4)
    return out


def quantise(x: torch.Tensor, factor: torch.Tensor, least: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """See `int8.quantise`; the scale is [rows]."""
    rows, width = x.shape
    quantised = torch.empty_like(x, dtype=torch.int8)
    scale = torch.empty(rows, device=x.device)
    columns = triton.next_power_of_2(width)
    at_once = max(1, NORM_BLOCK // columns)
    _quantise[(triton.cdiv(rows, at_once),)](
        x,
        factor,
        quantised,
        scale,
        rows,
        least or 0.0,
        width,
        columns,
        at_once,
        least is not None,
        num_warps=4 if columns <= 4096 else 8,
    )
    return quantised, scale


def pool(representation: torch.Tensor, cu_seqlens: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result of `pooling.pool_packed` for all of POOLED, in their order."""
    width = representation.shape[1]
    pooled = torch.empty(len(POOLED), count, width, device=representation.device)
    blocks = triton.cdiv(width, POOL_COLUMNS)
    nonfinite = torch.empty(count, blocks, device=representation.device, dtype=torch.bool)
    _pool[(count, blocks)](
        representation,
        on_device(cu_seqlens, representation.device),
        pooled,
        nonfinite,
        count * width,
        width,
        POOL_ROWS,
        POOL_COLUMNS,
        num_warps=4,
    )
    return pooled, nonfinite.any(1)


@triton.jit(do_not_specialize=["rows"])  # one kernel for all shapes of packs
def _add_norm(
    x_ptr,
    delta_ptr,
    weight_ptr,
    bias_ptr,
    total_ptr,
    normed_ptr,
    rows,
    eps,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    ADD: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = column < WIDTH
    mask = (row < rows)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    x = tl.load(x_ptr + place, mask=mask, other=0.0)
    if ADD:
        x += tl.load(delta_ptr + place, mask=mask, other=0.0).to(tl.float32)
        tl.store(total_ptr + place, x, mask=mask)
    mean = tl.sum(x, 1) / WIDTH
    centred = tl.where(mask, x - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + eps)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)
    normed = centred * scale[:, None] * weight[None, :] + bias[None, :]
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _quantise(
    x_ptr,
    factor_ptr,
    quantised_ptr,
    scale_ptr,
    rows,
    least,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    FROM_LEAST: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    factor = tl.load(factor_ptr + column, mask=column < WIDTH, other=0.0)
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    if FROM_LEAST:
        x = (x - least) * factor[None, :]
        steps, below = 255, 128
    else:
        x *= factor[None, :]
        steps, below = 127, 0
    # A value that is not finite must not be lost: the largest of a row would leave out nan.
    size = tl.where(tl.abs(x) < float("inf"), tl.abs(x), float("inf"))
    scale = tl.maximum(tl.max(size, 1), 1e-12) / steps
    tl.store(scale_ptr + row, scale, mask=row < rows)
    quantised = tl.floor(x / scale[:, None] + 0.5) - below
    tl.store(quantised_ptr + place, quantised.to(tl.int8), mask=mask)


@triton.jit
def _rotate(qkv_ptr, rotation_ptr, pairs, HALF: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = (pair < pairs)[:, None]
    member = tl.arange(0, 2)[None, :]
    place = row * 3 * pairs + 2 * pair[:, None] + member
    first, second = tl.split(tl.load(qkv_ptr + place, mask=mask).to(tl.float32))
    cos, sin = tl.split(tl.load(rotation_ptr + row * 2 * HALF + 2 * (pair % HALF)[:, None] + member, mask=mask))
    rotated = tl.join(first * cos - second * sin, second * cos + first * sin)
    tl.store(qkv_ptr + place, rotated.to(qkv_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _norm_and_rotate(
    qkv_ptr, rotation_ptr, gains_ptr, eps, WIDTH: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr
):
    """Each program: q or k of a row. The two members of a pair are beside each other."""
    row, which = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pair, member = tl.arange(0, PAIRS)[:, None], tl.arange(0, 2)[None, :]
    column = 2 * pair + member
    mask = column < WIDTH
    place = row * 3 * WIDTH + which * WIDTH + column
    x = tl.load(qkv_ptr + place, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(tl.sum(x, 1), 0) / WIDTH
    centred = tl.where(mask, x - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(tl.sum(centred * centred, 1), 0) / WIDTH + eps)
    gain = tl.load(gains_ptr + which * WIDTH + column, mask=mask, other=0.0)
    normed = centred * scale * gain
    first, second = tl.split(normed.to(qkv_ptr.dtype.element_ty).to(tl.float32))
    turns = row * 2 * HALF + 2 * (pair % HALF) + member
    cos, sin = tl.split(tl.load(rotation_ptr + turns, mask=mask, other=0.0))
    rotated = tl.join(first * cos - second * sin, second * cos + first * sin)
    tl.store(qkv_ptr + place, rotated.to(qkv_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _swiglu(x_ptr, out_ptr, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    gate = tl.load(x_ptr + row * 2 * width + column, mask=mask).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * width + width + column, mask=mask).to(tl.float32)
    out = gate / (1 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * width + column, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["stride"])
def _pool(
    x_ptr,
    cu_seqlens_ptr,
    pooled_ptr,
    nonfinite_ptr,
    stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sequence = tl.program_id(0)
    start = tl.load(cu_seqlens_ptr + sequence).to(tl.int64)
    end = tl.load(cu_seqlens_ptr + sequence + 1).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < WIDTH
    total = tl.zeros((COLUMNS,), tl.float32)
    highest = tl.full((COLUMNS,), -float("inf"), tl.float32)
    for first in range(start + 1, end - 1, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end - 1)[:, None] & inside[None, :]
        place = row[:, None] * WIDTH + column[None, :]
        x = tl.load(x_ptr + place, mask=mask, other=0.0)
        total += tl.sum(x, 0)
        highest = tl.maximum(highest, tl.max(tl.where(mask, x, -float("inf")), 0))
    bos = tl.load(x_ptr + start * WIDTH + column, mask=inside, other=0.0)
    eos = tl.load(x_ptr + (end - 1) * WIDTH + column, mask=inside, other=0.0)
    out_ptr = pooled_ptr + sequence.to(tl.int64) * WIDTH + column
    mean = total / (end - start - 2).to(tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for first in range(start + 1, end - 1, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end - 1)[:, None] & inside[None, :]
        x = tl.load(x_ptr + row[:, None] * WIDTH + column[None, :], mask=mask, other=0.0)
        centred = tl.where(mask, x - mean[None, :], 0.0)
        squares += tl.sum(centred * centred, 0)
    tl.store(out_ptr, mean, mask=inside)
    tl.store(out_ptr + stride, bos, mask=inside)
    tl.store(out_ptr + 2 * stride, highest, mask=inside)
    tl.store(out_ptr + 3 * stride, eos, mask=inside)
    tl.store(out_ptr + 4 * stride, tl.sqrt(squares / (end - start - 2).to(tl.float32)), mask=inside)
    finite = tl.abs(total + bos + eos) < float("inf")
    nonfinite = tl.max((~finite & inside).to(tl.int32), 0)
    tl.store(nonfinite_ptr + sequence * tl.num_programs(1) + tl.program_id(1), nonfinite.to(tl.int1))
