"""Attention over packed sequences as a Triton kernel: exact, with an online softmax (Dao et al. 2022).

One program computes QUERIES rows of one head of one sequence over all keys of that sequence. The tiles start where
the sequence starts, so the result depends only on the sequence. Small tiles suit proteins: with the 128 by 128 tiles of
FlashAttention-2, a third of the work for a sequence of 300 residues is outside the sequence.
"""

import numpy as np
import torch
import triton
import triton.language as tl

QUERIES = 64
LOG2_E = 1.4426950408889634


def query_tiles(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Return (start of sequence, its length, first query) of each tile, int32 [tiles, 3]; cu_seqlens: on the host."""
    bounds = cu_seqlens.numpy()
    lengths = np.diff(bounds)
    tiles = -(-lengths // QUERIES)
    firsts = np.arange(tiles.sum()) - np.repeat(tiles.cumsum() - tiles, tiles)
    table = np.stack([np.repeat(bounds[:-1], tiles), np.repeat(lengths, tiles), firsts * QUERIES], axis=1)
    return torch.from_numpy(table.astype(np.int32))


def triton_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tiles: torch.Tensor, softmax_scale: float | None = None
) -> torch.Tensor:
    """Return attention of a pack, [total, H, D].

    Args:
        q, k, v: fp16 or bf16 [total, H, D], H and D contiguous.
        tiles: `query_tiles` of the pack, on the same device.
        softmax_scale: D ** -0.5 if None.
    """
    total, heads, head_dim = q.shape
    out = torch.empty(total, heads, head_dim, device=q.device, dtype=q.dtype)
    scale = (head_dim**-0.5 if softmax_scale is None else softmax_scale) * LOG2_E
    _attention[(len(tiles) * heads,)](
        q,
        k,
        v,
        out,
        tiles,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        scale,
        heads,
        head_dim,
        max(16, triton.next_power_of_2(head_dim)),
        QUERIES,
        64 if head_dim <= 64 else 32,
        total * max(k.stride(0), v.stride(0)) >= 2**31,
        num_warps=4,
        num_stages=3,
    )
    return out


@triton.jit
def _attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    tiles_ptr,
    q_stride,
    k_stride,
    v_stride,
    scale,
    heads,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    LONG: tl.constexpr,
):
    tile = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    start = tl.load(tiles_ptr + 3 * tile).to(tl.int64)
    length = tl.load(tiles_ptr + 3 * tile + 1)
    query = tl.load(tiles_ptr + 3 * tile + 2) + tl.arange(0, QUERIES)
    column = tl.arange(0, WIDTH)
    inside = column < HEAD_DIM
    query_mask = (query < length)[:, None] & inside[None, :]
    q = tl.load(
        q_ptr + (start + query)[:, None] * q_stride + head * HEAD_DIM + column[None, :], mask=query_mask, other=0.0
    )
    k_ptr += start * k_stride + head * HEAD_DIM
    v_ptr += start * v_stride + head * HEAD_DIM
    highest = tl.full((QUERIES,), -float("inf"), tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, WIDTH), tl.float32)
    whole = length // KEYS * KEYS
    for first in tl.range(0, whole, KEYS):
        key = (first + tl.arange(0, KEYS))[:, None]
        if LONG:
            key = key.to(tl.int64)
        k = tl.load(k_ptr + key * k_stride + column[None, :], mask=inside[None, :], other=0.0)
        v = tl.load(v_ptr + key * v_stride + column[None, :], mask=inside[None, :], other=0.0)
        highest, weight, sums = _online_softmax(tl.dot(q, k.T), v, scale, highest, weight, sums)
    if whole < length:
        key = whole + tl.arange(0, KEYS)
        if LONG:
            key = key.to(tl.int64)
        key_mask = (key < length)[:, None] & inside[None, :]
        k = tl.load(k_ptr + key[:, None] * k_stride + column[None, :], mask=key_mask, other=0.0)
        v = tl.load(v_ptr + key[:, None] * v_stride + column[None, :], mask=key_mask, other=0.0)
        scores = tl.where((key < length)[None, :], tl.dot(q, k.T), -float("inf"))
        highest, weight, sums = _online_softmax(scores, v, scale, highest, weight, sums)
    out = (sums / weight[:, None]).to(out_ptr.dtype.element_ty)
    row = (start + query) * (heads * HEAD_DIM)
    tl.store(out_ptr + row[:, None] + head * HEAD_DIM + column[None, :], out, mask=query_mask)


@triton.jit
def _online_softmax(scores, v, scale, highest, weight, sums):
    new = tl.maximum(highest, tl.max(scores, 1) * scale)
    shares = tl.exp2(scores * scale - new[:, None])
    correction = tl.exp2(highest - new)
    weight = weight * correction + tl.sum(shares, 1)
    sums = tl.dot(shares.to(v.dtype), v, sums * correction[:, None])
    return new, weight, sums
