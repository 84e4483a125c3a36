"""Long proteins in windows: cut them, and join the outputs of the windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..outputs.table import RESIDUES
from ..sequences.windows import ResidueWindows
from .results import EachSequence, Embeddings


def cut(tokens: np.ndarray, windows: ResidueWindows | None) -> list[np.ndarray]:
    """Return the tokens of the windows of a protein; a protein that fits one window is returned whole."""
    return [tokens] if windows is None or len(tokens) - 2 <= windows.size else windows.cut(tokens)


@dataclass
class WindowJoin:
    """Collect the outputs of pieces, and join those of the windows of one protein.

    When all windows of a protein are done, its joined outputs are pooled into `result` and passed to `each_sequence`.
    The outputs of a whole protein are passed on at once. All windows of a protein have the same length, so packing puts
    them close together, and few proteins wait.

    Attributes:
        windows: how long proteins were cut.
        pool: function of (tokens of a protein, its joined outputs) that returns the row of each column.
        tokens: the proteins, uint8 [L + 2] each.
        pieces: the result of `cut` for each protein.
        result: the columns of the proteins.
        each_sequence: called with (index of the protein, its outputs).
        waiting: {protein: {number of a window: its outputs}} of proteins with windows that are not done yet.
    """

    windows: ResidueWindows
    pool: Callable[[np.ndarray, dict], list[np.ndarray]]
    tokens: Sequence[np.ndarray]
    pieces: Sequence[Sequence[np.ndarray]]
    result: Embeddings
    each_sequence: EachSequence | None
    waiting: dict[int, dict[int, dict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = [(owner, number) for owner, one in enumerate(self.pieces) for number in range(len(one))]

    def add(self, index: int, out: dict) -> None:
        """Add the outputs of piece `index`."""
        owner, number = self._places[index]
        if len(self.pieces[owner]) > 1:
            parts = self.waiting.setdefault(owner, {})
            parts[number] = out
            if len(parts) < len(self.pieces[owner]):
                return
            out = self._joined(owner, [parts[number] for number in sorted(self.waiting.pop(owner))])
            rows = self.pool(self.tokens[owner], out)
            for name, row in zip(self.result.columns, rows, strict=True):
                self.result.columns[name][owner] = row
        if self.each_sequence:
            self.each_sequence(owner, out)

    def completed(self, of_pieces: Embeddings) -> Embeddings:
        """Return the embeddings of the proteins; `of_pieces`: those of all pieces."""
        owners = [owner for owner, _ in self._places]
        whole = [index for index, owner in enumerate(owners) if len(self.pieces[owner]) == 1]
        for name, rows in of_pieces.columns.items():
            self.result.columns[name][[owners[index] for index in whole]] = rows[whole]
        self.result.recomputed = sorted({owners[index] for index in of_pieces.recomputed})
        self.result.packs, self.result.places = of_pieces.packs, of_pieces.places
        self.result.real_tokens, self.result.pack_tokens = of_pieces.real_tokens, of_pieces.pack_tokens
        return self.result

    def _joined(self, owner: int, parts: list[dict]) -> dict:
        residues = len(self.tokens[owner]) - 2

        def join(rows: Sequence[torch.Tensor]) -> torch.Tensor:
            return joined(self.windows, rows, residues)

        def pick(rows: Sequence[torch.Tensor]) -> torch.Tensor:
            return scored(self.windows, rows, residues)

        layouts = {name: RESIDUES[name].layout for name in parts[0]}
        return {
            name: layout.joined([part[name] for part in parts], pick if layout.is_scored else join)
            for name, layout in layouts.items()
        }


def scored(windows: ResidueWindows, parts: Sequence[torch.Tensor], residues: int) -> torch.Tensor:
    """Return the rows of one protein, fp32 [residues + 2, width], each from the window that scores its position.

    cls comes from the first window, eos from the last. See `joined` for the arguments.
    """
    places, starts = windows.scoring(residues), windows.starts(residues)
    inner = [part[1:-1][np.flatnonzero(places == i) - starts[i]] for i, part in enumerate(parts)]
    return torch.cat([parts[0][:1], *inner, parts[-1][-1:]])


def joined(windows: ResidueWindows, parts: Sequence[torch.Tensor], residues: int) -> torch.Tensor:
    """Return the rows of one protein, fp32 [residues + 2, E], from the rows of its windows.

    A residue gets the mean over the windows that contain it. cls comes from the first window, eos from the last.

    Args:
        windows: how the protein was cut.
        parts: fp32 [size + 2, E] of each window.
        residues: number of residues of the protein.
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
