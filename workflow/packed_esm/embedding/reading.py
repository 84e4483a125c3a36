"""Read the sequences of an embed job, as tokens."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import FastaError
from ..sequences.alphabet import invalid_characters, refget_digest
from ..sequences.fasta import Record, read_records
from ..sequences.tokens import tokenize

if TYPE_CHECKING:
    from .embedder import Embedder


class Sequences(NamedTuple):
    """The sequences of a job: digests, names for messages, and tokens, uint8 [L + 2] each."""

    digests: list[str]
    names: list[str]
    tokens: list[np.ndarray]

    def take(self, indices: Iterable[int]) -> "Sequences":
        """Return some of the sequences, in the order of their indices."""
        return Sequences(*([values[i] for i in indices] for values in self))

    @property
    def lengths(self) -> list[int]:
        """Number of residues of each sequence."""
        return [len(one) - 2 for one in self.tokens]


def read_tokens(fasta: Path) -> Sequences:
    """Return the sequences of a FASTA file that chunk_fasta.py has normalised.

    Raises:
        FastaError: see `checked_records`.
    """
    sequences = Sequences([], [], [])
    for digest, record in checked_records(fasta):
        sequences.digests.append(digest)
        sequences.names.append(record.description)
        sequences.tokens.append(tokenize(record.sequence))
    return sequences


def checked_records(fasta: Path) -> Iterator[tuple[str, Record]]:
    """Yield (digest, record) of a FASTA file that chunk_fasta.py has normalised.

    Raises:
        FastaError: a record is empty, has characters that are not residues, or does not match its digest.
    """
    for record in _normalised_records(fasta):
        unusable = not record.sequence or invalid_characters(record.sequence)
        has_digest = record.id.startswith("SQ.")
        if unusable and not has_digest:
            raise FastaError(
                f"{fasta}, line {record.line}: record {record.id!r} is empty or has characters that are not "
                f"residues ({invalid_characters(record.sequence)[:10]!r}); run chunk_fasta.py on the file first"
            )
        digest = "" if unusable else refget_digest(record.sequence)
        if has_digest and record.id != digest:
            raise FastaError(
                f"{fasta}, line {record.line}: the sequence of {record.description} does not match its digest; "
                "the file was changed, remove it and run again"
            )
        yield digest, record


def _normalised_records(fasta: Path) -> Iterator[Record]:
    try:
        yield from read_records(fasta)
    except FastaError as error:
        raise FastaError(f"{error}; or, if chunk_fasta.py wrote it, remove it and run again") from error


def check_lengths(fasta: Path, embedder: "Embedder", sequences: Sequences) -> None:
    """Raise FastaError for the first sequence that is longer than the model's positions."""
    longest = embedder.facts.max_residues
    for name, one in zip(sequences.names, sequences.tokens, strict=True):
        windows = embedder.options.windows
        if longest is not None and min(len(one) - 2, windows.size if windows else len(one)) > longest:
            raise FastaError(
                f"{fasta}: {name} has {len(one) - 2} residues, but {embedder.options.model.name} has positions for "
                f"{longest}; set long_proteins.max_length: {longest} and long_proteins.action, or use an ESM-2"
            )
