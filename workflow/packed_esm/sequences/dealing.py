"""Assign sequences to chunks of equal work, knowing only how many there are of each length.

Where earlier results have some, these are known sequences, which cost no forward: chunks have either known or new ones,
so that few jobs need a GPU.
"""

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np


def estimated_flops(length: int, embed_dim: int) -> int:
    """Return the estimated work of a sequence of `length` residues: 12 d^2 L + 2 d L^2 per layer, in units of 2 d."""
    return length * (6 * embed_dim + length)


def chunks_of_new(new: int, known: int, chunks: int) -> int:
    """Return how many chunks get the new sequences: their share of the work, rounded up; `new`, `known`: work."""
    if not known or chunks == 1:
        return chunks
    return min(chunks - 1, -(-chunks * new // (new + known)))


def assign_to_chunks(counts: Mapping[int, int], chunks: int, embed_dim: int) -> dict[int, np.ndarray]:
    """Assign sequences to chunks of nearly equal work; return {length: int32 [n], the chunk of each such sequence}.

    Longest processing time first (Graham 1969): by decreasing length, each sequence goes to the chunk with least work,
    or the first of several.

    Args:
        counts: {length: number of sequences}.
        chunks: their number.
        embed_dim: of the model.
    """
    loads = np.zeros(chunks, np.int64)
    assigned = {}
    for length in sorted(counts, reverse=True):
        work = estimated_flops(length, embed_dim)
        assigned[length] = _least_loaded(loads, work, counts[length])
        loads += work * np.bincount(assigned[length], minlength=chunks)
    return assigned


def _least_loaded(loads: np.ndarray, work: int, count: int) -> np.ndarray:
    """Return the chunks, int32 [count], that `count` sequences of the same work go to, one after the other.

    A chunk is due at its load, and again with each sequence that it gets: at load + work, load + 2 work ... The first
    `count` of all these are taken, in order of load, then of chunk.
    """

    def due_below(level: int) -> np.ndarray:
        return np.maximum(0, -((loads - level) // work))

    lowest = int(loads.min())
    level = lowest + bisect_left(range(count * work + 1), count, key=lambda above: due_below(lowest + above).sum())
    turns = due_below(level)
    chunk = np.repeat(np.arange(len(loads), dtype=np.int32), turns)
    due = loads[chunk] + work * (np.arange(len(chunk)) - np.repeat(np.cumsum(turns) - turns, turns))
    return chunk[np.lexsort((chunk, due))[:count]]


def ranks(groups: np.ndarray, next_rank: np.ndarray) -> np.ndarray:
    """Return the rank of each element among those of its group, int64 [n], counted on from earlier calls.

    Args:
        groups: int [n].
        next_rank: int64 [groups], the next rank of each group; it is updated.
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    sizes = np.diff(np.r_[starts, len(ordered)])
    result = np.empty(len(groups), np.int64)
    result[order] = next_rank[ordered] + np.arange(len(ordered)) - np.repeat(starts, sizes)
    next_rank[ordered[starts]] += sizes
    return result
