"""Read sequences back from the FASTA files of the chunks, where each is named by its digest."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import FastaError
from .alphabet import refget_digest
from .fasta import read_records


def read_sequences(paths: Iterable[Path], digests: Sequence[str]) -> list[str]:
    """Return the sequence of each digest, normalised; a record that stands twice has one text in memory.

    Raises:
        FastaError: a file that cannot be read, a sequence that is not its digest's, or a digest that is in no file.
    """
    wanted, found = set(digests), {}
    paths = list(paths)
    for path in paths:
        for record in read_records(path):
            if record.id in wanted:
                if refget_digest(record.sequence) != record.id:
                    raise FastaError(
                        f"{path}, line {record.line}: the sequence is not that of its digest; the file was changed, "
                        "remove it and run again"
                    )
                found[record.id] = record.sequence
    missing = sorted(wanted - found.keys())
    if missing:
        raise FastaError(f"{', '.join(map(str, paths))}: no sequence {missing[0]}; remove the manifest and run again")
    return [found[digest] for digest in digests]
