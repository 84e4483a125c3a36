"""Embed proteins of any length, the long ones in windows where that is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import NonFiniteError
from ..sequences.windows import ResidueWindows
from .embedder import EachSequence, Embedder, Embeddings


class WindowedEmbedder(Embedder):
    """An `Embedder` that cuts proteins longer than `options.windows.size`, and joins what their windows give."""

    def residues(self, tokens: Sequence[np.ndarray]) -> int:
        """Return the residues that `embed` runs: in two windows, counted twice."""
        return sum(len(piece) - 2 for one in tokens for piece in self._pieces(one))

    def embed(
        self,
        tokens: Sequence[np.ndarray],
        each_sequence: EachSequence | None = None,
        progress: Callable[[int], object] = lambda residues: None,
    ) -> Embeddings:
        """See `Embedder.embed`; the progress is that of `residues`."""
        pieces = [self._pieces(one) for one in tokens]
        if all(len(one) == 1 for one in pieces):
            return super().embed(tokens, each_sequence=each_sequence, progress=progress)
        owners = [owner for owner, one in enumerate(pieces) for _ in one]
        result = Embeddings(self.empty_columns(len(tokens)))
        join = _Join(self, tokens, pieces, result, each_sequence)
        of_pieces = super().embed(
            [piece for one in pieces for piece in one], each_sequence=join.take, progress=progress
        )
        whole = [index for index, owner in enumerate(owners) if len(pieces[owner]) == 1]
        for name, rows in of_pieces.columns.items():
            result.columns[name][[owners[index] for index in whole]] = rows[whole]
        result.recomputed = sorted({owners[index] for index in of_pieces.recomputed})
        result.packs, result.real_tokens = of_pieces.packs, of_pieces.real_tokens
        result.pack_tokens = of_pieces.pack_tokens
        return result

    def _recompute(
        self,
        index: int,
        tokens: Sequence[np.ndarray],
        name: str,
        result: Embeddings,
        each_sequence: EachSequence | None,
    ) -> None:
        """Embed one protein in fp32, all its windows."""
        pieces = self._pieces(tokens[index])
        if len(pieces) == 1:
            super()._recompute(index, tokens, name, result, each_sequence)
            return
        join = _Join(self, [tokens[index]], [pieces], Embeddings(self.empty_columns(1)), None)
        if each_sequence:
            join.each_sequence = lambda _, out: each_sequence(index, out)
        for number in range(len(pieces)):
            window = f"{name}, window {number + 1} of {len(pieces)}"
            super()._recompute(number, pieces, window, Embeddings(self.empty_columns(len(pieces))), join.take)
        for column, rows in join.result.columns.items():
            result.columns[column][index] = rows[0]

    def _pieces(self, tokens: np.ndarray) -> list[np.ndarray]:
        windows = self.options.windows
        return [tokens] if windows is None or len(tokens) - 2 <= windows.size else windows.cut(tokens)


@dataclass
class _Join:
    """Take what pieces give; hand out what is whole, and what is complete, and pool the latter into `result`.

    Windows of one protein are all as long, so they come close to each other, and few proteins wait.
    """

    embedder: WindowedEmbedder
    tokens: Sequence[np.ndarray]
    pieces: Sequence[Sequence[np.ndarray]]
    result: Embeddings
    each_sequence: EachSequence | None
    waiting: dict[int, dict[int, dict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = [(owner, number) for owner, one in enumerate(self.pieces) for number in range(len(one))]

    def take(self, index: int, out: dict) -> None:
        """Take what piece `index` gave."""
        owner, number = self._places[index]
        if len(self.pieces[owner]) > 1:
            parts = self.waiting.setdefault(owner, {})
            parts[number] = out
            if len(parts) < len(self.pieces[owner]):
                return
            out = self._joined(owner, [parts[number] for number in sorted(self.waiting.pop(owner))])
            self._pool(owner, out)
        if self.each_sequence:
            self.each_sequence(owner, out)

    def _joined(self, owner: int, parts: list[dict]) -> dict:
        residues, windows = len(self.tokens[owner]) - 2, self.embedder.options.windows
        layers = parts[0]["representations"]
        whole: dict = {
            "representations": {
                layer: joined(windows, [part["representations"][layer] for part in parts], residues) for layer in layers
            }
        }
        if "logits" in parts[0]:
            whole["logits"] = joined(windows, [part["logits"] for part in parts], residues)
        return whole

    def _pool(self, owner: int, out: dict) -> None:
        tokens = torch.from_numpy(self.tokens[owner])
        cu_seqlens = torch.tensor([0, len(tokens)], dtype=torch.int32)
        pooled, bad = self.embedder.pooled(out, tokens.to(self.embedder.device), cu_seqlens, 1)
        if bad.any():
            raise NonFiniteError("the sum of windows is not finite; use dtype: fp32, or check the checkpoint")
        for name, vectors in zip(self.result.columns, pooled, strict=True):
            self.result.columns[name][owner] = vectors[0].cpu().numpy()


def joined(windows: ResidueWindows, parts: Sequence[torch.Tensor], residues: int) -> torch.Tensor:
    """Return what the windows of one protein gave as if it were of one forward, fp32 [residues + 2, E].

    A residue has the mean of the windows that it is in, cls is that of the first, eos that of the last.

    Args:
        windows: how the protein was cut.
        parts: fp32 [size + 2, E] of each window.
        residues: of the protein.
    """
    total = parts[0].new_zeros(residues + 2, parts[0].shape[1])
    seen = parts[0].new_zeros(residues + 2, 1)
    for start, part in zip(windows.starts(residues), parts, strict=True):
        rows = slice(1 + start, 1 + start + len(part) - 2)
        total[rows] += part[1:-1]
        seen[rows] += 1
    total[1:-1] /= seen[1:-1]
    total[0], total[-1] = parts[0][0], parts[-1][-1]
    return total
