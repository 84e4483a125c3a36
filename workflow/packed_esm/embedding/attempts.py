"""Embed the sequences of a job; after an out-of-memory once more, with smaller packs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..system.progress import progress_bar
from .clock import Clock
from .embedder import Embedder
from .kept_residues import KeptResidues
from .reading import Sequences
from .repeat import Repeat
from .results import Embeddings
from .reuse import Earlier, look_up

log = logging.getLogger(__name__)

MIN_TOKENS_PER_PACK = 1024


class Embedded(NamedTuple):
    """What a job has embedded.

    Attributes:
        earlier: what earlier results had.
        embeddings: of all others, in their order.
        repeated: how many sequences were embedded twice.
    """

    earlier: Earlier
    embeddings: Embeddings
    repeated: int


@dataclass(frozen=True)
class Attempts:
    """The work of a job on the device.

    Attributes:
        embedder: its budget of tokens is halved after each out-of-memory.
        sequences: of the job.
        residues: where values of each residue are kept.
        repeat: what is embedded twice.
        clock: for the seconds of each stage.
        title: of the progress bar.
    """

    embedder: Embedder
    sequences: Sequences
    residues: KeptResidues | None
    repeat: Repeat
    clock: Clock
    title: str

    def embed(self, reuse: Sequence[Path], own: Sequence[Path] = ()) -> Embedded:
        """Take what earlier results have, of other runs (`reuse`) and of this one (`own`), and embed the others.

        After an out-of-memory the budget is another, and what was found may not stand beside it: it is looked up again.
        """
        while True:
            settings = self.embedder.settings
            empty = self.embedder.empty_columns(len(self.sequences.tokens))
            if self.residues:
                self.residues.writer.restart()
            earlier = look_up(reuse, self.sequences.digests, settings, empty, self.residues, own)
            self.clock.lap("reuse")
            embeddings, repeated = self._embed(earlier.missing)
            if not earlier.found.any() or self.embedder.settings == settings:
                return Embedded(earlier, embeddings, repeated)

    def _embed(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        """Embed the sequences `indices`, in their order; after an out-of-memory all over with half the budget.

        So one budget holds for all. Return the embeddings, and how many sequences were repeated.
        """
        while True:
            self.clock.restart()
            try:
                return self._attempt(indices)
            except torch.OutOfMemoryError as error:
                self._halve_budget(error)
            torch.cuda.empty_cache()
            if self.residues:
                self.residues.writer.restart()

    def _attempt(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        some = self.sequences.take(indices)
        residues = replace(self.residues, sequences=some) if self.residues else None
        tokens, names, write = some.tokens, some.names, residues.write if residues else None
        if tokens:
            self.embedder.warm_up()
        self.clock.lap("warm_up")
        with progress_bar(self.embedder.residues(tokens), "residues", self.title) as bar:
            embeddings = self.embedder.embed(tokens, each_sequence=write, progress=bar.update)
        self.clock.lap("embed")
        repeated = self.repeat.compare(self.embedder, tokens, names, embeddings, residues)
        self.clock.lap("repeat")
        self.embedder.recompute(embeddings, tokens, names, each_sequence=write)
        self.clock.lap("embed")
        return embeddings, repeated

    def _halve_budget(self, error: Exception) -> None:
        """Halve the budget of tokens, or raise MemoryError that names the longest sequence where it is small."""
        budget, tokens = self.embedder.tokens_per_pack, self.sequences.tokens
        if budget // 2 < MIN_TOKENS_PER_PACK:
            longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
            raise MemoryError(
                f"out of GPU memory even with {budget} tokens a pack; the longest sequence is "
                f"{self.sequences.names[longest]} ({len(tokens[longest]) - 2} residues): use a larger GPU, or "
                "device: cpu"
            ) from error
        log.warning("out of GPU memory with %d tokens a pack; again with %d", budget, budget // 2)
        self.embedder.tokens_per_pack = budget // 2
