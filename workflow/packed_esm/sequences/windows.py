"""Cut a protein that is too long for one forward into windows that overlap, and join what they gave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Windows:
    """Windows of `size` residues, of which neighbours share at least `overlap`."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"window_overlap: {self.overlap} must be at least 0 and less than max_length, {self.size}")

    def starts(self, residues: int) -> list[int]:
        """Return where the windows of a protein begin, from 0; the last one ends where the protein does."""
        if residues <= self.size:
            return [0]
        step = self.size - self.overlap
        return [*range(0, residues - self.size, step), residues - self.size]

    def cut(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Return the tokens of each window, with cls and eos, of those of a protein, uint8 [L + 2]."""
        size, cls, eos = self.size, tokens[:1], tokens[-1:]
        starts = self.starts(len(tokens) - 2)
        return [np.concatenate([cls, tokens[1:-1][start : start + size], eos]) for start in starts]

    def joined(self, parts: "Sequence[torch.Tensor]", residues: int) -> "torch.Tensor":
        """Return what the windows of one protein gave as if it were of one forward, fp32 [residues + 2, E].

        A residue has the mean of the windows that it is in, cls is that of the first, eos that of the last.

        Args:
            parts: fp32 [size + 2, E] of each window.
            residues: of the protein.
        """
        total = parts[0].new_zeros(residues + 2, parts[0].shape[1])
        seen = parts[0].new_zeros(residues + 2, 1)
        for start, part in zip(self.starts(residues), parts, strict=True):
            rows = slice(1 + start, 1 + start + len(part) - 2)
            total[rows] += part[1:-1]
            seen[rows] += 1
        total[1:-1] /= seen[1:-1]
        total[0], total[-1] = parts[0][0], parts[-1][-1]
        return total
