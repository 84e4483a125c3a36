"""Embed some sequences twice, in other packs, and compare all bits, to detect a device with occasional errors.

docs/correctness.md says which errors this finds.
"""

import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import OptionError, RepeatError
from ..system.files import replacing
from ..system.progress import progress_bar
from .device import device_identity
from .embedder import Embedder
from .host_copies import Forms
from .masked import MaskedCopies, add_masked
from .packing import moved_packs
from .results import Embeddings

log = logging.getLogger(__name__)

MAX_KEPT = 16  # differing sequences whose values of each residue are kept


class KeptResidues(Protocol):
    """The values of each residue that a job has written.

    Attributes:
        of_forward: the features that the forward gives, and their forms.
    """

    of_forward: Forms

    def differing(self, index: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the features in `arrays` that differ from the written ones of a sequence."""

    def kept(self, index: int, feature: str) -> np.ndarray:
        """Return the written values."""


def random_seed() -> int:
    """Return a seed from the operating system."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def choose_repeated(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sorted indices of a random share, rounded up, of `count` sequences; all are equally likely."""
    number = math.ceil(round(share * count, 6))
    return np.sort(rng.choice(count, number, replace=False))


@dataclass(frozen=True)
class Repeat:
    """How to repeat.

    Attributes:
        share: of the sequences, 0 to 1; above 0 it means at least one sequence.
        evidence: NumPy file (.npz) for both vectors of sequences that differ.
        seed: for choosing the sequences, their order and their places.
    """

    share: float
    evidence: Path
    seed: int

    def check(self) -> None:
        """Check the share, and that no earlier attempt found different bits: a retry must not hide them.

        Raises:
            OptionError: the share is not a number from 0 to 1.
            RepeatError: an earlier attempt left the file `evidence`.
        """
        if not 0 <= self.share <= 1:
            raise OptionError(f"validation, repeat: {self.share} is not a number from 0 to 1")
        if self.evidence.exists():
            raise RepeatError(
                f"{self.evidence}: an earlier attempt embedded sequences twice and got different bits; read "
                "`message` in this file, then remove it and run again on another device"
            )

    def compare(
        self,
        embedder: Embedder,
        tokens: Sequence[np.ndarray],
        names: Sequence[str],
        first: Embeddings,
        residues: KeptResidues | None,
    ) -> int:
        """Embed some sequences again and compare them with the first result; return their number.

        All windows of a protein are repeated. Sequences that were not finite (`first.recomputed`) are not repeated,
        because their embeddings come from another forward.

        Args:
            embedder: the one that made `first`.
            tokens, names: of all sequences.
            first: the result of `embedder.embed` for them.
            residues: the written values of each residue, by the index of the sequence.

        Raises:
            RepeatError: a bit differs; both vectors are in the file `evidence`.
        """
        candidates = np.setdiff1d(np.arange(len(tokens)), first.recomputed)
        if not self.share or not len(candidates):
            return 0
        if embedder.facts.attention == "padded":
            log.warning("repeat: skipped, because with attention: padded bits depend on the neighbours")
            return 0
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(candidates[choose_repeated(len(candidates), self.share, rng)])
        other: dict[int, dict[str, np.ndarray]] = {}

        def compare_residues(place: int, arrays: dict[str, np.ndarray]) -> None:
            differing = residues.differing(order[place], arrays)
            if differing and (order[place] in other or len(other) < MAX_KEPT):
                other.setdefault(order[place], {}).update(differing)

        repeated = [tokens[i] for i in order]
        packs = partial(moved_packs, places=_places(embedder, tokens, first, order), rng=rng)
        with progress_bar(embedder.residues(repeated), "residues", "repeating sequences") as bar:
            each, forms = (compare_residues, residues.of_forward) if residues else (None, None)
            again = embedder.embed(repeated, each_sequence=each, progress=bar.update, packs=packs, stored=forms)
        add_masked(MaskedCopies(embedder, repeated, [names[i] for i in order], rng=rng), again, each)
        differences = _Differences(order, first, again, other)
        if len(differences.rows):
            self._raise(differences, names, residues, device_identity(embedder.device))
        return len(order)

    def _raise(self, found: "_Differences", names: Sequence[str], residues: KeptResidues | None, device: str) -> None:
        """Write both vectors of the sequences that differ, and raise RepeatError."""
        differing = found.order[found.rows]
        pairs = found.columns()
        for index, features in found.residues.items():
            number = int(np.flatnonzero(differing == index)[0])
            pairs |= {f"{name}_of_{number}": (residues.kept(index, name), x) for name, x in features.items()}
        message = (
            f"{names[differing[0]]}: embedding it again in another pack gave different bits in "
            f"{', '.join(found.names(differing[0]))}; {len(differing)} of {len(found.order)} repeated sequences differ"
            f", by at most {_largest_difference(pairs.values()):.3g}. Device: {device}, host: {platform.node()}; both "
            f"vectors are in {self.evidence}. The device or its memory makes occasional errors: "
            "check its other results, remove that file and run again on another device; if this happens on every "
            "device, report it"
        )
        arrays = {f"{name}_{which}": x for name, (a, b) in pairs.items() for which, x in (("first", a), ("repeat", b))}
        with replacing(self.evidence) as temporary, temporary.open("wb") as handle:
            np.savez(handle, message=message, sequences=[names[i] for i in differing], **arrays)
        raise RepeatError(message)


@dataclass(frozen=True)
class _Differences:
    """Results that differ.

    Attributes:
        order: indices of the repeated sequences.
        first, again: the two results.
        residues: {index: features} of sequences whose values of each residue differ.
    """

    order: np.ndarray
    first: Embeddings
    again: Embeddings
    residues: Mapping[int, Mapping[str, np.ndarray]]

    @cached_property
    def rows(self) -> np.ndarray:
        """Places in `order` of the sequences that differ, in the order of the input."""
        differ = np.isin(self.order, list(self.residues))
        differ[self.again.recomputed] = True
        for name, matrix in self.again.columns.items():
            differ |= _bits_differ(self.first.columns[name][self.order], matrix)
        places = np.flatnonzero(differ)
        return places[np.argsort(self.order[places])]

    def columns(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return {column: (the first vectors, the repeated ones)} of the sequences that differ."""
        rows = self.rows
        return {name: (self.first.columns[name][self.order[rows]], x[rows]) for name, x in self.again.columns.items()}

    def names(self, index: int) -> list[str]:
        """Return the columns and features in which a sequence differs."""
        (row,) = np.flatnonzero(self.order == index)
        columns = [
            name for name, x in self.again.columns.items() if _bits_differ(self.first.columns[name][[index]], x[[row]])
        ]
        return [*columns, *self.residues.get(index, ())] or ["values that are not finite"]


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return bool [n]: which rows of two float32 matrices differ in any bit."""
    return (one.view(np.uint32) != two.view(np.uint32)).any(1)


def _largest_difference(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the largest difference of any pair of arrays; infinite if a value is not a number."""
    with np.errstate(invalid="ignore"):
        return max(float(np.nan_to_num(np.abs(one - two.astype(np.float64)), nan=np.inf).max()) for one, two in pairs)


def _places(embedder: Embedder, tokens: Sequence[np.ndarray], first: Embeddings, order: np.ndarray) -> np.ndarray:
    """Return the start of each repeated sequence, or of each of its windows, in its first pack."""
    windows = embedder.options.windows
    counts = np.array([len(windows.starts(len(one) - 2)) if windows else 1 for one in tokens])
    starts = np.cumsum(counts) - counts
    return np.concatenate([first.places[starts[i] : starts[i] + counts[i]] for i in order])
