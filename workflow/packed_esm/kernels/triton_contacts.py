"""Contacts of fair-esm's head as Triton kernels: no attention map is ever in memory.

The head (Rao et al. 2021; esm/modules.py, `ContactPredictionHead`) is a logistic regression over the maps of all heads,
P without cls and eos, each made symmetric and corrected for the average product of its row sums:
A = P + P^T, r = sums of the rows of A, s = sum of r; sum over heads of w (A - r r^T / s).

The sum of w A is added up layer by layer, a tile of pairs at a time, in registers over the heads of a layer; P is
computed again from q, k and the logarithm of its denominator. The sum of w r r^T / s has the rank of the number of
heads, so it is one product at the end. Maps are symmetric: half of the tiles are computed.

All tiles start where a sequence starts, so the result depends only on the sequence.
"""

import numpy as np
import torch
import triton
import triton.language as tl

from .device import on_device
from .triton_attention import LOG2_E, QUERIES, query_tiles

TILE = 64  # residues
HEADS = 32  # of all layers, in one step of the last product


def _numbered(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (owner, number) of things of which each owner has some: 0 0, 0 1, 1 0, 1 1, 1 2 for counts 2, 3."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def pair_tiles(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Return the tiles on and above the diagonals of the maps of a pack, int64 [tiles, 6].

    A row: sequence, place of its map in the memory of all maps, token of its first residue, number of its residues,
    first row and first column of the tile, in residues.

    Args:
        cu_seqlens: int32 [n + 1] on the host.
    """
    bounds = cu_seqlens.numpy().astype(np.int64)
    residues = np.maximum(np.diff(bounds) - 2, 0)
    places = np.cumsum(residues**2) - residues**2
    sequence, row = _numbered(-(-residues // TILE))
    owner, step = _numbered(-(-residues // TILE)[sequence] - row)
    sequence, row = sequence[owner], row[owner]
    columns = [sequence, places[sequence], bounds[sequence] + 1, residues[sequence], row * TILE, (row + step) * TILE]
    return torch.from_numpy(np.stack(columns, axis=1))


class TritonContacts:
    """The sums of the regression for all sequences of a pack.

    Args:
        weights: fp32 [layers, H] on the device.
        bias: fp32 [1] on the device.
        cu_seqlens: int32 [n + 1] on the host.
    """

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, cu_seqlens: torch.Tensor) -> None:
        device, (layers, heads) = weights.device, weights.shape
        self._weights, self._bias = weights, bias
        self._residues = (cu_seqlens.diff() - 2).clamp(min=0).tolist()
        self._bounds = on_device(cu_seqlens, device)
        self._queries = on_device(query_tiles(cu_seqlens), device)
        self._pairs = on_device(pair_tiles(cu_seqlens), device)
        self._row_sums = torch.empty(layers, heads, int(cu_seqlens[-1]), device=device)
        self._sums = torch.zeros(sum(n * n for n in self._residues), device=device)

    def add(self, q: torch.Tensor, k: torch.Tensor, layer: int) -> None:
        """Add the maps of a layer, counted from 0; q, k: fp16 or bf16 [total, H, D], H and D contiguous."""
        total, heads, head_dim = q.shape
        logs = torch.empty(heads, total, device=q.device)
        shape = (q.stride(0), k.stride(0), head_dim**-0.5 * LOG2_E, total)
        sizes = (head_dim, max(16, triton.next_power_of_2(head_dim)))
        queries, rows = (len(self._queries), heads), self._row_sums[layer]
        _row_sums[queries](q, k, logs, rows, self._queries, *shape, *sizes, QUERIES, num_warps=4)
        _column_sums[queries](q, k, logs, rows, self._queries, *shape, *sizes, QUERIES, num_warps=4)
        if len(self._pairs):
            _add_maps[(len(self._pairs),)](
                q, k, logs, self._weights[layer], self._sums, self._pairs, *shape, heads, *sizes, TILE,
                num_warps=4, num_stages=3 if head_dim <= 64 else 2,  # more do not fit into GPUs of 100 KB
            )  # fmt: skip

    def contacts(self) -> list[torch.Tensor]:
        """Return the probability of a contact for each pair of residues, fp32 [L, L] for each sequence."""
        if len(self._pairs):
            heads, total = self._weights.numel(), self._row_sums.shape[-1]
            shares = torch.empty(heads, len(self._residues), device=self._sums.device)
            _shares[(len(self._residues), heads)](
                self._row_sums, self._weights, self._bounds, shares, total, 1024, num_warps=4
            )
            _finish[(len(self._pairs),)](
                self._sums, self._row_sums, shares, self._bias, self._pairs, heads, total, len(self._residues),
                TILE, HEADS, num_warps=4,
            )  # fmt: skip
        maps = self._sums.split([n * n for n in self._residues])
        return [one.view(n, n) for one, n in zip(maps, self._residues, strict=True)]


@triton.jit
def _rows(ptr, start, row, length, stride, head, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Load rows of q or k of a head, [rows, WIDTH]; zeros outside the sequence."""
    column = tl.arange(0, WIDTH)
    mask = (row < length)[:, None] & (column < HEAD_DIM)[None, :]
    return tl.load(ptr + (start + row)[:, None] * stride + head * HEAD_DIM + column[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["total"])
def _row_sums(
    q_ptr,
    k_ptr,
    logs_ptr,
    rows_ptr,
    tiles_ptr,
    q_stride,
    k_stride,
    scale,
    total,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Of each token: the logarithm to base 2 of its softmax denominator, and the sum of its row without cls and eos."""
    tile, head = tl.program_id(0), tl.program_id(1)
    start = tl.load(tiles_ptr + 3 * tile).to(tl.int64)
    length = tl.load(tiles_ptr + 3 * tile + 1)
    query = tl.load(tiles_ptr + 3 * tile + 2) + tl.arange(0, TOKENS)
    q = _rows(q_ptr, start, query, length, q_stride, head, HEAD_DIM, WIDTH)
    highest = tl.full((TOKENS,), -float("inf"), tl.float32)
    whole = tl.zeros((TOKENS,), tl.float32)
    inner = tl.zeros((TOKENS,), tl.float32)
    for first in tl.range(0, length, TOKENS):
        key = first + tl.arange(0, TOKENS)
        k = _rows(k_ptr, start, key, length, k_stride, head, HEAD_DIM, WIDTH)
        scores = tl.where((key < length)[None, :], tl.dot(q, k.T) * scale, -float("inf"))
        new = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2(scores - new[:, None])
        correction = tl.exp2(highest - new)
        is_residue = (key > 0) & (key < length - 1)
        whole = whole * correction + tl.sum(shares, 1)
        inner = inner * correction + tl.sum(tl.where(is_residue[None, :], shares, 0.0), 1)
        highest = new
    place = head.to(tl.int64) * total + start + query
    tl.store(logs_ptr + place, highest + tl.log2(whole), mask=query < length)
    tl.store(rows_ptr + place, inner / whole, mask=query < length)


@triton.jit(do_not_specialize=["total"])
def _column_sums(
    q_ptr,
    k_ptr,
    logs_ptr,
    rows_ptr,
    tiles_ptr,
    q_stride,
    k_stride,
    scale,
    total,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Add to the sum of each row of P the sum of the column, both without cls and eos: the row sum of P + P^T."""
    tile, head = tl.program_id(0), tl.program_id(1)
    start = tl.load(tiles_ptr + 3 * tile).to(tl.int64)
    length = tl.load(tiles_ptr + 3 * tile + 1)
    key = tl.load(tiles_ptr + 3 * tile + 2) + tl.arange(0, TOKENS)
    k = _rows(k_ptr, start, key, length, k_stride, head, HEAD_DIM, WIDTH)
    base = head.to(tl.int64) * total + start
    sums = tl.zeros((TOKENS,), tl.float32)
    for first in tl.range(0, length, TOKENS):
        query = first + tl.arange(0, TOKENS)
        q = _rows(q_ptr, start, query, length, q_stride, head, HEAD_DIM, WIDTH)
        logs = tl.load(logs_ptr + base + query, mask=query < length, other=0.0)
        shares = tl.exp2(tl.dot(k, q.T) * scale - logs[None, :])
        is_residue = (query > 0) & (query < length - 1)
        sums += tl.sum(tl.where(is_residue[None, :], shares, 0.0), 1)
    mask = key < length
    rows = tl.load(rows_ptr + base + key, mask=mask, other=0.0)
    tl.store(rows_ptr + base + key, rows + sums, mask=mask)


@triton.jit
def _pair(pairs_ptr, TILE: tl.constexpr):
    """Return (sequence, place of its map, token of its first residue, residues, rows, columns) of a tile."""
    ptr = pairs_ptr + 6 * tl.program_id(0)
    row = tl.load(ptr + 4) + tl.arange(0, TILE)
    column = tl.load(ptr + 5) + tl.arange(0, TILE)
    return tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2), tl.load(ptr + 3), row, column


@triton.jit(do_not_specialize=["total"])
def _add_maps(
    q_ptr,
    k_ptr,
    logs_ptr,
    weights_ptr,
    sums_ptr,
    pairs_ptr,
    q_stride,
    k_stride,
    scale,
    total,
    heads,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Add the sum over the heads of w (P + P^T), of a tile of pairs."""
    _, place, start, residues, row, column = _pair(pairs_ptr, TILE)
    mask = (row < residues)[:, None] & (column < residues)[None, :]
    place += row[:, None] * residues + column[None, :]
    sums = tl.load(sums_ptr + place, mask=mask, other=0.0)
    for head in tl.range(0, heads):
        logs = logs_ptr + head * total + start
        q = _rows(q_ptr, start, row, residues, q_stride, head, HEAD_DIM, WIDTH)
        k = _rows(k_ptr, start, column, residues, k_stride, head, HEAD_DIM, WIDTH)
        shares = tl.exp2(tl.dot(q, k.T) * scale - tl.load(logs + row, mask=row < residues, other=0.0)[:, None])
        k = _rows(k_ptr, start, row, residues, k_stride, head, HEAD_DIM, WIDTH)
        q = _rows(q_ptr, start, column, residues, q_stride, head, HEAD_DIM, WIDTH)
        shares += tl.exp2(tl.dot(k, q.T) * scale - tl.load(logs + column, mask=column < residues, other=0.0)[None, :])
        sums += tl.load(weights_ptr + head) * shares
    tl.store(sums_ptr + place, sums, mask=mask)


@triton.jit(do_not_specialize=["total"])
def _shares(rows_ptr, weights_ptr, bounds_ptr, shares_ptr, total, TOKENS: tl.constexpr):
    """Of each head and sequence: w / s, with s the sum of the row sums."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    start = tl.load(bounds_ptr + sequence).to(tl.int64)
    end = tl.load(bounds_ptr + sequence + 1).to(tl.int64)
    sums = tl.zeros((TOKENS,), tl.float32)
    for first in tl.range(start + 1, end - 1, TOKENS):
        token = first + tl.arange(0, TOKENS)
        sums += tl.load(rows_ptr + head.to(tl.int64) * total + token, mask=token < end - 1, other=0.0)
    total_sum = tl.where(end - start > 2, tl.sum(sums, 0), 1.0)
    tl.store(shares_ptr + head * tl.num_programs(0) + sequence, tl.load(weights_ptr + head) / total_sum)


@triton.jit(do_not_specialize=["total", "sequences"])
def _finish(
    sums_ptr,
    rows_ptr,
    shares_ptr,
    bias_ptr,
    pairs_ptr,
    heads,
    total,
    sequences,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Subtract the sum over all heads of w r r^T / s, add the bias, apply the sigmoid, and mirror the tile."""
    sequence, place, start, residues, row, column = _pair(pairs_ptr, TILE)
    mask = (row < residues)[:, None] & (column < residues)[None, :]
    product = tl.zeros((TILE, TILE), tl.float32)
    for first in tl.range(0, heads, HEADS):
        head = first + tl.arange(0, HEADS)
        inside = head < heads
        shares = tl.load(shares_ptr + head * sequences + sequence, mask=inside, other=0.0)
        tokens = rows_ptr + head.to(tl.int64) * total + start
        left = tl.load(tokens[None, :] + row[:, None], mask=(row < residues)[:, None] & inside[None, :], other=0.0)
        right = tl.load(
            tokens[:, None] + column[None, :], mask=inside[:, None] & (column < residues)[None, :], other=0.0
        )
        product = tl.dot(left * shares[None, :], right, product, input_precision="ieee")
    ptr = sums_ptr + place
    sums = tl.load(ptr + row[:, None] * residues + column[None, :], mask=mask, other=0.0)
    contacts = 1 / (1 + tl.exp(product - sums - tl.load(bias_ptr)))
    # Each pair has one value, also in a tile on the diagonal: that of i < j.
    upper = mask & (row[:, None] <= column[None, :])
    tl.store(ptr + row[:, None] * residues + column[None, :], contacts, mask=upper)
    tl.store(ptr + column[None, :] * residues + row[:, None], contacts, mask=upper)
