"""Find the proteins of variants among those of a run, and check that the mutations fit them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..embedding.reading import Sequences
from ..errors import SheetError
from ..sequences.alphabet import MASKED, RESIDUES
from ..sequences.chunk_sequences import read_sequences
from ..sequences.manifest import Manifest
from ..sequences.tokens import FIRST_RESIDUE, MASK, tokenize
from .table import Variant, VariantTable


@dataclass(frozen=True)
class Targets:
    """The proteins that have variants.

    Attributes:
        proteins: each sequence once, in the order in which the table first has it.
        owners: int [variants], the protein of each variant.
        samples, ids: of the record of each variant.
    """

    proteins: Sequences
    owners: np.ndarray
    samples: list[str]
    ids: list[str]


def find_targets(table: VariantTable, manifest_path: Path, chunks: Sequence[Path]) -> Targets:
    """Return the proteins of the variants.

    Args:
        table: the variants.
        manifest_path: of the run.
        chunks: FASTA files of its embed jobs, which have each sequence once, named by its digest.

    Raises:
        SheetError: an unknown sample, id or sequence, or a mutation that does not fit; the message names the line.
        FastaError: a chunk that was changed, or lacks a sequence.
    """
    records = _Records(table, manifest_path)
    found = [records.of(variant) for variant in table.variants]
    digests = list(dict.fromkeys(digest for _, _, digest in found))
    sequences = read_sequences(chunks, digests)
    names = {digest: f"{sample}|{name}" for sample, name, digest in reversed(found)}
    proteins = Sequences(digests, [names[x] for x in digests], [tokenize(sequence) for sequence in sequences])
    number = {digest: i for i, digest in enumerate(digests)}
    owners = np.array([number[digest] for _, _, digest in found], dtype=np.int64)
    for variant, owner in zip(table.variants, owners, strict=True):
        _check(table.path, variant, proteins.names[owner], proteins.tokens[owner])
    return Targets(proteins, owners, [sample for sample, _, _ in found], [name for _, name, _ in found])


class _Records:
    """The records of a run that a table may mean, found by sample and id, or by their sequence."""

    def __init__(self, table: VariantTable, manifest_path: Path) -> None:
        self._path = table.path
        ids = {variant.id for variant in table.variants}
        digests = {variant.digest for variant in table.variants}
        self._samples: set[str] = set()
        self._by_id: dict[tuple[str, str], tuple[str, str, str]] = {}
        with Manifest(manifest_path) as manifest:
            for rows in manifest.embedded():
                self._samples |= set(rows["sample"].unique())
                named = rows[rows["id"].isin(ids) | rows["digest"].isin(digests)]
                for record in zip(named["sample"], named["id"], named["digest"], strict=True):
                    self._by_id[record[:2]] = record
        self._by_digest = {record[2]: record for record in reversed(self._by_id.values())}

    def of(self, variant: Variant) -> tuple[str, str, str]:
        """Return (sample, id, digest) of a variant's protein; of several with its sequence, the first."""
        where = f"{self._path}, line {variant.line}"
        if variant.digest:
            if variant.digest not in self._by_digest:
                raise SheetError(
                    f"{where}: mutated_sequence with its mutations undone is no sequence that was embedded "
                    f"({variant.digest}); add it to the samples, whole"
                )
            return self._by_digest[variant.digest]
        if variant.sample not in self._samples:
            known = ", ".join(sorted(self._samples)[:5])
            raise SheetError(f"{where}: there is no sample {variant.sample!r} with proteins; there are {known}")
        if (variant.sample, variant.id) not in self._by_id:
            raise SheetError(
                f"{where}: sample {variant.sample} has no protein {variant.id!r} that was embedded; give its id as in "
                "the FASTA file (rejected.tsv lists those that were left out)"
            )
        return self._by_id[variant.sample, variant.id]


def _check(path: Path, variant: Variant, name: str, tokens: np.ndarray) -> None:
    """Raise SheetError if a mutation does not fit a protein."""
    for mutation in variant.mutations:
        if mutation.position > len(tokens) - 2:
            raise SheetError(
                f"{path}, line {variant.line}: {mutation} is beyond the end of {name}, of which {len(tokens) - 2} "
                "residues were embedded"
            )
        token = int(tokens[mutation.position])
        found = MASKED if token == MASK else RESIDUES[token - FIRST_RESIDUE]
        if found != mutation.wild_type:
            raise SheetError(
                f"{path}, line {variant.line}: {mutation} does not fit {name}, which has {found} at position "
                f"{mutation.position}; positions count from 1"
            )
