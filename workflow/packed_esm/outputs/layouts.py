"""Shapes of the outputs for each residue: in a pack, for a sequence, over windows, and as stored."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tensor = Any  # of torch, which this package does not import
Join = Callable[[Sequence[Tensor]], Tensor]  # from [size + 2, width] of each window to [L + 2, width] of the protein
Copy = Callable[[Sequence[Tensor]], Tensor]  # from tensors of one shape to one tensor [n, ...] on the host


class Rows:
    """One row per token: [total, width] in a pack, [L + 2, width] for a sequence, [L, width] as stored."""

    joins_windows = True
    has_one_size = True  # in all packs of a run
    is_symmetric = False
    is_scored = False  # over windows: each row from the window that scores it, not the mean

    def of_sequence(self, of_pack: Tensor, rows: slice, place: int) -> Tensor:
        """Return the part of one sequence of a pack; `rows`: its tokens, `place`: its number among the sequences."""
        return of_pack[rows]

    def joined(self, parts: Sequence[Tensor], join: Join) -> Tensor:
        """Return the output of a protein from those of its windows; `join` joins rows."""
        return join(parts)

    def stored(self, of_sequence: Tensor) -> np.ndarray:
        """Return the array that is stored for a sequence, [..., L, width]."""
        return of_sequence[1:-1].numpy(force=True)

    def on_host(self, of_pack: Tensor, copy: Copy) -> Tensor:
        """Return copies on the host of the output of a pack, [layers, total, width]."""
        return copy([of_pack])

    def stored_from_host(self, on_host: Tensor, rows: slice, place: int) -> np.ndarray:
        """Return the array that is stored for one sequence of a pack: a view of what `on_host` returned.

        Its [L, width] are contiguous. `rows`, `place`: see `of_sequence`.
        """
        layers = on_host[:, rows.start + 1 : rows.stop - 1].numpy()
        return layers[0] if len(layers) == 1 else layers


class LayerRows(Rows):
    """Rows of several layers, {layer: rows}; stored as [layers, L, width], or [L, width] for one layer."""

    def of_sequence(self, of_pack: dict[int, Tensor], rows: slice, place: int) -> dict[int, Tensor]:
        return {layer: x[rows] for layer, x in of_pack.items()}

    def joined(self, parts: Sequence[dict[int, Tensor]], join: Join) -> dict[int, Tensor]:
        return {layer: join([part[layer] for part in parts]) for layer in parts[0]}

    def stored(self, of_sequence: dict[int, Tensor]) -> np.ndarray:
        layers = [super(LayerRows, self).stored(rows) for rows in of_sequence.values()]
        return layers[0] if len(layers) == 1 else np.stack(layers)

    def on_host(self, of_pack: dict[int, Tensor], copy: Copy) -> Tensor:
        return copy(list(of_pack.values()))


class ScoredRows(Rows):
    """Rows of which each comes from one window, see `ResidueWindows.scoring`."""

    is_scored = True


class MaskedRows(Rows):
    """Rows of masked copies, on the host: [L, width], without cls and eos."""

    def stored(self, of_sequence: np.ndarray) -> np.ndarray:
        return of_sequence


class Pairs:
    """A value for each pair of residues: a list of [L, L], one per sequence of the pack; stored unchanged."""

    joins_windows = False
    has_one_size = False
    is_symmetric = True

    def of_sequence(self, of_pack: Sequence[Tensor], rows: slice, place: int) -> Tensor:
        """See `Rows.of_sequence`."""
        return of_pack[place]

    def stored(self, of_sequence: Tensor) -> np.ndarray:
        """See `Rows.stored`."""
        return of_sequence.numpy(force=True)

    def on_host(self, of_pack: Sequence[Tensor], copy: Copy) -> list[Tensor]:
        """See `Rows.on_host`."""
        return [copy([x]) for x in of_pack]

    def stored_from_host(self, on_host: Sequence[Tensor], rows: slice, place: int) -> np.ndarray:
        """See `Rows.stored_from_host`."""
        return on_host[place][0].numpy()


ROWS, LAYER_ROWS, SCORED_ROWS, MASKED_ROWS, PAIRS = Rows(), LayerRows(), ScoredRows(), MaskedRows(), Pairs()
