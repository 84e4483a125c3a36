"""Run masked copies of proteins: for each position a copy in which this residue is masked.

All copies of a protein have one length, and copies of several proteins share packs of the one fixed shape. Copies are
made as packs need them, and only the rows of masked positions go through the LM head. Copies of a protein share the
products before the first attention, which would save less than 1 % of a model of 33 layers; this is not done.
"""

import bisect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..errors import NonFiniteError
from ..kernels.device import on_device
from ..model.esm2 import ESM2WithFlashAttention, PackInput
from ..outputs.table import RESIDUES, SCALARS, needs_masked_copies
from ..sequences.tokens import MASK
from ..sequences.windows import ResidueWindows
from .embedder import PACKS_AHEAD, Embedder
from .packing import Pack, build_pack, in_sweeps
from .results import EachSequence, Embeddings

log = logging.getLogger(__name__)


class _Source(NamedTuple):
    """What copies are made of: a protein, or one window of it.

    Attributes:
        owner: number of the protein.
        tokens: uint8 [T], with cls and eos.
        masked: int [n], the token that each copy masks.
        rows: int [n], the rows of the protein's result that the copies give.
    """

    owner: int
    tokens: np.ndarray
    masked: np.ndarray
    rows: np.ndarray


class _Share(NamedTuple):
    """The copies of a source, from `start` to `stop`, that are in a pack."""

    source: int
    start: int
    stop: int


class _Prepared(NamedTuple):
    """A pack of copies: its shares, and its input."""

    shares: list[_Share]
    pack: PackInput


class _Started(NamedTuple):
    """A pack whose work is queued: its shares, and the logits of its masked rows on the host, once `done`."""

    shares: list[_Share]
    logits: torch.Tensor
    done: torch.cuda.Event | None


