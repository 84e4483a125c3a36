"""Put sequences into packs of one fixed shape."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import OptionError
from ..sequences.tokens import CLS, EOS, FILLER

# The cost of attention grows with the square of the length, so short filler sequences cost almost nothing.
MAX_FILLER_TOKENS = 256
Item = TypeVar("Item")


@dataclass(frozen=True)
class Pack:
    """Tokens of one forward pass.

    Attributes:
        indices: of the sequences, in the order of the pack.
        input_ids: uint8 [total]: the real sequences one after the other, and filler.
        cu_seqlens: int32 [n + 1], from 0, ends at `total`.
        max_seqlen: longest sequence, in tokens.
        real_tokens: tokens of the real sequences (cls and eos counted).
        first: number of filler sequences before the first real one.
    """

    indices: list[int]
    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    max_seqlen: int
    real_tokens: int
    first: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens, filler included."""
        return len(self.input_ids)

    @property
    def real_cu_seqlens(self) -> np.ndarray:
        """Start of each real sequence, and end of the last one, int32 [len(indices) + 1]."""
        return self.cu_seqlens[self.first : self.first + len(self.indices) + 1]


def best_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Assign sequences to packs of at most `budget` tokens, each to the fullest pack that has room for it.

    Best-fit decreasing (Johnson 1973). A sequence longer than the budget gets its own pack.
    Equal input gives equal packs. Inside a pack the order is by decreasing length, then by index.
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


def build_pack(indices: list[int], tokens: Sequence[np.ndarray], budget: int, before: int = 0) -> Pack:
    """Concatenate the sequences `indices` of `tokens` and add filler up to `budget` tokens, `before` of it in front.

    All packs have one shape, so all matrix products of a run have one shape, and a row does not depend on its
    neighbours in the pack. A sequence longer than the budget stays whole and gets no filler.
    """
    lengths = [len(tokens[i]) for i in indices]
    real = sum(lengths)
    front, back = filler_lengths(before), filler_lengths(max(budget - real - before, 0))
    parts = [*map(_filler, front), *(tokens[i] for i in indices), *map(_filler, back)]
    cu_seqlens = np.zeros(len(parts) + 1, dtype=np.int32)
    np.cumsum([*front, *lengths, *back], out=cu_seqlens[1:])
    return Pack(indices, np.concatenate(parts), cu_seqlens, max(map(len, parts)), real, len(front))


def iterate_packs(tokens: Sequence[np.ndarray], budget: int) -> Iterator[Pack]:
    """Yield the packs of `tokens` (uint8 [L + 2] each), the longest sequences first."""
    if budget < 3:
        raise OptionError(f"tokens_per_pack: {budget} is less than cls, one residue and eos (3)")
    for indices in best_fit_decreasing([len(t) for t in tokens], budget):
        yield build_pack(indices, tokens, budget)


def in_sweeps(items: Iterable[Item], most: int, tokens_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield groups of consecutive packs with at most `most` tokens together, or one pack.

    Args:
        items: packs, or what has one.
        most: tokens.
        tokens_of: function of an item that returns the tokens of its pack.
    """
    sweep: list[Item] = []
    room = most
    for item in items:
        tokens = tokens_of(item)
        if sweep and tokens > room:
            yield sweep
            sweep, room = [], most
        sweep.append(item)
        room -= tokens
        if room <= 0:  # before the next pack is made
            yield sweep
            sweep, room = [], most
    if sweep:
        yield sweep


def moved_packs(
    tokens: Sequence[np.ndarray], budget: int, places: np.ndarray, rng: np.random.Generator
) -> Iterator[Pack]:
    """Yield packs of `tokens` in which sequences have other neighbours and other places than in `iterate_packs`.

    Next fit with the shortest sequences first (`iterate_packs` starts with the longest); equal lengths keep the order
    of `tokens`. An eighth of the budget stays free, and filler of a random length comes first. Only a sequence that is
    as long as the budget, or longer, keeps its place.

    Args:
        tokens: uint8 [L + 2] each.
        budget: tokens per pack.
        places: int [n], start of each sequence in its earlier pack.
        rng: for the length of the filler in front.
    """
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    groups: list[list[int]] = []
    used = room = budget - budget // 8
    for index in order:
        used += len(tokens[index])
        if used > room:
            groups.append([])
            used = len(tokens[index])
        groups[-1].append(index)
    for indices in groups:
        starts = np.cumsum([0, *(len(tokens[i]) for i in indices)])
        free = np.arange(1, budget - starts[-1] + 1)
        elsewhere = np.setdiff1d(free, places[indices] - starts[:-1])
        yield build_pack(indices, tokens, budget, int(rng.choice(elsewhere)) if len(elsewhere) else len(free))


def _filler(length: int) -> np.ndarray:
    filler = np.full(length, FILLER, dtype=np.uint8)
    filler[0], filler[-1] = CLS, EOS
    return filler
