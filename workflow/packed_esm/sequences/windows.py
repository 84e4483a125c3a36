"""Cut a protein that is too long for one forward into windows that overlap."""

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError


@dataclass(frozen=True)
class ResidueWindows:
    """Windows of `size` residues; neighbours share at least `overlap`."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise OptionError(
                f"long_proteins.overlap: {self.overlap} must be at least 0 and less than max_length, {self.size}"
            )

    def starts(self, residues: int) -> list[int]:
        """Return where the windows of a protein begin, from 0; the last one ends at the end of the protein."""
        if residues <= self.size:
            return [0]
        step = self.size - self.overlap
        return [*range(0, residues - self.size, step), residues - self.size]

    def scoring(self, residues: int) -> np.ndarray:
        """Return the number of the window that scores each position, int [residues].

        It is the window whose centre is nearest to the position; of two at the same distance, the earlier one.
        """
        centres = np.array(self.starts(residues)) * 2 + min(self.size, residues) - 1  # doubled, so that they are whole
        limits = (centres[:-1] + centres[1:]) / 2  # a position up to the limit is nearer to the first, or as near
        return np.searchsorted(limits, 2 * np.arange(residues))

    def cut(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Cut the tokens of a protein, uint8 [L + 2], into those of its windows, each with cls and eos."""
        size, cls, eos = self.size, tokens[:1], tokens[-1:]
        starts = self.starts(len(tokens) - 2)
        return [np.concatenate([cls, tokens[1:-1][start : start + size], eos]) for start in starts]
