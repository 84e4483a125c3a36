"""What an embedder gives: the columns of all sequences, and what the forward of a pack leaves on the device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..outputs.table import RESIDUES
from .packing import Pack

EachSequence = Callable[[int, dict], None]
MakePacks = Callable[[Sequence[np.ndarray], int], Iterator[Pack]]


@dataclass
class Embeddings:
    """Result of one call, in the order of the input.

    Attributes:
        columns: {"mean_33": float32 [n, E], ..., "log_likelihood": float32 [n, 1]}.
        recomputed: indices of sequences with values that were not finite.
        places: int32, where each sequence, or each window of it, began in its pack, in tokens.
        packs, real_tokens, pack_tokens: how the work was packed; fill = real_tokens / pack_tokens.
    """

    columns: dict[str, np.ndarray]
    recomputed: list[int] = field(default_factory=list)
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    packs: int = 0
    real_tokens: int = 0
    pack_tokens: int = 0


@dataclass(frozen=True)
class StartedPack:
    """A pack whose work is queued.

    Attributes:
        pooled: fp32 [n, width] of each column, on the host, to be read after `wait`.
        bad: bool [n] on the host, likewise: which sequences have values that are not finite.
        outputs: of `forward_packed`, on the device, if they are wanted.
        stored: instead of them `HostCopies.residues` of them, likewise to be read after `wait`.
        done: an event after the last copy; None if there is nothing to wait for.
    """

    pack: Pack
    pooled: list[torch.Tensor]
    bad: torch.Tensor
    outputs: dict | None
    stored: dict | None
    done: torch.cuda.Event | None

    def wait(self) -> None:
        """Return when the work is done."""
        if self.done:
            self.done.synchronize()

    def of_sequence(self, place: int) -> dict:
        """Return the outputs of the sequence that stands at `place` among the real ones of the pack."""
        rows, number = slice(*self.pack.real_cu_seqlens[place : place + 2]), self.pack.first + place
        if self.stored is not None:
            return {name: RESIDUES[name].layout.stored_from_host(x, rows, number) for name, x in self.stored.items()}
        return {name: RESIDUES[name].layout.of_sequence(x, rows, number) for name, x in self.outputs.items()}
