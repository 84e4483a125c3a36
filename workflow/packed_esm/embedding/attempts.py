"""Embed the sequences of a job; if the GPU memory is full, start again with smaller packs."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from ..outputs.table import needs_masked_copies
from ..system.progress import progress_bar
from .clock import Clock
from .earlier import Earlier
from .earlier_places import EarlierPlaces
from .embedder import Embedder
from .masked import MaskedCopies, add_masked
from .options import StorageOptions
from .reading import Sequences
from .repeat import Repeat
from .results import Embeddings

if TYPE_CHECKING:
    from .kept_residues import KeptResidues

log = logging.getLogger(__name__)

MIN_TOKENS_PER_PACK = 1024
Result = TypeVar("Result")


class Embedded(NamedTuple):
    """The embeddings of a job.

    Attributes:
        earlier: embeddings from earlier results.
        embeddings: of all other sequences, in their order.
        repeated: number of sequences that were embedded twice.
    """

    earlier: Earlier
    embeddings: Embeddings
    repeated: int


@dataclass(frozen=True)
class Attempts:
    """The work of a job on the device.

    Attributes:
        embedder: each out-of-memory halves its tokens per sweep, or its budget.
        sequences: of the job.
        storage: how the values are stored.
        residues: writes the values of each residue; None: they are not written.
        repeat: embeds some sequences twice and compares.
        clock: measures the seconds of each stage.
        title: of the progress bar: the name of the chunk's FASTA file.
    """

    embedder: Embedder
    sequences: Sequences
    storage: StorageOptions
    residues: "KeptResidues | None"
    repeat: Repeat
    clock: Clock
    title: str

    def embed(
        self,
        reuse: Sequence[Path],
        own: Sequence[Path] = (),
        places: EarlierPlaces = EarlierPlaces(),  # noqa: B008
    ) -> Embedded:
        """Copy embeddings from earlier results, of other runs (`reuse`) and of this one (`own`), and embed the others.

        `places` says where in these results they are, see `reuse.look_up`.

        An out-of-memory changes the budget, which is a setting. Then earlier results are searched again, because those
        that were found belong to the old budget.
        """
        while True:
            settings = self.embedder.settings
            if self.residues:
                self.residues.writer.restart()
            earlier = self._look_up(reuse, own, places, settings)
            self.clock.lap("reuse")
            embeddings, repeated = self._embed(earlier.missing)
            if not earlier.found.any() or self.embedder.settings == settings:
                return Embedded(earlier, embeddings, repeated)

    def _look_up(self, reuse: Sequence[Path], own: Sequence[Path], places: EarlierPlaces, settings: dict) -> Earlier:
        digests = self.sequences.digests
        empty = self.embedder.empty_columns(len(digests))
        if not reuse and not own:
            return Earlier.nothing(len(digests), empty)
        from .reuse import look_up  # readers of Parquet and HDF5, which a first run does not need

        return look_up(reuse, digests, settings, empty, self.residues, own, self.storage, places, self.title)

    def _embed(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        """Embed the sequences `indices`, in their order; return the embeddings and the number of repeated sequences.

        After an out-of-memory all sequences start again with half the budget, so that all have the same budget.
        """
        self.clock.restart()
        if len(indices):
            _ = self.embedder.model  # loaded here: smaller packs would be no remedy for weights that do not fit
            self.clock.lap("load")
        return with_smaller_packs(self.embedder, self.sequences, lambda: self._attempt(indices), self._restart)

    def _restart(self) -> None:
        self.clock.restart()
        if self.residues:
            self.residues.writer.restart()

    def _attempt(self, indices: np.ndarray) -> tuple[Embeddings, int]:
        some = self.sequences.take(indices)
        residues = replace(self.residues, sequences=some) if self.residues else None
        tokens, names = some.tokens, some.names
        write, forms = (residues.write, residues.of_forward) if residues else (None, None)
        if tokens:
            self.embedder.warm_up()
        self.clock.lap("warm_up")
        with progress_bar(self.embedder.residues(tokens), "residues", self.title) as bar:
            embeddings = self.embedder.embed(tokens, each_sequence=write, progress=bar.update, stored=forms)
        copies = MaskedCopies(self.embedder, tokens, names)
        if needs_masked_copies(self.embedder.options.include):
            with progress_bar(copies.count, "masked copies", self.title) as bar:
                add_masked(copies, embeddings, write, bar.update)
        self.clock.lap("embed")
        repeated = self.repeat.compare(self.embedder, tokens, names, embeddings, residues)
        self.clock.lap("repeat")
        self.embedder.recompute(embeddings, tokens, names, each_sequence=write, stored=forms)
        self.clock.lap("embed")
        return embeddings, repeated


def with_smaller_packs(
    embedder: Embedder,
    sequences: Sequences,
    work: Callable[[], Result],
    restart: Callable[[], object] = lambda: None,
) -> Result:
    """Return the result of `work`; after each out-of-memory call `restart` and do it again with half of a sweep.

    Where a sweep is one pack, the budget of tokens is halved.

    Raises:
        MemoryError: the budget is too small to halve; the message names the longest of `sequences`.
    """
    while True:
        try:
            return work()
        except torch.OutOfMemoryError as error:
            _halve(embedder, sequences, error)
        torch.cuda.empty_cache()
        restart()


def _halve(embedder: Embedder, sequences: Sequences, error: Exception) -> None:
    """Halve the tokens of a sweep, on which no bit depends, if it has several packs; else the budget.

    If the budget is too small, raise MemoryError, which names the longest sequence.
    """
    budget, sweep, tokens = embedder.tokens_per_pack, embedder.tokens_per_sweep, sequences.tokens
    if sweep >= 2 * budget:
        packs = sweep // budget
        log.warning("out of GPU memory with %d packs for each layer; retrying with %d", packs, packs // 2)
        embedder.tokens_per_sweep = packs // 2 * budget
        return
    if budget // 2 < MIN_TOKENS_PER_PACK:
        longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
        raise MemoryError(
            f"out of GPU memory even with {budget} tokens per pack; the longest sequence is "
            f"{sequences.names[longest]} ({len(tokens[longest]) - 2} residues): use a larger GPU, "
            f"{'weights: streamed, ' if embedder.weights == 'resident' else ''}or device: cpu"
        ) from error
    log.warning("out of GPU memory with %d tokens per pack; retrying with %d", budget, budget // 2)
    embedder.tokens_per_pack = budget // 2
    embedder.tokens_per_sweep = min(sweep, budget // 2)
