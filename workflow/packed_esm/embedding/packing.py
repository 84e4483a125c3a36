"""Put sequences into packs of one fixed shape."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from ..sequences.tokens import CLS, EOS, FILLER

# A long filler would cost attention for nothing; short ones cost next to none.
MAX_FILLER_TOKENS = 256


@dataclass(frozen=True)
class Pack:
    """Tokens of one forward pass.

    Attributes:
        indices: which sequences, in the order in which they stand in the pack.
        input_ids: uint8 [total], real sequences first, then filler.
        cu_seqlens: int32 [n + 1], from 0, ends at `total`; the first `len(indices)` sequences are real.
        max_seqlen: longest sequence, in tokens.
        real_tokens: tokens of the real sequences (cls and eos counted).
    """

    indices: list[int]
    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    max_seqlen: int
    real_tokens: int


def best_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Deal sequences to packs of at most `budget` tokens, each to the fullest pack that still takes it.

    Best-fit decreasing (Johnson 1973). A sequence longer than the budget gets a pack of its own.
    Equal input gives equal packs; inside a pack the order is by falling length, then by index.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, pack), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        place = bisect.bisect_left(room, (length, -1))
        if place < len(room):
            free, pack = room.pop(place)
        else:
            free, pack = max(budget, length), len(packs)
            packs.append([])
        packs[pack].append(index)
        if free > length:
            bisect.insort(room, (free - length, pack))
    return packs


def filler_lengths(free: int) -> list[int]:
    """Split `free` tokens into filler sequences of at most MAX_FILLER_TOKENS."""
    whole, rest = divmod(free, MAX_FILLER_TOKENS)
    return [MAX_FILLER_TOKENS] * whole + ([rest] if rest else [])


def build_pack(indices: list[int], tokens: Sequence[np.ndarray], budget: int) -> Pack:
    """Concatenate the sequences `indices` of `tokens` and fill up to `budget` tokens.

    One shape for all packs makes every matrix product of a run alike, so that a row of it does not
    depend on what else is in the pack. A sequence longer than the budget stays whole and unfilled.
    """
    lengths = [len(tokens[i]) for i in indices]
    real = sum(lengths)
    fillers = filler_lengths(max(budget - real, 0))
    parts = [tokens[i] for i in indices] + [_filler(length) for length in fillers]
    cu_seqlens = np.zeros(len(parts) + 1, dtype=np.int32)
    np.cumsum(lengths + fillers, out=cu_seqlens[1:])
    return Pack(indices, np.concatenate(parts), cu_seqlens, max(lengths + fillers), real)


def iterate_packs(tokens: Sequence[np.ndarray], budget: int) -> Iterator[Pack]:
    """Yield the packs of `tokens` (uint8 [L + 2] each), the longest sequences first."""
    if budget < 3:
        raise OptionError(f"tokens_per_pack: {budget} is less than cls, one residue and eos (3)")
    for indices in best_fit_decreasing([len(t) for t in tokens], budget):
        yield build_pack(indices, tokens, budget)


def _filler(length: int) -> np.ndarray:
    filler = np.full(length, FILLER, dtype=np.uint8)
    filler[0], filler[-1] = CLS, EOS
    return filler