def share_out(lengths: Sequence[int], counts: Sequence[int], budget: int) -> Iterator[list[_Share]]:
    """Yield the copies that go into each pack of at most `budget` tokens: always the longest that still fit.

    First-fit decreasing, with no list of copies. A copy that is longer than the budget gets its own pack.

    Args:
        lengths: tokens of one copy of each source.
        counts: copies of each source, at least one.
        budget: tokens of a pack.
    """
    waiting = sorted((length, -i) for i, length in enumerate(lengths))  # from its end: the longest, the first of equals
    taken = [0] * len(lengths)
    while waiting:
        room, shares = max(budget, waiting[-1][0]), []
        while place := bisect.bisect_right(waiting, (room, 0)):
            length, source = waiting[place - 1][0], -waiting[place - 1][1]
            start = taken[source]
            stop = taken[source] = min(counts[source], start + room // length)
            shares.append(_Share(source, start, stop))
            room -= (stop - start) * length
            if stop == counts[source]:
                del waiting[place - 1]
        yield shares


@dataclass(frozen=True)
class MaskedCopies:
    """Masked copies of proteins, run by an embedder.

    Attributes:
        embedder: has the model, the budget of tokens and the windows for long proteins.
        tokens: the proteins, uint8 [L + 2] each.
        names: of the proteins, for messages.
        positions: which residues are masked, each alone, from 0; None: all of each protein.
        rng: if given, the copies get other neighbours and other places than without it.
    """

    embedder: Embedder
    tokens: Sequence[np.ndarray]
    names: Sequence[str]
    positions: Sequence[np.ndarray] | None = None
    rng: np.random.Generator | None = None

    @property
    def count(self) -> int:
        """Number of copies."""
        return sum(len(self._positions(index)) for index in range(len(self.tokens)))

    def logits(self, progress: Callable[[int], object] = lambda copies: None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index of a protein, logits fp32 [positions, tokens of the alphabet]), each row with it masked.

        The order is that in which they are done. A protein in windows is scored by one window for each position, see
        `ResidueWindows.scoring`. A protein with a value that is not finite is run again in fp32, copy by copy.

        Raises:
            NonFiniteError: `on_nonfinite` is `fail`, or values are not finite even in fp32.
            MemoryError: the GPU memory is too small for a protein in fp32.
        """
        if not self.tokens:
            return  # without a look at the model, which would be loaded
        for index, rows in self._run(self.embedder.model, range(len(self.tokens)), progress):
            yield index, rows if np.isfinite(rows).all() else self._exact(index)

    def _positions(self, index: int) -> np.ndarray:
        return np.arange(len(self.tokens[index]) - 2) if self.positions is None else self.positions[index]

    def _exact(self, index: int) -> np.ndarray:
        """Return the logits of one protein in fp32, one copy at a time."""
        problem = f"{self.names[index]}: values of masked copies that are not finite in {self.embedder.dtype}"
        with self.embedder.in_fp32(problem, len(self.tokens[index]) - 2) as model:
            ((_, rows),) = self._run(model, [index], budget=1)
        if not np.isfinite(rows).all():
            raise NonFiniteError(f"{problem}, and even in fp32; check the checkpoint")
        return rows

    def _run(
        self,
        model: ESM2WithFlashAttention,
        indices: Sequence[int],
        progress: Callable[[int], object] = lambda copies: None,
        budget: int | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        budget = budget or self.embedder.tokens_per_pack
        sources = [source for index in indices for source in self._sources(index)]
        missing = {index: len(self._positions(index)) for index in indices}
        results: dict[int, np.ndarray] = {}
        for shares, logits in self._packs(model, sources, budget):
            for share, rows in zip(shares, np.split(logits, _ends(shares)), strict=True):
                source = sources[share.source]
                if source.owner not in results:
                    results[source.owner] = np.empty((missing[source.owner], logits.shape[1]), np.float32)
                results[source.owner][source.rows[share.start : share.stop]] = rows
                missing[source.owner] -= len(rows)
                if not missing[source.owner]:
                    yield source.owner, results.pop(source.owner)
            progress(len(logits))

    def _packs(
        self, model: ESM2WithFlashAttention, sources: Sequence[_Source], budget: int
    ) -> Iterator[tuple[list[_Share], np.ndarray]]:
        """Yield (shares, logits of their copies) of each pack; a few packs are queued ahead."""
        started: deque[_Started] = deque()
        room = budget if self.rng is None else budget - budget // 8  # what stays free is for filler in front
        every = share_out([len(x.tokens) for x in sources], [len(x.masked) for x in sources], room)
        prepared = (self._prepared([sources[x.source] for x in shares], shares, budget) for shares in every)
        # The exact model is larger than the other, which stays on the device.
        most = self.embedder.tokens_per_sweep // (1 if model is self.embedder.model else 4)
        for sweep in in_sweeps(prepared, most, lambda one: len(one.pack.input_ids)):
            started += self._start(model, sweep)
            while len(started) > max(PACKS_AHEAD, len(sweep)):
                yield _finished(started.popleft())
        while started:
            yield _finished(started.popleft())

    def _sources(self, index: int) -> Iterator[_Source]:
        """Yield the protein, or the windows that score its positions."""
        tokens, positions, windows = self.tokens[index], self._positions(index), self.embedder.options.windows
        rows = np.arange(len(positions))
        if windows is None or len(tokens) - 2 <= windows.size:
            yield from [_Source(index, tokens, positions + 1, rows)] if len(rows) else []
            return
        yield from _windows(index, tokens, positions, windows)

    def _prepared(self, sources: Sequence[_Source], shares: list[_Share], budget: int) -> _Prepared:
        """Return a pack of shares; `sources`: of each of them."""
        parts = [source.masked[share.start : share.stop] for source, share in zip(sources, shares, strict=True)]
        pack = self._pack([_copies(source.tokens, part) for source, part in zip(sources, parts, strict=True)], budget)
        rows = pack.real_cu_seqlens[:-1] + np.concatenate(parts)
        logits_at = on_device(torch.from_numpy(rows.astype(np.int64)), self.embedder.device)
        return _Prepared(shares, self.embedder.input_of(pack, logits_at))

    def _start(self, model: ESM2WithFlashAttention, sweep: Sequence[_Prepared]) -> list[_Started]:
        """Queue the work on the packs of a sweep, up to the copies of their logits to the host."""
        outs = self.embedder.forward(model, [one.pack for one in sweep], ())
        return [self._copied(one.shares, out["logits"]) for one, out in zip(sweep, outs, strict=True)]

    def _copied(self, shares: list[_Share], logits: torch.Tensor) -> _Started:
        on_cuda = self.embedder.device.type == "cuda"
        on_host = logits.to("cpu", non_blocking=on_cuda)
        done = torch.cuda.Event() if on_cuda else None
        if done:
            done.record()
        return _Started(shares, on_host, done)

    def _pack(self, parts: Sequence[np.ndarray], budget: int) -> Pack:
        copies = [copy for part in parts for copy in part]
        free = budget - sum(part.size for part in parts)
        before = int(self.rng.integers(1, free + 1)) if self.rng is not None and free > 0 else 0
        return build_pack(list(range(len(copies))), copies, budget, before)


def add_masked(
    copies: MaskedCopies,
    result: Embeddings,
    each_sequence: EachSequence | None = None,
    progress: Callable[[int], object] = lambda copies: None,
    each_logits: Callable[[int, np.ndarray], object] = lambda index, logits: None,
) -> None:
    """Add to `result` the columns that come from masked copies of all positions.

    Args:
        copies: of the sequences of `result`.
        result: of `Embedder.embed`.
        each_sequence: called with (index, {name of RESIDUES: array, as it is stored}).
        progress: called with the number of copies done since the last call.
        each_logits: called with (index, logits fp32 [L, tokens of the alphabet]).
    """
    include = copies.embedder.options.include
    if not needs_masked_copies(include):
        return
    columns = [name for name in include if name in SCALARS and SCALARS[name].of_masked]
    features = [name for name in include if name in RESIDUES and RESIDUES[name].of_masked]
    result.columns |= {name: np.empty((len(copies.tokens), 1), np.float32) for name in columns}
    for index, logits in copies.logits(progress):
        tokens = copies.tokens[index][1:-1]
        for name in columns:
            result.columns[name][index] = SCALARS[name].of_masked(logits, tokens)
        if each_sequence:
            each_sequence(index, {name: RESIDUES[name].of_masked(logits, tokens) for name in features})
        each_logits(index, logits)


def _windows(index: int, tokens: np.ndarray, positions: np.ndarray, windows: ResidueWindows) -> Iterator[_Source]:
    """Yield the windows of a protein that score some of its positions."""
    scoring = windows.scoring(len(tokens) - 2)[positions]
    starts = windows.starts(len(tokens) - 2)
    for number, piece in enumerate(windows.cut(tokens)):
        rows = np.flatnonzero(scoring == number)
        if len(rows):
            yield _Source(index, piece, positions[rows] - starts[number] + 1, rows)


def _copies(tokens: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return copies of a sequence, uint8 [n, T], each with one token masked."""
    copies = np.tile(tokens, (len(masked), 1))
    copies[np.arange(len(masked)), masked] = MASK
    return copies


def _ends(shares: Sequence[_Share]) -> np.ndarray:
    return np.cumsum([share.stop - share.start for share in shares])[:-1]


def _finished(started: _Started) -> tuple[list[_Share], np.ndarray]:
    if started.done:
        started.done.synchronize()
    return started.shares, started.logits.numpy()
